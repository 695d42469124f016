"""Slots and lanes: every request once, never too many, barriers where there are batches; the same for every number of parts."""

from __future__ import annotations

import heapq
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.errors import UsageError
from clients.lanes import Lanes, lane_count

if TYPE_CHECKING:
    from clients.turn import Turn

SHAPES = st.fixed_dictionaries(
    {
        "max_concurrent": st.integers(1, 40),
        "batch_size": st.none() | st.integers(1, 50),
        "count": st.integers(0, 200),
        "delay_ns": st.sampled_from([0, 7, 1000]),
    }
)


class World:
    """Virtual time for all parts of one run: each request takes a drawn time; events are (time, order, part, kind, turn)."""

    def __init__(self, shape: dict, parts: int, seed: int) -> None:
        self.parts = [Lanes(**shape, part=p, parts=parts) for p in range(parts)]
        self.draw = random.Random(seed)
        self.in_flight = 0
        self.peak = 0
        self.started: list[tuple[int, int, Turn]] = []  # (when, part, turn)
        self.ended: dict[int, int] = {}
        self.agenda: list[tuple[int, int, int, str, Turn]] = []
        self.order = 0

    def put(self, when: int, part: int, kind: str, turn: Turn) -> None:
        self.order += 1
        heapq.heappush(self.agenda, (when, self.order, part, kind, turn))

    def run(self) -> World:
        for part, lanes in enumerate(self.parts):
            for turn in lanes.begin(0):
                self.put(turn.due_ns, part, "start", turn)
        while self.agenda:
            now, _, part, kind, turn = heapq.heappop(self.agenda)
            if kind == "start":
                self.in_flight += 1
                self.peak = max(self.peak, self.in_flight)
                self.started.append((now, part, turn))
                self.put(now + self.draw.randint(1, 100), part, "end", turn)
                continue
            self.in_flight -= 1
            self.ended[turn.index] = now
            for following in self.parts[part].freed(turn, now):
                assert following.due_ns >= now
                self.put(following.due_ns, part, "start", following)
        return self


@given(SHAPES, st.integers(1, 6), st.integers(0, 2**32))
def test_every_request_is_given_out_once_and_never_more_than_the_target(shape, parts, seed) -> None:
    """For any shape, split and timing: each index once, peak = min(target, what there is), shares add up."""
    world = World(shape, parts, seed).run()
    assert sorted(turn.index for _, _, turn in world.started) == list(range(shape["count"]))
    assert world.peak <= shape["max_concurrent"]
    assert sum(lanes.slots for lanes in world.parts) == shape["max_concurrent"]
    for part, lanes in enumerate(world.parts):
        assert lanes.share() == sum(1 for _, p, _ in world.started if p == part)


@given(SHAPES.filter(lambda s: s["batch_size"]), st.integers(1, 6), st.integers(0, 2**32))
def test_a_lane_works_on_one_batch_at_a_time_and_waits_the_delay_between(shape, parts, seed) -> None:
    """Batch b runs in lane b mod L of part lane mod P; it starts no sooner than the end of the lane's last one plus the delay."""
    world = World(shape, parts, seed).run()
    size, lanes = shape["batch_size"], lane_count(shape["max_concurrent"], shape["batch_size"])
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for when, part, turn in world.started:
        batch = turn.index // size
        assert turn.lane == batch % lanes
        assert part == turn.lane % parts
        assert when == turn.due_ns
        first[batch] = min(first.get(batch, when), when)
        last[batch] = max(last.get(batch, 0), world.ended[turn.index])
    for batch, when in first.items():
        assert when == (0 if batch < lanes else last[batch - lanes] + shape["delay_ns"])


@given(SHAPES, st.integers(0, 2**32))
def test_batches_fall_into_the_same_lanes_for_every_number_of_parts(shape, seed) -> None:
    """What shares a barrier does not depend on how many workers there are."""
    if shape["batch_size"] is None:
        return
    where = [{turn.index: turn.lane for _, _, turn in World(shape, parts, seed).run().started} for parts in (1, 2, 5)]
    assert where[0] == where[1] == where[2]


@given(SHAPES, st.integers(1, 6), st.integers(0, 2**32))
def test_without_batches_request_k_belongs_to_the_owner_of_slot_k(shape, parts, seed) -> None:
    """k mod C names the slot, the slot mod P the part; a part takes its requests in order."""
    shape = {**shape, "batch_size": None}
    world = World(shape, parts, seed).run()
    for part in range(parts):
        own = [turn.index for _, p, turn in world.started if p == part]
        assert own == [k for k in range(shape["count"]) if k % shape["max_concurrent"] % parts == part]


@pytest.mark.parametrize(
    ("batch_size", "max_concurrent", "lanes"),
    [
        (20, 50, [17, 17, 16]),  # recommended for an A100: three batches at a time share 50 slots
        (32, 50, [25, 25]),
        (10, 16, [8, 8]),
        (3, 4, [2, 2]),
        (1, 3, [1, 1, 1]),
        (100, 4, [4]),  # one batch, four at a time
    ],
)
def test_lanes_share_the_slots_evenly(batch_size, max_concurrent, lanes) -> None:
    """L = ceil(C/B) lanes; lane j owns C//L + (j < C mod L) slots."""
    begun = Lanes(max_concurrent=max_concurrent, batch_size=batch_size).begin(5)
    assert [sum(t.lane == j for t in begun) for j in range(len(lanes))] == lanes
    assert {t.due_ns for t in begun} == {5}
    assert lane_count(max_concurrent, batch_size) == len(lanes)


def test_an_endless_run_keeps_every_slot_busy() -> None:
    """Without a count each end gives one turn, or with batches a whole lane's; share is not known."""
    lanes = Lanes(max_concurrent=3)
    turns = lanes.begin(0)
    for now in range(100):
        turns.extend(lanes.freed(turns.pop(0), now))
        assert len(turns) == 3
    assert lanes.share() is None


def test_a_turn_given_back_twice_is_a_defect() -> None:
    """The driver that does so would exceed the target: it is stopped at once."""
    lanes = Lanes(max_concurrent=1, count=1)
    [turn] = lanes.begin(0)
    assert lanes.freed(turn, 1) == []
    with pytest.raises(AssertionError, match="twice"):
        lanes.freed(turn, 2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_concurrent", 0),
        ("max_concurrent", 2.0),
        ("max_concurrent", True),
        ("batch_size", 0),
        ("delay_ns", -1),
        ("count", -1),
        ("part", 1),
        ("parts", 0),
    ],
)
def test_a_number_out_of_range_is_named(field, value) -> None:
    """One line with the field and what it got."""
    with pytest.raises(UsageError, match=f"^{field}: got {value}"):
        Lanes(**{"max_concurrent": 1, field: value})
