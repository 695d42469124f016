"""What is sent again, after how long, and what the caller is told."""

from __future__ import annotations

import asyncio
import time

import pytest
from fakes import FakeTransport, answers, breaks, chunk, hangs, refuses, says

from clients.dialects import DIALECTS
from clients.errors import ModelMissingError, Outcome, RateLimitError, RequestError, UsageError, request_error
from clients.exchange import Exchange, Request
from clients.retry import Retrying, RetryPolicy

MIDDLE = 0.5  # the draw whose factor is 1: half of U(0.5, 1.5)


def failure(outcome: Outcome, status: int = 0, retry_after_s: float | None = None) -> RequestError:
    return request_error(outcome, "x", status=status, retry_after_s=retry_after_s)


@pytest.mark.parametrize(
    ("error", "attempt", "wait_s"),
    [
        # connection errors
        (failure(Outcome.CONNECT), 1, 1.0),
        (failure(Outcome.CONNECT), 2, 2.0),
        (failure(Outcome.CONNECT), 3, 4.0),
        (failure(Outcome.CONNECT), 4, None),  # 3 retries
        (failure(Outcome.CONNECT_TIMEOUT), 1, 1.0),
        (failure(Outcome.RESET), 1, 1.0),
        (failure(Outcome.TRUNCATED), 1, 1.0),
        (failure(Outcome.TLS), 1, None),  # a certificate stays wrong
        (failure(Outcome.DNS), 1, None),  # so does a name
        # other deadlines were the patience asked for
        (failure(Outcome.FIRST_BYTE_TIMEOUT), 1, None),
        (failure(Outcome.STALL_TIMEOUT), 1, None),
        (failure(Outcome.TOTAL_TIMEOUT), 1, None),
        # statuses
        (failure(Outcome.BAD_REQUEST, 408), 1, 1.0),
        (failure(Outcome.BAD_REQUEST, 409), 1, 1.0),
        (failure(Outcome.RATE_LIMITED, 429), 1, 1.0),
        (failure(Outcome.SERVER_FAILED, 500), 1, 1.0),
        (failure(Outcome.SERVER_FAILED, 502), 1, 1.0),
        (failure(Outcome.OVERLOADED, 503), 1, 1.0),
        (failure(Outcome.OVERLOADED, 529), 1, 1.0),
        (failure(Outcome.BAD_REQUEST, 400), 1, None),
        (failure(Outcome.BAD_REQUEST, 413), 1, None),
        (failure(Outcome.BAD_REQUEST, 422), 1, None),
        (failure(Outcome.UNAUTHORIZED, 401), 1, None),
        (failure(Outcome.UNAUTHORIZED, 403), 1, None),
        (failure(Outcome.MODEL_MISSING, 404), 1, None),
        (failure(Outcome.REDIRECTED, 307), 1, None),
        # an error inside a 200: `status` is the number that the server gave
        (failure(Outcome.ERROR_IN_STREAM, 500), 1, 1.0),
        (failure(Outcome.OVERLOADED, 503), 1, 1.0),
        (failure(Outcome.ERROR_IN_STREAM, 400), 1, None),
        (failure(Outcome.ERROR_IN_STREAM), 1, None),  # no number: nothing says that it passes
        # answers that are none
        (failure(Outcome.UNFINISHED, 200), 1, None),
        (failure(Outcome.BAD_CONTENT, 200), 1, None),
        (failure(Outcome.BAD_EVENT, 200), 1, None),
        # ours
        (failure(Outcome.INVALID_ITEM), 1, None),
        (failure(Outcome.CLIENT_FDS), 1, None),
        (failure(Outcome.CANCELLED), 1, None),
        # Retry-After
        (failure(Outcome.RATE_LIMITED, 429, 7.0), 1, 7.0),
        (failure(Outcome.RATE_LIMITED, 429, 7.0), 3, 7.0),
        (failure(Outcome.RATE_LIMITED, 429, 7.0), 4, None),
        (failure(Outcome.RATE_LIMITED, 429, 0.25), 1, 0.25),
        (failure(Outcome.RATE_LIMITED, 429, 120.0), 1, 120.0),
        (failure(Outcome.RATE_LIMITED, 429, 120.001), 1, None),
        (failure(Outcome.RATE_LIMITED, 429, 121.0), 1, None),
        (failure(Outcome.RATE_LIMITED, 429, 1e9), 1, None),
        (failure(Outcome.RATE_LIMITED, 429, 0.0), 1, 1.0),  # names no wait: the doubling one holds
        (failure(Outcome.RATE_LIMITED, 429, -5.0), 1, 1.0),
        (failure(Outcome.OVERLOADED, 503, 3.0), 2, 3.0),
        (failure(Outcome.BAD_REQUEST, 400, 3.0), 1, None),  # a wait makes nothing retryable
    ],
)
def test_the_table_of_waits(error, attempt, wait_s) -> None:
    """Kind, status, Retry-After and attempt give the wait, or None."""
    assert RetryPolicy().wait_s(error, attempt, endpoint_known_good=False, draw=MIDDLE) == wait_s


