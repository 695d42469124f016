"""The connections of the `wire` transport to one origin: made, kept, taken again, closed.

Knows addresses, sockets, TLS and how long a connection may idle; knows nothing of requests or answers.
Law: a connection is idle, in use or closed; none is given out that has idled longer than the limit; the one that was used last is
given out first, so that a load that falls leaves the others to be closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from clients.errors import Outcome, RequestError, request_error
from clients.transport import IDLE_LIMIT_S, connect_error, tls_context
from clients.wire_arrivals import Arrivals
from clients.wire_connection import Connection

if TYPE_CHECKING:
    from clients.endpoint import Endpoint

# family, type, protocol, canonical name, address: what getaddrinfo gives
Address = tuple[Any, Any, int, str, Any]


class ConnectionPool:
    """The connections to one endpoint's origin. connect_s: what all its addresses may take together, None for no limit.

    Names are looked up once. The first address that connects is used for all; one that does not goes to the end of the list.
    """

    def __init__(self, endpoint: Endpoint, connect_s: float | None) -> None:
        self._loop = asyncio.get_running_loop()
        self.arrivals = Arrivals(self._loop)
        parts = urlsplit(endpoint.base_url)
        assert parts.hostname is not None
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._where = parts.netloc
        self._tls = tls_context(endpoint) if parts.scheme == "https" else None
        self._connect_s = connect_s
        self._addresses: list[Address] = _literal(self._host, self._port)
        self._lookup: asyncio.Task[None] | None = None
        self._all: set[Connection] = set()
        self._idle: dict[Connection, int] = {}  # since when; the newest last
        self._idle_limit_s = IDLE_LIMIT_S
        self._sweeper: asyncio.TimerHandle | None = None
        self._connecting: set[asyncio.Task[Connection]] = set()
        self._all_lost = asyncio.Event()
        self._closed = False

    def __repr__(self) -> str:
        return f"<ConnectionPool {self._where} open={len(self._all)} idle={len(self._idle)}>"

    # ---- connections that are there ------------------------------------------------------------------------------------

    def take(self) -> Connection | None:
        """The connection that was used last, if it may still be used."""
        idle = self._idle
        while idle:
            connection, since_ns = idle.popitem()
            if perf_counter_ns() - since_ns < self._idle_limit_s * 1e9 and connection.usable:
                return connection
            connection.drop()
        return None

    def release(self, connection: Connection) -> None:
        """It is free."""
        if self._closed or self._idle_limit_s <= 0:
            connection.drop()
            return
        self._idle[connection] = perf_counter_ns()
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(self._idle_limit_s, self._sweep)

    def opened(self, connection: Connection) -> None:
        self._all.add(connection)

    def lost(self, connection: Connection) -> None:
        """It is closed."""
        self._idle.pop(connection, None)
        self._all.discard(connection)
        if not self._all:
            self._all_lost.set()

    def limit_idle(self, limit_s: float) -> None:
        """A server said when it closes idle connections. The lowest it ever named holds for all of this one origin's."""
        self._idle_limit_s = min(self._idle_limit_s, limit_s)

    def _sweep(self) -> None:
        self._sweeper = None
        limit_ns = int(self._idle_limit_s * 1e9)
        now_ns = perf_counter_ns()
        for connection, since_ns in list(self._idle.items()):  # the oldest first
            left_ns = since_ns + limit_ns - now_ns
            if left_ns > 0:
                self._sweeper = self._loop.call_later(left_ns / 1e9, self._sweep)
                break
            del self._idle[connection]
            connection.drop()

    # ---- connections that are made -------------------------------------------------------------------------------------

    def connect(self) -> asyncio.Task[Connection]:
        """A new connection, which belongs to who asked for it. The task's errors are RequestErrors: DNS, CONNECT, TLS, …"""
        task = self._loop.create_task(self._connect())
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return task

    async def _connect(self) -> Connection:
        try:
            if not self._addresses:
                await self._look_up()
            addresses = list(self._addresses)
            failure = OSError(errno.EADDRNOTAVAIL, "the name has no address")
            for address in addresses:
                # One that drops what it is sent must leave time for the others; the deadline of the request ends the last.
                deadline = asyncio.timeout(None if self._connect_s is None else self._connect_s / len(addresses))
                try:
                    async with deadline:
                        return await self._connect_to(address)
                except OSError as error:  # after its time any: what is raised in a connection that is being given up says nothing
                    failure = OSError(errno.ETIMEDOUT, "timed out") if deadline.expired() else error
                    self._addresses.remove(address)
                    self._addresses.append(address)
            raise connect_error(failure, self._where)
        except UnicodeError:
            raise request_error(Outcome.DNS, f"no address for {self._where}: not a host name") from None
        except OSError as error:
            raise connect_error(error, self._where) from None

    async def _look_up(self) -> None:
        """One look-up for all who wait for it; one that failed is made again by the next request."""

        async def resolve() -> None:
            self._addresses = list(await self._loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM))

        if self._lookup is None:
            self._lookup = self._loop.create_task(resolve())
            self._lookup.add_done_callback(self._looked_up)
        await asyncio.shield(self._lookup)

    def _looked_up(self, lookup: asyncio.Task[None]) -> None:
        self._lookup = None
        if not lookup.cancelled():
            lookup.exception()  # who waits for it has it

    async def _connect_to(self, address: Address) -> Connection:
        family, kind, protocol, _, where = address
        connected = socket.socket(family, kind, protocol)
        connection = Connection(self)
        try:
            connected.setblocking(False)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.sock_connect(connected, where)
            await self._loop.create_connection(
                lambda: cast("asyncio.Protocol", connection),
                sock=connected,
                ssl=self._tls,
                server_hostname=self._host if self._tls is not None else None,
            )
        except BaseException:
            connected.close()
            self.lost(connection)  # cancelled just after it was made, uvloop says no more of it, and `close` would wait for ever
            raise
        return connection

    async def close(self) -> None:
        """Closes every connection and waits until they are closed."""
        self._closed = True
        self.arrivals.close()
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._lookup is not None:
            self._lookup.cancel()
        for task in list(self._connecting):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, RequestError):
                await task
        for connection in list(self._all):
            connection.drop()
        while self._all:
            self._all_lost.clear()
            await self._all_lost.wait()


def _literal(host: str, port: int) -> list[Address]:
    """The address that an IP literal is; nothing for a name. Asks nobody."""
    try:
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
    except (OSError, UnicodeError):
        return []
