"""The seam to the wire: what a transport is, and what all transports share.

Knows deadlines, the errors of operating systems, whom TLS trusts and which proxy the environment names; knows no HTTP library.
Law of the seam: `start` is called on the loop's thread and returns at once; `done(exchange)` is called exactly once, on the loop,
never from inside `start`, with `exchange.outcome` set; after `cancel` the outcome is CANCELLED and the connection of a running
request is closed. A transport sets `sent_ns` when the bytes are handed to the connection's socket, calls `head`, `data` and
`finish` or `fail` with the stamps of socket reads, and never sends twice, with one exception: a *reused* connection that dies
before any byte of an answer is replaced by a fresh one, once, and `exchange.reconnects` counts it. Before `done` it takes out of a
failure what the server repeated of the credentials it was given (`mask_credentials`).
"""

from __future__ import annotations

import errno
import socket
import ssl
import urllib.request
from time import perf_counter_ns
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import urlsplit

from clients.errors import Outcome, RequestError, UsageError, request_error
from clients.secret import masked

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from clients.endpoint import Endpoint, Timeouts
    from clients.exchange import Exchange, Request

    Done = Callable[[Exchange], None]

# vLLM, llama-server and uvicorn close idle connections after 5 s (reference: wire captures); a second of margin for both clocks.
IDLE_LIMIT_S = 4.0
IDLE_MARGIN_S = 1.0

_NEVER_NS = 1 << 62


class Flight(Protocol):
    """A request under way."""

    def cancel(self) -> None:
        """Ends it with CANCELLED; nothing happens if it has ended. On the loop's thread."""


class Transport(Protocol):
    """Carries requests to one endpoint. Made and used on one event loop, while it runs."""

    name: str
    stamping: Literal["arrival", "wake"]  # where reads are stamped: in the protocol's callback, or where a reader wakes

    def start(self, request: Request, exchange: Exchange, done: Done) -> Flight:
        """Sends the request now. Raises RuntimeError after `close`."""

    async def close(self) -> None:
        """Cancels what is under way, waits for its `done`, and closes every connection. May be called twice."""


def idle_limit_s(keep_alive: str) -> float:
    """How long a connection may idle, in seconds, by the server's Keep-Alive header ("timeout=5, max=100"); 0 = not at all."""
    for part in keep_alive.split(","):
        name, _, value = part.partition("=")
        if name.strip().lower() == "timeout" and value.strip().isdecimal():
            return max(0.0, min(IDLE_LIMIT_S, float(value) - IDLE_MARGIN_S))
    return IDLE_LIMIT_S


def environment_proxy(endpoint: Endpoint) -> str:
    """The proxy that the environment names for this endpoint (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY), "" if none. It may hold a password."""
    parts = urlsplit(endpoint.base_url)
    if urllib.request.proxy_bypass(parts.netloc):
        return ""
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all") or ""


def tls_context(endpoint: Endpoint) -> ssl.SSLContext:
    """Trusts the endpoint's `ca_file`, else the system's authorities, or with `insecure` anybody. Raises UsageError for a file without any."""
    try:
        context = ssl.create_default_context(cafile=endpoint.ca_file)
    except (ssl.SSLError, OSError) as error:
        raise UsageError(
            f"ca_file: {endpoint.ca_file!r} cannot be read ({error.strerror or error}), takes a PEM file of certificates"
        ) from error
    if endpoint.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


class Watched(Protocol):
    """What a `Watch` watches: a flight."""

    exchange: Exchange
    read_ns: int  # the last read's stamp

    def stop(self, cause: RequestError) -> None:
        """Ends the flight with this cause."""


