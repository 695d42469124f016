"""Which setting of a grid is the one to use.

Knows cells: a setting, the summaries of its runs, a verdict for each. Pure; reads nothing. DESIGN.md, "Best of a grid".
Law: an invalid run counts for nothing where its cell has a better one, an invalid cell never wins, and the answer depends on
the cells alone, not on the order they are given in.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import stdtrit

from loadgen.cell import Ranking, Standing
from loadgen.stretch import SLICES
from loadgen.verdict import LEVELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from loadgen.cell import Cell
    from loadgen.summary import Level, Summary

SMALLEST_MARGIN, LARGEST_MARGIN = 0.02, 0.05
LEAST_BATCHES = 20
LEAST_RUNS = 3  # of every cell that could win, before a winner is named
TOP_CELLS = 3


class _Rated(NamedTuple):
    cell: Cell
    runs: list[Summary]
    level: Level
    rps: float


def rank(cells: Sequence[Cell]) -> Ranking:
    """Sort the cells by throughput, those that cannot be believed last, and name the setting to use."""
    rated = _rate(cells)
    if not rated:
        return Ranking(results=[], best=None, why="no cell was run")
    standings = [_standing(one, rated[0]) for one in rated]
    inside = [standing for standing in standings if standing.level != "invalid" and standing.gap <= standing.margin]
    if not inside:
        return Ranking(results=standings, best=None, why="no cell can be believed: every one of them is invalid")
    best = min(inside, key=lambda standing: (standing.max_concurrent, -_barrier(standing.batch_size)))
    return Ranking(results=standings, best=best, why=_why(best, standings, inside))


def contenders(cells: Sequence[Cell], *, runs: int = LEAST_RUNS, top: int = TOP_CELLS) -> list[int]:
    """Which cells (places in `cells`) to run once more each, in this order, before asking again; empty: a winner can be named.

    These are the top cells, and those that are inside the margin or cannot be shown to be outside (one run that was disturbed
    excludes nobody), as far as they have fewer than `runs` runs; asking after each round is what interleaves the repeats.
    """
    rated = [one for one in _rate(cells) if one.level != "invalid"]
    near = [one for place, one in enumerate(rated) if place < top or _may_be_inside(_standing(one, rated[0]))]
    places = {id(cell): place for place, cell in enumerate(cells)}
    return [places[id(one.cell)] for one in near if len(one.cell.runs) < runs]


def _may_be_inside(standing: Standing) -> bool:
    """Whether the gap, less what it may be too large by, is within the margin."""
    return standing.gap - (standing.half_width or 0.0) <= standing.margin


def _rate(cells: Sequence[Cell]) -> list[_Rated]:
    rated = []
    for cell in cells:
        believed = [(run, verdict.level) for run, verdict in zip(cell.runs, cell.verdicts, strict=True) if verdict.level != "invalid"]
        level: Level = max((level for _, level in believed), key=LEVELS.index, default="invalid")
        runs = [run for run, _ in believed] or cell.runs
        if runs:
            rated.append(_Rated(cell, runs, level, float(np.mean([run.ranked.requests_rps for run in runs]))))
    rated.sort(key=lambda one: (one.level == "invalid", -one.rps, one.cell.max_concurrent, -_barrier(one.cell.batch_size)))
    return rated


def _standing(one: _Rated, highest: _Rated) -> Standing:
    half_width = None if one is highest else _half_width(one.runs, highest.runs)
    # An interval that cannot be had may be as wide as any: the cell is kept as near as the largest margin allows.
    margin = LARGEST_MARGIN if half_width is None else min(max(SMALLEST_MARGIN, half_width), LARGEST_MARGIN)
    return Standing(
        max_concurrent=one.cell.max_concurrent,
        batch_size=one.cell.batch_size,
        requests_rps=one.rps,
        runs=len(one.runs),
        level=one.level,
        gap=1 - one.rps / highest.rps if highest.rps else 0.0,
        half_width=half_width,
        margin=SMALLEST_MARGIN if one is highest else margin,
        whole_run=any(run.steady is None for run in one.runs),
    )


def _half_width(runs: Sequence[Summary], highest: Sequence[Summary]) -> float | None:
    """Half of the 95 % interval of the paired difference of batch means, as a share of the highest cell's mean."""
    pairs = min(len(runs), len(highest))
    # Fewer, longer batches where there are repeats: neighbours share requests, and long ones less of them.
    merged = max((n for n in range(1, SLICES + 1) if SLICES % n == 0 and pairs * SLICES // n >= LEAST_BATCHES), default=1)
    ours, theirs = _batches(runs[:pairs], merged), _batches(highest[:pairs], merged)
    n = len(ours)
    if n < LEAST_BATCHES or n != len(theirs) or not theirs.mean():
        return None
    spread = float((ours - theirs).std(ddof=1))
    return float(stdtrit(n - 1, 0.975)) * spread / math.sqrt(n) / float(theirs.mean())


def _batches(runs: Sequence[Summary], merged: int) -> NDArray[np.float64]:
    means = [np.array(run.batch_means).reshape(-1, merged).mean(axis=1) for run in runs if run.batch_means]
    return np.concatenate(means) if means else np.zeros(0)


def _barrier(batch_size: int | None) -> float:
    """A batch size to compare by: no barrier is like one batch without end."""
    return math.inf if batch_size is None else batch_size


def _setting(standing: Standing) -> str:
    batch = "no batch size" if standing.batch_size is None else f"batch_size {standing.batch_size}"
    return f"max_concurrent {standing.max_concurrent}, {batch}"


def _why(best: Standing, standings: Sequence[Standing], inside: Sequence[Standing]) -> str:
    whole = "; there was no steady stretch, so the whole run counts" if best.whole_run else ""
    rate = f"{_setting(best)}: {best.requests_rps:.4g} requests/s"
    if best is standings[0]:
        beside = (
            "no other setting comes within the margin of it"
            if len(inside) == 1
            else f"of {len(inside)} settings within the margin none has a smaller concurrency"
        )
        return f"{rate}, the highest; {beside}{whole}"
    highest = standings[0]
    return (
        f"{rate}, {best.gap:.1%} below the highest ({_setting(highest)}: {highest.requests_rps:.4g}), which is within the margin of "
        f"{best.margin:.1%}; of {len(inside)} such settings it has the smallest concurrency, then the largest batch size{whole}"
    )
