"""The transport `wire`: HTTP/1.1 on a protocol of our own, with no task and no queue on a request's path.

Knows how a flight gets a connection and how it ends; the bytes are `wire_connection.py`'s, the sockets `wire_pool.py`'s. Must not
know what an answer means.
Law: a flight is started, carried by one connection at a time, and settled once; callbacks do all of it, a task only connects.
"""

from __future__ import annotations

import asyncio
from time import perf_counter_ns
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from clients.errors import Outcome, RequestError, UsageError, request_error
from clients.transport import Watch, environment_proxy, mask_credentials
from clients.wire_head import RequestHeads
from clients.wire_pool import ConnectionPool

if TYPE_CHECKING:
    from clients.endpoint import Endpoint, Timeouts
    from clients.exchange import Exchange, Request
    from clients.transport import Done
    from clients.wire_connection import Connection

# Connections that `open` makes at once: a listener's backlog is 100 (asyncio) or more, and a SYN that it drops costs a second.
_OPENED_AT_ONCE = 64


def wire_can(endpoint: Endpoint) -> str:
    """Why `wire` cannot carry this endpoint's requests, "" where it can. As the environment is now."""
    if environment_proxy(endpoint):
        return "the environment names a proxy for it"
    if not urlsplit(endpoint.base_url).netloc.isascii():
        return "its host name has characters outside ASCII"
    return ""


class Flight:
    """One request under way."""

    __slots__ = ("_cause", "_connecting", "_connection", "_done", "_transport", "_watch", "exchange", "read_ns", "request")

    def __init__(self, transport: WireTransport, request: Request, exchange: Exchange, done: Done) -> None:
        self.request = request
        self.exchange = exchange
        self.read_ns = 0
        self._done = done
        self._transport = transport
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self._cause: RequestError | None = None  # why we end it: the caller's cancel, or a deadline
        self._watch: Watch | None = Watch(transport.loop, transport.timeouts, transport.shortest_s, self)

    def cancel(self) -> None:
        self.stop(request_error(Outcome.CANCELLED, "cancelled"))

    def stop(self, cause: RequestError) -> None:
        self._transport.pool.arrivals.parse()
        if self._cause is not None or self.exchange.outcome is not None:
            return
        self._cause = cause
        if self._connection is not None:
            self._connection.drop()
        if self._connecting is not None:
            self._connecting.cancel()
        self._transport.loop.call_soon(self._settle, perf_counter_ns(), cause)

    def connect(self) -> None:
        self._connecting = self._transport.pool.connect()
        self._connecting.add_done_callback(self._connected)

    def _connected(self, connecting: asyncio.Task[Connection]) -> None:
        self._connecting = None
        now_ns = perf_counter_ns()
        if connecting.cancelled():
            if self._cause is None:
                self._settle(now_ns, request_error(Outcome.CANCELLED, "cancelled with its event loop"))
            return
        failure = connecting.exception()
        if failure is None:
            if self._cause is None:
                self.send(connecting.result(), kept=False)
            else:
                self._transport.pool.release(connecting.result())
        elif self._cause is None:
            if isinstance(failure, RequestError):
                self._settle(now_ns, failure)
            else:
                self._transport.loop.call_exception_handler({"message": f"{self._transport!r} failed to connect", "exception": failure})
                self._settle(now_ns, request_error(Outcome.PROTOCOL, "the transport failed; the event loop logs how"))

    def send(self, connection: Connection, *, kept: bool) -> None:
        self._connection = connection
        request = self.request
        connection.send(self, self._transport.heads.head(request), request.body, kept=kept)

    def resend(self, error: RequestError) -> None:
        """The keep-alive race: the server closed an idle connection as we wrote to it. `error` stands if it happens again."""
        del error
        self._connection = None
        self.exchange.reconnects += 1
        assert self._watch is not None  # until it is settled
        self._watch.reconnect()
        self.connect()

    def end(self, now_ns: int, error: RequestError | None) -> None:
        self._settle(now_ns, error)

    def _settle(self, now_ns: int, error: RequestError | None) -> None:
        self._connection = None
        if self._watch is not None:
            self._watch.stop()
            self._watch = None  # it holds this flight: a cycle would leave every request to the garbage collector
        transport = self._transport
        transport.flights.discard(self)
        exchange = self.exchange
        if error is None:
            exchange.finish(now_ns)
        else:
            exchange.fail(now_ns, error)
        if exchange.error is not None:
            mask_credentials(exchange, transport.credentials)
        self._done(exchange)


class WireTransport:
    """Carries requests to one endpoint by HTTP/1.1. Make it where its event loop runs.

    Raises UsageError for an endpoint that it cannot carry (`wire_can`), a certificate file without certificates, and a header that
    would break a request apart.
    """

    name = "wire"
    stamping: Literal["arrival", "wake"] = "arrival"

    def __init__(self, endpoint: Endpoint, timeouts: Timeouts) -> None:
        why_not = wire_can(endpoint)
        if why_not:
            raise UsageError(f"transport: wire cannot reach {endpoint.base_url}: {why_not}; takes aiohttp")
        self.loop = asyncio.get_running_loop()
        self.timeouts = timeouts
        self.shortest_s = timeouts.shortest_s
        self.credentials = endpoint.credentials
        self.heads = RequestHeads(endpoint)
        self.pool = ConnectionPool(endpoint, timeouts.connect_s)
        self.flights: set[Flight] = set()
        self._endpoint = endpoint
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"in_flight={len(self.flights)}"
        return f"<WireTransport {self._endpoint.base_url} {state}>"

    async def open(self, connections: int) -> int:
        """Opens so many connections ahead of the requests that will need them; returns how many are open. What fails, fails again there."""
        opened: list[Connection] = []
        for begin in range(0, connections, _OPENED_AT_ONCE):
            tasks = [self.pool.connect() for _ in range(min(_OPENED_AT_ONCE, connections - begin))]
            made = [one for one in await asyncio.gather(*tasks, return_exceptions=True) if not isinstance(one, BaseException)]
            opened += made
            if len(made) < len(tasks):
                break
        for connection in opened:
            self.pool.release(connection)
        return len(opened)

    def start(self, request: Request, exchange: Exchange, done: Done) -> Flight:
        if self._closed:
            raise RuntimeError(f"{self!r} is closed")
        flight = Flight(self, request, exchange, done)
        self.flights.add(flight)
        connection = self.pool.take()
        if connection is None:
            flight.connect()
        else:
            flight.send(connection, kept=True)
        return flight

    async def close(self) -> None:
        self._closed = True
        for flight in list(self.flights):
            flight.cancel()
        while self.flights:
            await asyncio.sleep(0)  # each is settled in the loop's next turn
        await self.pool.close()
