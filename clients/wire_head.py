"""The heads of requests, built once for each path of an endpoint.

Knows request lines and headers; knows nothing of sockets or of answers.
Law: only the length of the body, and headers that a request has of its own, differ between two heads of one path; every header
is checked before it is built in, so no value can begin a line of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from clients.endpoint import check_header
from clients.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from clients.endpoint import Endpoint
    from clients.exchange import Request

# What may stand in a path as typed (RFC 3986 3.3), and the percent sign of what is quoted already.
_PATH = "/:@!$&'()*+,;=-._~%"


class RequestHeads:
    """The heads of one endpoint's requests. Raises UsageError for a header that would break a request apart."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._path = urlsplit(endpoint.base_url).path
        self._headers = {"host": ("Host", urlsplit(endpoint.base_url).netloc)}
        # Compression costs the client more than the network saves, and merges events.
        _replace(self._headers, (("User-Agent", "loadgen"), ("Accept", "*/*"), ("Accept-Encoding", "identity")))
        _replace(self._headers, endpoint.request_headers().items())
        self._posts: dict[str, bytes] = {}  # by the dialect's path: POST and the endpoint's own headers

    def head(self, request: Request) -> bytes:
        """The head of this request, with the blank line that ends it."""
        if request.method != "POST" or request.headers:
            begun = self._begun(request)
        else:
            path = request.dialect.path
            found = self._posts.get(path)
            begun = found if found is not None else self._posts.setdefault(path, self._begun(request))
        if request.method == "GET" and not request.body:
            return begun + b"\r\n"
        return b"%bContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (begun, len(request.body))

    def _begun(self, request: Request) -> bytes:
        method = request.method
        if not (method.isascii() and method.isalpha()):
            raise UsageError(f"method: got {method!r}, takes letters")
        headers = self._headers
        if request.headers:
            headers = headers.copy()
            _replace(headers, request.headers)
        lines = [f"{method} {quote(self._path + request.dialect.path, safe=_PATH)} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.values()]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n"


def _replace(headers: dict[str, tuple[str, str]], more: Iterable[tuple[str, str]]) -> None:
    for name, value in more:
        if name != "Accept-Encoding":  # ours, which nobody else may give
            check_header(name, value)
        headers[name.lower()] = (name, value)
