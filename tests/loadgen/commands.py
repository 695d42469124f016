"""The command as a user runs it: in a process of its own, against a server that is there already."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

DEADLINE_S = 40.0


def loadgen(*words, **options):
    """Run a command to its end; the completed process with its text."""
    return subprocess.run(
        [sys.executable, "-m", "loadgen", *map(str, words)], capture_output=True, text=True, **{"timeout": DEADLINE_S, **options}
    )


def until(condition, what="it"):
    deadline = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come about in time"
        time.sleep(0.005)
    return value


def children(pid):
    """The processes that a process started and that are still there."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in task.read_text().split()]
    return found


def gone(pid):
    """No such process, or one that ended and only waits to be noticed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


class Running:
    """A `bench` under way against `base_url`, long enough to be interrupted."""

    def __init__(self, results: Path, base_url: str, *more):
        words = [
            "bench",
            "--model-type",
            "llm",
            "--base-url",
            base_url,
            "--model-name",
            "olmocr",
            "--max-concurrent",
            "8",
            "--processes",
            "2",
        ]
        words += ["--num-requests", "100000", "--max-tokens", "32", "--input-len", "4", "--num-warmups", "0", "--results-dir", str(results)]
        self.results = results
        self.process = subprocess.Popen(
            [sys.executable, "-m", "loadgen", *words, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    @property
    def workers(self):
        return [
            pid for pid in children(self.process.pid) if "loadgen.worker" in Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        ]

    def under_load(self, simulator, answered=20):
        """Wait until the server has answered so many; returns the workers."""
        until(lambda: simulator.stats()["requests_answered"] >= answered or self.process.poll() is not None, "load")
        assert self.process.poll() is None, self.process.communicate()
        return self.workers

    def said(self, text):
        """Wait until it says this on stderr."""
        while text not in (line := self.process.stderr.readline()):
            assert line, f"it ended without saying {text!r}"

    def end(self):
        """Wait for the end: (exit status, stdout, stderr)."""
        out, err = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, out, err

    def report(self):
        """The document that `loadgen report` makes of the files that are there."""
        [run] = self.results.iterdir()
        done = loadgen("report", run, "--json")
        assert done.returncode in (0, 3), done.stderr
        return json.loads(done.stdout)
