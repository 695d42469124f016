"""One plan as its directory tells it: what was to be done, what came of it, what the server counted meanwhile.

Knows the files of a plan's directory and who makes numbers of them; knows no other plan and no run.json. Law: a report is made of the
files alone, and of none that is another run's or plan's; what cannot be read is said in `absent`, never raised: a damaged plan must
not hide the others.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from clients.errors import UsageError
from loadgen.breakdown import break_down, waited
from loadgen.distribution import STANDARD_PERCENTILES
from loadgen.plan import Plan
from loadgen.plan_facts import PlanFacts
from loadgen.precision import LOOKS, Looks
from loadgen.scrape import Readings
from loadgen.server_side import ServerSide, server_side
from loadgen.summary import Summary, Verdict
from loadgen.timetable import TIMETABLE, Timetable
from loadgen.watch import FILE_NAME, read_moments

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from loadgen.ceiling import KeptCeiling
    from loadgen.objectives import Objective

Said = TypeVar("Said")


class PlanReport(msgspec.Struct, kw_only=True, frozen=True):
    """One plan: what was to be done, what came of it. absent: why there is no summary, "" when there is one.

    server: what the server says of it, None when it was not asked. simulator: what the embedded one says of itself, its lateness above all.
    precision: the looks of a plan that was to end when it is precise enough.
    """

    directory: str
    verdict: Verdict | None = None
    plan: Plan | None = None
    summary: Summary | None = None
    server: ServerSide | None = None
    simulator: dict[str, Any] | None = None
    precision: Looks | None = None
    absent: str = ""


class Asked(NamedTuple):
    """What a run asks of each of its plans: what to compute, what to judge by. named_percentiles: those that the user named.

    command: how long a measuring window must be depends on it.
    """

    percentiles: tuple[float, ...] = STANDARD_PERCENTILES
    named_percentiles: tuple[float, ...] = ()
    objectives: tuple[Objective, ...] = ()
    attainment: float | None = None
    ceiling: KeptCeiling | None = None
    command: str = ""


def plan_report(place: Path, run_id: bytes, asked: Asked) -> PlanReport:
    """The report of the plan whose directory is `place`. run_id: what its record files must carry (`rundir.run_key`)."""
    try:
        plan = msgspec.json.decode((place / "plan.json").read_bytes(), type=Plan)
    except FileNotFoundError:
        return PlanReport(directory=place.name, absent="plan.json is missing: the run ended before this plan began")
    except (msgspec.DecodeError, UsageError, OSError) as error:
        return PlanReport(directory=place.name, absent=f"plan.json cannot be read: {error}")
    paths = sorted(place.glob("worker-*.records"))
    if not paths:
        return PlanReport(directory=place.name, plan=plan, absent="there are no records: no worker had begun")
    from loadgen.recorded import read_records
    from loadgen.reducer import reduce
    from loadgen.verdict import judge, least_window_s

    try:
        records = read_records(paths, (run_id, plan.number))
        scheduled = None if plan.schedule is None else len(Timetable(place / TIMETABLE))
        summary = reduce(records, facts(plan, asked, scheduled))
    except (ValueError, OSError) as error:
        return PlanReport(directory=place.name, plan=plan, absent=f"its records cannot be read: {error}")
    return PlanReport(
        directory=place.name,
        plan=plan,
        summary=summary,
        verdict=judge(summary, asked.named_percentiles, asked.ceiling, least_s=least_window_s(asked.command)),
        server=_served(place, records.heads, summary),
        simulator=_said(place / "simulator.json", dict[str, Any]),
        precision=_said(place / LOOKS, Looks),
    )


def facts(plan: Plan, asked: Asked = Asked(), scheduled: int | None = None) -> PlanFacts:  # noqa: B008  # immutable
    """What the reducer must know of a plan. scheduled: of an open loop, the entries of its timetable."""
    shares = [plan.share(worker, scheduled) for worker in range(plan.workers)]
    return PlanFacts(
        label=plan.label,
        max_concurrent=plan.max_concurrent,
        workers=plan.workers,
        shares=tuple(share for share in shares if share is not None),
        count=plan.num_requests if scheduled is None else scheduled,
        duration_s=plan.duration_s,
        batch_size=plan.batch_size,
        schedule=plan.schedule,
        levels=len(plan.levels),
        even=_even(plan),
        lead_s=plan.lead_s,
        tail_s=plan.tail_s,
        percentiles=asked.percentiles,
        objectives=asked.objectives,
        attainment=asked.attainment,
    )


def _even(plan: Plan) -> bool:
    """Whether the same load is wanted all through the measuring window; of a trace that is not known."""
    if plan.schedule is None:
        loads = [(float(slots), float(slots)) for _, slots in plan.levels]
        ends = [*(begin_s for begin_s, _ in plan.levels[1:]), math.inf]
    else:
        loads = [(one.start_rps, one.end_rps) for one in plan.schedule.stages]
        ends = list(accumulate(math.inf if one.length_s is None else one.length_s for one in plan.schedule.stages))
    over_s = (math.inf if plan.duration_s is None else plan.duration_s) - plan.tail_s
    inside = [load for load, begin_s, end_s in zip(loads, [0.0, *ends], ends, strict=False) if begin_s < over_s and end_s > plan.lead_s]
    return len({rate for load in inside for rate in load}) <= 1 and (plan.schedule is None or plan.schedule.process != "trace")


def _served(place: Path, heads: NDArray[np.void], summary: Summary) -> ServerSide | None:
    """What the server's reads around and during the plan say, and where the time of its requests went."""
    readings = _said(place / "server.json", Readings)
    if readings is None:
        return None
    origin_ns = int(heads["due_ns"].min()) if len(heads) else readings.before.ended_ns
    window_ns = origin_ns + round(summary.whole.start_s * 1e9), origin_ns + round(summary.whole.end_s * 1e9)
    side = server_side(readings, read_moments(place / FILE_NAME), window_ns)
    return msgspec.structs.replace(
        side,
        ttft=break_down("ttft", side.times, waited(heads, "ttft")),
        latency=break_down("latency", side.times, waited(heads, "latency")),
    )


def _said(path: Path, kind: type[Said]) -> Said | None:
    """What the server said of a plan; None if it says nothing, or the run ended between the plan and the question."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None