@pytest.mark.parametrize(("good", "wait_s"), [(True, 1.0), (False, None)])
def test_a_404_is_rate_limiting_only_from_a_server_that_has_the_model(good, wait_s) -> None:
    """Where nothing says that the endpoint works, a 404 is what it says."""
    assert RetryPolicy().wait_s(failure(Outcome.NOT_FOUND, 404), 1, endpoint_known_good=good, draw=MIDDLE) == wait_s


@pytest.mark.parametrize(("draw", "factor"), [(0.0, 0.5), (0.25, 0.75), (0.5, 1.0), (0.999, 1.499)])
def test_the_wait_is_spread_by_half_either_way(draw, factor) -> None:
    """1, 2, 4 s times U(0.5, 1.5): refused together, they do not return together."""
    for attempt, base_s in ((1, 1), (2, 2), (3, 4)):
        wait_s = RetryPolicy().wait_s(failure(Outcome.CONNECT), attempt, endpoint_known_good=False, draw=draw)
        assert wait_s == pytest.approx(base_s * factor)


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_retries", -1), ("base_s", -1.0), ("jitter", (1.5, 0.5)), ("retry_after_limit_s", -1.0), ("base_s", float("nan"))],
)
def test_a_policy_that_cannot_be_is_refused(field, value) -> None:
    """The message names the field."""
    with pytest.raises(UsageError, match=f"^{field}: got"):
        RetryPolicy(**{field: value})


FAST = RetryPolicy(base_s=0.001)


def chat_request() -> Request:
    return Request(DIALECTS["chat"], b"{}", stream=True)


def run(*script, policy=FAST, lists_model=None, listener=None, cancel_when=None):
    """One request through Retrying over a scripted transport: (last exchange, transport, attempts that were not final)."""

    async def go():
        transport = FakeTransport(*script)
        notes: list[Exchange] = []
        retrying = Retrying(transport, policy, seed=1, lists_model=lists_model, on_attempt=notes.append)
        exchange = Exchange(chat_request(), time.perf_counter_ns())
        exchange.answer.listener = listener
        ended: list[Exchange] = []
        flight = retrying.start(exchange.request, exchange, ended.append)
        assert not ended, "done came from inside start"
        deadline = time.monotonic() + 5
        cancelled = False
        while not ended:
            if cancel_when and not cancelled and cancel_when(retrying):
                flight.cancel()
                flight.cancel()  # a second one changes nothing
                cancelled = True
                assert not ended, "done came from inside cancel"
            assert time.monotonic() < deadline
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        assert len(ended) == 1
        assert not retrying.waiting
        await retrying.close()
        assert transport.closed == 1
        return ended[0], transport, notes

    return asyncio.run(go())


def test_a_passing_failure_is_followed_by_the_answer() -> None:
    """The caller gets the last attempt, due when the first was, and each attempt before it was told."""
    last, transport, notes = run(refuses(503), breaks(Outcome.RESET), answers("a b"))
    assert last.outcome is Outcome.OK
    assert last.answer.text() == "a b"
    assert last.attempt == 3
    assert [n.outcome for n in notes] == [Outcome.OVERLOADED, Outcome.RESET]
    assert [n.attempt for n in notes] == [1, 2]
    assert {x.due_ns for x in transport.exchanges} == {last.due_ns}
    assert len({id(x) for x in transport.exchanges}) == 3


def test_attempts_that_are_used_up_are_named() -> None:
    """The error is the last attempt's, and says how many there were."""
    last, transport, notes = run(refuses(500, "boom"))
    assert len(transport.sent) == 4
    assert last.outcome is Outcome.SERVER_FAILED
    assert "boom" in str(last.error)
    assert "after 4 attempts" in str(last.error)
    assert len(notes) == 3


