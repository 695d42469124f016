"""The measuring window: which requests are in it, by due; what lead and tail leave out; where a run that ended early ends."""

import numpy as np
import pytest
from written import EVENLY, at, exchange, summarise

from clients.errors import Outcome
from loadgen.plan_facts import PlanFacts
from loadgen.stretch import Stretch, window

S = 1_000_000_000


def facts(**settings):
    return PlanFacts(label="x", max_concurrent=100, workers=1, **settings)


# Dues and ends in seconds, the plan, and the window that follows.
WINDOWS = [
    ((1, 4), (3, 9), {"count": 2}, (0, 9)),  # a fixed number: from the start instant to the last end
    ((1, 4), (3, 9), {"count": 2, "lead_s": 2.0}, (2, 9)),  # by due, not by what ended
    ((1, 4), (3, 9), {"count": 2, "tail_s": 1.0}, (0, 3)),  # a tail is of what was due, not of the drain
    ((0, 4), (3, 9), {"duration_s": 5.0}, (0, 5)),  # a closed loop by duration, and its drain
    ((0, 2), (1, 3), {"duration_s": 5.0}, (0, 3)),  # … that ended early: to its last end
    ((1, 2), (2, 3), {"duration_s": 5.0, "schedule": EVENLY, "count": 2}, (0, 5)),  # that nothing was due after 2 s is its schedule
    (
        (1, 2),
        (2, 3),
        {"duration_s": 5.0, "schedule": EVENLY, "count": 9},
        (0, 2),
    ),  # … that ended early: after the last due nothing was sent
    ((1, 4), (2, 5), {"duration_s": 5.0, "schedule": EVENLY, "count": 2, "lead_s": 1.0, "tail_s": 2.0}, (1, 3)),
    ((1, 4), (2, 5), {"count": 2, "schedule": EVENLY, "lead_s": 9.0}, (9, 9)),  # nothing is left, and that is no negative time
]


@pytest.mark.parametrize(("dues", "ends", "settings", "expected"), WINDOWS)
def test_the_window_of_each_kind_of_run(dues, ends, settings, expected):
    """Times count from the start instant, before which nothing is due."""
    origin = 7 * S
    found = window(np.array(dues) * S + origin, np.array(ends) * S + origin, origin, facts(**settings))
    assert found == Stretch(*(origin + edge * S for edge in expected))


def test_without_a_start_instant_the_first_due_stands_for_it():
    """Records of before it was kept."""
    assert window(np.array([3, 4]) * S, np.array([5, 6]) * S, 0, facts(count=2)) == Stretch(3 * S, 6 * S)


def test_a_lead_leaves_out_what_was_due_in_it_and_not_what_ended_in_it(tmp_path):
    """Ten requests, one each 100 ms, each 250 ms long: of a lead of 300 ms three are left out, and all are accounted for."""
    rows = [(k, exchange(100 * k, 100 * k + 250)) for k in range(10)]
    summary = summarise(tmp_path, rows, max_concurrent=100, schedule=EVENLY, lead_s=0.3)
    assert (summary.whole.requests, summary.whole.ok, summary.accounting.ok) == (7, 7, 10)
    assert summary.whole.start_s == pytest.approx(0.3)


def test_what_was_held_back_is_counted(tmp_path):
    """One started late after 50 ms, one was dropped; neither is lost from the account."""
    rows = [
        (0, exchange(0, 60)),
        (1, exchange(10, 90, sent=60), {"held_back": True}),
        (2, exchange(20, 100, sent=None, outcome=Outcome.DROPPED), {"held_back": True}),
    ]
    rows[2][1].sent_ns = 0
    summary = summarise(tmp_path, rows, max_concurrent=1, schedule=EVENLY)
    assert (summary.held_back.started_late, summary.held_back.dropped) == (1, 1)
    assert summary.held_back.wait.max == pytest.approx((at(60) - at(10)) / 1e9)
    assert (summary.accounting.dropped, summary.accounting.closes) == (1, True)
