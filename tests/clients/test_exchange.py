"""How an exchange reads what a transport tells it, and judges it. No transport: stamps and blocks are arguments."""

from __future__ import annotations

import pytest

from clients.dialects import DIALECTS
from clients.errors import Outcome, UsageError, request_error
from clients.exchange import Exchange, Request

HELLO = b'data: {"id":"a","model":"m","choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'
STOP = b'data: {"id":"a","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
EVENTS = {"content-type": "text/event-stream"}
JSON = {"content-type": "application/json"}
RESET = request_error(Outcome.RESET, "the connection broke")


def exchange(*, stream: bool = True, choices: int = 1, keep: bool = True) -> Exchange:
    made = Exchange(Request(DIALECTS["chat"], b"{}", stream=stream, choices=choices), due_ns=100, keep=keep)
    made.sent_ns = 200
    return made


def test_events_are_stamped_with_the_read_that_completed_them() -> None:
    """An event in two blocks has the second's stamp."""
    e = exchange()
    e.head(1_000, 200, EVENTS)
    e.data(2_000, HELLO[:20])
    e.data(3_000, HELLO[20:])
    e.data(9_000, HELLO)
    e.data(10_000, STOP)
    e.finish(11_000)
    assert (e.outcome, e.error, e.ok) == (Outcome.OK, None, True)
    assert (e.first_byte_ns, e.answer.first_output_ns, e.answer.last_output_ns, e.end_ns) == (1_000, 3_000, 9_000, 11_000)
    assert e.answer.gaps_us.tolist() == [6]


