"""Whose doing it is that a request went out late: the client's, or that no slot was free."""

import numpy as np
import pytest
from written import EVENLY, exchange, summarise

from clients.errors import Outcome
from loadgen.lateness import ready_ns


def test_with_a_free_slot_a_request_is_ready_when_it_is_due():
    """Three slots, two in flight."""
    due, sent = np.array([10, 20, 30]), np.array([11, 29, 30])
    assert ready_ns(due, sent, sent + 15, 3).tolist() == [10, 20, 30]


def test_without_one_it_is_ready_when_the_first_of_those_before_it_ends():
    """One slot: each waits for the one before; two slots: the third for the earlier end of the two."""
    due = np.array([10, 20, 30])
    assert ready_ns(due, np.array([10, 60, 115]), np.array([60, 110, 165]), 1).tolist() == [10, 60, 110]
    assert ready_ns(due, np.array([10, 20, 55]), np.array([90, 50, 99]), 2).tolist() == [10, 20, 50]


@pytest.mark.parametrize("slots", [1, 3, 10])
def test_who_has_a_slot_agrees_with_a_step_by_step_account(slots):
    """200 random arrivals with random service, served in order: computed one after the other with a list of free slots."""
    generator = np.random.default_rng(slots)
    due = np.cumsum(generator.integers(1, 20, 200))
    free = [0] * slots
    ready, sent, end = [], [], []
    for moment in due.tolist():
        free.sort()
        ready.append(max(moment, free[0]))
        sent.append(ready[-1] + int(generator.integers(0, 5)))
        sent[-1] = max(sent[-1], *sent[-2:-1], 0)  # in order
        end.append(sent[-1] + int(generator.integers(1, 60)))
        free[0] = end[-1]
    shuffled = generator.permutation(200)  # as files have them: by end
    found = ready_ns(*(np.array(each)[shuffled] for each in (due, sent, end)), slots)
    assert found.tolist() == np.array(ready)[shuffled].tolist()


def loop(directory, rows, **facts):
    facts = {"max_concurrent": 100, "schedule": EVENLY, "duration_s": 10.0, **facts}
    return summarise(directory, list(enumerate(rows)), **facts).lateness


def test_lag_of_a_client_that_is_late_is_its_own(tmp_path):
    """Every tenth request 5 ms late with slots to spare, one of them by 150 ms: that one is missing from the load."""
    rows = [exchange(10 * k, 10 * k + 300, sent=10 * k + (5 if k % 10 == 0 else 0) + (145 if k == 500 else 0)) for k in range(1_000)]
    found = loop(tmp_path, rows)
    assert (found.requests, found.missed) == (1_000, 1)
    assert (found.p50_s, found.p99_s, found.largest_s) == (0, pytest.approx(0.005), pytest.approx(0.15))
    assert found.offered_rps == pytest.approx(100)


def test_lag_of_requests_that_were_held_back_is_none_of_its_own(tmp_path):
    """One slot, a server that takes 20 ms, a request every 10 ms: the last of them goes out 5 s late, and the client never was."""
    rows = [exchange(10 * k, 20 * k + 20, sent=20 * k) for k in range(500)]
    found = loop(tmp_path, rows, max_concurrent=1)
    assert (found.missed, found.largest_s) == (0, 0)


@pytest.mark.parametrize(("bound", "missed"), [(1, 0), (100, 3)])
def test_what_was_never_sent_is_missed_only_where_a_slot_was_free(tmp_path, bound, missed):
    """Dropped at the end of the run: because one long request had the only slot, or with 99 free ones."""
    dropped = [exchange(10 * k, 900, sent_ns=0, outcome=Outcome.DROPPED) for k in range(1, 4)]
    assert loop(tmp_path, [exchange(0, 1_000), *dropped], max_concurrent=bound).missed == missed


def test_in_a_closed_loop_a_due_is_a_slot_that_came_free(tmp_path):
    """Lag is sent minus due, and nothing is offered."""
    rows = [exchange(20 * k, 20 * k + 20, sent=20 * k + 3) for k in range(200)]
    found = loop(tmp_path, rows, max_concurrent=1, schedule=None, duration_s=None)
    assert found.p50_s == pytest.approx(0.003)
    assert (found.offered_rps, found.missed) == (None, None)


def test_slots_are_those_of_each_worker(tmp_path):
    """Two workers with one slot each: what one of them holds back is not sent by the other."""
    rows = [exchange(0, 500), exchange(0, 10), exchange(20, 600, sent=500), exchange(20, 30)]
    found = loop(tmp_path, rows, max_concurrent=2, parts=2)
    assert found.largest_s == 0
