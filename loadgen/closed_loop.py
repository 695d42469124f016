"""The turns of a closed loop: a slot that comes free takes the next request; with batches after their barrier, with levels as many as they say.

Knows a plan's `Lanes` and when something falls due by itself (a batch's delay, a level); reads no clock: time is an argument.
Law: a turn is given out when it is due, never before, and in order of its due.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clients.turn import Turn
    from loadgen.plan import Plan


class ClosedLoop:
    """One worker's slots, as `driver.Turns`."""

    __slots__ = ("_lanes", "_later", "_levels", "_waits", "next_ns", "share", "slots")

    def __init__(self, plan: Plan, worker: int) -> None:
        self.next_ns: int | None = None
        self._lanes = plan.lanes(worker)
        self.slots = self._lanes.slots
        self.share = self._lanes.share()
        self._waits = plan.delay_between_batches_s > 0
        self._levels = [(round(at_s * 1e9), plan.part(slots, worker)) for at_s, slots in reversed(plan.levels)]  # the next one last
        self._later: list[tuple[int, int, Turn]] = []  # turns that are due later, the earliest first

    def begin(self, start_ns: int) -> list[Turn]:
        """The first turns: all slots are due at the common start instant."""
        if not self._levels:
            return self._lanes.begin(start_ns)
        self._levels = [(start_ns + after_ns, slots) for after_ns, slots in self._levels]
        return self.woken(start_ns)

    def ended(self, turn: Turn, now_ns: int) -> list[Turn]:
        """What falls due because `turn` ended now."""
        turns = self._lanes.freed(turn, now_ns)
        if not self._waits:
            return turns
        for one in turns:
            heapq.heappush(self._later, (one.due_ns, one.index, one))
        return self.woken(now_ns)

    def woken(self, now_ns: int) -> list[Turn]:
        """What has fallen due by itself until now."""
        turns: list[Turn] = []
        while self._levels and self._levels[-1][0] <= now_ns:
            turns += self._lanes.allow(self._levels[-1][1], self._levels[-1][0])
            self._levels.pop()
        while self._later and self._later[0][0] <= now_ns:
            turns.append(heapq.heappop(self._later)[2])
        times = [pending[-1 if pending is self._levels else 0][0] for pending in (self._levels, self._later) if pending]
        self.next_ns = min(times, default=None)
        return turns

    def left(self, now_ns: int) -> list[Turn]:  # noqa: ARG002  # Turns' signature
        """Nothing: a request of a closed loop falls due with its slot."""
        return []
