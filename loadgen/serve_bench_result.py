"""What `serve-bench` leaves: vLLM's block on the screen and vLLM's keys in a file.

Knows layout, keys and names of files, as vLLM 0.32 writes them; must not know how a number comes about (`vllm_result.py`) nor what was
believed of it. Law: a script that reads vLLM's output or result file reads ours.
"""

from __future__ import annotations

import json
import math
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from clients.errors import UsageError
from loadgen import vllm_result
from loadgen.objectives import merged
from loadgen.vllm_result import Metric, Requests

if TYPE_CHECKING:
    from loadgen.command_line import Arguments
    from loadgen.recorded import Records
    from loadgen.serve_bench import Traffic
    from loadgen.serve_bench_order import Asked

_WIDTH = 50
_ERRORS = 10
# Name, as it is called in the block, the line above it.
_METRICS = (
    ("ttft", "TTFT", "Time to First Token"),
    ("tpot", "TPOT", "Time per Output Token (excl. 1st token)"),
    ("itl", "ITL", "Inter-token Latency"),
    ("e2el", "E2EL", "End-to-end Latency"),
    ("client_queue_time", "Client Queue Time", "Client-side Queueing"),
    ("e2el_including_client_queue", "E2EL incl. Client Queue", "Queue-inclusive End-to-end Latency"),
)
_DEFAULT_METRICS = ("ttft", "tpot", "itl")


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A run by vLLM's names. shown: the metrics that were asked for and can be had; lists: values of every request; errors: the first few."""

    totals: dict[str, Any]
    shown: dict[str, Metric]
    lists: dict[str, list[Any]]
    errors: list[str]
    rate_changes: list[dict[str, Any]]
    without_output: int


def result_of(arguments: Arguments, asked: Asked, records: Records) -> Result:
    """The records of the measured plan, by vLLM's definitions."""
    traffic = asked.traffic
    requests = Requests(records, asked.data.samples, closed=traffic.closed)
    gaps = requests.gaps_s()
    chosen = arguments["percentile_metrics"] or _DEFAULT_METRICS
    queued = traffic.max_concurrency is not None
    known = {"client_queue_time": queued, "e2el_including_client_queue": queued and (traffic.ramp is not None or not traffic.closed)}
    found = vllm_result.metrics(requests, gaps, arguments["metric_percentiles"])
    objectives = merged(arguments["goodput"])
    return Result(
        totals=vllm_result.totals(requests, gaps, objectives),
        shown={name: found[name] for name, _, _ in _METRICS if name in chosen and known.get(name, True)},
        lists=vllm_result.brief(requests) | (vllm_result.details(requests, gaps) if arguments["save_detailed"] else {}),
        errors=[error for error in requests.errors() if error][:_ERRORS],
        rate_changes=_rate_changes(traffic, records, requests.begin_ns),
        without_output=int(np.count_nonzero(requests.ok & ~requests.had_output)),
    )


def heading(arguments: Arguments, traffic: Traffic) -> str:
    """What vLLM says before a run."""
    rate, burstiness = arguments["request_rate"], arguments["burstiness"]
    if traffic.ramp is not None:
        ends = f"{traffic.ramp.start_rps:g} to {traffic.ramp.end_rps:g} RPS"
        first = f"Traffic ramp-up strategy: {traffic.ramp.strategy}.\nWill increase RPS from {ends} over the duration of the benchmark."
    else:
        first = f"Traffic request rate: {rate}"
    process = "Poisson process" if burstiness == 1.0 else "Gamma distribution"
    bound = f"Maximum request concurrency: {arguments['max_concurrency']}"
    return f"Starting main benchmark run...\n{first}\nBurstiness factor: {burstiness} ({process})\n{bound}\n"


def block(arguments: Arguments, result: Result) -> str:
    """The result as vLLM prints it."""
    totals = result.totals
    lines = [f"{' Serving Benchmark Result ':=^{_WIDTH}}"]
    lines += [_line("Successful requests:", totals["completed"]), _line("Failed requests:", totals["failed"])]
    if arguments["max_concurrency"] is not None:
        lines.append(_line("Maximum request concurrency:", arguments["max_concurrency"]))
    if not math.isinf(arguments["request_rate"]):
        lines.append(_line("Request rate configured (RPS):", float(arguments["request_rate"])))
    lines += [
        _line("Benchmark duration (s):", totals["duration"]),
        _line("Total input tokens:", totals["total_input_tokens"]),
        _line("Total generated tokens:", totals["total_output_tokens"]),
        _line("Request throughput (req/s):", totals["request_throughput"]),
    ]
    if totals["request_goodput"] is not None:
        lines.append(_line("Request goodput (req/s):", totals["request_goodput"]))
    lines += [
        _line("Output token throughput (tok/s):", totals["output_throughput"]),
        _line("Peak output token throughput (tok/s):", totals["max_output_tokens_per_s"]),
        _line("Peak concurrent requests:", float(totals["max_concurrent_requests"])),
        _line("Total token throughput (tok/s):", totals["total_token_throughput"]),
    ]
    for name, short, title in _METRICS:
        if (metric := result.shown.get(name)) is not None:
            lines += [f"{title:-^{_WIDTH}}", _line(f"Mean {short} (ms):", metric.mean), _line(f"Median {short} (ms):", metric.median)]
            lines += [_line(f"P{_percent(percent)} {short} (ms):", value) for percent, value in metric.percentiles]
    return "\n".join([*lines, "=" * _WIDTH]) + "\n"


