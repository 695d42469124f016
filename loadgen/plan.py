"""One run, as a value: how much load, in which shape, until when.

Knows numbers only: it reads no clock, opens nothing and is written to disk beside the records it led to, so that a report
can be made again from the files. Invariant: a plan says the same load for every number of workers; `workers` only says how
it is dealt (DESIGN.md, "Concurrency", "batch_size").
"""

from __future__ import annotations

from typing import Literal

import msgspec

from clients.errors import UsageError
from clients.lanes import Lanes, lane_count
from loadgen.precision import Precision
from loadgen.schedule import Schedule

Purpose = Literal["warmup", "measure"]
Cache = Literal["unique", "shared", "pixels"]

# More than any machine has ports for towards one server; a typing error, not a plan.
LARGEST_CONCURRENCY = 50_000
_LEVELS_IN_WORDS = 6  # a line of a report


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A closed loop of `max_concurrent` requests in flight, in batches of `batch_size` or without barriers (None); or, with a `schedule`, an
    open loop, which `max_concurrent` only bounds: a request that it holds back is late from its due.

    number: its place in the run; it is part of what makes its prompts unique. num_requests or duration_s: when it ends,
    exactly one is set. grace_s: how long requests in flight may go on after a duration's end. salt: what sets the prompts of
    this run apart from those of an earlier run of the same seed, which a server may still hold in its cache. levels: a closed loop's
    slots over time, (seconds from the start, slots) in order, the last one for the rest; max_concurrent is the largest of them.
    lead_s, tail_s: what is left out of the measuring window at its beginning and end (ramps), by due. precision: reached, it ends the plan
    before its number or duration does.
    """

    number: int
    label: str
    max_concurrent: int
    workers: int
    purpose: Purpose = "measure"
    batch_size: int | None = None
    delay_between_batches_s: float = 0.0
    num_requests: int | None = None
    duration_s: float | None = None
    grace_s: float = 30.0
    repeat: int = 1
    seed: int = 0
    salt: int = 0
    cache: Cache = "unique"
    first_item: int = 0
    schedule: Schedule | None = None
    levels: tuple[tuple[float, int], ...] = ()
    lead_s: float = 0.0
    tail_s: float = 0.0
    precision: Precision | None = None

    def __post_init__(self) -> None:
        """Raise UsageError naming the field: a plan that exists can be run."""
        if not 1 <= self.max_concurrent <= LARGEST_CONCURRENCY:
            raise UsageError(f"max_concurrent: got {self.max_concurrent}, takes 1 to {LARGEST_CONCURRENCY}")
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"batch_size: got {self.batch_size}, takes 1 or more, or none for no barriers")
        if (self.num_requests is None) == (self.duration_s is None):
            raise UsageError("a plan ends by num_requests or by duration_s: exactly one of them")
        if self.num_requests is not None and self.num_requests < 1:
            raise UsageError(f"num_requests: got {self.num_requests}, takes 1 or more")
        if self.duration_s is not None and not 0 < self.duration_s < float("inf"):
            raise UsageError(f"duration: got {self.duration_s}, takes a time above 0 s")
        if self.schedule is not None and (self.batch_size is not None or self.levels):
            raise UsageError("schedule: an open loop has neither batches nor levels of concurrency")
        if self.levels and (self.levels[0][0] != 0 or list(self.levels) != sorted(self.levels) or self.batch_size is not None):
            raise UsageError("levels: takes rising times from 0 s on, without batches")
        if self.levels and max(slots for _, slots in self.levels) != self.max_concurrent:
            raise UsageError(f"max_concurrent: got {self.max_concurrent}, takes the largest of its levels")
        if self.levels and self.num_requests is not None and self.levels[-1][1] < self.workers:
            raise UsageError(f"levels: the last one is {self.levels[-1][1]}, but {self.workers} workers have a share to send in it")
        if self.lead_s < 0 or self.tail_s < 0:
            raise UsageError(f"lead_s, tail_s: got {self.lead_s} and {self.tail_s}, take times of at least 0 s")
        if not 1 <= self.workers <= self.largest_workers(self.max_concurrent, self.batch_size, self.num_requests):
            raise UsageError(f"workers: got {self.workers}, but some of them would have no slot")

    @property
    def load(self) -> str:
        """In words: `50 requests/s, poisson`, `concurrency 8`."""
        if self.schedule is not None:
            return str(self.schedule)
        if len(self.levels) > _LEVELS_IN_WORDS:
            return f"concurrency in {len(self.levels)} levels from {self.levels[0][1]} to {self.levels[-1][1]}"
        if self.levels:
            return "concurrency " + ", ".join(f"{slots} from {begin_s:g} s on" for begin_s, slots in self.levels)
        return f"concurrency {self.max_concurrent}"

    @staticmethod
    def largest_workers(max_concurrent: int, batch_size: int | None, num_requests: int | None) -> int:
        """The most workers that all have a share: one slot (in batches: one lane) each, and something to send."""
        dealt = max_concurrent if batch_size is None else lane_count(max_concurrent, batch_size)
        if num_requests is None:
            return dealt
        pieces = num_requests if batch_size is None else -(-num_requests // batch_size)
        return max(1, min(dealt, pieces))

    def lanes(self, worker: int) -> Lanes:
        """The slots of one worker."""
        return Lanes(
            max_concurrent=self.max_concurrent,
            batch_size=self.batch_size,
            delay_ns=round(self.delay_between_batches_s * 1e9),
            count=self.num_requests,
            part=worker,
            parts=self.workers,
        )

    def part(self, slots: int, worker: int) -> int:
        """How many of so many slots of all workers are this one's (DESIGN.md, "Concurrency N over P workers")."""
        return slots // self.workers + (worker < slots % self.workers)

    def share(self, worker: int, scheduled: int | None = None) -> int | None:
        """How many requests are this worker's; None when a closed loop ends by time. scheduled: of an open loop, entries of its timetable."""
        if self.schedule is None:
            return self.lanes(worker).share()
        return None if scheduled is None else len(range(worker, scheduled, self.workers))
