"""What aiohttp's exceptions say, as outcomes.

Knows every exception that aiohttp, asyncio and the system raise for what a network or a server does; the table is here and nowhere
else. Invariant: `error_of` gives an error for each of FAILURES, and its message holds neither a key nor a body.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.http_exceptions import ContentEncodingError, HttpProcessingError

from clients.errors import Outcome, RequestError, request_error
from clients.transport import broken_error, connect_error, tls_error

if TYPE_CHECKING:
    from collections.abc import Callable

FAILURES = (aiohttp.ClientError, HttpProcessingError, OSError, TimeoutError, UnicodeError)


def error_of(failure: BaseException, where: str) -> RequestError:
    """The one table: what went wrong, from the exception that says so. The first row whose type fits counts; messages hold no server bytes."""
    for kind, error in _ERRORS:
        if isinstance(failure, kind):
            return error(failure, where)
    return request_error(Outcome.PROTOCOL, f"not HTTP: {type(failure).__name__}")


def _payload_error(failure: Any, _where: str) -> RequestError:
    if isinstance(failure.__cause__, ContentEncodingError):
        return request_error(Outcome.BAD_CONTENT, "the answer's Content-Encoding cannot be decoded")
    return request_error(Outcome.TRUNCATED, "the answer ended before its HTTP end")


def _parse_error(failure: Any, _where: str) -> RequestError:
    line = str(failure.message).partition("\n")[0].strip(" :")
    return request_error(Outcome.PROTOCOL, f"the answer is not HTTP: {line}" if line else "the answer is not HTTP")


_ERRORS: tuple[tuple[type[BaseException], Callable[[Any, str], RequestError]], ...] = (
    (aiohttp.ClientConnectorCertificateError, lambda failure, where: tls_error(failure.certificate_error, where)),
    (
        aiohttp.ClientConnectorError,
        lambda failure, where: connect_error(failure.os_error, where),
    ),  # DNS, TLS, refused, no fds, a proxy's too
    (UnicodeError, lambda _, where: request_error(Outcome.DNS, f"no address for {where}: not a host name")),
    (
        aiohttp.ClientHttpProxyError,
        lambda failure, where: request_error(Outcome.CONNECT, f"the proxy {where} refused a tunnel ({failure.status})"),
    ),
    (aiohttp.ClientPayloadError, _payload_error),
    (aiohttp.ClientResponseError, _parse_error),
    (HttpProcessingError, _parse_error),
    (TimeoutError, lambda _, where: request_error(Outcome.CONNECT_TIMEOUT, f"no connection in time: {where}")),
    (aiohttp.ClientConnectionError, lambda failure, _: broken_error(failure)),
    (OSError, lambda failure, _: broken_error(failure)),
)
