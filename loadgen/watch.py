"""The server's gauges while a plan runs: one read each second, from a thread of the parent, a line in a file for each.

Knows a thread and the file's lines; must not know what the plan does, and is on no request's path. Law: parsing costs the parent at most a
fiftieth of a core, whatever the page weighs; it never raises and never holds the end of a plan for longer than one read takes.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

import msgspec

from loadgen.scrape import scrape

if TYPE_CHECKING:
    from pathlib import Path

    from clients.endpoint import Endpoint
    from loadgen.scrape import Read

FILE_NAME = "server-series.jsonl"
PERIOD_S = 1.0
# 50 kB of vLLM's lines take 1 ms to parse here: read each second. 8 MiB take 0.15 s: read once in 8 s.
_CPU_SHARE = 0.02


class Moment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One read during a plan: the gauges at some instant between `began_ns` and `ended_ns` (the clock of the records).

    preemptions: since the server's start. absent: why there is nothing, "" when there is.
    """

    began_ns: int
    ended_ns: int
    running: int | None = None
    waiting: int | None = None
    kv_usage: float | None = None
    preemptions: int | None = None
    absent: str = ""

    @classmethod
    def of(cls, read: Read) -> Moment:
        counters = read.counters
        if counters is None:
            return cls(began_ns=read.began_ns, ended_ns=read.ended_ns, absent=read.absent)
        return cls(
            began_ns=read.began_ns,
            ended_ns=read.ended_ns,
            running=counters.running,
            waiting=counters.waiting,
            kv_usage=counters.kv_usage,
            preemptions=counters.preemptions,
        )


class Watch:
    """Reads while it is entered. path: the file, made anew. A disk that refuses ends the watch, not the plan."""

    def __init__(self, endpoint: Endpoint, path: Path, *, period_s: float = PERIOD_S) -> None:
        self._endpoint = endpoint
        self._path = path
        self._period_s = period_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()  # a read ends within its own limit

    def _run(self) -> None:
        try:
            with self._path.open("wb") as file:
                pause_s = self._period_s
                while not self._over.wait(pause_s):
                    before_s, cpu_s = time.monotonic(), time.thread_time()
                    moment = Moment.of(scrape(self._endpoint))
                    if self._over.is_set():
                        return  # the plan ended meanwhile: this is none of its moments
                    file.write(msgspec.json.encode(moment) + b"\n")
                    file.flush()
                    cpu_s = time.thread_time() - cpu_s
                    pause_s = max(self._period_s - (time.monotonic() - before_s), cpu_s / _CPU_SHARE, 0.0)
        except OSError:  # the disk is full, or the directory was removed: whoever writes records says so
            return


def read_moments(path: Path) -> list[Moment]:
    """The lines of a watch; [] when there was none. A line that a killed run left half is left out."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return []
    moments = []
    for line in lines[:-1]:
        try:
            moments.append(msgspec.json.decode(line, type=Moment))
        except msgspec.DecodeError:
            continue
    return moments
