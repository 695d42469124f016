"""The transport on aiohttp: proxies, cookies, TLS, whatever a corporate network asks.

Knows aiohttp's session, connector and how a reconnect is made. Reads are stamped in aiohttp's protocol (`aiohttp_flight.py`); where
an aiohttp lacks that seam, where the reader wakes, and `stamping` says so. Must not know what the bytes mean.
Invariant: one task per request, which is told of the head and the end; it settles the exchange and calls `done`, whatever happens.
"""

from __future__ import annotations

import asyncio
from time import perf_counter_ns
from typing import TYPE_CHECKING, Literal, cast
from urllib.parse import urlsplit

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from clients.aiohttp_errors import FAILURES, error_of
from clients.aiohttp_flight import Flight, stamp_reads
from clients.errors import Outcome, RequestError, UsageError, request_error
from clients.transport import IDLE_LIMIT_S, Watch, environment_proxy, mask_credentials, tls_context

if TYPE_CHECKING:
    import ssl

    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.http_writer import StreamWriter

    from clients.endpoint import Endpoint, Timeouts
    from clients.exchange import Exchange, Request
    from clients.transport import Done

# aiohttp pauses a socket whose unread bytes exceed twice this (default 64 kB there: measured throughput fell tenfold at long
# contexts, vLLM #39963). We drain at once, so it only has to exceed one read of the loop (256 kB).
READ_BUFFER = 1024 * 1024


class _Body(aiohttp.Payload):
    """The request's bytes. Being asked to write them is the moment they are handed to the connection."""

    _headers = CIMultiDict({"Content-Type": "application/json"})
    _autoclose = True

    def __init__(self, flight: Flight) -> None:  # not aiohttp's, which guesses a type for each body
        self._value = flight.request.body
        self._size = len(self._value)
        self._flight = flight

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return cast("bytes", self._value).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        self._flight.hand_over(cast("StreamWriter", writer).protocol)
        await writer.write(self._value)
        self._flight.uploading = False


