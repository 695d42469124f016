"""The chat dialect against recorded streams of five kinds of server, and against what no server should send."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings import dialect_name, load, play, said, steady, streams

from clients.answer import Answer
from clients.chat import Chat
from clients.dialects import DIALECTS
from clients.errors import Outcome, ProtocolError, RequestError
from clients.messages import Message, Sampling
from clients.pieces import ToolCall
from clients.usage import Usage

CHAT = Chat()
USAGE = {"prompt_tokens": 32, "completion_tokens": 8}


def chunk(**delta: object) -> dict[str, object]:
    return {"id": "x", "choices": [{"index": 0, "delta": delta}]}


def decoded(*events: object) -> Answer:
    answer = Answer()
    for i, event in enumerate(events):
        CHAT.decode_event(event if isinstance(event, bytes) else json.dumps(event).encode(), 1000 * (i + 1), answer)
    return answer


# name: text, reasoning, usage, finish reasons, output events, tokens of events, [DONE]
RECORDED = {
    "vllm/chat_stream_usage": (".setTTPage listser�(' _", "", Usage(32, 8), {0: "length"}, 6, None, True),
    "vllm/chat_stream_usage.raw": (".setTTPage listser�(' _", "", Usage(32, 8), {0: "length"}, 7, None, True),
    "vllm/chat_stream_nousage": (".setTTPage listser�(' _", "", None, {0: "length"}, 7, None, True),
    "vllm/chat_stream_usage_continuous": (".setTTPage list", "", Usage(32, 4), {0: "length"}, 4, [1, 1, 1, 1], True),
    "vllm/chat_stream_logprobs": (".setTTPage", "", None, {0: "length"}, 3, None, True),
    "vllm/chat_stream_max_tokens_1": (".set", "", Usage(32, 1), {0: "length"}, 1, None, True),
    "vllm/chat_stream_eos_first": ("", "", Usage(32, 1), {0: "stop"}, 0, None, True),  # EOS is a token without text
    "vllm/chat_stream_keepalive_comments": ("ternal requiredature", "", Usage(28, 4), {0: "length"}, 3, None, True),
    "vllm-vl/chat_two_images": (" emptyigh�� Threadtic raisessetattr", "", Usage(57, 8), {0: "length"}, 6, None, True),
    "written/llama_server_chat": ("Hello é", "", Usage(12, 4, cached_tokens=8), {0: "stop"}, 3, None, True),
    "written/llama_cpp_server_chat": ("Hello", "", None, {0: "length"}, 2, None, True),
    "written/transformers_chat": ("Hello", "", Usage(12, 2), {0: "length"}, 2, None, False),
    "written/litellm_chat": ("Hello", "", Usage(12, 3, cached_tokens=0), {0: "stop"}, 2, None, True),
    # half a character at 4 tokens: its token is part of the next event's
    "written/reasoning_then_answer": ("é42.", "Let me see", Usage(9, 8, None, 3), {0: "stop"}, 5, [1, 1, 1, 3, 1], True),
}


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_streams_say_what_they_said(name):
    """Text, reasoning, usage, finish reason, output events and [DONE] of each server's stream."""
    text, reasoning, usage, finish, events, tokens, done = RECORDED[name]
    answer = play(CHAT, [load(name).body])
    assert (answer.text(), answer.reasoning(), answer.usage, answer.finish_reasons) == (text, reasoning, usage, finish)
    assert (answer.events, answer.done, answer.error) == (events, done, None)
    assert (answer.event_tokens.tolist() if answer.tokens_known else None) == tokens
    assert answer.id
    assert answer.model


