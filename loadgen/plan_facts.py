"""What a plan asked for, as far as its reduction depends on it.

Knows shapes and units; computes nothing and is in no document. Law: with the records these are all that a summary is made of, so whoever
has both makes the same one, wherever the plan came from.
"""

from __future__ import annotations

import msgspec

from loadgen.distribution import STANDARD_PERCENTILES
from loadgen.objectives import Objective
from loadgen.schedule import Schedule


class PlanFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the reducer must know of one plan that its records do not say.

    shares: requests of each worker, empty for a closed loop by duration; count: their sum, None for a closed loop by duration.
    workers: how many were started (their numbers are 0..workers-1). schedule: of an open loop, whose dues are its own and whose max_concurrent
    only bounds what is in flight. even: the plan wants the same load all through the measuring window. percentiles: what was asked for, in percent.
    objectives: what makes a request good; attainment: the share of requests that shall be. levels: of a closed loop, how many its concurrency had, 0 where it was
    fixed. lead_s, tail_s: left out of the measuring window at its ends, by due.
    """

    label: str
    max_concurrent: int
    workers: int
    shares: tuple[int, ...] = ()
    count: int | None = None
    duration_s: float | None = None
    batch_size: int | None = None
    percentiles: tuple[float, ...] = STANDARD_PERCENTILES
    schedule: Schedule | None = None
    levels: int = 0
    even: bool = True
    lead_s: float = 0.0
    tail_s: float = 0.0
    objectives: tuple[Objective, ...] = ()
    attainment: float | None = None

    @property
    def open_loop(self) -> bool:
        return self.schedule is not None
