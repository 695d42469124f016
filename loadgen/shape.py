"""The shape of a load, from the options that describe it.

Knows which options go together and what each shape needs; reads no clock and asks no server. Law: a shape that is returned can be run:
what contradicts itself, or would never end, is refused here in one line that names the option.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clients.errors import UsageError
from loadgen import dues, steps
from loadgen.preflight import most_connections
from loadgen.run import Shape
from loadgen.schedule import Process, Schedule, Stage
from loadgen.trace import read_trace, replayed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from loadgen.command_line import Arguments

# What says how much load there is: at most one of them.
_SOURCES = ("request_rate", "ramp_up_strategy", "stages", "levels", "trace")
_DEFAULT_REQUESTS = 100
# An open loop's concurrency is not known before it runs: as many as come in a second, and no more than it takes to wake a server.
_WARM_WITH = 64
# Requests/s of one worker that it sends on time with room to spare (results/send-error.md).
RATE_PER_WORKER_RPS = 1_000.0


def read_shape(arguments: Arguments) -> tuple[Shape, NDArray[np.int64] | None]:
    """The shape, and the trace that it replays. Raises UsageError."""
    sources = [key for key in _SOURCES if arguments[key] is not None]
    if len(sources) > 1:
        raise UsageError(f"{_flag(sources[1])}: got {_flag(sources[0])} as well, takes one of the two")
    closed = not sources or sources[0] == "levels" or arguments["request_rate"] == math.inf
    _refuse_strays(arguments, closed=closed, source=sources[0] if sources else "")
    ends = {"num_requests", "duration"} & arguments.typed or {"stages", "levels", "trace"} & set(sources)
    if arguments["precision"] is not None and not ends:
        raise UsageError("--precision: needs a bound, --num-requests or --duration: an interval may never become as narrow")
    shape, trace = (_closed(arguments), None) if closed else _open(arguments, sources[0])
    if shape.duration_s is not None and shape.lead_s + shape.tail_s >= shape.duration_s:
        raise UsageError(
            f"--lead, --tail: together {shape.lead_s + shape.tail_s:g} s of a run of {shape.duration_s:g} s: nothing is left to measure"
        )
    return shape, trace


def processes_for(schedule: Schedule, cores: int) -> int:
    """`--processes auto` of an open loop: by its highest rate. A trace's is not known: one for each core."""
    if schedule.process == "trace":
        return cores
    highest = max(max(stage.start_rps, stage.end_rps) for stage in schedule.stages)
    return max(1, min(cores, math.ceil(highest / RATE_PER_WORKER_RPS)))


def _closed(arguments: Arguments) -> Shape:
    """Requests in flight, a fixed number or levels."""
    found: tuple[tuple[float, int], ...] = ()
    end = _end(arguments, math.inf)
    if arguments["levels"] is not None:
        found = steps.levels(arguments["levels"])
        end = _end(arguments, steps.length_s(arguments["levels"]), "levels")
        slots = max(number for _, number in found)
    elif arguments["max_concurrent"] is None:
        if arguments["request_rate"] == math.inf:
            raise UsageError("--request-rate: got inf, which is a closed loop: takes --max-concurrent N beside it")
        raise UsageError(
            "--request-rate: missing; takes requests/s (or --stages, --trace: an open loop), or --max-concurrent N for a closed loop"
        )
    else:
        slots = arguments["max_concurrent"]
    return _shape(arguments, f"levels-to-{slots}" if found else f"c{slots}", end, max_concurrent=slots, warm_with=slots, levels=found)


def _open(arguments: Arguments, source: str) -> tuple[Shape, NDArray[np.int64] | None]:
    trace = None
    if source == "trace":
        trace = read_trace(Path(arguments["trace"]))
        schedule, label = Schedule(process="trace", speed=arguments["trace_speed"]), "trace"
        num_requests, duration_s = arguments["num_requests"], arguments["duration"]
        if num_requests is None and duration_s is None:
            num_requests = len(trace)
        first_due_s = 0.0
        replayed(trace, schedule.speed, count=num_requests, duration_s=duration_s)  # refuses what it has not
    else:
        schedule, label = _schedule(arguments, source)
        num_requests, duration_s = _end(arguments, schedule.length_s, source)
        dues.refuse_too_many(schedule, count=num_requests, duration_s=duration_s)
        first_due_s = float(dues.offsets_ns(schedule, count=1, duration_s=schedule.length_s)[:1].sum()) / 1e9
        if duration_s is not None and first_due_s >= duration_s:
            raise UsageError(f"--duration: the first request of this schedule is due after {first_due_s:.3g} s, takes more than that")
        if num_requests is not None and schedule.length_s < math.inf:
            dues.offsets_ns(schedule, count=num_requests)  # refuses what it has not
    bound = arguments["max_concurrent"] or most_connections()
    begins_rps = schedule.stages[0].start_rps if trace is None else len(trace) * schedule.speed / max(float(trace[-1]) / 1e9, 1.0)
    warm_with = min(bound, _WARM_WITH, max(1, math.ceil(begins_rps)))
    return _shape(arguments, label, (num_requests, duration_s), max_concurrent=bound, warm_with=warm_with, schedule=schedule), trace


