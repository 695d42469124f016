"""From the plans of a series to its points: did this load keep the objectives, as far as it has been measured?

Knows summaries, verdicts and the shares that plans have in a point's full length; must not know which load comes next (`search.py`).
Pure. Law: looking often proves nothing: what is claimed of a load is claimed of its whole length, whatever was seen on the way.

A point may be measured in parts of doubling length, each a plan of its own with arrivals of its own, and looked at after each. A look at less
than the whole only decides whether to go on: it gives up what is surely hopeless, and passes what is surely kept for now, each with a chance
of error in proportion to its part (the union bound). The look at the whole is one test of one sample of a length fixed beforehand, so
it has all of 1 - CONFIDENCE: going on could only have made the claim rarer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from loadgen.curve import Point
from loadgen.percentiles import CONFIDENCE
from loadgen.proportion import lower_bound, upper_bound
from loadgen.verdict import LEVELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from loadgen.curve import State
    from loadgen.plan import Plan
    from loadgen.summary import Goodput, Summary, Verdict

    Measured = tuple[Plan, Summary, Verdict]

# What is the server's doing: a load under which its requests fail is one that it does not bear. All else that makes a run invalid is not.
SERVERS_DOING = frozenset({"errors", "too-few-samples"})
# A first look at an eighth finds what is hopeless; each look after it has as much again as all before.
PARTS = (0.125, 0.125, 0.25, 0.5)
WHOLE = (1.0,)


def level_of(plan: Plan) -> float:
    """The load of a plan: requests/s of an open loop, else requests in flight."""
    return plan.max_concurrent if plan.schedule is None else plan.schedule.stages[0].start_rps


def points_of(measured: Iterable[Measured], attainment: float | None, parts: Sequence[float] = WHOLE, *, patience: int = 0) -> list[Point]:
    """The points by rising level.

    parts: of a point's length, what each of its usable plans has, in their order. patience: unusable plans that a point may have and be
    open still, for whatever else a machine does may have disturbed one.
    """
    levels: dict[float, list[Measured]] = {}
    for one in measured:
        levels.setdefault(level_of(one[0]), []).append(one)
    return [_point(level, levels[level], attainment, parts, patience) for level in sorted(levels)]


def bracket(points: Sequence[Point]) -> tuple[Point | None, Point | None]:
    """(best, missed): the highest load that was kept below the lowest that was not, and that one. A load that is not sure is not kept."""
    missed = next((point for point in points if point.state in {"missed", "unproven"}), None)
    kept = [point for point in points if point.state == "kept" and (missed is None or point.level < missed.level)]
    return (kept[-1] if kept else None), missed


class _Pooled(NamedTuple):
    """The judged requests of all plans of a point, whose arrivals are independent of each other: counts add up."""

    judged: int
    good: int
    effective: float
    yes: float  # of the effective ones

    @classmethod
    def of(cls, goodputs: Sequence[Goodput]) -> _Pooled:
        return cls(
            sum(one.judged for one in goodputs),
            sum(one.good for one in goodputs),
            sum(one.effective for one in goodputs),
            sum(one.effective * (one.share or 0.0) for one in goodputs),
        )

    @property
    def share(self) -> float | None:
        return self.good / self.judged if self.judged else None


def _point(level: float, measured: list[Measured], attainment: float | None, parts: Sequence[float], patience: int) -> Point:
    disturbed = list(filter(None, (_disturbed(verdict) for _, _, verdict in measured)))
    usable = [one for one in measured if not _disturbed(one[2])]
    goodputs = [summary.goodput for _, summary, _ in usable if summary.goodput is not None]
    pooled = _Pooled.of(goodputs)
    shown = usable or measured
    verdict = max((verdict.level for _, _, verdict in shown), key=LEVELS.index)
    assured: float | None = None
    state: State = "unusable"
    if len(disturbed) <= patience:
        complete = len(usable) >= len(parts)
        doubt = (1 - CONFIDENCE) * (parts[len(usable) - 1] if usable and not complete else 1.0)
        assured = lower_bound(pooled.yes, pooled.effective, 1 - doubt) if goodputs else None
        steady = bool(goodputs) and verdict != "invalid" and _held_on(goodputs[-1], attainment or 0.0)
        state = _state(pooled, attainment, doubt, steady=steady, complete=complete) if usable else "open"
    last = shown[-1][1]
    length_s = sum(summary.whole.length_s for _, summary, _ in usable)
    return Point(
        level=level,
        plans=[plan.label for plan, _, _ in measured],
        parts=len(usable),
        state=state,
        verdict=verdict,
        complete=len(usable) >= len(parts),
        window_s=length_s,
        requests_rps=last.ranked.requests_rps,
        goodput_rps=pooled.good / length_s if goodputs and length_s else None,
        judged=pooled.judged,
        effective=pooled.effective,
        share=pooled.share,
        assured=assured,
        latency=last.whole.latency,
        ttft=last.whole.ttft,
        tpot=last.whole.tpot,
        why=disturbed[-1] if disturbed else "",
    )


def _state(pooled: _Pooled, attainment: float | None, doubt: float, *, steady: bool, complete: bool) -> State:
    """What one look says that may err with a chance of `doubt`."""
    if attainment is None:
        return "measured"
    if pooled.share is None:
        return "unproven" if complete else "open"
    if upper_bound(pooled.yes, pooled.effective, 1 - doubt) < attainment or (complete and pooled.share < attainment):
        return "missed"
    if steady and lower_bound(pooled.yes, pooled.effective, 1 - doubt) >= attainment:
        return "kept"
    return "unproven" if complete else "open"


def _held_on(goodput: Goodput, attainment: float) -> bool:
    """Whether the second half may have reached it, too: a queue that grows spoils the end first, while the whole still looks well."""
    half = goodput.effective / 2
    return goodput.later_share is not None and upper_bound(goodput.later_share * half, half, CONFIDENCE) >= attainment


def _disturbed(verdict: Verdict) -> str:
    """What says that the measurement failed, and not the server; "" if nothing does."""
    ours = [reason for reason in verdict.reasons if reason.level == "invalid" and reason.name not in SERVERS_DOING]
    return f"{ours[0].name}: {ours[0].advice}" if ours else ""