@pytest.mark.parametrize("name", [n for folder in ("vllm", "vllm-vl", "written") for n in streams(folder) if len(load(n).body) < 10_000])
def test_recorded_streams_give_the_same_answer_at_every_split_point(name):
    """Wherever the bytes are cut, the answer says the same, kept or not."""
    body = load(name).body
    dialect = DIALECTS[dialect_name(name)]
    whole = said(play(dialect, [body]))
    assert whole["id"] or whole["error"] != "None"
    for i in range(len(body)):
        assert said(play(dialect, [body[:i], body[i:]])) == whole
    measured = play(dialect, [body], keep=False)
    assert (measured.text(), measured.tool_calls()) == ("", [])
    assert {key: said(measured)[key] for key in ("usage", "finish", "events", "tokens", "error")} == {
        key: whole[key] for key in ("usage", "finish", "events", "tokens", "error")
    }


def test_n_2_is_put_together_by_index():
    """Interleaved choices keep their own text and finish; the usage chunk counts both."""
    answer = play(CHAT, [load("vllm/chat_stream_n2").body])
    assert (answer.text(0), answer.text(1)) == ("ption no __mal", "��ftread")
    assert answer.finish_reasons == {0: "length", 1: "length"}
    assert answer.usage == Usage(32, 8)
    assert answer.events == 6


def test_llama_server_sends_a_usage_chunk_for_each_choice():
    """Completions add up, their prompt counts once."""
    answer = play(CHAT, [load("written/llama_server_chat_n2").body])
    assert (answer.text(0), answer.text(1)) == ("one", "two three")
    assert answer.finish_reasons == {0: "stop", 1: "length"}
    assert answer.usage == Usage(12, 5)


def test_of_a_key_that_stands_twice_the_last_counts():
    """As in every JSON parser in use; telling them apart would cost each event more than the fault is worth."""
    answer = decoded(
        b'{"choices":[{"index":0,"delta":{"content":"a"},"delta":{"content":"b"},"finish_reason":null,"finish_reason":"stop"}]}'
    )
    assert (answer.text(), answer.finish_reasons, answer.error) == ("b", {0: "stop"}, None)


def test_tool_calls_stream_by_index():
    """Calls are assembled from deltas; each delta with text is an output event, and it is answer, not reasoning."""
    answer = play(CHAT, [load("written/tool_calls").body])
    assert answer.tool_calls() == [ToolCall("call_a", "weather", '{"city": "Oslo"}'), ToolCall("call_b", "clock", "{}")]
    assert (answer.text(), answer.events, answer.finish_reasons) == ("", 5, {0: "tool_calls"})
    assert answer.first_answer_ns == answer.first_output_ns > 0


