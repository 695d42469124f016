"""`bench`: one configuration, warmed up and measured once.

Knows its own numbers only. Invariant: at most one warm-up plan, then one measured plan.
"""

from __future__ import annotations

import msgspec

from loadgen.foreseen import Foreseen
from loadgen.plan import Cache, Plan


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What the plans of a campaign have in common. processes: how many workers at most."""

    processes: int
    num_requests: int | None = None
    duration_s: float | None = None
    grace_s: float = 30.0
    delay_between_batches_s: float = 0.0
    num_warmups: int = 0
    seed: int = 0
    salt: int = 0
    cache: Cache = "unique"

    def warmup(self, max_concurrent: int) -> Plan:
        """The plan that warms the server: its prompts come after those that are measured, in the list and by their markers."""
        workers = min(self.processes, Plan.largest_workers(max_concurrent, None, self.num_warmups))
        return Plan(
            number=0,
            label="warmup",
            purpose="warmup",
            max_concurrent=max_concurrent,
            workers=workers,
            num_requests=self.num_warmups,
            first_item=self.num_requests or 0,
            seed=self.seed,
            salt=self.salt,
            cache=self.cache,
        )

    def plan(self, number: int, max_concurrent: int, batch_size: int | None, *, repeat: int = 1) -> Plan:
        """One measured plan."""
        batch = f"b{batch_size}-" if batch_size else ""
        return Plan(
            number=number,
            label=f"{batch}c{max_concurrent}-r{repeat}",
            max_concurrent=max_concurrent,
            batch_size=batch_size,
            delay_between_batches_s=self.delay_between_batches_s,
            workers=min(self.processes, Plan.largest_workers(max_concurrent, batch_size, self.num_requests)),
            num_requests=self.num_requests,
            duration_s=self.duration_s,
            grace_s=self.grace_s,
            repeat=repeat,
            seed=self.seed,
            salt=self.salt,
            cache=self.cache,
        )


class Bench(Foreseen):
    """The campaign of `loadgen bench`: warm-up, then the configuration."""

    def __init__(self, load: Load, *, max_concurrent: int, batch_size: int | None = None) -> None:
        warmup = [load.warmup(max_concurrent)] if load.num_warmups else []
        super().__init__([*warmup, load.plan(len(warmup), max_concurrent, batch_size)])
