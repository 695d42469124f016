"""What is left when a run does not come to its own end: by Ctrl-C, SIGTERM, a killed worker, a killed parent."""

import os
import random
import signal

import pytest

from loadgen.simulator.process import Simulator
from loadgen.simulator.settings import load_settings
from tests.loadgen.commands import Running, gone, until

# What the preflight asks before any load, and the simulator answers: one request of one token.
PROBES = 1


@pytest.fixture(scope="module")
def simulator():
    with Simulator(load_settings("olmocr", port=0, time_scale=0.1)) as running:
        yield running


@pytest.fixture
def running(simulator, tmp_path):
    simulator.reset()
    with Running(tmp_path / "results", simulator.base_url) as bench:
        yield bench


def terms(document):
    """The accounting of a document; it must close."""
    accounting = document["accounting"]
    parts = ("ok", "failed", "timed_out", "cancelled", "dropped", "unsent", "in_flight")
    assert accounting["scheduled"] == sum(accounting[part] for part in parts) == 100_000
    assert not accounting["problems"]
    return accounting


def test_ctrl_c_once_lets_requests_in_flight_finish(running, simulator):
    """Stop sending, finish, report, exit 130: nothing was cancelled, nothing is in flight, the rest is unsent."""
    workers = running.under_load(simulator)
    os.kill(running.process.pid, signal.SIGINT)
    status, out, _ = running.end()
    assert status == 130
    accounting = terms(running.report())
    assert accounting["cancelled"] == accounting["in_flight"] == 0
    assert accounting["ok"] >= 20
    assert str(accounting["ok"]) in out
    assert all(gone(pid) for pid in workers)


def test_ctrl_c_to_the_whole_group_is_no_different(running, simulator):
    """A terminal sends it to everyone; the workers leave it to the parent."""
    running.under_load(simulator)
    os.killpg(running.process.pid, signal.SIGINT)
    status, _, _ = running.end()
    assert status == 130
    assert terms(running.report())["cancelled"] == 0


def test_ctrl_c_twice_cancels_what_is_in_flight(tmp_path):
    """Answers that take minutes: the second signal cancels them, and they are counted as that."""
    with Simulator(load_settings("olmocr", port=0, time_scale=200.0)) as slow, Running(tmp_path / "results", slow.base_url) as running:
        until(lambda: slow.stats()["requests_inflight"] == 8, "load")
        workers = running.workers
        os.kill(running.process.pid, signal.SIGINT)
        running.said("Ctrl-C again cancels")  # two signals that wait to be taken are one
        os.kill(running.process.pid, signal.SIGINT)
        status, _, _ = running.end()
        assert status == 130
        accounting = terms(running.report())
        assert (accounting["cancelled"], accounting["ok"]) == (8, 0)
        assert all(gone(pid) for pid in workers)
        until(lambda: slow.stats()["requests_inflight"] == 0, "the server's end of the cancelled streams")


def test_ctrl_c_three_times_leaves_at_once(tmp_path):
    """Workers that do not even cancel, stopped as they are: they are killed, and the report is made of what they had written."""
    with Simulator(load_settings("olmocr", port=0, time_scale=200.0)) as slow, Running(tmp_path / "results", slow.base_url) as running:
        until(lambda: slow.stats()["requests_inflight"] == 8, "load")
        workers = running.workers
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        for answer in ("Ctrl-C again cancels", "Ctrl-C again leaves", ""):
            os.kill(running.process.pid, signal.SIGINT)
            if answer:
                running.said(answer)
        status, _, _ = running.end()
        assert status == 130
        accounting = terms(running.report())
        assert (accounting["in_flight"], accounting["ok"]) == (8, 0)
        assert all(gone(pid) for pid in workers)


def test_sigterm_is_the_first_ctrl_c_with_a_shorter_grace(running, simulator):
    """Exit 143, and a report."""
    running.under_load(simulator)
    os.kill(running.process.pid, signal.SIGTERM)
    status, _, _ = running.end()
    assert status == 143
    assert terms(running.report())["ok"] >= 20


def test_a_killed_parent_takes_its_workers_along_and_leaves_the_records(running, simulator):
    """SIGKILL of the parent: the workers end by themselves; a report can be made, and its identity closes."""
    workers = running.under_load(simulator)
    assert len(workers) == 2
    os.kill(running.process.pid, signal.SIGKILL)
    running.end()
    until(lambda: all(gone(pid) for pid in workers), "the workers' end")
    document = running.report()
    accounting = terms(document)
    assert accounting["ok"] >= 20
    assert document["ended"] is None
    assert "workers-lost" in [reason["name"] for reason in document["verdict"]["reasons"]]


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=[] if seed < 2 else pytest.mark.accept) for seed in range(20)])
def test_a_killed_worker_makes_the_run_invalid_and_loses_nothing_that_ended(running, simulator, seed):
    """SIGKILL of one worker at a random moment: the other one goes on; exit 130 by a later Ctrl-C, verdict invalid, identity closed."""
    draw = random.Random(seed)
    workers = running.under_load(simulator, answered=draw.randint(5, 300))
    killed = draw.choice(workers)
    os.kill(killed, signal.SIGKILL)
    at_the_kill = simulator.stats()["requests_answered"]
    until(lambda: simulator.stats()["requests_answered"] > at_the_kill + 20, "the other worker's going on")
    os.kill(running.process.pid, signal.SIGINT)
    status, _, err = running.end()
    assert status == 130
    assert "was lost: killed by SIGKILL" in err
    document = running.report()
    accounting = terms(document)
    reasons = {reason["name"]: reason["level"] for reason in document["verdict"]["reasons"]}
    assert reasons["workers-lost"] == "invalid"
    # What the server answered in full is recorded, but for what the killed worker had not read yet, in 4 slots at most.
    answered = simulator.stats()["requests_answered"] - PROBES
    assert answered - 4 <= accounting["ok"] <= answered
