"""What can go wrong with one request, by whose fault it is.

Knows the closed set of outcomes and the exceptions that carry them; knows nothing of HTTP libraries or of retries.
Invariant: each `Outcome` belongs to exactly one side (`Outcome.fault`), each `RequestError` names exactly one outcome, and
no message, repr or attribute here ever holds a key or a request body.

    LoadgenError
    ├── UsageError                 a misuse: raised before anything is sent, names the field, what it got, what it takes
    └── RequestError               one request failed; a value in batches, raised by single calls
        ├── OurError               ours: bad item, no file descriptor or port left, cancelled
        ├── NetworkError           the network's: DNS, connect, TLS, reset, truncated
        ├── DeadlineError          a deadline's: connect, first byte, between tokens, total
        └── ServerError            the server's: a status, an error in the stream, an answer that is none
            ├── AuthenticationError, ModelMissingError, RateLimitError, OverloadedError, BadRequestError
            └── ProtocolError      bytes that are not the protocol
"""

from __future__ import annotations

from enum import IntEnum
from typing import Literal

Fault = Literal["none", "ours", "network", "deadline", "server"]

# What is kept of a server's message: enough to read, too little to fill a log (a gateway may answer with a page of HTML).
MESSAGE_LIMIT = 1024


class Outcome(IntEnum):
    """How a request ended. The number is what records hold: append, never renumber."""

    OK = 0
    # ours
    INVALID_ITEM = 10
    CLIENT_FDS = 11
    CLIENT_PORTS = 12
    CANCELLED = 13
    DROPPED = 14
    # the network's
    DNS = 20
    CONNECT = 21
    TLS = 22
    RESET = 23
    TRUNCATED = 24
    # a deadline's
    CONNECT_TIMEOUT = 30
    FIRST_BYTE_TIMEOUT = 31
    STALL_TIMEOUT = 32
    TOTAL_TIMEOUT = 33
    # the server's
    BAD_REQUEST = 40
    UNAUTHORIZED = 41
    MODEL_MISSING = 42
    RATE_LIMITED = 43
    OVERLOADED = 44
    SERVER_FAILED = 45
    NOT_FOUND = 46
    REDIRECTED = 47
    ERROR_IN_STREAM = 50
    BAD_EVENT = 51
    UNFINISHED = 52
    BAD_CONTENT = 53
    PROTOCOL = 54

    @property
    def fault(self) -> Fault:
        """Whose fault it is: the tens digit decides, so a new outcome takes its side by its number."""
        return _FAULTS[self // 10]

    @property
    def label(self) -> str:
        """The name in reports and JSON: `first-byte-timeout`."""
        return self.name.lower().replace("_", "-")

    @property
    def counted_as(self) -> Literal["ok", "failed", "timed_out", "cancelled", "dropped"]:
        """The term of the accounting identity that this outcome is counted under."""
        if self is Outcome.OK:
            return "ok"
        if self is Outcome.CANCELLED:
            return "cancelled"
        if self is Outcome.DROPPED:
            return "dropped"
        return "timed_out" if self.fault == "deadline" else "failed"


_FAULTS: tuple[Fault, ...] = ("none", "ours", "network", "deadline", "server", "server")


class LoadgenError(Exception):
    """Everything this project raises on purpose."""


class UsageError(LoadgenError, ValueError):
    """A misuse, found before anything was sent: one line that names the field, what it got and what it takes."""


class RequestError(LoadgenError):
    """One request failed. `str(error)` is one line; attributes say the rest.

    status: HTTP status, 0 when there was no answer. code: the server's own word (`error.code` or `error.type`), "" if none.
    retry_after_s: the wait the server asked for, None if it named none. request_id: the server's, "" if unknown.
    """

    def __init__(
        self,
        message: str,
        *,
        outcome: Outcome,
        status: int = 0,
        code: str = "",
        retry_after_s: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message[:MESSAGE_LIMIT])
        self.outcome = outcome
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s
        self.request_id = request_id

    def __repr__(self) -> str:
        status = f" status={self.status}" if self.status else ""
        return f"<{type(self).__name__} {self.outcome.label}{status}: {self}>"

    def __reduce__(self) -> tuple[object, ...]:
        """Pickles by value: exceptions with keyword-only arguments do not by default."""
        return _unpickle, (type(self), str(self), self.outcome, self.status, self.code, self.retry_after_s, self.request_id)


def _unpickle(  # one positional argument per attribute: this is a wire format
    kind: type[RequestError], message: str, outcome: Outcome, status: int, code: str, retry_after_s: float | None, request_id: str
) -> RequestError:
    return kind(message, outcome=outcome, status=status, code=code, retry_after_s=retry_after_s, request_id=request_id)


class OurError(RequestError):
    """Ours: the item is not sendable, this machine has no descriptor or port left, or the caller cancelled."""


class NetworkError(RequestError):
    """The network's: no address, no connection, no trust, or a connection that broke."""


class DeadlineError(RequestError, TimeoutError):
    """A deadline's: the message names which one and how long it was."""


class ServerError(RequestError):
    """The server's: it answered, and the answer is a refusal or none that can be used."""


class AuthenticationError(ServerError):
    """401 or 403."""


class ModelMissingError(ServerError):
    """A 404 whose body names a missing model: permanent."""


class RateLimitError(ServerError):
    """429, or a 404 that rate limiting sent (see `clients/retry.py`)."""


class OverloadedError(ServerError):
    """503, as a status or inside a stream."""


class BadRequestError(ServerError):
    """Another 4xx: the request itself is refused; sending it again will not help."""


class ProtocolError(ServerError):
    """Bytes that are not HTTP, not SSE, not JSON, or JSON of another shape."""


_KINDS: dict[Outcome, type[RequestError]] = {
    Outcome.UNAUTHORIZED: AuthenticationError,
    Outcome.MODEL_MISSING: ModelMissingError,
    Outcome.RATE_LIMITED: RateLimitError,
    Outcome.OVERLOADED: OverloadedError,
    Outcome.BAD_REQUEST: BadRequestError,
    Outcome.BAD_EVENT: ProtocolError,
    Outcome.BAD_CONTENT: ProtocolError,
    Outcome.PROTOCOL: ProtocolError,
}
_KIND_BY_FAULT: dict[Fault, type[RequestError]] = {
    "ours": OurError,
    "network": NetworkError,
    "deadline": DeadlineError,
    "server": ServerError,
}


def request_error(
    outcome: Outcome, message: str, *, status: int = 0, code: str = "", retry_after_s: float | None = None, request_id: str = ""
) -> RequestError:
    """The exception for an outcome: the most specific class of the tree above."""
    kind = _KINDS.get(outcome) or _KIND_BY_FAULT[outcome.fault]
    return kind(message, outcome=outcome, status=status, code=code, retry_after_s=retry_after_s, request_id=request_id)
