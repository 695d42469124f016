"""Which cells of a grid may still win, from the rates of those that were measured.

Knows settings and rates; must not know plans. Pure. Law: a cell is left out only where what was measured bounds it, under two assumptions
about every server, each within one batch size; where one does not hold, the whole grid (without `--search`) finds out.

1. More requests in flight make no request faster: throughput over concurrency does not rise. So X(c) <= X(a) c / a for c > a.
2. Throughput rises with concurrency up to a knee and not again. So where it rose from a to b, cells below a have at most X(a); where it did
   not rise from a to b, cells above b have no more than those two and more in flight: they cannot be the best.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING

from loadgen.ranking import LARGEST_MARGIN, SMALLEST_MARGIN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Setting = tuple[int, int | None]  # max_concurrent, batch_size


def next_cell(settings: Sequence[Setting], rates_rps: Mapping[Setting, float | None]) -> Setting | None:
    """The cell to measure next, None when no other can win. rates_rps: of the measured ones, None where one cannot be believed.

    From the batch size with the fewest measured cells, the middle one of those that are open: each answer then bounds the most others.
    """
    columns: dict[int | None, list[int]] = {}
    for concurrency, batch in settings:
        columns.setdefault(batch, []).append(concurrency)
    highest = max((rate for rate in rates_rps.values() if rate is not None), default=0.0)
    found: list[tuple[int, int | None, list[int]]] = []
    for batch, column in columns.items():
        known = {c: rate for (c, b), rate in rates_rps.items() if b == batch}
        left = [c for c in sorted(column) if c not in known and _may_win(c, {a: x for a, x in known.items() if x is not None}, highest)]
        if left:
            found.append((len(known), batch, left))
    if not found:
        return None
    _, batch, left = min(found, key=lambda one: one[0])
    return left[len(left) // 2], batch


def _may_win(concurrency: int, known: Mapping[int, float], highest: float) -> bool:
    """Whether the bounds leave it within the largest margin of the highest. known: measured rates of its batch size."""
    bound = min((rate * concurrency / below for below, rate in known.items() if below < concurrency), default=math.inf)
    for low, high in combinations(sorted(known), 2):
        if known[high] > known[low] * (1 + SMALLEST_MARGIN):
            if concurrency < low:
                bound = min(bound, known[low])
        elif concurrency > high:
            return False
    return bound * (1 + SMALLEST_MARGIN) >= highest * (1 - LARGEST_MARGIN)
