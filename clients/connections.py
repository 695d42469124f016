"""The transports of one client: one for each loop it is used from.

Knows loops, forks and how a thing on a loop comes to its end; knows nothing of requests.
Law: a transport is opened, used and closed on its own loop, and closed once, whichever comes first: `close`, the end of its
loop, the garbage collection of its client, or the end of the process.

An async generator is the one object whose end an event loop looks after: `shutdown_asyncgens` (asyncio.run calls it) runs its
`finally`, and so does the loop's finaliser when the generator is dropped, from any thread. So each transport is kept in one.
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


async def _keeper(transport: Transport) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await transport.close()


async def _end(keeper: AsyncGenerator[None, None]) -> None:
    await keeper.aclose()


class Connections:
    """`transport()` gives the running loop's transport, opened by `open_transport` at its first use there."""

    def __init__(self, open_transport: Callable[[], Transport]) -> None:
        self._open = open_transport
        self._kept: dict[asyncio.AbstractEventLoop, tuple[Transport, AsyncGenerator[None, None]]] = {}
        _living.add(self)

    def __repr__(self) -> str:
        return f"<Connections loops={len(self._kept)}>"

    def transport(self) -> Transport:
        """The transport of the running loop. Must be called on a loop."""
        loop = asyncio.get_running_loop()
        kept = self._kept.get(loop)
        if kept is None:
            for ended in [other for other in self._kept if other.is_closed()]:
                self._kept.pop(ended, None)
            transport = self._open()
            keeper = _keeper(transport)
            with suppress(StopIteration):  # runs it to its yield; from here on the loop looks after its end
                keeper.__anext__().send(None)
            kept = self._kept[loop] = (transport, keeper)
        return kept[0]

    async def aclose(self) -> None:
        """Closes the transport of this loop and waits for it; those of other loops are closed there, as those loops run."""
        kept = self._take()
        pair = kept.pop(asyncio.get_running_loop(), None)
        if pair is not None:
            await pair[1].aclose()

    def close(self) -> None:
        """Closes what is on loops of other threads and waits for it; what is on this thread's loop is closed as that runs on."""
        for loop, (_, keeper) in self._take().items():
            if loop.is_running() and loop is not asyncio._get_running_loop():
                with suppress(TimeoutError):
                    asyncio.run_coroutine_threadsafe(_end(keeper), loop).result(CLOSE_GRACE_S)

    def _take(self) -> dict[asyncio.AbstractEventLoop, tuple[Transport, AsyncGenerator[None, None]]]:
        """All of them, out of this object: what the caller drops is closed by its loop's finaliser."""
        kept, self._kept = self._kept, {}
        return kept

    def forget(self) -> None:
        """In a forked child: these transports are the parent's. What the kernel copied it will free.

        They must never be finalised, not even at the interpreter's end: closing them would write to sockets (TLS) and to an epoll
        that the parent still uses. A reference that nobody holds keeps them.
        """
        import ctypes

        inherited, self._kept = self._kept, {}
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


_living: WeakSet[Connections] = WeakSet()


def _after_fork() -> None:
    for connections in list(_living):
        connections.forget()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_after_fork)
