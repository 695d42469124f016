"""Real runs whose fault is known: a slow generator is called that, a slow server is not."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from loadgen.schedule import Schedule
from loadgen.simulator.process import Simulator
from loadgen.simulator.settings import load_settings
from loadgen.verdict import judge
from tests.loadgen.fleets import Performance, open_loop

BLAMES_THE_CLIENT = {"client-limited", "rate-not-achieved"}
RATE_RPS = 100
STOLEN_S = 2.0
BURNER = f"import time\nend = time.perf_counter() + {STOLEN_S}\nwhile time.perf_counter() < end: pass"
TRIES = 4


@pytest.fixture(scope="module")
def simulator():
    """Steps of a millisecond: it answers as fast as it is asked."""
    with Simulator(load_settings("olmocr", port=0, time_scale=0.1)) as running:
        yield running


def constant(seconds, **settings):
    return open_loop(Schedule.at_rate(RATE_RPS, process="constant"), num_requests=None, duration_s=seconds, **settings)


def reasons(done):
    return {reason.name: reason for reason in judge(done.summary).reasons}


class Once:
    """Does something to the first worker at its first beat, when load has begun."""

    def __init__(self, act):
        self.act, self.done = act, False

    def __call__(self, crew):
        if not self.done:
            self.done = True
            self.act(crew[0].process.pid)


def stop_for_a_second(pid):
    stopped = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    try:
        while time.monotonic() < stopped + 1:
            time.sleep(0.05)
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_worker_that_was_stopped_for_a_second_did_not_keep_its_rate(simulator, tmp_path):
    """SIGSTOP under constant load: what fell due meanwhile went out late, all at once, though nothing held it back."""
    done = Performance(tmp_path, simulator.base_url, constant(4.0), max_tokens=2, beaten=Once(stop_for_a_second))
    found = reasons(done)
    assert found.keys() & BLAMES_THE_CLIENT
    assert found["rate-not-achieved"].level == "invalid"
    # Of the second, 0.9 s is later than a tenth of one; a few of that are lost to the way to the signal and back.
    assert done.summary.lateness.missed >= 0.8 * RATE_RPS
    assert done.summary.lateness.largest_s >= 0.9


def test_a_worker_whose_core_is_taken_is_the_limit(simulator, tmp_path):
    """Busy processes on its core, which the kernel prefers to it: its own CPU is low, and yet it is late."""
    with contextlib.ExitStack() as burners:

        def take_the_core(pid):
            core = min(os.sched_getaffinity(pid))
            os.sched_setaffinity(pid, {core})
            os.setpriority(os.PRIO_PROCESS, pid, 19)
            for _ in range(4):
                burner = burners.enter_context(subprocess.Popen([sys.executable, "-c", BURNER]))
                os.sched_setaffinity(burner.pid, {core})

        done = Performance(tmp_path, simulator.base_url, constant(4.0), max_tokens=2, beaten=Once(take_the_core))
    assert reasons(done).keys() & BLAMES_THE_CLIENT, done.summary.lateness


@pytest.mark.parametrize("bound", [8, 1000], ids=["held back by the bound", "all in flight"])
def test_a_slow_server_is_not_called_a_slow_generator(simulator, tmp_path, bound):
    """A server that can do a fifth of what falls due: requests wait for its seats or, with a bound, here for a slot; both is its doing.

    Neighbours that keep the worker off its core make a slow generator of it, and then it is rightly called one: a control says so, the same load
    on a server that is not slow. What is blamed twice beside a control that is not fails; where every try is disturbed there is nothing to see.
    """
    blamed_alone = 0
    with Simulator(load_settings("olmocr", port=0, time_scale=2.0)) as slow:
        for attempt in range(TRIES):
            slow.reset()
            done = Performance(tmp_path / str(attempt), slow.base_url, constant(3.0, max_concurrent=bound, grace_s=0.1), max_tokens=8)
            if not (found := reasons(done)).keys() & BLAMES_THE_CLIENT:
                break
            control = Performance(tmp_path / f"{attempt}-control", simulator.base_url, constant(3.0), max_tokens=8)
            blamed_alone += not reasons(control).keys() & BLAMES_THE_CLIENT
            assert blamed_alone < 2, (found, done.summary.lateness, control.summary.lateness)
        else:
            pytest.skip(f"{TRIES} times the machine kept the worker off its core")
    summary = done.summary
    assert summary.accounting.closes
    if bound == 8:
        assert summary.held_back.started_late + summary.held_back.dropped > summary.requests / 2
        assert summary.held_back.dropped
