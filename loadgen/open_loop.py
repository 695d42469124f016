"""The turns of an open loop: requests fall due by a timetable, whatever has become of those before them.

Knows offsets and a bound on what is in flight; reads no clock: time is an argument. Law: request k of the timetable is given out at its
due or, when as many are in flight as may be, in order as they end, and then its due is still its own: it is late, and marked so.
Nothing leaves it but by being given out or being among what is `left`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clients.turn import Turn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadgen.plan import Plan

# Sending so many takes a few milliseconds. More come due at once only after a stall of ours; what was read meanwhile wants its stamp first.
AT_ONCE = 64


class OpenLoop:
    """One worker's part of a timetable, as `driver.Turns`. offsets_ns: of all workers, ascending, from the start instant."""

    __slots__ = ("_in_flight", "_index", "_offsets_ns", "_parts", "_start_ns", "next_ns", "share", "slots")

    def __init__(self, plan: Plan, worker: int, offsets_ns: Sequence[int]) -> None:
        self.next_ns: int | None = None
        self.slots = plan.part(plan.max_concurrent, worker)
        self.share: int | None = plan.share(worker, len(offsets_ns))
        self._offsets_ns = offsets_ns
        self._index = worker  # of the request that is given out next
        self._parts = plan.workers
        self._start_ns = 0
        self._in_flight = 0

    def begin(self, start_ns: int) -> list[Turn]:
        """The turns that are due at the start instant itself."""
        self._start_ns = start_ns
        return self.woken(start_ns)

    def ended(self, turn: Turn, now_ns: int) -> list[Turn]:  # noqa: ARG002  # Turns' signature
        """What was held back and may go because a request ended now."""
        held_back = self._in_flight == self.slots
        self._in_flight -= 1
        return self._due(now_ns, held_back=held_back)

    def woken(self, now_ns: int) -> list[Turn]:
        """All that fell due until now, at most `AT_ONCE`; then `next_ns` is past already."""
        return self._due(now_ns, held_back=False)

    def left(self, now_ns: int) -> Iterator[Turn]:
        """What fell due until now and was not given out: it never will be."""
        held_back = self._in_flight == self.slots
        while (due_ns := self._next_due_ns()) is not None and due_ns <= now_ns:
            yield Turn(self._index, 0, due_ns, held_back)
            self._index += self._parts
        self.next_ns = None

    def _due(self, now_ns: int, *, held_back: bool) -> list[Turn]:
        turns: list[Turn] = []
        self.next_ns = None
        while self._in_flight < self.slots and (due_ns := self._next_due_ns()) is not None:
            if due_ns > now_ns or len(turns) == AT_ONCE:
                self.next_ns = due_ns
                break
            turns.append(Turn(self._index, 0, due_ns, held_back))
            self._index += self._parts
            self._in_flight += 1
        return turns

    def _next_due_ns(self) -> int | None:
        return self._start_ns + self._offsets_ns[self._index] if self._index < len(self._offsets_ns) else None
