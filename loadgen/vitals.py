"""How a worker itself fares: loop lag, CPU, steal, descriptors, memory, pauses of the garbage collector.

Knows /proc and the gc module; knows nothing of requests. Where a figure cannot be had (no /proc), it is 0 or -1 and the report
says nothing of it. Invariant: sampling costs the same whatever the load.
"""

from __future__ import annotations

import gc
import os
import resource
from time import perf_counter_ns
from typing import TYPE_CHECKING

from loadgen.histogram import Histogram

if TYPE_CHECKING:
    import asyncio

# Often enough to see a stall of a few milliseconds, rarely enough to cost nothing (50 timers a second).
_LAG_EVERY_S = 0.02
_MEMORY = (b"RssAnon:", b"RssShmem:", b"RssFile:")


class LoopLag:
    """Lateness of a timer that should fire every 20 ms: what every other callback of the loop suffers too."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.late_us = Histogram()
        self._loop = loop
        self._due_ns = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._due_ns = perf_counter_ns() + round(_LAG_EVERY_S * 1e9)
        self._timer = self._loop.call_later(_LAG_EVERY_S, self._fired)

    def stop(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()

    def take(self) -> Histogram:
        """What was seen since the last call."""
        seen, self.late_us = self.late_us, Histogram()
        return seen

    def _fired(self) -> None:
        self.late_us.add(max(0, (perf_counter_ns() - self._due_ns) // 1000))
        self.start()


class Collector:
    """The garbage collector under control: frozen after the start, run when idle or every N requests, its pauses kept."""

    # About a generation-2 threshold's worth of requests: rare enough that a pause is noise, often enough for bounded memory.
    EVERY_REQUESTS = 20_000

    def __init__(self) -> None:
        self.pause_ns = 0
        self.longest_ns = 0
        self._collected_at = 0

    def freeze(self) -> None:
        """What exists now stays for ever; nothing is collected until we say so."""
        gc.collect()
        gc.freeze()
        gc.disable()

    def maybe(self, sent: int, *, idle: bool) -> None:
        """Collect if the loop has nothing in flight, or enough was sent since the last time."""
        if sent - self._collected_at >= self.EVERY_REQUESTS or (idle and sent != self._collected_at):
            begun = perf_counter_ns()
            gc.collect()
            pause = perf_counter_ns() - begun
            self.pause_ns += pause
            self.longest_ns = max(self.longest_ns, pause)
            self._collected_at = sent

    def take(self) -> tuple[int, int]:
        """Pauses since the last call: (sum, longest), nanoseconds."""
        taken = self.pause_ns, self.longest_ns
        self.pause_ns = self.longest_ns = 0
        return taken


def cpu_s() -> float:
    """CPU of this process so far, user and system."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def switches() -> int:
    """Involuntary context switches of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def steal_s() -> float:
    """CPU time that the hypervisor gave to others, over all cores, since boot."""
    try:
        with open("/proc/stat", "rb") as file:
            fields = file.readline().split()
    except OSError:
        return 0.0
    return int(fields[8]) / os.sysconf("SC_CLK_TCK") if len(fields) > 8 else 0.0


def open_fds() -> int:
    """Descriptors this process has open, -1 if unknown."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return -1


def memory_kb() -> tuple[int, int, int]:
    """RssAnon, RssShmem and RssFile of this process in kB; -1 where unknown."""
    found = dict.fromkeys(_MEMORY, -1)
    try:
        with open("/proc/self/status", "rb") as file:
            for row in file:
                name = row.split(None, 1)[0]
                if name in found:
                    found[name] = int(row.split()[1])
    except OSError:
        pass
    anon, shmem, mapped = (found[name] for name in _MEMORY)
    return anon, shmem, mapped
