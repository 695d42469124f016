"""The completions dialect: recorded streams, several prompts, prompts that cannot be sent."""

from __future__ import annotations

import json

import pytest
from recordings import load, play

from clients.answer import Answer
from clients.completions import Completions
from clients.errors import Outcome, RequestError
from clients.messages import Sampling
from clients.usage import Usage

COMPLETIONS = Completions()


def test_a_recorded_stream():
    """Text, usage and finish reason of vLLM's stream; every text is answer."""
    answer = play(COMPLETIONS, [load("vllm/completions_stream_usage").body])
    assert answer.text().startswith("days")
    assert (answer.finish_reasons, answer.done, answer.error) == ({0: "length"}, True, None)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8
    assert answer.first_answer_ns == answer.first_output_ns > 0


def test_two_prompts_in_one_request():
    """Each prompt is a choice; vLLM's usage chunk counts both."""
    answer = play(COMPLETIONS, [load("vllm/completions_stream_2prompts").body])
    assert (answer.text(0), answer.text(1)) == ("daysarnhen", "helasses res")
    assert (answer.finish_reasons, answer.usage, answer.events) == ({0: "length", 1: "length"}, Usage(7, 6), 6)


def test_llama_servers_stream_begins_with_null():
    """`data: null` says nothing; the usage on each finish chunk is that choice's, and they add up."""
    answer = play(COMPLETIONS, [load("written/llama_server_completions_2prompts").body])
    assert (answer.text(0), answer.text(1)) == ("days arn", "he res")
    assert (answer.finish_reasons, answer.error, answer.events) == ({0: "length", 1: "stop"}, None, 4)
    assert answer.usage == Usage(4, 4)  # of several prompts without a total: the largest stands for all
    assert not answer.tokens_known


def test_an_answer_that_was_not_streamed():
    """One output event at the end."""
    answer = Answer()
    COMPLETIONS.decode_body(load("vllm/completions_nonstream").body, 77, answer)
    assert (answer.text(), answer.usage) == ("daysarnhen cor --\n acquire| provi", Usage(4, 8))
    assert (answer.finish_reasons, answer.events, answer.first_answer_ns) == ({0: "length"}, 1, 77)


def test_continuous_usage_sizes_the_events():
    """The tokens of an event are what its choice's count grew by."""
    answer = Answer()
    for i, (text, count) in enumerate([("a", 1), ("", 2), ("é", 3), ("bc", 5)]):
        event = {"choices": [{"index": 0, "text": text}], "usage": {"prompt_tokens": 3, "completion_tokens": count}}
        COMPLETIONS.decode_event(json.dumps(event).encode(), i + 1, answer)
    assert answer.event_tokens.tolist() == [1, 2, 2]
    assert answer.usage == Usage(3, 5)


@pytest.mark.parametrize("event", [b"{", b'{"choices":[{"text":1}]}', b'{"choices":[{"index":"0"}]}'])
def test_what_is_not_a_chunk_is_a_bad_event(event):
    """Broken events fail by name, and are bad content as a body."""
    answer, body = Answer(), Answer()
    COMPLETIONS.decode_event(event, 1, answer)
    COMPLETIONS.decode_body(event, 1, body)
    assert answer.error is not None
    assert body.error is not None
    assert (answer.error.outcome, body.error.outcome) == (Outcome.BAD_EVENT, Outcome.BAD_CONTENT)


def test_nothing_after_done_counts():
    """[DONE] is the end here too."""
    answer = play(COMPLETIONS, [b'data: [DONE]\n\ndata: {"choices":[{"text":"x"}]}\n\n'])
    assert (answer.done, answer.events) == (True, 0)


def test_an_empty_body_says_nothing():
    """A body without choices has no finish reason, so it is no success; it is no error of its own."""
    for body in (b"null", b'{"choices":[]}'):
        answer = Answer()
        COMPLETIONS.decode_body(body, 1, answer)
        assert (answer.error, answer.finish_reasons, answer.events) == (None, {}, 0)


@pytest.mark.parametrize(("prompt", "sent", "choices"), [("Hi", "Hi", 2), (["a", "b"], ["a", "b"], 4), ([1, 2, 3], [1, 2, 3], 2)])
def test_prompts_and_the_choices_they_need(prompt, sent, choices):
    """A string, strings or token ids; n finish reasons for each prompt."""
    sampling = Sampling(n=2, max_tokens=4)
    body = json.loads(COMPLETIONS.encode("m", prompt, sampling, stream=False))
    assert body == {"model": "m", "prompt": sent, "n": 2, "max_tokens": 4}
    assert COMPLETIONS.choices(prompt, sampling) == choices


@pytest.mark.parametrize("prompt", ["", "  \n", [], ["a", ""], [1, "a"], [-1], [True], None, 3, {"a": 1}, b"x", "\ud800"])
def test_a_prompt_that_cannot_be_sent_is_the_items_error(prompt):
    """Blank, empty, of another type, or not encodable: the item fails by name."""
    with pytest.raises(RequestError) as caught:
        COMPLETIONS.encode("m", prompt, Sampling(), stream=True)
    assert caught.value.outcome is Outcome.INVALID_ITEM