class Watch:
    """The deadlines of one exchange, on one timer that is set anew only when it fires: a read costs nothing here.

    The timer never sleeps longer than the shortest deadline, so one that begins to count after the timer was set is not missed.
    """

    __slots__ = ("_connecting_ns", "_flight", "_loop", "_shortest_s", "_started_ns", "_timeouts", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, timeouts: Timeouts, shortest_s: float | None, flight: Watched) -> None:
        self._loop = loop
        self._timeouts = timeouts
        self._shortest_s = shortest_s  # timeouts.shortest_s, which a transport computes once
        self._flight = flight
        self._started_ns = self._connecting_ns = perf_counter_ns()
        self._timer: asyncio.TimerHandle | None = None
        if shortest_s is not None:
            self._timer = loop.call_later(shortest_s, self._check)

    def reconnect(self) -> None:
        """The connection was lost and another is being made: the deadline of connecting counts from now."""
        self._flight.exchange.sent_ns = 0
        self._connecting_ns = perf_counter_ns()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        now_ns = perf_counter_ns()
        when_ns, outcome, limit_s = self._deadline()
        if now_ns < when_ns:  # it has moved since the timer was set, or the loop was early
            self._timer = self._loop.call_later(min(self._shortest_s or limit_s, (when_ns - now_ns) / 1e9), self._check)
        else:
            self._timer = None
            self._flight.stop(request_error(outcome, f"{_DEADLINES[outcome]} within {limit_s:g} s"))

    def _deadline(self) -> tuple[int, Outcome, float]:
        """The deadline in force: when it passes, what that is, and its length in seconds."""
        timeouts = self._timeouts
        exchange = self._flight.exchange
        if exchange.sent_ns == 0:
            outcome, limit_s, since_ns = Outcome.CONNECT_TIMEOUT, timeouts.connect_s, self._connecting_ns
        elif exchange.body_bytes == 0:
            outcome, limit_s, since_ns = Outcome.FIRST_BYTE_TIMEOUT, timeouts.first_byte_s, exchange.sent_ns
        else:
            outcome, limit_s, since_ns = Outcome.STALL_TIMEOUT, timeouts.stall_s, self._flight.read_ns
        when_ns = _NEVER_NS if limit_s is None else since_ns + int(limit_s * 1e9)
        if timeouts.total_s is not None:
            total_ns = self._started_ns + int(timeouts.total_s * 1e9)
            if total_ns < when_ns:
                return total_ns, Outcome.TOTAL_TIMEOUT, timeouts.total_s
        return when_ns, outcome, limit_s or 0.0


_DEADLINES = {
    Outcome.CONNECT_TIMEOUT: "no connection",
    Outcome.FIRST_BYTE_TIMEOUT: "no byte of the answer's body",
    Outcome.STALL_TIMEOUT: "the stream stalled: nothing came",
    Outcome.TOTAL_TIMEOUT: "the answer did not end",
}

# What an errno says while connecting.
_BY_ERRNO = {
    errno.EMFILE: (Outcome.CLIENT_FDS, "this process has no file descriptor left (ulimit -n)"),
    errno.ENFILE: (Outcome.CLIENT_FDS, "this machine has no file descriptor left"),
    errno.EADDRNOTAVAIL: (Outcome.CLIENT_PORTS, "this machine has no local port left (TIME_WAIT): reuse connections"),
    errno.EADDRINUSE: (Outcome.CLIENT_PORTS, "this machine has no local port left"),
    errno.ETIMEDOUT: (Outcome.CONNECT_TIMEOUT, "the network gave up connecting"),
    errno.ECONNREFUSED: (Outcome.CONNECT, "connection refused"),
}


def mask_credentials(exchange: Exchange, credentials: Sequence[str]) -> None:
    """Of an exchange that failed: no credential is left in the server's words, its code, its request id or where it redirects to."""
    error = exchange.error
    assert error is not None
    error.args = (masked(str(error), credentials),)
    error.code = masked(error.code, credentials)
    error.request_id = exchange.request_id = masked(exchange.request_id, credentials)
    exchange.location = masked(exchange.location, credentials)


def connect_error(error: OSError, where: str) -> RequestError:
    """What a failed attempt to connect to `where` (host:port) says: DNS, TLS, CLIENT_FDS, CLIENT_PORTS, CONNECT_TIMEOUT or CONNECT."""
    if isinstance(error, socket.gaierror):
        return request_error(Outcome.DNS, f"no address for {where}: {error.strerror or 'unknown host'}")
    if isinstance(error, ssl.SSLError):
        return tls_error(error, where)
    outcome, what = _BY_ERRNO.get(error.errno or 0, (Outcome.CONNECT, error.strerror or type(error).__name__))
    return request_error(outcome, f"{what}: {where}")


def tls_error(error: Exception, where: str) -> RequestError:
    reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or type(error).__name__
    return request_error(Outcome.TLS, f"no trusted TLS connection to {where}: {reason}")


def broken_error(error: BaseException | None) -> RequestError:
    """A connection that broke while a request was under way; None: the server closed it without a complete answer."""
    number = getattr(error, "errno", None)
    what = errno.errorcode.get(number, "") if isinstance(number, int) else ""
    return request_error(Outcome.RESET, f"the connection broke{f' ({what})' if what else ''} before the answer was complete")
