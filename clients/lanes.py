"""The slots of a closed loop, and the batch lanes that share them.

Knows which request a free slot takes next; knows nothing of clocks, loops or what a request is: time is an argument.
`generate_batch_async` asks it, and so does each worker of a benchmark, so that both do the same thing in the same order.

Without a batch size there is one lane, no barrier, and slot s belongs to part s mod P; request k to the part that owns slot
k mod C; within a part any free slot takes the next. With a batch size B, L = ceil(C/B) lanes share the C slots; lane j belongs
to part j mod P, batch b to lane b mod L, and a lane begins its next batch when the last request of the one before has ended
and the delay has passed.
Law: over all parts every request is given out once, in order within its lane, and never more than C are out at a time.
"""

from __future__ import annotations

from clients.errors import UsageError
from clients.turn import Turn


def lane_count(max_concurrent: int, batch_size: int) -> int:
    """How many batches are worked on at a time: ceil(max_concurrent / batch_size)."""
    return -(-max_concurrent // batch_size)


class _Lane:
    """Where one lane stands: its batch, how many of that are given out, how many of those have not ended."""

    __slots__ = ("allowed", "batch", "in_flight", "number", "slots", "taken")

    def __init__(self, number: int, slots: int) -> None:
        self.number = number
        self.slots = slots
        self.allowed = slots
        self.batch = number
        self.taken = 0
        self.in_flight = 0


class Lanes:
    """One part's slots. `begin` gives what is due at once, `freed` what falls due because a turn ended.

    count: requests over all parts, None for endless. part, parts: which share of the whole this is.
    Raises UsageError for a number out of range. Memory is in order of the lanes, whatever the count.
    """

    __slots__ = ("_batch_size", "_count", "_delay_ns", "_lanes", "_max_concurrent", "_part", "_parts", "_stride", "slots")

    def __init__(
        self,
        *,
        max_concurrent: int,
        batch_size: int | None = None,
        delay_ns: int = 0,
        count: int | None = None,
        part: int = 0,
        parts: int = 1,
    ) -> None:
        _check("max_concurrent", max_concurrent, 1)
        _check("parts", parts, 1)
        _check("part", part, 0)
        _check("delay_ns", delay_ns, 0)
        if batch_size is not None:
            _check("batch_size", batch_size, 1)
        if count is not None:
            _check("count", count, 0)
        if part >= parts:
            raise UsageError(f"part: got {part}, takes 0 to {parts - 1}")
        self._max_concurrent = max_concurrent
        self._batch_size = batch_size
        self._delay_ns = delay_ns
        self._count = count
        self._part = part
        self._parts = parts
        if batch_size is None:
            self._stride = 0
            own = len(range(part, max_concurrent, parts))
            self._lanes = {0: _Lane(0, own)} if own else {}
        else:
            self._stride = lane_count(max_concurrent, batch_size)
            whole, rest = divmod(max_concurrent, self._stride)
            self._lanes = {j: _Lane(j, whole + (j < rest)) for j in range(part, self._stride, parts)}
        self.slots = sum(lane.slots for lane in self._lanes.values())

    def begin(self, now_ns: int) -> list[Turn]:
        """The first turns, at most `slots`: all due now. Call once."""
        return [turn for lane in self._lanes.values() for turn in self._fill(lane, now_ns)]

    def freed(self, turn: Turn, now_ns: int) -> list[Turn]:
        """The turns that fall due because `turn` ended now: none, one, or after a barrier the next batch's first ones.

        Those after a barrier are due when the delay has passed; they hold their slots until then.
        """
        lane = self._lanes[turn.lane]
        assert lane.in_flight > 0, f"a turn of lane {turn.lane} ended twice"
        lane.in_flight -= 1
        if self._next_index(lane) is not None:
            return self._fill(lane, now_ns)
        if lane.in_flight or self._batch_size is None:
            return []
        lane.batch += self._stride
        lane.taken = 0
        return self._fill(lane, now_ns + self._delay_ns)

    def allow(self, slots: int, now_ns: int) -> list[Turn]:
        """Without batches: from now on only so many of the slots may be used. The turns that fall due because they are more than before.

        What is in flight beyond them goes on to its end.
        """
        _check("slots", slots, 0)
        if self._batch_size is not None or slots > self.slots:
            raise UsageError(f"slots: got {slots}, takes 0 to {self.slots}, without batches")
        turns: list[Turn] = []
        for lane in self._lanes.values():
            lane.allowed = slots
            turns += self._fill(lane, now_ns)
        return turns

    def share(self) -> int | None:
        """How many of the `count` requests belong to this part; None for an endless run."""
        if self._count is None:
            return None
        if self._batch_size is None:
            cycles, rest = divmod(self._count, self._max_concurrent)
            return cycles * self.slots + len(range(self._part, rest, self._parts))
        batches = -(-self._count // self._batch_size)
        own = sum(len(range(j, batches, self._stride)) for j in self._lanes) * self._batch_size
        missing = batches * self._batch_size - self._count
        return own - missing if missing and (batches - 1) % self._stride in self._lanes else own

    def _fill(self, lane: _Lane, due_ns: int) -> list[Turn]:
        turns: list[Turn] = []
        while lane.in_flight < lane.allowed and (index := self._next_index(lane)) is not None:
            lane.taken += 1
            lane.in_flight += 1
            turns.append(Turn(index, lane.number, due_ns))
        return turns

    def _next_index(self, lane: _Lane) -> int | None:
        """The request this lane gives out next; None at the end of its batch or of all."""
        if self._batch_size is None:
            cycle, slot = divmod(lane.taken, lane.slots)
            index = cycle * self._max_concurrent + self._part + slot * self._parts
        elif lane.taken == self._batch_size:
            return None
        else:
            index = lane.batch * self._batch_size + lane.taken
        return index if self._count is None or index < self._count else None


def _check(name: str, value: int, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UsageError(f"{name}: got {value!r}, takes a whole number of at least {least}")
