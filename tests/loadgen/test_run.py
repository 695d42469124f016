"""Open loops, levels and early ends with real workers against real servers: what is sent, what is late, what is dropped, and that it adds up."""

import os
import signal
import threading
import time

import numpy as np
import pytest

from clients.errors import Outcome
from loadgen.dues import offsets_ns
from loadgen.plan import Plan
from loadgen.records import HELD_BACK
from loadgen.schedule import Schedule
from loadgen.simulator.process import Simulator
from loadgen.simulator.settings import SimulatorSettings
from tests.loadgen.fleets import Performance, open_loop

DEADLINE_S = 20.0
RATE_RPS, NUMBER, STALL_S = 100, 450, 2.0
# What scheduling on two shared cores may add to a latency; a stall that did not show at all would be off by four times as much.
NOISE_S = 0.5


@pytest.fixture
def metronome():
    """A server that answers at once."""
    with Simulator(SimulatorSettings(model_name="m", metronome=True, metronome_ttft_ms=0.0, metronome_itl_us=100)) as running:
        yield running


def perform(metronome, directory, plan, **more):
    return Performance(directory, metronome.base_url, plan, model="m", max_tokens=1, **more)


class Stall(threading.Thread):
    """Stops the server for a while once it has answered some requests. The stamps lie inside the stall: it was at least so long."""

    def __init__(self, metronome):
        super().__init__()
        self._metronome = metronome
        self.begin_ns = self.end_ns = 0

    def run(self):
        deadline = time.monotonic() + DEADLINE_S
        while self._metronome.stats()["requests_answered"] < RATE_RPS // 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(self._metronome.pid, signal.SIGSTOP)
        self.begin_ns = time.perf_counter_ns()
        time.sleep(STALL_S)
        self.end_ns = time.perf_counter_ns()
        os.kill(self._metronome.pid, signal.SIGCONT)


@pytest.mark.parametrize("bound", [1000, 3])
def test_latency_from_due_has_all_that_a_stall_of_the_server_costs(metronome, tmp_path, bound):
    """100 requests/s, and nothing is answered for S = 2 s: a request due t after the stall began waits S - t, so that of N requests
    those with more than x are (S - x) * rate, and p99 from due is S - N / 100 / rate; with a bound of 3 in flight as well, though then
    hardly a request is slow once it is sent. The wait of those held back is theirs.
    """
    stall = Stall(metronome)
    stall.start()
    plan = open_loop(Schedule.at_rate(RATE_RPS, process="constant"), num_requests=NUMBER, max_concurrent=bound)
    done = perform(metronome, tmp_path, plan)
    stall.join()
    summary = done.summary
    assert (summary.ok, summary.accounting.problems) == (NUMBER, [])
    stalled_s = (stall.end_ns - stall.begin_ns) / 1e9
    expected_s = stalled_s - NUMBER / 100 / RATE_RPS
    p99_s = summary.whole.latency.value(99)
    assert expected_s - 1 / RATE_RPS <= p99_s <= expected_s + NOISE_S
    due_ns = done.records.heads["due_ns"]
    in_stall = np.count_nonzero((due_ns > stall.begin_ns) & (due_ns < stall.end_ns))
    if bound == 3:
        assert summary.held_back.started_late >= in_stall - bound
        assert summary.held_back.wait.max > stalled_s - NOISE_S
        assert summary.whole.latency_from_sent.value(99) < expected_s / 2  # what a report that forgets queueing would show
    else:
        assert summary.held_back.started_late == 0


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_due_is_sent_once_by_one_worker(metronome, tmp_path, workers):
    """200 of a Poisson process: each index once, of the worker k mod P; each due exactly the timetable's; nobody early."""
    plan = open_loop(Schedule.at_rate(400.0, seed=3), num_requests=200, workers=workers)
    done = perform(metronome, tmp_path, plan)
    heads = done.records.heads
    assert sorted(heads["index"]) == list(range(200))
    assert (heads["index"] % workers == done.records.worker).all()
    [start_ns] = {file.counters["start_ns"] for file in done.records.files}
    assert (heads["due_ns"] == start_ns + offsets_ns(plan.schedule, count=200)[heads["index"]]).all()
    assert (heads["sent_ns"] >= heads["due_ns"]).all()
    assert done.summary.accounting.closes
    assert done.summary.whole.requests == 200


def test_what_is_held_back_when_time_and_grace_are_over_is_dropped_and_counted(tmp_path):
    """One in flight, each takes 0.2 s, 100 due in 1 s, 0.3 s of grace: a few are answered, the rest was dropped, and all are accounted for."""
    settings = SimulatorSettings(model_name="m", metronome=True, metronome_ttft_ms=200.0)
    with Simulator(settings) as slow:
        plan = open_loop(Schedule.at_rate(100.0, process="constant"), num_requests=None, duration_s=1.0, grace_s=0.3, max_concurrent=1)
        done = perform(slow, tmp_path, plan)
    summary = done.summary
    account = summary.accounting
    assert (account.scheduled, account.problems, account.residual) == (100, [], 0)
    assert account.dropped == summary.held_back.dropped > 50
    assert account.ok + account.cancelled + account.dropped == 100
    assert summary.held_back.started_late == account.ok + account.cancelled - 1  # all but the first
    dropped = done.records.heads[done.records.heads["outcome"] == Outcome.DROPPED]
    assert (dropped["flags"] & HELD_BACK).all()
    assert summary.failures["dropped"].fault == "ours"


def test_levels_set_how_many_are_in_flight(tmp_path):
    """2, then 6 in flight over 3 workers, each request longer than a level: the server's own peak is the largest level."""
    settings = SimulatorSettings(model_name="m", metronome=True, metronome_ttft_ms=100.0)
    with Simulator(settings) as server:
        levels = ((0.0, 2), (0.5, 6))
        plan = Plan(number=0, label="l", max_concurrent=6, workers=3, duration_s=1.0, levels=levels)
        done = perform(server, tmp_path, plan)
        assert server.stats()["requests_inflight_peak"] == 6
    heads = done.records.heads
    start_ns = int(heads["due_ns"].min())
    before = (heads["sent_ns"] - start_ns) < 0.5e9
    # At most two at a time before the level: the third to begin did so after the first had ended.
    begins, ends = np.sort(heads["sent_ns"][before]), np.sort(heads["end_ns"][before])
    assert (begins[2:] >= ends[: len(begins) - 2]).all()
    assert done.summary.accounting.closes
    assert done.summary.steady_absent == "the concurrency had levels"


def test_a_plan_that_is_precise_enough_ends_before_its_time(metronome, tmp_path):
    """An hour of load, and enough after the first beats: nothing more is sent, what was in flight has ended, the rest is unsent."""
    plan = open_loop(Schedule.at_rate(50.0, process="constant"), num_requests=180_000, workers=2)
    asked = []
    done = perform(metronome, tmp_path, plan, enough=lambda crew: asked.append(len(crew)) or True)
    account = done.summary.accounting
    assert asked == [2]
    assert account.closes
    assert account.ok == len(done.records.heads)
    assert account.unsent == 180_000 - account.ok - account.dropped
