"""The simulator as a process: it starts or says why not, and never stays behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import msgspec
import pytest
from plain_wire import Wire

from loadgen.simulator.process import Simulator, SimulatorError
from loadgen.simulator.settings import load_settings


def start_bare(**overrides):
    """The process without its helper: settings on stdin, the ready line back."""
    process = subprocess.Popen(
        [sys.executable, "-m", "loadgen.simulator"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdin.write(msgspec.json.encode(load_settings(**overrides)) + b"\n")
    process.stdin.flush()
    return process, json.loads(process.stdout.readline())


def test_it_ends_when_its_parent_closes_the_pipe_and_leaves_its_statistics():
    """The end of stdin is the end of the parent; the last line on stderr is JSON."""
    process, ready = start_bare()
    assert ready["ready"] is True
    assert ready["pid"] == process.pid
    _, stderr = process.communicate(timeout=5)
    assert process.returncode == 0
    assert json.loads(stderr)["timing"] == "uncalibrated"


def test_it_ends_on_sigterm_and_leaves_ctrl_c_to_its_parent():
    """SIGINT reaches the whole terminal group; the parent still needs the server to drain."""
    process, ready = start_bare()
    process.send_signal(signal.SIGINT)
    with Wire(ready["port"]) as wire:
        assert wire.ask("GET", "/health")[0] == 200
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=5)
    process.communicate()
    assert process.returncode == 0


def test_a_taken_port_is_one_clear_line():
    """No traceback: the error that the system gave, and exit status 2."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SimulatorError, match=f"simulator: .*{port}.*in use") as caught:
            Simulator(load_settings(port=port)).start()
    assert "\n" not in str(caught.value)


def test_a_truth_file_that_cannot_be_written_is_one_clear_line(tmp_path):
    """Before anything listens."""
    with pytest.raises(SimulatorError, match="No such file or directory: '.*missing/truth.bin'"):
        Simulator(load_settings(truth=str(tmp_path / "missing" / "truth.bin"))).start()


def test_the_helper_ignores_proxies_and_leaves_no_process(monkeypatch):
    """http_proxy points nowhere; after the block the process is gone, and its statistics are kept."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with Simulator(load_settings()) as simulator:
        pid = simulator.pid
        assert simulator.stats()["requests_total"] == 0
        assert "not started" not in repr(simulator)
    assert simulator.final_stats["requests_total"] == 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_simulator_whose_parent_is_killed_ends():
    """SIGKILL gives the parent no chance to say so: the pipe does."""
    script = (
        "from loadgen.simulator.process import Simulator; from loadgen.simulator.settings import load_settings; import time\n"
        "s = Simulator(load_settings()).start(); print(s.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 5
    while os.path.exists(f"/proc/{pid}") and open_state(pid) not in ("Z", ""):
        assert time.monotonic() < deadline, "the simulator outlived its parent"
        time.sleep(0.01)


def open_state(pid):
    """The process's state letter; Z is a zombie that nobody has reaped, "" is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def test_the_server_imports_neither_numpy_nor_pillow_nor_aiohttp():
    """Its start is part of every --simulate."""
    script = "import sys, loadgen.simulator.__main__; print([m for m in ('numpy', 'PIL', 'aiohttp', 'rich', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_signal_to_the_group_of_its_parent_does_not_reach_it():
    """`timeout` and batch systems send SIGTERM to the whole group: the parent lets its requests finish, and needs the server for that."""
    with Simulator(load_settings()) as simulator:
        assert os.getpgid(simulator.pid) != os.getpgid(0)


def test_one_that_is_gone_is_one_clear_line():
    """Asked after its death: SimulatorError, not the socket's error."""
    with Simulator(load_settings()) as simulator:
        os.kill(simulator.pid, signal.SIGKILL)
        with pytest.raises(SimulatorError, match="simulator: does not answer"):
            while True:  # until its socket is gone
                simulator.stats()
