"""Stretches of a run: when all slots were busy, how many requests were in flight, how much of each was done inside.

Knows stamps as arrays; knows no file and no percentile. Pure. A slot is taken from a request's due (its slot came free) to its
end; a request is in flight from sent to end. Where an end and a start share a stamp, the end comes first.
Law: over stretches that lie side by side, credits and slot time add up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from loadgen.plan_facts import PlanFacts

# The ranking needs at least 20 batches of a cell (DESIGN.md, "Best of a grid"); one run alone must give them.
SLICES = 20


class Stretch(NamedTuple):
    """From `start_ns` up to `end_ns`."""

    start_ns: int
    end_ns: int

    @property
    def length_s(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9

    def holds(self, stamps_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
        return (stamps_ns >= self.start_ns) & (stamps_ns < self.end_ns)


class Intervals(NamedTuple):
    """Sorted starts and ends of what overlaps: all that counting needs."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def levels(self) -> NDArray[np.int64]:
        """How many are open just after each start."""
        return np.arange(1, len(self.starts) + 1) - np.searchsorted(self.ends, self.starts, side="right")

    def peak(self, stretch: Stretch) -> int:
        """The most that were open at a time within the stretch."""
        before = np.searchsorted(self.starts, stretch.start_ns, side="right") - np.searchsorted(self.ends, stretch.start_ns, side="right")
        inside = self.levels()[stretch.holds(self.starts)]
        return int(max(before, inside.max(initial=0)))

    def mean(self, stretch: Stretch) -> float:
        """Open on average over the stretch."""
        open_ns = np.clip(self.ends, *stretch).sum() - np.clip(self.starts, *stretch).sum()
        return float(open_ns) / max(stretch.end_ns - stretch.start_ns, 1)


def intervals(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Intervals:
    """Of requests with a start (0 = it did not happen)."""
    happened = starts > 0
    return Intervals(np.sort(starts[happened]), np.sort(ends[happened]))


class Work(NamedTuple):
    """When the server was seen to work on each request: progress is taken as even from `begun_ns` to `ended_ns`.

    From first to last output where there is more than one. Time since due is no progress: a request may only have queued, and
    in a closed loop of equal requests that shifts a rate by several requests. Where all output came at once nothing better
    is known than due to end.
    """

    begun_ns: NDArray[np.int64]
    ended_ns: NDArray[np.int64]

    @classmethod
    def of(cls, due_ns: NDArray[np.int64], end_ns: NDArray[np.int64], first_ns: NDArray[np.int64], last_ns: NDArray[np.int64]) -> Work:
        seen = (first_ns > 0) & (last_ns > first_ns)
        return cls(np.where(seen, first_ns, due_ns), np.where(seen, last_ns, end_ns))

    def done(self, at_ns: float) -> NDArray[np.float64]:
        """How much of each request was done at a moment: 0..1."""
        share: NDArray[np.float64] = np.clip((at_ns - self.begun_ns) / np.maximum(self.ended_ns - self.begun_ns, 1), 0.0, 1.0)
        return share

    def inside(self, stretch: Stretch) -> NDArray[np.float64]:
        """How much of each request was done in the stretch: 0..1."""
        return self.done(stretch.end_ns) - self.done(stretch.start_ns)

    def slice_rates(self, stretch: Stretch) -> list[float]:
        """Requests per second in `SLICES` equal parts of the stretch, each request counted by its share in each part."""
        if stretch.end_ns <= stretch.start_ns:
            return []
        edges = np.linspace(*stretch, SLICES + 1)
        done = np.array([self.done(edge).sum() for edge in edges])
        return list((np.diff(done) / (stretch.length_s / SLICES)).tolist())


def window(due_ns: NDArray[np.int64], end_ns: NDArray[np.int64], start_ns: int, facts: PlanFacts) -> Stretch:
    """The measuring window: from the start to the last end, or of a run by duration as long as it was meant to be; less lead and tail.

    start_ns: the start instant, 0 where it is not known; then the first due stands for it. Of a run that ended early, it goes to the last
    end in a closed loop and to the last due in an open one, after which nothing was sent. A tail is taken from what was due: of a run of
    a fixed number, it ends so long before the last due.
    """
    if not len(due_ns):
        return Stretch(start_ns, start_ns)
    start, last_due, end = start_ns or int(due_ns.min()), int(due_ns.max()), int(end_ns.max())
    if facts.duration_s is not None:
        planned = start + round(facts.duration_s * 1e9)
        in_time = planned if len(due_ns) == facts.count else last_due
        end = in_time if facts.open_loop else min(end, planned)
    elif facts.tail_s:
        end = last_due
    start += round(facts.lead_s * 1e9)
    return Stretch(start, max(start, end - round(facts.tail_s * 1e9)))


def steady_stretch(
    due_ns: NDArray[np.int64],
    end_ns: NDArray[np.int64],
    worker: NDArray[np.int64],
    lane: NDArray[np.int64],
    facts: PlanFacts,
    window: Stretch,
) -> tuple[Stretch | None, str]:
    """The part of the measuring window that rates are taken from, or None and why: of an open loop, while requests fell due.

    Of a closed loop, while all slots were busy and their requests no longer those of the start burst.

    Subtle: all slots begin at once, on an idle server: the start burst is like no later moment, and a request that had to queue
    in it counts for time in which nothing was done for it (where only due and end are known). So it begins when as many requests
    have ended as there are slots: from there on the mixture of young and old requests is the same at both ends. Without batches it ends when the first worker runs out: at the first end
    that no due follows. With batches, a lane at its barrier is at work, and it ends with the last batch of the lane that runs
    out first. It must hold as many ends as there are slots.
    """
    if facts.open_loop:
        by_number = Stretch(window.start_ns, min(window.end_ns, int(due_ns.max(initial=window.start_ns))))
        steady = by_number if facts.duration_s is None else window  # by duration, a pause before its end belongs to the schedule
        if steady.end_ns <= steady.start_ns:
            return None, "no request was due in the measuring window"
        return steady, ""
    if facts.levels:
        return None, "the concurrency had levels"
    slots = facts.max_concurrent
    taken = intervals(due_ns, end_ns)
    full = np.flatnonzero(taken.levels() >= slots)
    if not len(full):
        return None, f"never were all {slots} slots busy at once"
    after_burst = taken.ends[slots - 1] if len(taken.ends) >= slots else taken.ends[-1]
    start = int(max(taken.starts[full[0]], after_burst, window.start_ns))
    if facts.batch_size is None:
        owner, owners = worker, facts.workers
    else:
        owner, owners = lane, -(-slots // facts.batch_size)
    ends = []
    for number in range(owners):
        mine = owner == number
        if not mine.any():
            return None, f"{'worker' if facts.batch_size is None else 'lane'} {number} left no records"
        own = np.sort(end_ns[mine])
        own_slots = slots // owners + (number < slots % owners)
        followed = max(len(own) - own_slots, 0) if facts.batch_size is None else len(own) - 1  # each due but the first ones follows an end
        ends.append(int(own[followed]))
    end = min(*ends, window.end_ns)
    if np.count_nonzero((end_ns > start) & (end_ns <= end)) < slots:
        return None, f"fewer than {slots} requests ended while all {slots} slots were busy, after the first {slots}"
    return Stretch(start, end), ""
