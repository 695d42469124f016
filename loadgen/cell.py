"""A grid's settings and how they stand against each other.

Knows shapes and units, and which runs are of one setting; ranks nothing (`ranking.py`). Law: a setting is shown by one of its runs, the
one of median throughput, for percentiles of several runs have no mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from loadgen.summary import Level, Summary, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One setting of a grid with the summaries of its runs, in the order they were made, and a verdict for each."""

    max_concurrent: int
    batch_size: int | None
    runs: list[Summary]
    verdicts: list[Verdict]

    @classmethod
    def gathered(cls, runs: Iterable[tuple[Summary, Verdict]]) -> list[Cell]:
        """Runs put together by setting, in the order in which settings were first run."""
        cells: dict[tuple[int, int | None], Cell] = {}
        for summary, verdict in runs:
            setting = summary.max_concurrent, summary.batch_size
            cell = cells.setdefault(setting, cls(max_concurrent=setting[0], batch_size=setting[1], runs=[], verdicts=[]))
            cell.runs.append(summary)
            cell.verdicts.append(verdict)
        return list(cells.values())

    @property
    def median(self) -> tuple[Summary, Verdict]:
        """The run whose throughput is the median of those that can be believed (of all, if none can): percentiles have no mean."""
        runs = list(zip(self.runs, self.verdicts, strict=True))
        runs = [one for one in runs if one[1].level != "invalid"] or runs
        runs.sort(key=lambda one: one[0].ranked.requests_rps)
        return runs[(len(runs) - 1) // 2]


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """One cell's place in a grid. requests_rps: mean over its runs that count (not invalid; all of them if every one is).

    gap: how far below the highest, as a share of it; half_width: of that difference's 95 % interval, None where it cannot be
    had. margin: what gap is compared with. whole_run: there was no steady stretch to rank by.
    """

    max_concurrent: int
    batch_size: int | None
    requests_rps: float
    runs: int
    level: Level
    gap: float
    half_width: float | None
    margin: float
    whole_run: bool


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """A grid, sorted: results[0] has the highest throughput. best: the setting to use; None if no cell can be believed."""

    results: list[Standing]
    best: Standing | None
    why: str