@pytest.mark.parametrize("size", [1, 40, 3_000])
def test_nothing_of_a_stream_waits_for_its_end(size: int) -> None:
    """Who listens is told of an event by the block that completes it, and no block is kept: memory does not grow with a stream."""
    e = exchange(keep=False)
    heard: list[str] = []
    e.answer.listener = lambda piece: heard.append(str(piece))
    e.head(1, 200, EVENTS)
    body = HELLO * 2_000 + STOP
    for start in range(0, len(body), size):
        e.data(start + 2, body[start : start + size])
        assert len(heard) == min((start + size) // len(HELLO), 2_000)
        assert not e._blocks
    e.finish(10**9)
    assert (e.outcome, e.answer.events, e.body_bytes) == (Outcome.OK, 2_000, len(body))


def test_an_event_that_the_end_left_without_its_blank_line_counts() -> None:
    """With the stamp of the block that brought it, not of the end."""
    e = exchange()
    e.head(1, 200, EVENTS)
    e.data(2, STOP + HELLO.rstrip())
    e.finish(99)
    assert (e.outcome, e.answer.last_output_ns, e.end_ns) == (Outcome.OK, 2, 99)


def test_success_needs_a_finish_reason_for_every_choice() -> None:
    """One of two is UNFINISHED; none is needed where none was asked for."""
    for choices, outcome in ((0, Outcome.OK), (1, Outcome.OK), (2, Outcome.UNFINISHED)):
        e = exchange(choices=choices)
        e.head(1, 200, EVENTS)
        e.data(2, HELLO + STOP + b"data: [DONE]\n\n")
        e.finish(3)
        assert e.outcome is outcome, choices


def test_a_failure_keeps_what_had_arrived() -> None:
    """A reset after the finish is a reset; timing and text stay."""
    e = exchange()
    e.head(1, 200, EVENTS)
    e.data(2, HELLO + STOP)
    e.fail(3, RESET)
    assert (e.outcome, e.error, e.answer.text(), e.answer.first_output_ns, e.end_ns) == (Outcome.RESET, RESET, "Hello", 2, 3)


@pytest.mark.parametrize("after", [Outcome.RESET, Outcome.STALL_TIMEOUT])
def test_what_the_server_said_outweighs_how_the_connection_broke(after: Outcome) -> None:
    """An error in the stream, or a refusal's status, is the outcome even if the rest never came; our own cancel is ours."""
    broken = request_error(after, "broken")
    told = exchange()
    told.head(1, 200, EVENTS)
    told.data(2, b'data: {"error":{"message":"busy","code":503}}\n\n')
    told.fail(3, broken)
    refused = exchange()
    refused.head(1, 429, {**JSON, "retry-after": "7"})
    refused.data(2, b'{"err')
    refused.fail(3, broken)
    assert (told.outcome, refused.outcome) == (Outcome.OVERLOADED, Outcome.RATE_LIMITED)
    assert refused.error is not None
    assert refused.error.retry_after_s == refused.retry_after_s == 7
    cancelled = exchange()
    cancelled.head(1, 429, JSON)
    cancelled.fail(3, request_error(Outcome.CANCELLED, "cancelled"))
    assert cancelled.outcome is Outcome.CANCELLED


def test_a_refusal_carries_the_servers_words_and_id() -> None:
    """Status, kind, message, request id: on the exchange and on its error."""
    e = exchange()
    e.head(1, 401, {**JSON, "x-request-id": "abc"})
    e.data(2, b'{"error":"Unauthorized"}')
    e.finish(3)
    assert e.error is not None
    assert (e.status, e.outcome, e.error.status, e.error.request_id, e.request_id) == (401, Outcome.UNAUTHORIZED, 401, "abc", "abc")
    assert "Unauthorized" in str(e.error)


@pytest.mark.parametrize(
    ("stream", "headers", "body", "outcome"),
    [
        (True, {}, HELLO + STOP, Outcome.OK),  # no content type: what was asked for
        (True, {"content-type": "Text/Event-Stream;charset=utf-8"}, HELLO + STOP, Outcome.OK),
        (True, JSON, b'{"choices":[]}', Outcome.BAD_CONTENT),
        (True, JSON, b'{"error":{"message":"no","code":429}}', Outcome.RATE_LIMITED),
        (True, JSON, b"{oops", Outcome.BAD_CONTENT),
        (True, {"content-type": "text/html"}, b"<html>", Outcome.BAD_CONTENT),
        (False, EVENTS, HELLO, Outcome.BAD_CONTENT),
        (False, {"content-type": "text/html"}, b"<html>", Outcome.BAD_CONTENT),
        (False, {"content-type": "text/plain"}, b'{"choices":[{"index":0,"message":{"content":"x"},"finish_reason":"stop"}]}', Outcome.OK),
        (False, {"content-type": "text/plain"}, b"Internal", Outcome.BAD_CONTENT),
        (False, JSON, b"", Outcome.BAD_CONTENT),
    ],
)
def test_the_kind_of_an_answer_must_be_the_kind_asked_for(stream: bool, headers: dict[str, str], body: bytes, outcome: Outcome) -> None:
    """By its content type where that says something certain, else by its bytes; a JSON error with 200 is that error."""
    e = exchange(stream=stream)
    e.head(1, 200, headers)
    e.data(2, body)
    e.finish(3)
    assert e.outcome is outcome


def test_a_redirect_names_where_to_without_its_secrets() -> None:
    """Credentials and query of the location are dropped."""
    e = exchange()
    e.head(1, 302, {"location": "https://user:pass@login.test/sso?token=abc"})
    e.finish(2)
    assert e.outcome is Outcome.REDIRECTED
    assert "https://login.test/sso" in str(e.error)
    assert not [secret for secret in ("pass", "abc") if secret in str(e.error)]


def test_an_exchange_ends_once() -> None:
    """A second end is a transport's mistake, not a second outcome."""
    e = exchange()
    e.fail(1, RESET)
    with pytest.raises(AssertionError):
        e.finish(2)


def test_an_event_over_its_limit_is_a_bad_event() -> None:
    """17 MB without a line's end."""
    e = exchange()
    e.head(1, 200, EVENTS)
    for _ in range(17):
        e.data(2, b"x" * 1_000_000)
    e.finish(3)
    assert e.outcome is Outcome.BAD_EVENT


def test_memory_of_a_measured_stream_does_not_grow_with_its_text() -> None:
    """1,000 events of 10 kB: what is kept is stamps."""
    e = exchange(keep=False)
    e.head(1, 200, EVENTS)
    block = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * 10_000 + b'"}}]}\n\n'
    for now_ns in range(2, 1_002):
        e.data(now_ns, block)
    e.data(2_000, STOP)
    e.finish(3_000)
    assert (e.outcome, e.answer.events, e.answer.text(), e._blocks) == (Outcome.OK, 1_000, "", [])


@pytest.mark.parametrize("header", [("x\r\ny", "1"), ("x", "1\r\ny: 2"), ("x", "\0"), ("", "1"), ("Content-Length", "5"), ("x", "\u20ac")])
def test_a_header_that_would_break_the_request_is_refused(header: tuple[str, str]) -> None:
    """Before anything is sent, and the value is not shown."""
    with pytest.raises(UsageError) as refused:
        Request(DIALECTS["chat"], b"{}", stream=True, headers=(header,))
    assert "y: 2" not in str(refused.value)


def test_reprs_are_for_debugging() -> None:
    """They name state and counts, and hold no body."""
    e = exchange()
    assert repr(e) == "<Exchange chat in flight status=0 events=0 attempt=1>"
    assert repr(e.request) == "<Request POST /chat/completions 2 bytes stream>"
