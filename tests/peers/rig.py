"""The rig that the measurements here share: the C server on one core, clients on another, CPU counted.

Knows processes, cores and how the server is asked; knows no client, and judges nothing.
Law: client and server never share a core; CPU is user + system of a command and of all its waited-for children, as the kernel has it
at their end; a server serves one measurement and is gone after it.
"""

import http.client
import json
import os
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from loadgen.testbed import Neighbours

HERE = Path(__file__).resolve().parent
WORK = Path(os.environ.get("LOADGEN_PEERS", Path(tempfile.gettempdir()) / "loadgen-peers"))
LOADGEN = Path(sys.executable).with_name("loadgen")
CLIENT_CORE, SERVER_CORE = 0, 1
_START_S = 5


class Cost(NamedTuple):
    """What a command used until its end. cpu_s: of all its processes, system_s of it in the kernel; rss_mb: of the largest of them."""

    cpu_s: float
    status: int
    rss_mb: int
    system_s: float


class Server:
    """The C server on its core, from `with` to its end, its counters at zero. options: of `server.c`.

    others: known at its end: of all cores' time meanwhile, the share that this script and its children did not take.
    """

    def __init__(self, options):
        self._options = shlex.split(options)

    def __enter__(self):
        self._neighbours = Neighbours()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        words = ["taskset", "-c", str(SERVER_CORE), server_binary(), "--port", str(self.port), "--die-with-parent", *self._options]
        self._process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        try:
            self._wait()
            self.ask("/reset")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait()
        self.others = self._neighbours.share() or 0.0

    def ask(self, path):
        """The JSON object at a path of the server: `/stats` above all."""
        return json.loads(self._get(path))

    def arrivals_ns(self):
        """When the server had read each request, in that order, on the clock of `time.perf_counter_ns`."""
        return memoryview(self._get("/arrivals")).cast("Q").tolist()

    def _get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()

    def _wait(self):
        deadline = time.monotonic() + _START_S
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)

    def _answers(self):
        try:
            return self.ask("/health") == {}
        except OSError:
            return False


def server_binary():
    """Compiled when it is missing or older than its source. Another measurement may be running the one before: it keeps its own."""
    WORK.mkdir(parents=True, exist_ok=True)
    binary, source = WORK / "server", HERE / "server.c"
    if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
        built = WORK / f"server-{os.getpid()}"
        subprocess.run(["gcc", "-O2", "-o", built, source, "-lm"], check=True)
        built.replace(binary)
    return binary


def start(words, out, log):
    """A command on the clients' core. out, log: files that take what it prints."""
    return subprocess.Popen(["taskset", "-c", str(CLIENT_CORE), *words], stdout=out, stderr=log, stdin=subprocess.DEVNULL)


def cost(process):
    """Wait for a command that `start` began; returns its Cost."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Cost(usage.ru_utime + usage.ru_stime, process.returncode, usage.ru_maxrss // 1024, usage.ru_stime)


def run(words, log):
    """One command on the clients' core from start to end; returns its Cost."""
    return cost(start(words, log, log))


def spread(values):
    """Median [smallest .. largest]."""
    return f"{statistics.median(values):8.2f} [{min(values):.2f} .. {max(values):.2f}]"


def within(name, found, limit, unit, note=""):
    """Say whether what was found is within its bound, and by what; returns whether it is."""
    met = found <= limit
    figure = f"{found:,.2f}" if isinstance(found, float) else f"{found:,}"
    print(f"{'met    ' if met else 'NOT MET'}  {name}: {figure} {unit}, at most {limit:,g} {note}".rstrip())
    return met
