"""What a series of loads showed: its points, the knee, and the highest load that kept the objectives.

Knows shapes and units and nothing else, as `summary.py`; made by `points.py` and `search.py`. Law: a point that cannot be believed is
neither kept nor missed, and is on no curve.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from loadgen.distribution import Distribution
from loadgen.summary import Level

By = Literal["rate", "concurrency"]
# measured: no share was asked for. kept: reached, and sure. missed: not reached. unproven: reached, and not sure. open: a search may go on
# with it. unusable: the measurement failed, not the server.
State = Literal["measured", "kept", "missed", "unproven", "open", "unusable"]


class Sought(msgspec.Struct, frozen=True, kw_only=True):
    """What a search looks for. least, most: the loads it may take, None for any; start: the first guess; budget_s: of all its plans."""

    by: By
    attainment: float
    least: float | None = None
    most: float | None = None
    start: float | None = None
    budget_s: float | None = None


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One load: a level (requests/s offered, or requests in flight) and what came of its plans together.

    plans: their labels, in order; runs of one level are parts of one measurement. parts: how many of them are usable; the numbers are
    theirs. judged … assured: of all together, see `Goodput`; assured by the confidence that this look had (`points.py`). requests_rps,
    latency, ttft, tpot: of the last, which is the longest. complete: it had its full length. window_s: their measuring windows. why: what made a plan unusable, "" if none was.
    """

    level: float
    plans: list[str]
    parts: int
    state: State
    verdict: Level
    complete: bool
    window_s: float
    requests_rps: float
    goodput_rps: float | None
    judged: int
    effective: float
    share: float | None
    assured: float | None
    latency: Distribution | None
    ttft: Distribution | None
    tpot: Distribution | None
    why: str = ""


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """Points by rising level. knee: the level with the most requests/s for each second of mean latency (Kleinrock's power, 1979).

    best: the highest level that kept the objectives, below the lowest that did not; None where no share was asked for, or none kept it.
    missed: that lowest one, so that the limit lies between the two; None where every level kept them. why: the answer in words.
    """

    by: By
    points: list[Point]
    knee: float | None
    best: float | None
    missed: float | None
    why: str

    @property
    def best_point(self) -> Point | None:
        return next((point for point in self.points if point.level == self.best), None)


def knee(points: list[Point]) -> float | None:
    """See `Curve`; None of fewer than three points that can be believed: two have no bend."""
    found = [(point.requests_rps / point.latency.mean, -point.level) for point in points if point.verdict != "invalid" and point.latency]
    return -max(found)[1] if len(found) > 2 else None