def _schedule(arguments: Arguments, source: str) -> tuple[Schedule, str]:
    process: Process = arguments["arrival"] or ("poisson" if arguments["burstiness"] is None else "gamma")
    rest: dict[str, Any] = {"process": process, "burstiness": arguments["burstiness"] or 1.0, "seed": arguments["seed"]}
    if source == "stages":
        return Schedule(stages=steps.stages(arguments["stages"]), **rest), "stages"
    if source == "ramp_up_strategy":
        return Schedule(stages=_ramp(arguments), **rest), "ramp"
    rate_rps = arguments["request_rate"]
    return Schedule(stages=(Stage(start_rps=rate_rps, end_rps=rate_rps),), **rest), f"{rate_rps:g}rps"


def _ramp(arguments: Arguments) -> tuple[Stage, ...]:
    """From the start to the end rate in the time of the run: its duration, or the time in which so many requests fall due on average."""
    growth = arguments["ramp_up_strategy"]
    a, b = arguments["ramp_up_start_rps"], arguments["ramp_up_end_rps"]
    if a is None or b is None:
        raise UsageError(f"--ramp-up-{'start' if a is None else 'end'}-rps: missing; takes requests/s")
    if a == b:
        raise UsageError(f"--ramp-up-end-rps: got {b:g}, which is the start rate; takes another, or --request-rate")
    if growth == "exponential" and not (a and b):
        raise UsageError("--ramp-up-start-rps, --ramp-up-end-rps: an exponential ramp takes rates above 0")
    length_s = arguments["duration"]
    flat: tuple[Stage, ...] = ()
    if length_s is None:
        mean_rps = (a + b) / 2 if growth == "linear" else (b - a) / math.log(b / a)
        length_s = (arguments["num_requests"] or _DEFAULT_REQUESTS) / mean_rps
        last_rps = b or min(a, mean_rps)
        flat = (Stage(start_rps=last_rps, end_rps=last_rps),)  # chance may leave the last few for after the ramp
    return (Stage(start_rps=a, end_rps=b, length_s=length_s, growth=growth), *flat)


def _end(arguments: Arguments, length_s: float, source: str = "") -> tuple[int | None, float | None]:
    """(num_requests, duration_s): as typed; else the shape's own end; else a default number."""
    num_requests, duration_s = arguments["num_requests"], arguments["duration"]
    if num_requests is None and duration_s is None:
        if length_s < math.inf:
            return None, length_s
        if source in {"stages", "levels"}:
            raise UsageError(f"{_flag(source)}: its last step has no end: takes a time there, --num-requests or --duration")
        return _DEFAULT_REQUESTS, None
    if duration_s is not None and source in {"stages", "ramp_up_strategy"}:
        duration_s = min(duration_s, length_s)
    return num_requests, duration_s


def _shape(arguments: Arguments, label: str, end: tuple[int | None, float | None], **rest: Any) -> Shape:
    return Shape(
        label=label,
        num_requests=end[0],
        duration_s=end[1],
        grace_s=arguments["grace"],
        lead_s=arguments["lead"],
        tail_s=arguments["tail"],
        precision=arguments["precision"],
        **rest,
    )


def _refuse_strays(arguments: Arguments, *, closed: bool, source: str) -> None:
    """An option without a use here would be believed to have had one."""
    typed = arguments.typed
    for key in ("arrival", "burstiness"):
        if key in typed and (closed or source == "trace"):
            raise UsageError(f"{_flag(key)}: has a use only with a rate (--request-rate, --stages, --ramp-up-strategy)")
    if "burstiness" in typed and arguments["arrival"] in {"constant", "poisson"}:
        raise UsageError(f"--burstiness: has a use only with --arrival gamma, got {arguments['arrival']}")
    if "trace_speed" in typed and source != "trace":
        raise UsageError("--trace-speed: has a use only with --trace")
    for key in ("ramp_up_start_rps", "ramp_up_end_rps"):
        if key in typed and source != "ramp_up_strategy":
            raise UsageError(f"{_flag(key)}: has a use only with --ramp-up-strategy")
    if "levels" in typed and "max_concurrent" in typed:
        raise UsageError("--max-concurrent: got --levels as well, takes one of the two")


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")
