"""What happened to one attempt at one request.

Knows stamps, the status, the outcome, and which bytes are events, a body or a refusal; is told by a transport in the order
`head`, `data` …, then `finish` or `fail`, once. Knows nothing of sockets and reads no monotonic clock: every stamp is an argument.
Invariant: `outcome` is None until `finish` or `fail`, and never changes after. Success is judged here and nowhere else: 2xx, no
error object, an orderly end, and a finish reason for every choice that was asked for.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from clients.answer import Answer
from clients.dialects import parse_retry_after, refusal
from clients.endpoint import check_header
from clients.errors import Outcome, RequestError, request_error
from clients.sse import EventDecoder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clients.dialects import Dialect

BODY_LIMIT = 256 * 1024 * 1024  # a decompression bomb ends here; 8,192 embeddings of 4,096 numbers are a third of it
NOTE_LIMIT = 64 * 1024  # of a refusal, a redirect or a page of HTML only the beginning is read


class Request:
    """What to say: an encoded body for one dialect's path.

    choices: the finish reasons that success needs (`Dialect.choices`). headers: of this request alone, besides the endpoint's.
    Raises UsageError for a header that would break the request apart.
    """

    __slots__ = ("body", "choices", "dialect", "headers", "method", "stream")

    def __init__(
        self,
        dialect: Dialect,
        body: bytes,
        *,
        stream: bool,
        choices: int = 1,
        headers: tuple[tuple[str, str], ...] = (),
        method: str = "POST",
    ) -> None:
        for name, value in headers:
            check_header(name, value)
        self.dialect = dialect
        self.body = body
        self.stream = stream
        self.choices = choices
        self.headers = headers
        self.method = method

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.dialect.path} {len(self.body):,} bytes{' stream' if self.stream else ''}>"


# How the bytes of a body are read; decided by the head.
_EVENTS, _BODY, _NOTE = 0, 1, 2


class Exchange:
    """One attempt. Stamps are perf_counter_ns, 0 = did not happen; `first_byte_ns` is of the read that completed the head.

    keep: as `Answer`. `body_bytes` counts the body as it was handed over (decompressed), `retry_after_s` is the wait the server asked for.
    """

    __slots__ = (
        "_blocks",
        "_decode",
        "_decoder",
        "_last_ns",
        "_reading",
        "answer",
        "attempt",
        "body_bytes",
        "due_ns",
        "end_ns",
        "error",
        "first_byte_ns",
        "location",
        "outcome",
        "reconnects",
        "request",
        "request_id",
        "retry_after_s",
        "sent_ns",
        "status",
    )

    def __init__(self, request: Request, due_ns: int, *, keep: bool = True, attempt: int = 1) -> None:
        self.request = request
        self.due_ns = due_ns
        self.sent_ns = 0
        self.first_byte_ns = 0
        self.end_ns = 0
        self.status = 0
        self.outcome: Outcome | None = None
        self.error: RequestError | None = None
        self.answer = Answer(keep)
        self.attempt = attempt
        self.reconnects = 0
        self.request_id = ""
        self.retry_after_s: float | None = None
        self.body_bytes = 0
        self.location = ""  # of a redirect: scheme, host and path; its query may hold a secret
        self._reading = _NOTE
        self._decoder: EventDecoder | None = None  # of a stream, until nothing in it counts any more
        self._decode = request.dialect.decode_event
        self._blocks: list[bytes] = []  # of a body, until it is whole
        self._last_ns = 0  # stamp of the last block of a stream

    def __repr__(self) -> str:
        state = "in flight" if self.outcome is None else self.outcome.label
        return f"<Exchange {self.request.dialect.name} {state} status={self.status} events={self.answer.events} attempt={self.attempt}>"

    @property
    def ok(self) -> bool:
        return self.outcome is Outcome.OK

    def head(self, now_ns: int, status: int, headers: Mapping[str, str]) -> None:
        """The final head (never a 1xx). `headers` answers `get` for lower-case names."""
        self.first_byte_ns = now_ns
        self.status = status
        self.request_id = headers.get("x-request-id") or ""
        if 200 <= status < 300:
            self._reading = self._reading_of(headers.get("content-type") or "")
            if self._reading == _EVENTS:
                self._decoder = EventDecoder()
        elif status < 400:
            self.location = _without_query(headers.get("location") or "")
        else:
            # A Retry-After may be a date: the one use of wall-clock time below the run's metadata.
            self.retry_after_s = parse_retry_after(headers, time.time())

    def _reading_of(self, content_type: str) -> int:
        kind = content_type.partition(";")[0].strip().lower()
        if self.request.stream:
            return _EVENTS if kind in ("text/event-stream", "") else _NOTE
        # Servers label JSON in several ways; a page and a stream are the two that are certainly not it.
        return _NOTE if kind in ("text/html", "text/event-stream") else _BODY

    def data(self, now_ns: int, block: bytes) -> bool:
        """Bytes of the body; the events that they complete are decoded. False: no more is wanted; the transport closes and calls `finish`."""
        self.body_bytes += len(block)
        if self._reading != _EVENTS:
            self._blocks.append(block)
            return self.body_bytes <= (BODY_LIMIT if self._reading == _BODY else NOTE_LIMIT)
        decoder = self._decoder
        if decoder is not None:
            self._last_ns = now_ns
            answer = self.answer
            try:
                for event in decoder.feed(block):
                    self._decode(event, now_ns, answer)
                    if answer.done or answer.error is not None:  # nothing after [DONE] or an error counts
                        self._decoder = None
                        break
            except RequestError as error:  # a line or an event over its limit
                answer.error = error
                self._decoder = None
        return self.body_bytes <= BODY_LIMIT

    def finish(self, now_ns: int) -> None:
        """The body ended as HTTP says it should (or `data` wanted no more): judges the outcome."""
        self._settle(now_ns, self._judge(now_ns))

    def fail(self, now_ns: int, error: RequestError) -> None:
        """Anything else. The timing of what had arrived is kept.

        What the server said before the connection broke, an error in the stream or a refusal's status, outweighs how it broke.
        """
        said: RequestError | None = None
        if self.first_byte_ns and error.outcome.fault != "ours":
            if self._reading == _EVENTS:
                said = self.answer.error
            elif self.status >= 400:
                said = self._refusal()
        self._settle(now_ns, said or error)

    def _settle(self, now_ns: int, error: RequestError | None) -> None:
        assert self.outcome is None, "an exchange ends once"
        self.end_ns = now_ns
        self.error = error
        self.outcome = Outcome.OK if error is None else error.outcome
        self._blocks = []
        self._decoder = None
        if error is not None:
            if error is not self.answer.error:  # that one's status is the code that the server put into its words
                error.status = error.status or self.status
            error.request_id = error.request_id or self.request_id

    def _flush(self) -> None:
        """The event whose blank line the end of the stream took."""
        decoder, self._decoder = self._decoder, None
        if decoder is not None:
            try:
                for event in decoder.flush():
                    self._decode(event, self._last_ns, self.answer)
            except RequestError as error:
                self.answer.error = error

    def _judge(self, now_ns: int) -> RequestError | None:
        if not 200 <= self.status < 300:
            return self._refusal()
        answer = self.answer
        if self._reading == _EVENTS:
            self._flush()
        elif self._reading == _BODY and self.body_bytes and self.body_bytes <= BODY_LIMIT:
            self.request.dialect.decode_body(b"".join(self._blocks), now_ns, answer)
        elif self._reading == _NOTE:
            return self._mistaken()
        if answer.error is not None:
            return answer.error
        if self.body_bytes > BODY_LIMIT:
            return request_error(Outcome.BAD_CONTENT, f"the answer is larger than {BODY_LIMIT:,} bytes")
        if not self.body_bytes and (self.status == 204 or not self.request.stream):
            return request_error(Outcome.BAD_CONTENT, f"status {self.status} with an empty body")
        missing = self.request.choices - len(answer.finish_reasons)
        if missing > 0:
            return request_error(
                Outcome.UNFINISHED, f"the answer ended without a finish_reason for {missing} of {self.request.choices} choices"
            )
        return None

    def _refusal(self) -> RequestError:
        if self.status >= 400:
            return refusal(self.status, b"".join(self._blocks)[:NOTE_LIMIT], self.retry_after_s, self.request_id)
        if self.status < 200:
            return request_error(Outcome.PROTOCOL, f"status {self.status} is not an answer")
        return request_error(Outcome.REDIRECTED, f"redirected ({self.status}) to {self.location or 'nowhere'}: use that as the base URL")

    def _mistaken(self) -> RequestError:
        """A 2xx of the wrong kind. Some servers answer a stream that failed before it began with a JSON error and 200."""
        body = b"".join(self._blocks)[:NOTE_LIMIT]
        if self.request.stream and body.lstrip()[:1] == b"{":
            said = Answer(keep=False)
            self.request.dialect.decode_body(body, self.first_byte_ns, said)
            if said.error is not None and said.error.outcome is not Outcome.BAD_EVENT and said.error.outcome is not Outcome.BAD_CONTENT:
                return said.error
        wanted = "a stream of events" if self.request.stream else "JSON"
        return request_error(Outcome.BAD_CONTENT, f"status {self.status}, but the answer is not {wanted}")


def _without_query(location: str) -> str:
    try:
        parts = urlsplit(location)
        host = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else ""
    except ValueError:
        return ""
    return f"{host}{parts.path}"[:256]
