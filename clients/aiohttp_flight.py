"""One request under way on aiohttp, and the protocol that stamps its reads.

Knows aiohttp 3.14's protocol class and its parser's payloads, pinned and tested: the connector makes `StampedHandler`s instead, each
read is stamped before anything is parsed, and its parsed blocks are taken at once, with no task woken. Must not know what bytes mean.
Invariant: an exchange gets its head, its blocks in order, and nothing after the end; no read of one request reaches another.
"""

from __future__ import annotations

import asyncio
import functools
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.streams import EMPTY_PAYLOAD

from clients.errors import Outcome, RequestError, request_error
from clients.transport import idle_limit_s

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiohttp.http_parser import RawResponseMessage
    from aiohttp.streams import StreamReader

    from clients.exchange import Exchange, Request
    from clients.transport import Done


class Flight:
    """One request under way: the task's side of it and the protocol's."""

    __slots__ = (
        "_limit_idle",
        "_task",
        "_waiter",
        "_wire",
        "cause",
        "done",
        "end_ns",
        "ended",
        "exchange",
        "failure",
        "handler",
        "read_ns",
        "request",
        "reused",
        "uploading",
    )

    def __init__(self, request: Request, exchange: Exchange, done: Done, limit_idle: Callable[[float], None]) -> None:
        self.request = request
        self.exchange = exchange
        self.done = done
        self.cause: RequestError | None = None  # why we end it: the caller's cancel, or a deadline
        self.handler: ResponseHandler | None = None
        self.reused = False
        self.uploading = False
        self.read_ns = 0
        self.end_ns = 0
        self.ended = False
        self.failure: BaseException | None = None
        self._limit_idle = limit_idle
        self._task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._wire: asyncio.Transport | None = None

    def begin(self) -> bool:
        """The first step of its task. Not before: a task that is cancelled before its first step takes none, and tells nobody."""
        self._task = asyncio.current_task()
        return self.cause is None

    def cancel(self) -> None:
        self.stop(request_error(Outcome.CANCELLED, "cancelled"))

    def stop(self, cause: RequestError) -> None:
        if self.exchange.outcome is not None or self.cause is not None:
            return
        self.cause = cause
        if self._task is not None:
            self._task.cancel()

    def hand_over(self, protocol: Any) -> None:
        """Called as the request is about to be written to `protocol`, on a connection that stands."""
        self.handler = protocol
        self.reused = getattr(protocol, "used", False)
        if isinstance(protocol, StampedHandler):
            protocol.flight, protocol.payload = self, None
        protocol.used = True
        self.uploading = True
        self._wire = protocol.transport
        self.exchange.sent_ns = perf_counter_ns()

    def leave(self) -> None:
        """After the end. Where not all of the request is sent (a cancel, a deadline, a 413), closing would first send the rest."""
        if self._wire is not None and (self.uploading or self._wire.is_closing()):
            self._wire.abort()

    def head(self, now_ns: int, status: int, headers: Mapping[str, str]) -> None:
        self.exchange.head(now_ns, status, headers)
        keep_alive = headers.get("keep-alive")
        if keep_alive is not None:
            self._limit_idle(idle_limit_s(keep_alive))

    def end(self, now_ns: int, failure: BaseException | None) -> None:
        """The protocol saw the end of the body, or what there will be of it."""
        self.end_ns = now_ns
        self.failure = failure
        self.ended = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait_ended(self) -> None:
        if not self.ended:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self.failure is not None:
            raise self.failure


class StampedHandler(ResponseHandler):
    """aiohttp's protocol, stamped. Subtle: blocks are taken here, so the task that reads the response finds only its end.

    `flight` is attached when its request is written and detached at the end of its body; aiohttp may by then have put the
    connection back into its pool, but gives it to nobody before this callback has returned.
    """

    flight: Flight | None = None
    payload: StreamReader | None = None
    used = False  # a request was written to it before

    def data_received(self, data: bytes) -> None:
        if not data:  # aiohttp goes on parsing what it held back, inside a read below: same bytes, same stamp
            super().data_received(data)
            return
        now_ns = perf_counter_ns()
        flight = self.flight
        if flight is None:
            if self.used:
                self.abort()  # an answer that nobody asked for must not become the next request's
            else:
                super().data_received(data)  # a proxy's answer to CONNECT
            return
        flight.read_ns = now_ns
        super().data_received(data)
        payload = self.payload
        if payload is not None:
            exchange = flight.exchange
            while payload._buffer:
                if not exchange.data(now_ns, payload.read_nowait()):
                    self._end(now_ns, None)
                    self.abort()
                    return
            if payload.is_eof():
                self._end(now_ns, None)
            elif (error := payload.exception() or self.exception()) is not None:
                self._end(now_ns, error)

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """A head came out of aiohttp's parser. A 1xx is not it."""
        message, payload = data
        flight = self.flight
        if flight is not None and self.payload is None and message.code >= 200:
            self.payload = payload
            flight.head(flight.read_ns, message.code, message.headers)
            if payload is EMPTY_PAYLOAD:
                self._end(flight.read_ns, None)
        super().feed_data(data, size)

    def resume_reading(self, resume_parser: bool = True) -> None:
        # aiohttp calls this after every block it gave out; only when reading is paused is there anything to resume.
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def connection_lost(self, exc: BaseException | None) -> None:
        now_ns = perf_counter_ns()
        payload = self.payload
        super().connection_lost(exc)
        if payload is not None and self.flight is not None:  # before the head, aiohttp tells the task
            if exc is None and payload.is_eof():
                self._end(now_ns, None)  # a body without a length ends with its connection
            else:
                self._end(now_ns, exc or payload.exception() or aiohttp.ServerDisconnectedError())

    def _end(self, now_ns: int, error: BaseException | None) -> None:
        flight, self.flight, self.payload = self.flight, None, None
        if flight is not None:
            flight.end(now_ns, error)


def stamp_reads(connector: aiohttp.TCPConnector, loop: asyncio.AbstractEventLoop) -> bool:
    """Has the connector make `StampedHandler`s, directly, through proxies and TLS; False where this aiohttp has no such seam."""
    factory = getattr(connector, "_factory", None)
    if not isinstance(factory, functools.partial) or factory.func is not ResponseHandler:
        return False
    connector._factory = functools.partial(StampedHandler, loop=loop)  # type: ignore[assignment]  # partial is invariant; a subclass is made
    return True