class AiohttpTransport:
    """Carries requests to one endpoint by aiohttp. Make it where its event loop runs.

    trust_env: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY are respected, as they are when it is made. Raises UsageError for a
    certificate file without certificates and for a proxy that is neither http nor https. Not taken from the environment: netrc,
    which would send a password nobody named.
    """

    name = "aiohttp"

    def __init__(self, endpoint: Endpoint, timeouts: Timeouts, *, trust_env: bool = True) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeouts = timeouts
        self._shortest_s = timeouts.shortest_s
        self.stamping: Literal["arrival", "wake"] = "arrival"
        self._endpoint = endpoint
        self._credentials = endpoint.credentials
        self._proxy = _proxy_for(endpoint) if trust_env else None
        self._where = f"{self._proxy.host}:{self._proxy.port}" if self._proxy is not None else urlsplit(endpoint.base_url).netloc
        self._ssl = _ssl_for(endpoint)
        # Compression costs the client more than the network saves, and merges events; a gateway that compresses all the same is read.
        self._headers = CIMultiDict({"User-Agent": "loadgen", "Accept-Encoding": "identity"})
        self._headers.update(endpoint.request_headers())
        self._urls: dict[str, URL] = {}
        self._flights: dict[asyncio.Task[None], Flight] = {}
        self._idle_s = IDLE_LIMIT_S
        self._closed = False
        self._session = self._open_session()
        self._fresh: aiohttp.ClientSession | None = None  # for reconnects: its pool is always empty

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"in_flight={len(self._flights)}"
        return f"<AiohttpTransport {self._endpoint.base_url} {self.stamping} {state}>"

    def _open_session(self, *, reuse: bool = True) -> aiohttp.ClientSession:
        if reuse:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_LIMIT_S, ssl=self._ssl)
        else:
            connector = aiohttp.TCPConnector(limit=0, force_close=True, ssl=self._ssl)
        if not stamp_reads(connector, self._loop):
            self.stamping = "wake"
        return aiohttp.ClientSession(
            connector=connector,
            # No headers here: aiohttp gives a session's headers to the proxy too, the key as Proxy-Authorization.
            timeout=aiohttp.ClientTimeout(total=None),  # ours are in Watch: aiohttp's total of 5 minutes ends long streams
            trust_env=False,  # the proxy is known; aiohttp would look it up in a thread for every request
            read_bufsize=READ_BUFFER,
        )

    def start(self, request: Request, exchange: Exchange, done: Done) -> Flight:
        if self._closed:
            raise RuntimeError(f"{self!r} is closed")
        flight = Flight(request, exchange, done, self._limit_idle)
        task = self._loop.create_task(self._run(flight, Watch(self._loop, self._timeouts, self._shortest_s, flight)))
        self._flights[task] = flight
        task.add_done_callback(self._forget)
        return flight

    async def close(self) -> None:
        self._closed = True
        for flight in list(self._flights.values()):
            flight.cancel()
        if self._flights:
            await asyncio.wait(list(self._flights))
        await self._session.close()
        if self._fresh is not None:
            await self._fresh.close()

    def _forget(self, task: asyncio.Task[None]) -> None:
        flight = self._flights.pop(task)
        if flight.exchange.outcome is None:  # asyncio.run, at its end, cancels tasks that have not taken their first step: they take none
            self._settle(flight, request_error(Outcome.CANCELLED, "cancelled with its event loop"))
        if not task.cancelled() and (mistake := task.exception()) is not None:  # ours, or the caller's `done`: said now, not when collected
            self._loop.call_exception_handler({"message": f"{self!r} failed", "exception": mistake, "task": task})

    def _limit_idle(self, limit_s: float) -> None:
        """The server announced when it closes idle connections. The lowest it ever named holds for all of this one origin's."""
        if limit_s < self._idle_s:
            self._idle_s = limit_s
            connector = self._session.connector
            if connector is not None:
                # aiohttp has no public way to change it. At 0 it would not clean up: a millisecond is as good.
                connector._keepalive_timeout = max(limit_s, 0.001)

    async def _run(self, flight: Flight, watch: Watch) -> None:
        error: RequestError | None = None
        try:
            if flight.begin():
                await self._exchange(flight, watch)
        except asyncio.CancelledError:
            error = request_error(Outcome.CANCELLED, "cancelled with its event loop")
        except FAILURES as failure:
            error = error_of(failure, self._where)
        finally:
            # Also when something passes that FAILURES does not hold (the loop then logs it): a `done` that never comes holds a slot forever.
            watch.stop()
            flight.leave()
            self._settle(flight, flight.cause or error)

    def _settle(self, flight: Flight, error: RequestError | None) -> None:
        exchange = flight.exchange
        now_ns = flight.end_ns or perf_counter_ns()
        if error is not None:
            exchange.fail(now_ns, error)
        elif flight.ended:
            exchange.finish(now_ns)
        else:
            exchange.fail(now_ns, request_error(Outcome.PROTOCOL, "the transport failed; the event loop logs how"))
        if exchange.error is not None:
            mask_credentials(exchange, self._credentials)
        flight.done(exchange)

    async def _exchange(self, flight: Flight, watch: Watch) -> None:
        try:
            await self._carry(flight, self._session)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as failure:
            # The keep-alive race: the server closed an idle connection as we wrote to it.
            if not flight.reused or flight.read_ns or flight.cause is not None or isinstance(failure, aiohttp.ClientConnectorError):
                raise
            if self._fresh is None:
                self._fresh = self._open_session(reuse=False)
            flight.exchange.reconnects += 1
            watch.reconnect()
            await self._carry(flight, self._fresh)

    async def _carry(self, flight: Flight, session: aiohttp.ClientSession) -> None:
        request = flight.request
        path = request.dialect.path
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = URL(self._endpoint.url(path))
        headers = self._headers
        if request.headers:
            headers = headers.copy()
            headers.update(request.headers)
        response = await session.request(request.method, url, data=_Body(flight), headers=headers, proxy=self._proxy, allow_redirects=False)
        try:
            if self.stamping == "arrival":
                await flight.wait_ended()
            else:
                await _read(flight, response)
        finally:
            if not response.closed:
                response.close()


async def _read(flight: Flight, response: aiohttp.ClientResponse) -> None:
    """Without the seam: stamps where this task wakes."""
    content = response.content
    handler = flight.handler
    assert handler is not None

    def lost(closed: asyncio.Future[None]) -> None:
        # After a chunk size that is none, aiohttp closes the connection and tells nobody: the reader would wait forever.
        closed.exception()
        if not content.is_eof() and content.exception() is None:
            content.set_exception(handler.exception() or aiohttp.ServerDisconnectedError())

    flight.head(perf_counter_ns(), response.status, response.headers)
    if (closed := handler.closed) is not None:
        closed.add_done_callback(lost)
    try:
        async for block in content.iter_any():
            flight.read_ns = perf_counter_ns()
            if not flight.exchange.data(flight.read_ns, block):
                break
    except aiohttp.ClientPayloadError:
        if not isinstance(handler.exception(), aiohttp.ClientOSError):
            raise
    # A reset ends a body without a length in order, and cuts one with it, says aiohttp; what the connection says is worth more.
    if isinstance(broken := handler.exception(), aiohttp.ClientOSError):
        raise broken
    flight.end(perf_counter_ns(), None)


def _proxy_for(endpoint: Endpoint) -> URL | None:
    proxy = environment_proxy(endpoint)
    if not proxy:
        return None
    scheme, _, _ = proxy.partition("://")
    if scheme not in ("http", "https"):
        kind = urlsplit(endpoint.base_url).scheme
        raise UsageError(f"proxy: the environment names one of another kind ({kind}_proxy or all_proxy), takes http://… or https://…")
    return URL(proxy)


def _ssl_for(endpoint: Endpoint) -> ssl.SSLContext | bool:
    if endpoint.insecure:
        return False
    return True if endpoint.ca_file is None else tls_context(endpoint)
