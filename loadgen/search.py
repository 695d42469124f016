"""`search`: the highest load that keeps the objectives, by a bracket and bisection of it.

Knows points and what they leave open; knows nothing of how a plan is performed. Pure: the same history gives the same next plan.
Invariants: at most `MOST_POINTS` loads are measured, none for longer than a sweep's point; a load that the client could not offer ends the
search, for it is no answer of the server's; the answer was measured at its full length.

The bracket: from a first guess the loads rise while they are kept (or fall while they are not) by steps that grow: a guess that is near costs
few points, one that is far off not many more. Then its geometric middle, until its ends lie within `NEAR` of each other: where the limit
may lie anywhere, as likely in one octave as in the next, halving the logarithm needs the fewest points. A point is measured in parts
of doubling length (`points.PARTS`) and given up, or passed, at the first look that is sure.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from loadgen.curve import Curve, knee
from loadgen.points import PARTS, bracket, points_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadgen.axis import Axis
    from loadgen.bench import Load
    from loadgen.campaign import Performed
    from loadgen.curve import By, Point, Sought
    from loadgen.plan import Plan

MOST_POINTS = 7
# Of one load: a part that the client spoiled is measured once more; a client that spoils two is the limit.
PATIENCE = 1
# Ends of the bracket that are nearer than this are one answer: an interval of the share itself is worth as much in load.
NEAR = 1.025
_STEP, _LARGEST_STEP = 1.25, 4.0  # the first step off the guess; each after it leads as far again as all before, and by the first step more
# Where the bracket is narrower than this, its lower end is measured at its full length before anything between: should it not be sure
# after all, what lies above is not either.
_CLOSE = 1.12
# Of what the probe drove, where a search begins: a server that is full keeps no queueing time, one at 4/5 of it may.
_OF_PROBE = 0.8
_FIRST_RATE_RPS = 1.0  # where there was no probe


class Step(NamedTuple):
    """What comes next: a load to measure or to go on with; or None, and why there is nothing."""

    level: float | None
    why: str = ""


class Search:
    """The campaign of `loadgen search`.

    warmup: requests in flight of the warm-up, which is also the probe that the first guess comes from.
    """

    def __init__(self, load: Load, axis: Axis, sought: Sought, *, warmup: int) -> None:
        self._load = load
        self._axis = axis
        self._sought = sought
        self._warmup = load.warmup(warmup) if load.num_warmups else None
        self._budget_s = math.inf if sought.budget_s is None else sought.budget_s

    def next_plan(self, history: Sequence[Performed]) -> Plan | None:
        """The probe, then whatever load the points so far leave open."""
        if self._warmup is not None and not history:
            return self._warmup
        measured = [(one.plan, one.summary, one.verdict) for one in history if one.plan.purpose == "measure"]
        points = points_of(measured, self._sought.attainment, PARTS, patience=PATIENCE)
        level = next_step(points, self._sought, self._probed(history)).level
        if level is None:
            return None
        point = next((point for point in points if point.level == level), None)
        parts, plans = (point.parts, len(point.plans)) if point is not None else (0, 0)
        plan = self._axis.plan(self._load, len(history), level, part=PARTS[parts], repeat=plans + 1)
        return plan if self._affordable(plan, history) else None

    def planned(self, history: Sequence[Performed]) -> int | None:  # noqa: ARG002  # Campaign's signature
        """Nobody knows."""
        return None

    def _probed(self, history: Sequence[Performed]) -> float | None:
        """What the warm-up drove, in the unit of the axis."""
        if self._warmup is None or not history:
            return None
        return history[0].summary.ranked.requests_rps if self._axis.by == "rate" else float(self._warmup.max_concurrent)

    def _affordable(self, plan: Plan, history: Sequence[Performed]) -> bool:
        """Whether the plan ends within the budget even if its last requests take all their grace, with what starting one has cost so far."""
        rate_rps = history[-1].summary.whole.requests_rps if history else 0.0
        spent_s = sum(one.took_s for one in history)
        around_s = max((one.took_s - one.summary.whole.end_s for one in history), default=0.0)
        return spent_s + self._axis.length_s(plan, rate_rps) + plan.grace_s + max(around_s, 0.0) <= self._budget_s


def next_step(points: Sequence[Point], sought: Sought, probed: float | None) -> Step:
    """Where to go from these points. Every end names its reason."""
    unusable = next((point for point in points if point.state == "unusable"), None)
    if unusable is not None:
        return Step(None, f"at {_level(unusable.level, sought.by)} the client was the limit, not the server: {unusable.why}")
    opened = next((point for point in points if point.state == "open"), None)
    if opened is not None:
        return Step(opened.level)
    level = _next_level(points, sought, probed)
    best, missed = bracket(points)
    close = best is not None and missed is not None and missed.level / best.level <= _CLOSE
    if best is not None and not best.complete and (close or level is None or len(points) == MOST_POINTS):
        return Step(best.level)
    if level is not None and len(points) < MOST_POINTS:
        return Step(level)
    return Step(None, "" if level is None else f"{MOST_POINTS} loads were measured")


def curve_of(points: list[Point], sought: Sought, *, cut_short: bool) -> Curve:
    """The answer. cut_short: the search did not come to its own end (a signal, a crash), rather than to that of its budget."""
    best, missed = bracket(points)
    step = next_step(points, sought, None)
    ended = step.why if step.level is None else "the search was cut short" if cut_short else "the budget of time was used up"
    return Curve(
        by=sought.by,
        points=points,
        knee=knee(points),
        best=None if best is None or not best.complete else best.level,
        missed=None if missed is None else missed.level,
        why=_why(points, sought, ended),
    )


def _next_level(points: Sequence[Point], sought: Sought, probed: float | None) -> float | None:
    """The next load to measure; None when the bracket is narrow enough, or at the edge of what may be taken."""
    low, high = bracket(points)
    if low is not None and high is not None:
        middle = _snapped(math.sqrt(low.level * high.level), sought)
        return None if high.level / low.level <= NEAR or middle in {low.level, high.level} else middle
    if low is None and high is None:
        return _snapped(_start(sought, probed), sought)
    edge = low or high
    assert edge is not None  # one of them is
    step = min(_STEP * points[-1].level / points[0].level, _LARGEST_STEP)
    if edge.state == "unproven":  # its share was reached: a little less load makes it sure
        step = NEAR**2
    level = _snapped(edge.level * step if low is not None else edge.level / step, sought)
    return None if level == edge.level else level


def _start(sought: Sought, probed: float | None) -> float:
    if sought.start is not None:
        return sought.start
    if probed:
        return probed * _OF_PROBE if sought.by == "rate" else probed
    if sought.least is not None and sought.most is not None:
        return math.sqrt(sought.least * sought.most)
    return sought.least or sought.most or _FIRST_RATE_RPS


def _snapped(level: float, sought: Sought) -> float:
    """Within what may be taken; whole slots, and rates of four digits, which a reader can type again."""
    level = max(level, sought.least or 0.0)
    level = min(level, math.inf if sought.most is None else sought.most)
    return float(max(1, round(level))) if sought.by == "concurrency" else float(f"{level:.4g}")


def _why(points: Sequence[Point], sought: Sought, ended: str) -> str:
    best, missed = bracket(points)
    wanted = f"{sought.attainment:.4g} of requests within the objectives"
    ending = f"; {ended}" if ended else ""
    if best is None or best.share is None or best.assured is None:
        lowest = "" if missed is None else f": {_level(missed.level, sought.by)} did not, with {_share(missed)} of {missed.judged}"
        return f"no load was shown to keep {wanted}{lowest}{ending}"
    found = (
        f"{_level(best.level, sought.by)} keeps {wanted}: {_share(best)} of {best.judged}, with 95 % confidence at least {best.assured:.1%}"
    )
    if not best.complete:
        found = f"no load was measured at its full length; {found}, by a part of it"
    if missed is None:
        return f"{found}; no load was found that does not{ending}"
    sure = "is not sure to" if missed.state == "unproven" else "does not"
    return f"{found}; {_level(missed.level, sought.by)} {sure}, with {_share(missed)} of {missed.judged}{ending}"


def _share(point: Point) -> str:
    return "none" if point.share is None else f"{point.share:.1%}"


def _level(level: float, by: By) -> str:
    return f"{level:.4g} requests/s" if by == "rate" else f"{level:.0f} in flight"