def test_continuous_usage_counts_each_choice_by_itself():
    """vLLM's continuous usage with n=2 is that of the chunk's choice; the last chunk has the sum."""
    answer = decoded(
        *(
            {"choices": [{"index": i, "delta": {"content": "x"}}], "usage": {"prompt_tokens": 3, "completion_tokens": n}}
            for i, n in ((0, 2), (1, 1), (0, 3))
        )
    )
    assert answer.event_tokens.tolist() == [2, 1, 1]
    assert answer.usage == Usage(3, 4)  # so far: the stream may break off here
    CHAT.decode_event(b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":9}}', 9, answer)
    assert answer.usage == Usage(3, 9)


def test_a_usage_beside_a_choice_that_had_finished_is_the_total():
    """LiteLLM's last chunk names choice 0, which ended before, and counts all of them."""
    events = [
        {
            "choices": [{"index": i, "delta": {"content": "x"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": n},
        }
        for i, n in ((0, 2), (1, 3))
    ]
    last = {"choices": [{"index": 0, "delta": {}}], "usage": {"prompt_tokens": 3, "completion_tokens": 5}}
    assert decoded(*events).usage == Usage(3, 5)
    assert decoded(*events, last).usage == Usage(3, 5)


def test_usage_only_at_the_end_leaves_sizes_unknown():
    """A finish chunk with text and usage cannot size the events before it."""
    last = chunk(content="b") | {"usage": USAGE}
    answer = decoded(chunk(content="a"), last)
    assert not answer.tokens_known
    assert answer.usage == Usage(32, 8)


def test_several_choices_in_one_chunk_are_one_event():
    """One event of the stream is one arrival, however many choices it holds; the usage beside them counts all."""
    two = {"choices": [{"index": i, "delta": {"content": t}} for i, t in enumerate("ab")], "usage": USAGE}
    answer = decoded(two, two)
    assert (answer.events, answer.text(0), answer.text(1), answer.tokens_known) == (2, "aa", "bb", False)
    assert answer.usage == Usage(32, 8)


@pytest.mark.parametrize(
    "event",
    [
        b"null",
        b"",
        b" ",
        b"{}",
        {"choices": []},
        {"choices": None},
        {"choices": None, "usage": None, "error": None},
        {"choices": [{}]},
        {"choices": [{"index": 0}]},
        {"choices": [{"index": 0, "delta": None, "finish_reason": None}]},
        chunk(),
        chunk(role="assistant"),
        chunk(role="assistant", content=None),
        chunk(content=""),
        chunk(reasoning="", reasoning_content=None),
        chunk(tool_calls=[]),
        chunk(tool_calls=[{"index": 0, "id": "a", "function": {"name": "", "arguments": ""}}]),
        chunk(tool_calls=[{"index": 0, "function": None}]),
        {"object": "ping", "extra": [1, {"a": "error"}]},
    ],
)
def test_chunks_without_text_are_no_output_and_no_fault(event):
    """Role-only, empty and foreign chunks are neither tokens nor errors."""
    answer = decoded(event)
    assert (answer.events, answer.error, answer.finish_reasons, answer.done) == (0, None, {}, False)


DEEP = b'{"choices":[{"index":0,"delta":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"}]}"


@pytest.mark.parametrize(
    "event",
    [
        b"{",
        b'{"choices":[{"index":0,"delta":{"content":"x"}}]',  # torn
        b"<html>",
        b"[1]",
        b"[DONE",
        b'"text"',
        b"12",
        b"NaN",
        {"choices": {}},
        {"choices": ["x"]},
        chunk(content=1),
        chunk(content=["x"]),
        chunk(tool_calls={}),
        {"choices": [{"index": "0", "delta": {"content": "x"}}]},  # a number as a string
        {"choices": [{"index": 0, "finish_reason": 3}]},
        {"choices": [{"index": -1, "finish_reason": "stop"}]},
        {"choices": [{"index": 10**12, "finish_reason": "stop"}]},  # whoever lists the choices would list that many
        chunk(tool_calls=[{"index": 10**12}]),
        {"choices": [], "usage": {"prompt_tokens": "32", "completion_tokens": 8}},
        {"choices": [], "usage": {"prompt_tokens": 32, "completion_tokens": -8}},
        {"choices": [], "usage": {"prompt_tokens": 32, "completion_tokens": 2**31}},
        b'{"choices":[],"usage":{"prompt_tokens":NaN,"completion_tokens":8}}',
        b'{"choices":[],"usage":{"prompt_tokens":1e400,"completion_tokens":8}}',
        b'{"choices":[],"usage":{"prompt_tokens":' + b"9" * 5000 + b"}}",
        b'{"choices":[{"index":1e400}]}',
        b'{"choices":[{"index":0,"delta":{"content":"\xff\xfe"}}]}',  # no UTF-8
        b'{"choices":[{"index":0,"delta":{"content":"\\ud800"}}]}',  # half a surrogate pair
        DEEP,
        b"[" * 200_000,
        b'{"error":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        b'{"object":"error","message":"\xff"}',
    ],
)
def test_what_is_not_a_chunk_is_a_bad_event(event):
    """Broken JSON and JSON of another shape fail the answer by name; they are not skipped and nothing is raised."""
    answer = decoded(event)
    assert isinstance(answer.error, ProtocolError)
    assert answer.error.outcome is Outcome.BAD_EVENT
    assert answer.events == 0
    assert len(str(answer.error)) < 1100
    assert "\n" not in str(answer.error)


def test_what_is_not_read_may_be_of_any_shape():
    """Extra keys, duplicate keys (the last holds) and odd numbers in fields that are not read do no harm."""
    answer = decoded(
        b'{"x":1e400,"created":"now","choices":[{"index":0,"delta":{"content":"a","content":"b","refusal":[1]},"logprobs":{"a":[]}}]}'
    )
    assert (answer.error, answer.text()) == (None, "b")


def test_the_first_error_stands_and_timing_goes_on():
    """A bad event fails the answer; what arrives after it is still stamped, a second fault is not named."""
    answer = decoded(chunk(content="a"), b"{", {"error": "second"}, chunk(content="b"))
    assert answer.error is not None
    assert answer.error.outcome is Outcome.BAD_EVENT
    assert (answer.events, answer.last_output_ns) == (2, 4000)


def test_what_comes_after_done_is_ignored():
    """[DONE] is the end, with or without spaces around it."""
    for done in (b"[DONE]", b" [DONE] "):
        answer = decoded(chunk(content="a"), done, chunk(content="b"), b"{", {"error": "late"})
        assert (answer.done, answer.text(), answer.error, answer.events) == (True, "a", None, 1)


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter", "a word of tomorrow"])
def test_finish_reasons_are_kept_as_the_server_says_them(reason):
    """Unknown words are kept; text beside the reason counts."""
    answer = decoded({"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": reason}]})
    assert (answer.finish_reasons, answer.text()) == ({0: reason}, "x")


def test_an_empty_finish_reason_is_none():
    """Some servers write an empty string where others write null."""
    assert decoded({"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": ""}]}).finish_reasons == {}


