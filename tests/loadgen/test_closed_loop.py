"""The closed loop with levels and delays; against a clock that is an argument."""

import pytest

from clients.errors import UsageError
from loadgen.closed_loop import ClosedLoop
from loadgen.plan import Plan

S = 1_000_000_000


def plan(levels=(), workers=1, **settings):
    most = max((slots for _, slots in levels), default=4)
    return Plan(**{"number": 0, "label": "x", "max_concurrent": most, "workers": workers, "levels": levels, "duration_s": 60.0, **settings})


def test_levels_open_and_close_slots_at_their_times():
    """2 slots, 4 from the tenth second on, 1 from the twentieth: more are due at the level's own instant, fewer come about as requests end."""
    turns = ClosedLoop(plan(((0.0, 2), (10.0, 4), (20.0, 1))), 0)
    out = turns.begin(0)
    assert (len(out), turns.next_ns) == (2, 10 * S)
    assert turns.woken(10 * S - 1) == []
    more = turns.woken(10 * S + 5_000)
    assert [turn.due_ns for turn in more] == [10 * S, 10 * S]
    assert turns.woken(20 * S) == []
    assert turns.next_ns is None
    busy = out + more
    assert [len(turns.ended(turn, 21 * S)) for turn in busy] == [0, 0, 0, 1]


def test_levels_are_dealt_to_workers():
    """Each level is shared as slots are; a worker without one waits for a level that gives it one."""
    levels = ((0.0, 1), (5.0, 5))
    loops = [ClosedLoop(plan(levels, workers=3), worker) for worker in range(3)]
    assert [len(one.begin(0)) for one in loops] == [1, 0, 0]
    assert [len(one.woken(5 * S)) for one in loops] == [1, 2, 1]


def test_a_batchs_delay_wakes_the_loop():
    """The next batch is due when the delay has passed, and is given out then."""
    turns = ClosedLoop(plan(max_concurrent=2, batch_size=2, delay_between_batches_s=3.0), 0)
    first, second = turns.begin(0)
    assert turns.ended(first, S) == []
    assert turns.ended(second, 2 * S) == []
    assert turns.next_ns == 5 * S
    assert [turn.due_ns for turn in turns.woken(5 * S)] == [5 * S, 5 * S]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"levels": ((0.0, 2), (1.0, 1)), "workers": 2, "duration_s": None, "num_requests": 10},
            "levels: the last one is 1",
        ),  # a share unsent
        ({"levels": ((1.0, 2),)}, "levels: takes rising times from 0 s on"),
        ({"levels": ((0.0, 2),), "max_concurrent": 3}, "max_concurrent: got 3, takes the largest of its levels"),
    ],
)
def test_levels_that_cannot_be_run_are_refused(settings, said):
    """When the plan is made, not when it hangs."""
    with pytest.raises(UsageError) as caught:
        plan(**settings)
    assert said in str(caught.value)
