"""The open loop: by its dues alone, bounded, late but never lost; against a clock that is an argument."""

import random

import pytest

from loadgen.open_loop import AT_ONCE, OpenLoop
from loadgen.plan import Plan
from loadgen.schedule import Schedule

START = 1_000


def loop(offsets, *, bound=50_000, worker=0, workers=1):
    schedule = Schedule.at_rate(1.0)
    plan = Plan(number=0, label="x", max_concurrent=bound, workers=workers, num_requests=max(len(offsets), workers), schedule=schedule)
    return OpenLoop(plan, worker, offsets)


def indices(turns):
    return [turn.index for turn in turns]


def test_each_request_is_given_out_at_its_due():
    """Nothing before, all that are due in one go, and the next wake-up is the next due."""
    turns = loop([0, 10, 10, 30])
    assert indices(turns.begin(START)) == [0]
    assert turns.next_ns == START + 10
    assert turns.woken(START + 9) == []
    due = turns.woken(START + 12)
    assert [(turn.index, turn.due_ns, turn.held_back) for turn in due] == [(1, START + 10, False), (2, START + 10, False)]
    assert indices(turns.woken(START + 30)) == [3]
    assert turns.next_ns is None


def test_what_the_bound_holds_back_goes_in_order_late_from_its_own_due():
    """One slot: the second waits for the first to end, keeps its due, and is marked; the third, due after that end, is not."""
    turns = loop([0, 10, 100], bound=1)
    [first] = turns.begin(START)
    assert turns.next_ns is None  # only an end can let more go
    assert turns.woken(START + 50) == []
    [second] = turns.ended(first, START + 60)
    assert (second.index, second.due_ns, second.held_back) == (1, START + 10, True)
    assert turns.ended(second, START + 70) == []
    [third] = turns.woken(turns.next_ns)
    assert (third.due_ns, third.held_back) == (START + 100, False)


def test_a_wake_up_that_comes_late_holds_nothing_back():
    """A free slot all the time: late is late, but not for the bound."""
    turns = loop([0, 10], bound=2)
    [first] = turns.begin(START)
    [second] = turns.ended(first, START + 40)
    assert (second.due_ns, second.held_back) == (START + 10, False)


def test_after_a_stall_of_ours_the_loop_gets_its_turn_in_between():
    """More due than can be sent in a moment: the next wake-up is at once, nothing is held back, nothing left out."""
    turns = loop([10] * (AT_ONCE + 5))
    turns.begin(START)
    first = turns.woken(START + 99)
    assert (len(first), turns.next_ns) == (AT_ONCE, START + 10)
    rest = turns.woken(START + 99)
    assert indices(first + rest) == list(range(AT_ONCE + 5))
    assert not any(turn.held_back for turn in rest)
    assert turns.next_ns is None


def test_what_a_stall_of_ours_left_unsent_was_not_held_back():
    """At the end a slot was free: it was our doing, and is not called the bound's."""
    turns = loop([0, 10], bound=2)
    turns.begin(START)
    assert [(turn.index, turn.held_back) for turn in turns.left(START + 50)] == [(1, False)]


def test_what_is_left_is_what_fell_due_and_was_not_given_out():
    """At the end: the two that wait, not the one that was never due."""
    turns = loop([0, 10, 20, 90], bound=1)
    turns.begin(START)
    assert [(turn.index, turn.held_back) for turn in turns.left(START + 50)] == [(1, True), (2, True)]
    assert turns.next_ns is None


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_workers_share_one_timetable(workers):
    """Request k belongs to worker k mod P; together they give out each once, at its own due; the bound is dealt, too."""
    offsets = sorted(random.Random(3).randrange(10_000) for _ in range(100))
    loops = [loop(offsets, bound=10, worker=worker, workers=workers) for worker in range(workers)]
    assert sum(one.slots for one in loops) == 10
    assert sum(one.share for one in loops) == 100
    given = []
    for one in loops:
        out = one.begin(0)
        while out or one.next_ns is not None:
            given += out
            ended, now = out, max([one.next_ns or 0, *(turn.due_ns for turn in out)])
            out = [turn for before in ended for turn in one.ended(before, now)] + one.woken(now)
    assert sorted(indices(given)) == list(range(100))
    assert all(turn.due_ns == offsets[turn.index] for turn in given)


@pytest.mark.parametrize("seed", range(20))
def test_a_bounded_loop_is_a_queue_with_so_many_servers(seed):
    """Against the recursion of a first-come-first-served queue with c servers: start = max(due, the earliest free server)."""
    draw = random.Random(seed)
    bound = draw.randint(1, 4)
    offsets = sorted(draw.randrange(1_000_000) for _ in range(60))
    service = [draw.randrange(1, 80_000) for _ in offsets]
    free, expected = [0] * bound, []
    for due, taken in zip(offsets, service, strict=True):
        start = max(due, min(free))
        free[free.index(min(free))] = start + taken
        expected.append(start)
    turns = loop(offsets, bound=bound)
    started, ends = {}, []
    out, now = turns.begin(0), 0
    while True:
        for turn in out:
            assert now >= turn.due_ns
            started[turn.index] = now
            ends.append((now + service[turn.index], turn.index, turn))
        if not ends and turns.next_ns is None:
            break
        ends.sort()
        if ends and (turns.next_ns is None or ends[0][0] <= turns.next_ns):
            now, _, turn = ends.pop(0)
            out = turns.ended(turn, now)
        else:
            now = turns.next_ns
            out = turns.woken(now)
    assert [started[k] for k in range(60)] == expected
