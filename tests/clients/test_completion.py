"""A result by value: what it says of an answer, of a failure, and of time."""

from __future__ import annotations

import pickle

import pytest
from fakes import chunk

from clients.completion import Completion
from clients.dialects import DIALECTS
from clients.errors import Outcome, request_error
from clients.exchange import Exchange, Request

MS = 1_000_000


def exchange(*blocks: bytes, choices: int = 1, due_ns: int = 1 * MS, fail: Outcome | None = None) -> Exchange:
    """Due at 1 ms, sent at 2, head at 10, blocks from 20 on, 10 ms apart; ends 10 ms after the last."""
    made = Exchange(Request(DIALECTS["chat"], b"{}", stream=True, choices=choices), due_ns)
    made.sent_ns = 2 * MS
    made.head(10 * MS, 200, {"content-type": "text/event-stream", "x-request-id": "rq-7"})
    now_ns = 20 * MS
    for block in blocks:
        made.data(now_ns, block)
        now_ns += 10 * MS
    if fail is None:
        made.finish(now_ns)
    else:
        made.fail(now_ns, request_error(fail, fail.label))
    return made


WHOLE = (chunk("Hello"), chunk(", world"), chunk("", "stop"))


def test_the_text_is_the_completion() -> None:
    """str() is what a pipeline goes on with."""
    completion = Completion.of(exchange(*WHOLE))
    assert completion.ok
    assert completion.error is None
    assert str(completion) == completion.text == "Hello, world"
    assert completion.finish_reason == "stop"
    assert completion.model == "m"
    assert completion.request_id == "rq-7"
    assert (completion.status, completion.attempts) == (200, 1)


def test_times_run_from_the_due_in_seconds() -> None:
    """Queue, first output, end and gaps of the stamps above."""
    timing = Completion.of(exchange(*WHOLE)).timing
    assert timing.queue_s == pytest.approx(0.001)
    assert timing.ttft_s == pytest.approx(0.019)
    assert timing.first_answer_s == pytest.approx(0.019)
    assert timing.e2e_s == pytest.approx(0.049)
    assert timing.itl_s == pytest.approx([0.010])


def test_what_did_not_happen_has_no_time() -> None:
    """None, not zero: an average over it would lie."""
    timing = Completion.unsent(request_error(Outcome.INVALID_ITEM, "blank"), 0, 5 * MS).timing
    assert (timing.queue_s, timing.ttft_s, timing.first_answer_s, timing.itl_s) == (None, None, None, [])
    assert timing.e2e_s == pytest.approx(0.005)


def test_a_failure_keeps_what_had_arrived() -> None:
    """Half a page is half a page, with its error and its times."""
    completion = Completion.of(exchange(chunk("Hello"), fail=Outcome.RESET))
    assert not completion.ok
    assert completion.outcome is Outcome.RESET
    assert completion.error is not None
    assert completion.text == "Hello"
    assert completion.finish_reason is None
    assert completion.timing.ttft_s == pytest.approx(0.019)


def test_every_choice_that_was_asked_for_is_there() -> None:
    """Of two, one finished: the other is empty, and the error says so."""
    completion = Completion.of(exchange(*WHOLE, choices=2))
    assert [choice.finish_reason for choice in completion.choices] == ["stop", None]
    assert completion.outcome is Outcome.UNFINISHED


@pytest.mark.parametrize(
    "made",
    [
        Completion.of(exchange(*WHOLE)),
        Completion.of(exchange(chunk("Hello"), fail=Outcome.RESET)),
        Completion.unsent(request_error(Outcome.INVALID_ITEM, "blank"), 0, 5),
    ],
)
def test_it_pickles_by_value(made) -> None:
    """Results go from worker processes of a pipeline to their parent."""
    again = pickle.loads(pickle.dumps(made))
    assert repr(again) == repr(made)
    assert (again.choices, again.usage, again.timing, again.stamps) == (made.choices, made.usage, made.timing, made.stamps)
    assert type(again.error) is type(made.error)


def test_the_repr_shows_the_beginning_of_a_long_text() -> None:
    """A list of completions stays readable."""
    shown = repr(Completion.of(exchange(chunk("word " * 1000), chunk("", "stop"))))
    assert shown.startswith("<Completion ok 0.04s 'word word")
    assert len(shown) < 80


def test_the_repr_of_a_failure_says_why() -> None:
    """Kind and words."""
    shown = repr(Completion.of(exchange(fail=Outcome.RESET)))
    assert shown == "<Completion reset 0.02s: reset>"


def test_it_does_not_hold_the_request() -> None:
    """A batch of images would else stay in memory whole."""
    import gc

    class Body(bytes):
        pass

    body = Body(b"x" * 100)
    made = Exchange(Request(DIALECTS["chat"], body, stream=True), 0)
    made.fail(1, request_error(Outcome.CONNECT, "x"))
    completion = Completion.of(made)
    assert any(each is body for each in gc.get_referents(made.request))  # the walk below would find it
    seen, todo = set(), [completion]
    while todo:
        each = todo.pop()
        assert each is not body
        if id(each) not in seen and not isinstance(each, type):
            seen.add(id(each))
            todo.extend(gc.get_referents(each))
