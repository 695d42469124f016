"""`run`: one load of any shape, warmed up and measured once.

Knows shapes as values and how they become plans; knows no option (`shape.py` reads them) and sends nothing. Invariant: at most one
warm-up plan, then one measured plan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from loadgen.foreseen import Foreseen
from loadgen.plan import Plan
from loadgen.precision import Precision
from loadgen.schedule import Schedule

if TYPE_CHECKING:
    from loadgen.bench import Load


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """How much load, in which shape, until when. The fields are `Plan`'s; warm_with: requests in flight of the warm-up."""

    label: str
    max_concurrent: int
    warm_with: int
    schedule: Schedule | None = None
    levels: tuple[tuple[float, int], ...] = ()
    num_requests: int | None = None
    duration_s: float | None = None
    grace_s: float = 30.0
    lead_s: float = 0.0
    tail_s: float = 0.0
    precision: Precision | None = None

    def plan(self, number: int, load: Load) -> Plan:
        """The measured plan; what plans have in common is the load's."""
        workers = min(load.processes, Plan.largest_workers(self.max_concurrent, None, self.num_requests))
        if self.levels and self.num_requests is not None:  # each worker must have a slot to send its share with
            workers = min(workers, self.levels[-1][1])
        return Plan(
            number=number,
            label=self.label,
            max_concurrent=self.max_concurrent,
            workers=workers,
            num_requests=self.num_requests,
            duration_s=self.duration_s,
            grace_s=self.grace_s,
            seed=load.seed,
            salt=load.salt,
            cache=load.cache,
            schedule=self.schedule,
            levels=self.levels,
            lead_s=self.lead_s,
            tail_s=self.tail_s,
            precision=self.precision,
        )


class Run(Foreseen):
    """The campaign of `loadgen run`: warm-up, then the shape."""

    def __init__(self, load: Load, shape: Shape) -> None:
        warmup = [load.warmup(shape.warm_with)] if load.num_warmups else []
        super().__init__([*warmup, shape.plan(len(warmup), load)])
