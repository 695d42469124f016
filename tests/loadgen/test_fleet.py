"""Real workers against the simulator: shares that add up, a common start, what is left when something dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clients.transports import TRANSPORTS
from loadgen.fleet import FleetError
from loadgen.simulator.process import Simulator
from loadgen.simulator.settings import load_settings
from tests.loadgen.fleets import Performance, closed_loop

# Steps of 1 ms and less: a request of 8 tokens takes about 10 ms.
TIME_SCALE = 0.1
DEADLINE_S = 20.0


@pytest.fixture(scope="module")
def simulator():
    with Simulator(load_settings("olmocr", port=0, time_scale=TIME_SCALE)) as running:
        yield running


def state(pid):
    """The kernel's letter for a process: R, S, T (stopped), Z (ended, not waited for); none when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return ""


def until(condition):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("concurrency", "workers", "batch"),
    [
        (1, 1, None),
        (5, 2, None),  # 3 + 2 slots
        (7, 3, None),
        (50, 2, 20),  # 3 lanes of 17, 17, 16 slots
        (50, 3, 32),  # 2 lanes: the third worker is not started
        (16, 2, 10),  # 2 lanes of 8
        (4, 2, 3),  # 2 lanes of 2
    ],
)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_servers_own_peak_in_flight_is_the_target_and_never_more(simulator, tmp_path, transport, concurrency, workers, batch):
    """Slots over workers, and lanes over workers, add up to the target concurrency as the server counted it."""
    simulator.reset()
    plan = closed_loop(max_concurrent=concurrency, workers=workers, batch_size=batch, num_requests=4 * concurrency + 3)
    # Few streams last long enough that all are there at once, on a busy machine too; many queue for the server's 4 seats anyway.
    done = Performance(tmp_path, simulator.base_url, plan, max_tokens=32 if concurrency > 10 else 256, transport=transport)
    stats = simulator.stats()
    assert stats["requests_inflight_peak"] == concurrency
    assert stats["requests_answered"] == plan.num_requests == done.summary.ok
    assert done.summary.accounting.closes


def test_two_plans_after_each_other_never_overlap(simulator, tmp_path):
    """At a change of cell the old workers have ended: the server never holds more than the larger target."""
    simulator.reset()
    for number, concurrency in enumerate((6, 3, 6), 1):
        Performance(tmp_path / str(number), simulator.base_url, closed_loop(number, max_concurrent=concurrency, num_requests=30))
    assert simulator.stats()["requests_inflight_peak"] == 6


def test_no_worker_sends_before_the_common_start(simulator, tmp_path):
    """Every first turn is due at the start instant, to the nanosecond, whichever worker has it."""
    done = Performance(tmp_path, simulator.base_url, closed_loop(max_concurrent=6, workers=3))
    heads = done.records.heads
    assert sorted(heads["due_ns"])[:6] == [done.fleet.started_ns] * 6
    assert (heads["sent_ns"] >= heads["due_ns"]).all()


def test_a_run_by_duration_ends_by_itself_and_its_identity_closes(simulator, tmp_path):
    """Half a second of load: what was in flight at the end is followed to its end."""
    done = Performance(tmp_path, simulator.base_url, closed_loop(num_requests=None, duration_s=0.5))
    summary = done.summary
    assert [one.state for one in done.crew] == ["done", "done"]
    assert summary.accounting.closes
    assert summary.ok == summary.accounting.scheduled > 4


def test_a_grace_that_runs_out_cancels_what_is_left(tmp_path):
    """A server that never finishes cannot hold a run: after duration and grace the rest is cancelled, and counted so."""
    with Simulator(load_settings("olmocr", port=0, time_scale=1000.0)) as slow:
        done = Performance(tmp_path, slow.base_url, closed_loop(num_requests=None, duration_s=0.1, grace_s=0.2))
        accounting = done.summary.accounting
        assert (accounting.cancelled, accounting.scheduled) == (4, 4)
        assert accounting.closes


def test_a_killed_worker_costs_its_share_alone(simulator, tmp_path):
    """SIGKILL to one of two: it is named, the other one finishes, its own records stay, the identity closes."""
    killed = []

    def kill_one(crew):
        if not killed:
            killed.append(crew[0].process.pid)
            os.kill(crew[0].process.pid, signal.SIGKILL)

    plan = closed_loop(num_requests=300)
    done = Performance(tmp_path, simulator.base_url, plan, beaten=kill_one, max_tokens=64)
    assert [(one.state, one.end) for one in done.crew] == [("lost", "killed by SIGKILL"), ("done", "")]
    accounting = done.summary.accounting
    assert accounting.closes
    assert accounting.scheduled == 300
    assert accounting.unsent > 0
    assert [worker.state for worker in done.summary.workers] == ["lost", "ended"]
    assert done.summary.workers[0].accounting.ok > 0


def test_a_worker_that_cannot_start_is_named_before_anything_is_sent(simulator, tmp_path):
    """Its record file exists already: the fleet says which worker and why, and leaves no process."""
    simulator.reset()
    (tmp_path / "worker-1.records").write_bytes(b"")
    with pytest.raises(FleetError, match=r"worker 1 could not start: FileExistsError"):
        Performance(tmp_path, simulator.base_url, closed_loop())
    assert simulator.stats()["requests_total"] == 0


def test_no_process_of_a_fleet_is_left(simulator, tmp_path):
    """`run` returns when every worker is gone."""
    done = Performance(tmp_path, simulator.base_url, closed_loop())
    assert [state(one.process.pid) for one in done.crew] == ["", ""]


def test_a_worker_that_is_silent_is_spoken_of(simulator, tmp_path, monkeypatch):
    """SIGSTOP: the view says that a worker is silent, once, while the run goes on."""
    monkeypatch.setattr("loadgen.fleet.QUIET_S", 1.5)  # beats come each second
    notes, stopped = [], []

    def stop_one(crew):
        if not stopped:
            stopped.append(crew[0].process.pid)
            os.kill(stopped[0], signal.SIGSTOP)

    def note(text):
        notes.append(text)
        if stopped:  # else the machine itself held a worker up for so long
            os.kill(stopped[0], signal.SIGCONT)

    done = Performance(tmp_path, simulator.base_url, closed_loop(num_requests=300), beaten=stop_one, noted=note, max_tokens=64)
    assert any(note.startswith(f"worker {done.crew[0].number} has said nothing for ") for note in notes)
    assert len(notes) == len(set(notes))
    assert done.summary.ok == 300


def test_a_traceback_of_a_worker_does_not_show_the_key(simulator, tmp_path):
    """Its stderr is the run's log."""
    code = "import loadgen.worker as w, sys; sys.stderr = w._Masked('sk-very-secret'); raise ValueError('with sk-very-secret in it')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ValueError: with *** in it" in done.stderr
    assert "sk-very-secret" not in done.stderr.replace(code, "")


def test_a_stopped_worker_is_continued_and_nothing_is_lost(simulator, tmp_path):
    """SIGSTOP for a moment, then SIGCONT: late, and all there."""
    seen = []

    def stop_one(crew):
        if not seen:
            pid = crew[0].process.pid
            seen.append(pid)
            os.kill(pid, signal.SIGSTOP)
            until(lambda: state(pid) == "T")
            os.kill(pid, signal.SIGCONT)

    done = Performance(tmp_path, simulator.base_url, closed_loop(num_requests=300), beaten=stop_one, max_tokens=64)
    assert seen
    assert done.summary.ok == 300
