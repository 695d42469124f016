"""`sweep`: a list of loads, each measured once, from the lowest to the highest.

Knows its levels only. Pure. Invariant: every point has the same length; the loads rise, for what an overload leaves behind (queues, a full
cache) must not fall on a lighter one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clients.errors import UsageError
from loadgen.curve import Curve, knee
from loadgen.foreseen import Foreseen
from loadgen.points import bracket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadgen.axis import Axis
    from loadgen.bench import Load
    from loadgen.curve import By, Point


class Sweep(Foreseen):
    """The campaign of `loadgen sweep`: warm-up, then each load. warmup: requests in flight of the warm-up. Raises UsageError for no level."""

    def __init__(self, load: Load, axis: Axis, levels: Sequence[float], *, warmup: int) -> None:
        if not levels:
            raise UsageError(f"{axis.by}: got none, takes one value or more")
        first = [load.warmup(warmup)] if load.num_warmups else []
        super().__init__([*first, *(axis.plan(load, number, level) for number, level in enumerate(sorted(levels), len(first)))])


def swept(points: list[Point], by: By) -> Curve:
    """What a sweep shows."""
    best, missed = bracket(points)
    ends = [None if point is None else point.level for point in (best, missed)]
    return Curve(by=by, points=points, knee=knee(points), best=ends[0], missed=ends[1], why="")
