"""An answer as it arrives: an iterator of pieces, and its completion at the end.

Knows how pieces get from the loop to who iterates, and how an abandoned stream ends; knows nothing of prompts or HTTP.
Law: leaving a stream early, by `break`, `close`, an exception or dropping it, closes its connection; a stream that failed raises
its typed error after the pieces that came before.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Self

from clients.completion import Completion
from clients.errors import UsageError
from clients.loop import CANCEL_GRACE_S, PrivateLoop
from clients.pieces import Piece
from clients.transport import Flight

if TYPE_CHECKING:
    from types import TracebackType

# Sends the request; tells `put` each piece, and last the completion. To be awaited on the loop that carries it.
Open = Callable[[Callable[[Piece | Completion], None]], Awaitable[Flight]]


class _Inbox:
    """What has arrived for an asynchronous reader. Apart from the stream, which the flight must not keep alive."""

    def __init__(self) -> None:
        self.pieces: deque[Piece] = deque()
        self.completion: Completion | None = None
        self.arrived = asyncio.Event()

    def put(self, item: Piece | Completion) -> None:
        if isinstance(item, Completion):
            self.completion = item
        else:
            self.pieces.append(item)
        self.arrived.set()


class AsyncStream:
    """`async for piece in stream`. The request is sent when the first piece is asked for, on the loop that asks."""

    def __init__(self, start: Open) -> None:
        self._start = start
        self._inbox: _Inbox | None = None
        self._flight: Flight | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<AsyncStream {_state(self._inbox.completion if self._inbox else None, closed=self._closed)}>"

    @property
    def completion(self) -> Completion:
        """The whole of it, once it has ended; raises UsageError before."""
        return _ended(self._inbox.completion if self._inbox else None)

    async def __anext__(self) -> Piece:
        if self._closed:
            raise StopAsyncIteration
        if self._inbox is None:
            self._inbox = _Inbox()
            self._loop = asyncio.get_running_loop()
            try:
                self._flight = await self._start(self._inbox.put)
            except BaseException:
                self._closed = True  # nothing will arrive
                raise
        inbox = self._inbox
        while not inbox.pieces and inbox.completion is None:
            inbox.arrived.clear()
            await inbox.arrived.wait()
        if inbox.pieces:
            return inbox.pieces.popleft()
        assert inbox.completion is not None
        self._closed = True
        if inbox.completion.error is not None:
            raise inbox.completion.error
        raise StopAsyncIteration

    async def __aiter__(self) -> AsyncIterator[Piece]:
        try:
            while True:
                try:
                    piece = await self.__anext__()
                except StopAsyncIteration:
                    return
                yield piece
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Ends the stream and its connection, and waits until it has ended."""
        self._closed = True
        if self._inbox is None or self._flight is None:
            return
        self._flight.cancel()
        while self._inbox.completion is None:
            self._inbox.arrived.clear()
            await self._inbox.arrived.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._flight is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._flight.cancel)


class _Letterbox:
    """What has arrived for a reader on another thread. Apart from the stream, which the flight must not keep alive."""

    def __init__(self) -> None:
        self.items: SimpleQueue[Piece | Completion] = SimpleQueue()
        self.completion: Completion | None = None
        self.ended = threading.Event()

    def put(self, item: Piece | Completion) -> None:
        if isinstance(item, Completion):
            self.completion = item
            self.ended.set()
        self.items.put(item)


class Stream:
    """`for piece in stream`, from any thread; the request has been sent when this exists."""

    def __init__(self, home: PrivateLoop, start: Open) -> None:
        self._home = home
        self._start = start  # holds the client, whose end would close its connections, this stream's too
        self._box = _Letterbox()
        self._flight: Flight | None = None
        self._closed = False
        self._flight = home.run(partial(_opened, start, self._box))

    def __repr__(self) -> str:
        return f"<Stream {_state(self._box.completion, closed=self._closed)}>"

    @property
    def completion(self) -> Completion:
        """The whole of it, once it has ended; raises UsageError before."""
        return _ended(self._box.completion)

    def __next__(self) -> Piece:
        if self._closed:
            raise StopIteration
        item = self._box.items.get()
        if isinstance(item, Piece):
            return item
        self._closed = True
        if item.error is not None:
            raise item.error
        raise StopIteration

    def __iter__(self) -> Iterator[Piece]:
        try:
            while True:
                try:
                    piece = self.__next__()
                except StopIteration:
                    return
                yield piece
        finally:
            self.close()

    def close(self) -> None:
        """Ends the stream and its connection, and waits until it has ended (not on the private loop, which would wait for itself)."""
        self._closed = True
        self._abandon()
        if not self._home.current:
            self._box.ended.wait(CANCEL_GRACE_S)

    def _abandon(self) -> None:
        if self._flight is not None and not self._box.ended.is_set() and not self._home.loop.is_closed():
            self._home.loop.call_soon_threadsafe(self._flight.cancel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        self._abandon()


async def _opened(start: Open, box: _Letterbox) -> Flight:
    return await start(box.put)


def _ended(completion: Completion | None) -> Completion:
    if completion is None:
        raise UsageError("completion: the stream has not ended; read it to its end or close it")
    return completion


def _state(completion: Completion | None, *, closed: bool) -> str:
    return repr(completion) if completion else "CLOSED" if closed else "OPEN"