def test_a_wait_beyond_the_limit_fails_at_once_and_is_named() -> None:
    """Nobody sits through an hour of Retry-After, and the message says why."""
    last, transport, _ = run(refuses(429, retry_after="3600"))
    assert len(transport.sent) == 1
    assert isinstance(last.error, RateLimitError)
    assert "3600 s" in str(last.error)
    assert "120 s" in str(last.error)
    assert last.error.retry_after_s == 3600


def test_retry_after_ms_is_what_is_waited() -> None:
    """The wait comes from the header, not from the doubling one (which would be an hour here)."""
    slow = RetryPolicy(base_s=3600)
    last, transport, _ = run(refuses(429, retry_after_ms="5"), answers(), policy=slow)
    assert last.outcome is Outcome.OK
    assert len(transport.sent) == 2


@pytest.mark.parametrize("step", [refuses(400), refuses(401), breaks(Outcome.TLS), breaks(Outcome.FIRST_BYTE_TIMEOUT)])
def test_what_does_not_pass_is_sent_once_and_told_as_it_is(step) -> None:
    """A permanent failure costs one request."""
    last, transport, notes = run(step)
    assert len(transport.sent) == 1
    assert "attempts" not in str(last.error)
    assert notes == []


def test_retries_can_be_turned_off() -> None:
    """max_retries=0: what measuring uses."""
    last, transport, _ = run(refuses(503), policy=RetryPolicy(max_retries=0))
    assert len(transport.sent) == 1
    assert "attempt" not in str(last.error)


def listing(answer: object, asked: list[int]):
    async def lists_model() -> bool:
        asked.append(1)
        await asyncio.sleep(0)
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    return lists_model


def test_a_404_from_a_server_that_lists_the_model_is_rate_limiting() -> None:
    """It is retried; the list is asked for once."""
    asked: list[int] = []
    last, transport, _ = run(refuses(404), refuses(404), answers(), lists_model=listing(True, asked))
    assert last.outcome is Outcome.OK
    assert len(transport.sent) == 3
    assert len(asked) == 1


def test_a_burst_of_404s_asks_one_question() -> None:
    """A server that limits rates is not asked for its models by each request that it refuses."""

    async def go() -> tuple[int, list[Exchange]]:
        asked: list[int] = []
        retrying = Retrying(FakeTransport(*[refuses(404)] * 8, answers()), FAST, lists_model=listing(True, asked))
        ended: list[Exchange] = []
        for _ in range(8):
            exchange = Exchange(chat_request(), time.perf_counter_ns())
            retrying.start(exchange.request, exchange, ended.append)
        async with asyncio.timeout(10):
            while len(ended) < 8:
                await asyncio.sleep(0.001)
        return len(asked), ended

    asked, ended = asyncio.run(go())
    assert asked == 1
    assert all(exchange.ok for exchange in ended)


def test_a_404_that_stays_is_told_as_rate_limiting() -> None:
    """The caller learns what was taken for what."""
    last, _, _ = run(refuses(404, "Not Found"), lists_model=listing(True, []))
    assert last.outcome is Outcome.RATE_LIMITED
    assert isinstance(last.error, RateLimitError)
    assert last.error.status == 404
    assert "rate limiting" in str(last.error)


@pytest.mark.parametrize("answer", [False, request_error(Outcome.CONNECT, "gone")])
def test_a_404_stands_where_the_model_is_not_listed_or_cannot_be_asked_for(answer) -> None:
    """No evidence, no retry."""
    last, transport, _ = run(refuses(404), lists_model=listing(answer, []))
    assert last.outcome is Outcome.NOT_FOUND
    assert len(transport.sent) == 1


def test_a_404_that_names_a_missing_model_is_permanent_and_asks_nothing() -> None:
    """The server has said it."""
    asked: list[int] = []
    last, transport, _ = run(refuses(404, "The model `x` does not exist."), lists_model=listing(True, asked))
    assert isinstance(last.error, ModelMissingError)
    assert len(transport.sent) == 1
    assert asked == []


def test_a_404_after_a_success_is_rate_limiting_without_asking() -> None:
    """This endpoint has answered before: it is there."""

    async def go() -> list[Exchange]:
        transport = FakeTransport(answers(), refuses(404), answers())
        retrying = Retrying(transport, FAST)
        ended: list[Exchange] = []
        for _ in range(2):
            exchange = Exchange(chat_request(), time.perf_counter_ns())
            wait = asyncio.get_running_loop().create_future()
            retrying.start(exchange.request, exchange, lambda x, wait=wait: (ended.append(x), wait.set_result(None)))
            await wait
        return ended

    first, second = asyncio.run(go())
    assert (first.attempt, second.attempt) == (1, 2)
    assert second.outcome is Outcome.OK


