"""`grid`: every pairing of batch size and concurrency (or those that may win), the best ones again until a winner may be named.

Knows cells and the ranking's word on who may still win; knows nothing of how a plan is performed. Pure: the same history gives the
same next plan. Invariants: all cells have the same seed and number of requests; no cell is repeated before each was run once;
repeats are interleaved, so that a drift of the server falls on all contenders alike.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from clients.errors import UsageError
from loadgen.cell import Cell
from loadgen.pruning import next_cell
from loadgen.ranking import contenders

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadgen.bench import Load
    from loadgen.campaign import Performed
    from loadgen.plan import Plan
    from loadgen.pruning import Setting


class Grid:
    """The campaign of `loadgen grid`.

    repeats: how often a cell that may win is run in all. search: leave out cells that cannot win (`pruning.py`). Raises UsageError for an
    empty axis.
    """

    def __init__(
        self, load: Load, *, batch_sizes: Sequence[int | None], concurrencies: Sequence[int], repeats: int = 3, search: bool = False
    ) -> None:
        for name, axis in (("batch_sizes", batch_sizes), ("concurrencies", concurrencies)):
            if not axis:
                raise UsageError(f"{name}: got none, takes one value or more")
        if repeats < 1:
            raise UsageError(f"repeats: got {repeats}, takes 1 or more")
        self.load = load
        self.repeats = repeats
        self.search = search
        self.settings: list[Setting] = list(dict.fromkeys((c, b) for b in batch_sizes for c in concurrencies))
        random.Random(load.seed).shuffle(self.settings)  # a server that warms or tires must not favour one corner of the grid
        self._warmups = 1 if load.num_warmups else 0
        for concurrency, batch in self.settings:
            load.plan(0, concurrency, batch)  # a setting that no plan can be made of is found before anything is sent

    def next_plan(self, history: Sequence[Performed]) -> Plan | None:
        """Warm-up, each cell once, then the contenders in turn until each has its repeats."""
        if self._warmups and not history:
            return self.load.warmup(max(concurrency for concurrency, _ in self.settings))
        new = self._new_cell(history)
        if new is not None:
            return self.load.plan(len(history), *new)
        setting, runs = self._due_again(history)
        return None if setting is None else self.load.plan(len(history), *setting, repeat=runs + 1)

    def planned(self, history: Sequence[Performed]) -> int | None:
        """All cells once, and the repeats of those that may win as far as they are known."""
        once = self._warmups + len(self.settings)
        if self._new_cell(history) is not None:
            return None if self.search else once + min(2, len(self.settings)) * (self.repeats - 1)
        return len(history) + sum(self.repeats - runs for _, runs in self._contenders(history))

    def _new_cell(self, history: Sequence[Performed]) -> Setting | None:
        """The next cell that was not run yet and may win; None when it is the turn of the repeats."""
        measured = [one for one in history if one.plan.purpose == "measure"]
        rates_rps = {
            (one.plan.max_concurrent, one.plan.batch_size): None if one.verdict.level == "invalid" else one.summary.ranked.requests_rps
            for one in measured
        }
        if not self.search:
            return next((setting for setting in self.settings if setting not in rates_rps), None)
        if any(one.plan.repeat > 1 for one in measured):  # a repeat moves a rate a little, and is no reason to begin again
            return None
        return next_cell(self.settings, rates_rps)

    def _due_again(self, history: Sequence[Performed]) -> tuple[Setting | None, int]:
        """The contender with the fewest runs, the earliest of them in the shuffled order."""
        due = self._contenders(history)
        if not due:
            return None, 0
        return min(due, key=lambda one: (one[1], self.settings.index(one[0])))

    def _contenders(self, history: Sequence[Performed]) -> list[tuple[Setting, int]]:
        """The settings that may still win and have not had their repeats, with the runs they had."""
        found = Cell.gathered((one.summary, one.verdict) for one in history if one.plan.purpose == "measure")
        return [((found[i].max_concurrent, found[i].batch_size), len(found[i].runs)) for i in contenders(found, runs=self.repeats)]