@pytest.mark.parametrize(
    ("name", "outcome", "status", "events"),
    [
        ("vllm/err_queue_full_race_in_stream", Outcome.OVERLOADED, 503, 0),
        ("vllm/err_engine_killed_mid_stream", Outcome.ERROR_IN_STREAM, 500, None),
        ("written/litellm_error_in_stream", Outcome.ERROR_IN_STREAM, 500, 1),
        ("written/transformers_error_in_stream", Outcome.ERROR_IN_STREAM, 0, 1),
    ],
)
def test_errors_in_a_stream_are_errors(name, outcome, status, events):
    """HTTP 200, an error event, even [DONE]: no success. What was stamped before stays."""
    answer = play(CHAT, [load(name).body])
    assert answer.error is not None
    assert (answer.error.outcome, answer.error.status) == (outcome, status)
    assert answer.events == events if events is not None else answer.events > 100
    assert not answer.finish_reasons


@steady
@given(st.binary(max_size=60))
def test_no_bytes_make_the_decoder_raise(data):
    """Any bytes: an answer with or without an error, never an exception."""
    decoded(data)
    CHAT.decode_body(data, 1, Answer())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "delta",
                    "message",
                    "content",
                    "reasoning",
                    "tool_calls",
                    "function",
                    "index",
                    "usage",
                    "error",
                    "object",
                    "code",
                    "type",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@steady
@given(st.dictionaries(st.sampled_from(["choices", "usage", "error", "id", "model", "object", "message", "data"]), json_values))
def test_no_json_makes_any_dialect_raise(value):
    """Any JSON under the names that are read: an answer with or without an error, never an exception."""
    data = json.dumps(value).encode("utf-8", "surrogatepass")
    for dialect in DIALECTS.values():
        for keep in (True, False):
            dialect.decode_event(data, 1, Answer(keep))
            dialect.decode_body(data, 1, Answer(keep))


def test_an_answer_that_was_not_streamed():
    """One output event at the end; text, usage and finish reason are the body's."""
    answer = Answer()
    CHAT.decode_body(load("vllm/chat_nonstream").body, 77, answer)
    assert (answer.text(), answer.usage, answer.finish_reasons) == (".setTTPage listser�(' _", Usage(32, 8), {0: "length"})
    assert (answer.events, answer.first_output_ns, answer.first_answer_ns, answer.tokens_known) == (1, 77, 77, False)
    assert (answer.id[:9], answer.model, answer.error) == ("chatcmpl-", "tiny", None)