def document(arguments: Arguments, asked: Asked, result: Result, now: float) -> dict[str, Any]:
    """The result file's object. now: the wall clock's, which vLLM names its file by."""
    traffic = asked.traffic
    found: dict[str, Any] = {
        "date": _stamp(now),
        "endpoint_type": arguments["backend"],
        "backend": arguments["backend"],
        "label": arguments["label"],
        "model_id": arguments["model"] or asked.order.target.model,
        "tokenizer_id": asked.tokenizer,
        "num_prompts": arguments["num_prompts"],
        **dict(arguments["metadata"]),
        "request_rate": "inf" if math.isinf(arguments["request_rate"]) else arguments["request_rate"],
        "burstiness": "inf" if math.isinf(arguments["burstiness"]) else arguments["burstiness"],
        "max_concurrency": arguments["max_concurrency"],
    }
    if traffic.ramp is not None:
        found["ramp_up_strategy"] = traffic.ramp.strategy
        found["ramp_up_start_rps"] = arguments["ramp_up_start_rps"]
        found["ramp_up_end_rps"] = arguments["ramp_up_end_rps"]
    found |= result.totals
    found |= result.lists
    if result.rate_changes:
        found["rps_change_events"] = result.rate_changes
    for name, metric in result.shown.items():
        found |= {f"mean_{name}_ms": metric.mean, f"median_{name}_ms": metric.median, f"std_{name}_ms": metric.std}
        found |= {f"p{_percent(percent)}_{name}_ms": value for percent, value in metric.percentiles}
    return found


def result_path(arguments: Arguments, model: str, now: float) -> Path | None:
    """Where the result goes, by vLLM's name for it; None where none is asked for. Raises UsageError where it cannot be written."""
    if not (arguments["save_result"] or arguments["append_result"]):
        return None
    bound = "" if arguments["max_concurrency"] is None else f"-concurrency{arguments['max_concurrency']}"
    rate = f"{arguments['request_rate']}qps"
    if arguments["ramp_up_strategy"]:
        rate = f"ramp-up-{arguments['ramp_up_strategy']}-{arguments['ramp_up_start_rps']}qps-{arguments['ramp_up_end_rps']}qps"
    made = f"{arguments['label'] or arguments['backend']}-{rate}{bound}-{model.rsplit('/', 1)[-1]}-{_stamp(now)}.json"
    path = Path(arguments["result_dir"] or ".") / (arguments["result_filename"] or made)
    there = path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8"):  # before any load: a result that cannot be kept is no result
            pass
        if not there:
            path.unlink()
    except OSError as error:
        raise UsageError(f"--result-dir, --result-filename: cannot write {str(path)!r} ({error.strerror})") from None
    return path


def save(path: Path, found: dict[str, Any], *, append: bool) -> None:
    """Write the object, in place of what is there or on a line of its own after it."""
    with open(path, "a" if append else "w", encoding="utf-8") as file:
        if append and file.tell():
            file.write("\n")
        json.dump(found, file)


def _line(name: str, value: float | None) -> str:
    shown = "n/a" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)
    return f"{name:<40} {shown:<10}"


def _percent(percent: float) -> str:
    return str(int(percent)) if percent == int(percent) else str(percent)


def _stamp(now: float) -> str:
    return time.strftime("%Y%m%d-%H%M%S", time.localtime(now))


def _rate_changes(traffic: Traffic, records: Records, begin_ns: int) -> list[dict[str, Any]]:
    """When a ramp's rate came to each whole number of requests/s, by the wall clock, as vLLM lists it."""
    if traffic.ramp is None or not records.files:
        return []
    anchor = records.files[0]
    begin_s = (anchor.started_wall_ns + begin_ns - anchor.started_perf_ns) / 1e9
    rates = range(int(traffic.ramp.start_rps), int(traffic.ramp.end_rps) + 1)
    return [{"rps": rate, "timestamp": _local(begin_s + traffic.ramp.reached_s(rate, traffic.count))} for rate in rates]


def _local(wall_s: float) -> str:
    return datetime.fromtimestamp(wall_s).isoformat()  # noqa: DTZ006  # vLLM's has no zone either
