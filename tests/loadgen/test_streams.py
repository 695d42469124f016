"""A command whose standard streams are closed, full or without a reader still measures, keeps its files and says how it went."""

import json
import os
import subprocess
import sys

import pytest

from loadgen.simulator.process import Simulator
from loadgen.simulator.settings import load_settings
from tests.loadgen.commands import DEADLINE_S, loadgen


@pytest.fixture(scope="module")
def served():
    """A simulated olmocr."""
    with Simulator(load_settings("olmocr", time_scale=0.01)) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def failing():
    """One that fails every second request."""
    with Simulator(load_settings("olmocr", time_scale=0.01, faults="unavailable-503=0.5")) as simulator:
        yield simulator


def words(command, server, results, *more):
    line = [command, "--model", "olmocr", "--base-url", server.base_url, "--results-dir", results, "--num-requests", "8"]
    return list(map(str, [*line, "--max-tokens", "4", "--num-warmups", "0", *more]))


def document(results):
    [run] = results.iterdir()
    return json.loads((run / "run.json").read_text())


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_costs_what_it_would_have_shown_and_nothing_else(served, tmp_path, closed):
    """Daemons and cron close what they do not want; uvloop aborts where its own socket becomes descriptor 0, 1 or 2."""
    line = [sys.executable, "-m", "loadgen", *words("bench", served, tmp_path)]
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *line], capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr
    level = document(tmp_path)["verdict"]["level"]
    assert level != "invalid"
    if ">&-" not in closed:
        assert done.stdout.startswith(f"{level.upper()}: ")


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_report_that_does_not_fit_is_one_line_that_says_how_to_get_it(served, tmp_path, more):
    """The run is kept: only the report is missing, and the exit status says so."""
    with open("/dev/full", "w") as full:
        line = [sys.executable, "-m", "loadgen", *words("bench", served, tmp_path, *more)]
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, timeout=DEADLINE_S)
    [run] = tmp_path.iterdir()
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        3,
        f"loadgen: the report cannot be written (No space left on device); `loadgen report {run}` makes it again",
    )
    assert loadgen("report", run).returncode == 0


def test_text_that_does_not_fit_is_one_line():
    """Of a command that measures nothing, too."""
    with open("/dev/full", "w") as full:
        line = [sys.executable, "-m", "loadgen", "models"]
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, timeout=DEADLINE_S)
    assert (done.returncode, done.stderr) == (3, "loadgen: No space left on device\n")


def unread(line):
    """Run a command whose output nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run(
            [sys.executable, "-m", "loadgen", *line], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=DEADLINE_S
        )
    finally:
        os.close(writer)


def test_a_reader_that_left_does_not_change_the_exit_status(failing, tmp_path):
    """`loadgen bench … | head`: a run that may not be believed is still one."""
    done = unread(words("bench", failing, tmp_path))
    assert (done.returncode, "Traceback" in done.stderr) == (3, False)


def test_a_reader_that_left_does_not_keep_the_setting_from_being_written(served, tmp_path):
    """`loadgen grid --write-config FILE | head`."""
    config = tmp_path / "config.yaml"
    line = words("grid", served, tmp_path / "results", "--concurrencies", "2", "--batch-sizes", "none", "--repeats", "1")
    done = unread([*line, "--write-config", str(config)])
    assert done.returncode == 0, done.stderr
    assert config.read_text() == "generation:\n  batch_size: null\n  max_concurrent: 2\n"