def test_a_reply_that_stopped_at_once_has_no_output():
    """completion_tokens is 1 (EOS), and there is no text and no event."""
    answer = Answer()
    CHAT.decode_body(load("vllm/chat_nonstream_eos_first").body, 77, answer)
    assert (answer.text(), answer.events, answer.finish_reasons) == ("", 0, {0: "stop"})
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 1


@pytest.mark.parametrize("place", [{}, {"index": 0}])
def test_tool_calls_that_were_not_streamed_are_whole(place):
    """Two calls are two, also from a server that gives them no id, and no index or the same."""
    calls = [{**place, "id": "", "function": {"name": name, "arguments": "{}"}} for name in ("weather", "clock")]
    document = {"choices": [{"index": 0, "message": {"tool_calls": calls}, "finish_reason": "tool_calls"}]}
    answer = Answer()
    CHAT.decode_body(json.dumps(document).encode(), 77, answer)
    assert answer.tool_calls() == [ToolCall("", "weather", "{}"), ToolCall("", "clock", "{}")]


def test_tool_calls_that_were_not_streamed_keep_their_order():
    """Without an index, each new id is a new call."""
    answer = Answer()
    CHAT.decode_body(load("written/tool_calls_nonstream").body, 77, answer)
    assert answer.tool_calls() == [ToolCall("call_a", "weather", "{}"), ToolCall("call_b", "clock", "{}")]
    assert (answer.events, answer.finish_reasons) == (1, {0: "tool_calls"})


@pytest.mark.parametrize("body", [b"", b"null", b"<html>login</html>", b'{"choices":[{"message":{"content":1}}]}', b"[" * 200_000])
def test_a_body_that_is_no_answer_is_bad_content(body):
    """A body that cannot be read fails by name."""
    answer = Answer()
    CHAT.decode_body(body, 1, answer)
    assert answer.error is not None
    assert answer.error.outcome is Outcome.BAD_CONTENT


def test_an_error_object_with_200_is_that_error():
    """A body with an error is the error, in the stream's kinds."""
    answer = Answer()
    CHAT.decode_body(b'{"error":{"message":"slow down","code":"429"}}', 1, answer)
    assert answer.error is not None
    assert answer.error.outcome is Outcome.RATE_LIMITED


def test_a_body_holds_what_was_asked_for():
    """Messages, set parameters, extra_body; a stream asks for usage, continuous if wanted, beside the caller's stream_options."""
    sampling = Sampling(max_tokens=5, stop=["a"], ignore_eos=True, extra_body={"top_a": 1, "stream_options": {"x": 2}})
    assert json.loads(CHAT.encode("m", "Hi", Sampling(), stream=False)) == {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    assert json.loads(CHAT.encode("m", [Message("user", "Hi")], sampling, stream=True, continuous_usage=True)) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 5,
        "stop": ["a"],
        "ignore_eos": True,
        "top_a": 1,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True, "x": 2},
    }
    assert json.loads(CHAT.encode("m", "Hi", Sampling(), stream=True))["stream_options"] == {"include_usage": True}
    without = Sampling(extra_body={"stream_options": None})  # for a server that refuses them
    assert json.loads(CHAT.encode("m", "Hi", without, stream=True))["stream_options"] is None


@pytest.mark.parametrize("extra", [{"seed": 2**70}, {"x": "\ud800"}, {"x": object()}, {1: 2}])
def test_what_json_cannot_hold_is_the_items_error(extra):
    """An item that cannot be written fails alone, by name."""
    with pytest.raises(RequestError, match="cannot be written as JSON") as caught:
        CHAT.encode("m", "Hi", Sampling(extra_body=extra), stream=False)
    assert caught.value.outcome is Outcome.INVALID_ITEM


def test_success_needs_a_finish_reason_for_each_choice():
    """n of them, 1 by default."""
    assert CHAT.choices("Hi", Sampling()) == 1
    assert CHAT.choices("Hi", Sampling(n=3)) == 3
