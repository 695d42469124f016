"""A timer that goes off at an absolute instant of `time.perf_counter_ns()`, within about 0.1 ms.

uvloop's own timers have a granularity of 1 ms and may fire early: too coarse for steps of a few milliseconds, and for sending on time. Linux has timerfd,
absolute and precise; elsewhere the loop's timer is re-armed until the instant has come.
Law: the callback never runs before its instant, and once per `set` at most.
"""

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable

_CLOCK_MONOTONIC = 1  # what perf_counter_ns reads on Linux
_TFD_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC if sys.platform == "linux" else 0
_TFD_TIMER_ABSTIME = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("s", ctypes.c_long), ("ns", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Alarm:
    """`set(at_ns)` arms or re-arms it; `set(None)` disarms it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._at_ns: int | None = None
        self._handle: asyncio.TimerHandle | None = None
        self._fd = -1
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK_CLOEXEC)
            if self._fd >= 0:
                loop.add_reader(self._fd, self._fired)

    def set(self, at_ns: int | None) -> None:
        if at_ns == self._at_ns:
            return
        self._at_ns = at_ns
        if self._fd >= 0:
            self._set_timerfd(at_ns or 0)  # zero disarms
            return
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if at_ns is not None:
            self._handle = self._loop.call_later(max(0.0, (at_ns - time.perf_counter_ns()) / 1e9), self._fired)

    def close(self) -> None:
        self.set(None)
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _set_timerfd(self, at_ns: int) -> None:
        spec = _Itimerspec(_Timespec(0, 0), _Timespec(*divmod(at_ns, 1_000_000_000)))
        if self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def _fired(self) -> None:
        if self._fd >= 0:
            try:
                os.read(self._fd, 8)
            except BlockingIOError:
                return  # re-armed after the loop had seen the old expiry
        at_ns, self._at_ns = self._at_ns, None
        if at_ns is None:
            return
        if time.perf_counter_ns() < at_ns:  # the loop's timer was early
            self.set(at_ns)
        else:
            self._callback()
