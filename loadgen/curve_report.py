"""A curve for people: the points as a table, load against latency as a chart of characters, the answer.

Knows points and how numbers are written; must not know documents or terminals, nor compute a statistic. Pure. Law: what cannot be believed
is in the table, which says so, and not on the chart.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from loadgen.tables import median_and_p99, rate, seconds, share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadgen.curve import By, Curve

_WIDTH, _HEIGHT = 64, 12  # characters of the chart, without its axes
_MEDIAN, _P99, _BOTH = "o", "x", "*"
_NAMES = {"rate": "requests/s offered", "concurrency": "requests in flight"}
_SHARE_DIGITS = 4


def curve_table(curve: Curve) -> Table:
    """One row a point, by rising load."""
    table = Table(title="load and what came of it (median / p99, from due)", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.pad_edge, table.collapse_padding = False, True
    judged = any(point.share is not None for point in curve.points)
    names = ["offered/s" if curve.by == "rate" else "conc", "req/s", *(["good/s", "within", "sure of"] if judged else [])]
    for name in (*names, "latency", "TTFT", "TPOT", "n", "verdict", *(["objectives"] if judged else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for point in curve.points:
        table.add_row(
            level_name(point.level, curve.by),
            rate(point.requests_rps),
            *([rate(point.goodput_rps), share(point.share), share(point.assured)] if judged else []),
            *(median_and_p99(distribution) for distribution in (point.latency, point.ttft, point.tpot)),
            str(point.judged or (point.latency.count if point.latency else 0)),
            point.verdict,
            *([point.state] if judged else []),
        )
    return table


def curve_chart(curve: Curve) -> list[str]:
    """Median and p99 of latency over the load, both axes logarithmic; [] where there are fewer than two points to draw."""
    drawn = [(point, point.latency) for point in curve.points if point.verdict != "invalid" and point.latency is not None]
    if len(drawn) < 2:
        return []
    lows, highs = [latency.median for _, latency in drawn], [latency.value(99) for _, latency in drawn]
    place_x = _Scale([point.level for point, _ in drawn], _WIDTH)
    place_y = _Scale([*lows, *highs], _HEIGHT)
    cells = [[" "] * _WIDTH for _ in range(_HEIGHT)]
    for (point, _), median, p99 in zip(drawn, lows, highs, strict=True):
        x = place_x(point.level)
        cells[place_y(p99)][x] = _P99
        cells[place_y(median)][x] = _BOTH if place_y(median) == place_y(p99) else _MEDIAN
    labels = {_HEIGHT - 1: seconds(max(highs)), 0: seconds(min(lows))}
    lines = [f"{labels.get(row, ''):>8} |{''.join(cells[row]).rstrip()}" for row in reversed(range(_HEIGHT))]
    lines.append(" " * 9 + "+" + "-" * _WIDTH)
    least, most = level_name(drawn[0][0].level, curve.by), level_name(drawn[-1][0].level, curve.by)
    lines.append(" " * 10 + least + most.rjust(_WIDTH - len(least)))
    for name, level in (("knee", curve.knee), ("best", curve.best)):
        if level is not None:
            lines.append(" " * (10 + place_x(level)) + f"^ {name} {level_name(level, curve.by)}")
    return [f"latency ({_MEDIAN} median, {_P99} p99) against {_NAMES[curve.by]}, both logarithmic", *lines]


def level_name(level: float, by: By) -> str:
    """As it is typed: a search's rates have four digits."""
    return f"{level:.{_SHARE_DIGITS}g}" if by == "rate" else f"{level:.0f}"


class _Scale:
    """Places of values on `size` characters, by their logarithm."""

    def __init__(self, values: Sequence[float], size: int) -> None:
        self._least = math.log(max(min(values), math.ulp(1.0)))
        self._span = math.log(max(*values, math.ulp(1.0))) - self._least
        self._last = size - 1

    def __call__(self, value: float) -> int:
        if not self._span:
            return self._last // 2
        return round((math.log(max(value, math.ulp(1.0))) - self._least) / self._span * self._last)
