"""One plan as its directory tells it: what was to be done, what came of it, what the server counted meanwhile.

Knows the files of a plan's directory and who makes numbers of them; knows no other plan and no run.json. Law: a report is made of the
files alone, and of none that is another run's or plan's; what cannot be read is said in `absent`, never raised: a damaged plan must
not hide the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from clients.errors import UsageError
from loadgen.plan import Plan
from loadgen.scrape import ServerDelta
from loadgen.summary import STANDARD_PERCENTILES, PlanFacts, Summary, Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from loadgen.ceiling import KeptCeiling

Said = TypeVar("Said")


class PlanReport(msgspec.Struct, kw_only=True, frozen=True):
    """One plan: what was to be done, what came of it. absent: why there is no summary, "" when there is one.

    server: what the server counted meanwhile. simulator: what the embedded one says of itself, its lateness above all.
    """

    directory: str
    plan: Plan | None = None
    summary: Summary | None = None
    verdict: Verdict | None = None
    server: ServerDelta | None = None
    simulator: dict[str, Any] | None = None
    absent: str = ""


def plan_report(
    place: Path,
    run_id: bytes,
    percentiles: tuple[float, ...],
    asked_percentiles: tuple[float, ...],
    ceiling: KeptCeiling | None = None,
) -> PlanReport:
    """The report of the plan whose directory is `place`.

    run_id: what its record files must carry (`rundir.run_key`). The rest is the run's own: what to compute, what to judge by.
    """
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
    from loadgen.verdict import judge

    try:
        summary = reduce(read_records(paths, (run_id, plan.number)), facts(plan, percentiles))
    except (ValueError, OSError) as error:
        return PlanReport(directory=place.name, plan=plan, absent=f"its records cannot be read: {error}")
    return PlanReport(
        directory=place.name,
        plan=plan,
        summary=summary,
        verdict=judge(summary, asked_percentiles, ceiling),
        server=_said(place / "server.json", ServerDelta),
        simulator=_said(place / "simulator.json", dict[str, Any]),
    )


def facts(plan: Plan, percentiles: tuple[float, ...] = STANDARD_PERCENTILES) -> PlanFacts:
    """What the reducer must know of a plan."""
    shares = [plan.share(worker) for worker in range(plan.workers)]
    return PlanFacts(
        label=plan.label,
        max_concurrent=plan.max_concurrent,
        workers=plan.workers,
        shares=tuple(share for share in shares if share is not None),
        count=plan.num_requests,
        duration_s=plan.duration_s,
        batch_size=plan.batch_size,
        percentiles=percentiles,
    )


def _said(path: Path, kind: type[Said]) -> Said | None:
    """What the server said of a plan; None if it says nothing, or the run ended between the plan and the question."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None
