"""The transports of one client: one for each loop it is used from.

Knows loops, forks and how a thing on a loop comes to its end; knows nothing of requests.
Law: a transport is opened, used and closed on its own loop, and closed once, whichever comes first: `close`, the end of its
loop, the garbage collection of its client, or the end of the process.

An async generator is the one object whose end an event loop looks after: `shutdown_asyncgens`, which asyncio.run calls, runs its
`finally` while the loop still works. So each transport is kept in one.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from clients.transport import Transport

# How long a thread waits for a transport on another thread's loop to close. It takes milliseconds.
CLOSE_GRACE_S = 2.0


class _Kept:
    """An open transport and the generator that its loop will end. Alive until it is closed, whoever forgets it."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.loop = asyncio.get_running_loop()
        self._ending: asyncio.Task[None] | None = None  # a loop holds its tasks weakly
        self._keeper = self._keep()
        with suppress(StopIteration):  # runs it to its yield; from here on the loop knows it
            self._keeper.__anext__().send(None)
        _open.add(self)

    async def _keep(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self.transport.close()
            _open.discard(self)

    async def end(self) -> None:
        """On its loop."""
        await self._keeper.aclose()

    def end_soon(self) -> None:
        """From any thread. If the loop ends before it comes to this, that end closes the transport."""
        if self.loop.is_closed():
            _open.discard(self)
        else:
            self.loop.call_soon_threadsafe(self._begin_end)

    def _begin_end(self) -> None:
        self._ending = self.loop.create_task(self.end())


_open: set[_Kept] = set()


class Connections:
    """`transport()` gives the running loop's transport, opened by `open_transport` at its first use there."""

    def __init__(self, open_transport: Callable[[], Transport]) -> None:
        self._open_transport = open_transport
        self._kept: dict[asyncio.AbstractEventLoop, _Kept] = {}
        _living.add(self)

    def __repr__(self) -> str:
        return f"<Connections loops={len(self._kept)}>"

    def transport(self) -> Transport:
        """The transport of the running loop. Must be called on a loop."""
        kept = self._kept.get(asyncio.get_running_loop())
        if kept is None:
            for ended in [loop for loop in self._kept if loop.is_closed()]:
                if (gone := self._kept.pop(ended, None)) is not None:  # another thread may have seen it too
                    _open.discard(gone)
            kept = _Kept(self._open_transport())
            self._kept[kept.loop] = kept
        return kept.transport

    async def aclose(self) -> None:
        """Closes the transport of this loop and waits for it; those of other loops are closed there, as those loops run."""
        kept, self._kept = self._kept, {}
        here = kept.pop(asyncio.get_running_loop(), None)
        for other in kept.values():
            other.end_soon()
        if here is not None:
            await here.end()

    def close(self) -> None:
        """Closes what is on other loops and waits for it, running a loop that does not run; what is on the loop that this is called
        from is closed as that runs on.
        """
        kept, self._kept = self._kept, {}
        here = asyncio._get_running_loop()
        for each in kept.values():
            if each.loop.is_running() and each.loop is not here:
                with suppress(TimeoutError):
                    asyncio.run_coroutine_threadsafe(each.end(), each.loop).result(CLOSE_GRACE_S)
            elif here is None and not each.loop.is_closed():  # of run_until_complete, whose caller closes the loop next
                each.loop.run_until_complete(each.end())
            else:
                each.end_soon()

    def __del__(self) -> None:
        for kept in self._kept.values():
            kept.end_soon()


_living: WeakSet[Connections] = WeakSet()


def _after_fork() -> None:
    """In a forked child the transports are the parent's; the child's clients open their own.

    The copies must never be finalised, not even at the interpreter's end: closing them would write to sockets (TLS) and to an
    epoll that the parent still uses. A reference that nobody holds keeps them.
    """
    import ctypes

    for connections in list(_living):
        connections._kept = {}
    inherited = set(_open)
    _open.clear()
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_after_fork)