OVERLOADED_EVENT = b'data: {"error": {"message": "full", "code": 503}}\n\ndata: [DONE]\n\n'


def test_an_error_in_the_stream_before_any_output_is_retried() -> None:
    """vLLM with a full queue: 200, one error event, [DONE]."""
    last, transport, _ = run(says(OVERLOADED_EVENT), answers())
    assert last.outcome is Outcome.OK
    assert len(transport.sent) == 2


def test_an_error_in_the_stream_after_output_is_not() -> None:
    """The server had begun: what broke may break again at the same place."""
    last, transport, _ = run(says(chunk("a") + OVERLOADED_EVENT), answers())
    assert last.outcome is Outcome.OVERLOADED
    assert len(transport.sent) == 1


def test_a_connection_that_breaks_mid_stream_is_retried_while_nobody_listens() -> None:
    """No caller has seen the first half."""
    last, transport, _ = run(breaks(Outcome.RESET, after=chunk("a")), answers("b"))
    assert last.answer.text() == "b"
    assert len(transport.sent) == 2


def test_nothing_is_sent_again_once_a_listener_has_output() -> None:
    """Else the caller would read the beginning twice."""
    heard: list[str] = []
    last, transport, _ = run(breaks(Outcome.RESET, after=chunk("a")), answers("b"), listener=lambda piece: heard.append(str(piece)))
    assert heard == ["a"]
    assert last.outcome is Outcome.RESET
    assert len(transport.sent) == 1


def test_a_listener_hears_the_attempt_that_succeeds() -> None:
    """Refused before any output, the next attempt speaks to the same listener."""
    heard: list[str] = []
    last, _, _ = run(refuses(503), answers("a b"), listener=lambda piece: heard.append(str(piece)))
    assert heard == ["a", " b"]
    assert last.attempt == 2


def test_cancelled_in_flight_is_cancelled_and_not_sent_again() -> None:
    """The transport's own cancel, told once."""
    last, transport, _ = run(hangs, cancel_when=lambda retrying: True)
    assert last.outcome is Outcome.CANCELLED
    assert len(transport.sent) == 1


def test_cancelled_while_waiting_ends_unsent() -> None:
    """The wait is over at once, and the message says what was waited for."""
    last, transport, notes = run(refuses(503, "full"), policy=RetryPolicy(base_s=3600), cancel_when=lambda retrying: retrying.waiting)
    assert last.outcome is Outcome.CANCELLED
    assert last.sent_ns == 0
    assert "full" in str(last.error)
    assert len(transport.sent) == 1
    assert [n.outcome for n in notes] == [Outcome.OVERLOADED]


def test_cancelled_while_asking_for_the_models_ends_unsent() -> None:
    """The question is dropped."""

    async def never() -> bool:
        await asyncio.Event().wait()
        return True

    last, transport, _ = run(refuses(404), lists_model=never, cancel_when=lambda retrying: retrying.waiting)
    assert last.outcome is Outcome.CANCELLED
    assert len(transport.sent) == 1


def test_closing_ends_what_waits() -> None:
    """A client that is closed leaves no timer behind, and its callers hear of it."""

    async def go() -> Exchange:
        transport = FakeTransport(refuses(503))
        retrying = Retrying(transport, RetryPolicy(base_s=3600))
        ended: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
        exchange = Exchange(chat_request(), time.perf_counter_ns())
        retrying.start(exchange.request, exchange, ended.set_result)
        while not retrying.waiting:
            await asyncio.sleep(0)
        await retrying.close()
        return await asyncio.wait_for(ended, 5)

    assert asyncio.run(go()).outcome is Outcome.CANCELLED


def test_what_fails_while_closing_is_not_sent_again() -> None:
    """The transport under it is closed by then: the failure is told, rather than a request that never ends."""

    class Closing(FakeTransport):
        async def close(self) -> None:
            for flight in list(self.in_flight):
                flight.play(breaks(Outcome.CONNECT_TIMEOUT))
            await super().close()

    async def go() -> Exchange:
        retrying = Retrying(Closing(hangs), FAST)
        ended: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
        exchange = Exchange(chat_request(), time.perf_counter_ns())
        retrying.start(exchange.request, exchange, ended.set_result)
        await retrying.close()
        return await asyncio.wait_for(ended, 5)

    assert asyncio.run(go()).outcome is Outcome.CONNECT_TIMEOUT
