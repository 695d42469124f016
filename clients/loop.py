"""The private loop: one thread that runs the coroutines of synchronous calls.

Knows threads, loops and forks; knows nothing of requests. A sync method works inside a running loop (a Jupyter cell) because its
coroutine runs here, on a loop that lives as long as the process, so that connections outlive a call.
Law: at most one such thread for each process; after a fork the child starts its own; at exit what is open on it is closed.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from clients.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

# How long a cancelled call may take to close its connections before Ctrl-C is passed on. Closing takes milliseconds.
CANCEL_GRACE_S = 2.0


def new_loop() -> asyncio.AbstractEventLoop:
    """A uvloop where it can be had, else asyncio's own."""
    try:
        import uvloop
    except ImportError:  # no build for this platform
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class PrivateLoop:
    """An event loop on a daemon thread of its own."""

    def __init__(self) -> None:
        self.loop = new_loop()
        self.pid = os.getpid()
        self._thread = threading.Thread(target=self._work, name="clients-loop", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<PrivateLoop pid={self.pid} {'RUNNING' if self._thread.is_alive() else 'STOPPED'}>"

    @property
    def current(self) -> bool:
        """Whether the caller is on this loop's thread."""
        return threading.get_ident() == self._thread.ident

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of `await work()`, run here. What a signal raises in the caller (Ctrl-C, a job's time limit) cancels it, and is
        raised when it has ended.

        Raises what the coroutine raises; UsageError when called from a callback on this very loop, which would wait for itself.
        """
        if self.current:
            raise UsageError("a synchronous method was called from a client's own callback; use the async one there")
        ended = threading.Event()

        async def watched() -> T:
            try:
                return await work()
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(watched(), self.loop)
        try:
            return future.result()
        except BaseException:
            if not future.done():
                future.cancel()
                ended.wait(CANCEL_GRACE_S)
            raise

    def stop(self) -> None:
        """Closes what is open on the loop, then the loop. In a forked child there is no such thread: nothing to do."""
        if self.pid != os.getpid() or self.loop.is_closed():
            return
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(CANCEL_GRACE_S)

    def _work(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(_wind_up())
            self.loop.close()


async def _wind_up() -> None:
    """What asyncio.run does at its end: cancel what runs, close the async generators (`connections.py` keeps transports in them)."""
    loop = asyncio.get_running_loop()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await loop.shutdown_asyncgens()


_lock = threading.Lock()
_private: PrivateLoop | None = None


def private_loop() -> PrivateLoop:
    """The private loop of the process, started on first use."""
    global _private  # noqa: PLW0603 - the law above: one thread for each process
    with _lock:
        if _private is None or _private.loop.is_closed():
            _private = PrivateLoop()
            atexit.register(_private.stop)
        return _private


def _after_fork() -> None:
    """The child has a copy of the loop but not its thread, and perhaps a lock that nobody will release: it starts anew.

    A child that uses no client should end by os._exit, as multiprocessing's do: at a plain exit libuv joins the threads of its pool,
    which the child does not have, and crashes (uv__threadpool_cleanup, seen with uvloop 0.23).
    """
    global _lock, _private  # noqa: PLW0603 - see private_loop
    _lock = threading.Lock()
    _private = None  # the parent's stays alive in atexit's list: finalising it here would touch the parent's descriptors


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_after_fork)
