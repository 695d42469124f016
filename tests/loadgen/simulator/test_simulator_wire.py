"""The bytes on the wire against what vLLM was recorded to send: same keys in the same order, same events in the same order."""

import base64
import json
import re

import pytest
from plain_wire import MESSAGES, Wire, events_of, recorded

CHAT = "/v1/chat/completions"
USAGE = {"include_usage": True}


def skeleton(value, path=""):
    """Keys in order, and the kinds of their values; texts, numbers and ids are free, words of the protocol are not."""
    if isinstance(value, dict):
        return {key: skeleton(item, key) for key, item in value.items() if key != "permission"}
    if isinstance(value, list):
        return [skeleton(item) for item in value]
    if path in ("object", "finish_reason", "role"):
        return value
    return type(value).__name__


def shapes_of(events):
    """Skeletons with runs of equal ones collapsed: how many text chunks there are is the answer's business, not the shape's."""
    shapes = []
    for event in events:
        shape = event if event == "[DONE]" else json.dumps(skeleton(event))  # dumps: key order counts
        if not shapes or shapes[-1] != shape:
            shapes.append(shape)
    return shapes


@pytest.mark.parametrize(
    ("path", "recording", "body"),
    [
        (CHAT, "vllm/chat_stream_usage.http", {"messages": MESSAGES, "max_tokens": 8, "stream_options": USAGE}),
        (CHAT, "vllm/chat_stream_nousage.http", {"messages": MESSAGES, "max_tokens": 8}),
        (CHAT, "vllm/chat_stream_max_tokens_1.http", {"messages": MESSAGES, "max_tokens": 1, "stream_options": USAGE}),
        (
            CHAT,
            "vllm/chat_stream_usage_continuous.http",
            {"messages": MESSAGES, "max_tokens": 4, "stream_options": {**USAGE, "continuous_usage_stats": True}},
        ),
        ("/v1/completions", "vllm/completions_stream_usage.http", {"prompt": "Hello", "max_tokens": 8, "stream_options": USAGE}),
    ],
)
def test_a_stream_has_the_shape_that_vllm_sends(llm, path, recording, body):
    """Head, role event with the first token, finish_reason on the last text, the usage event, [DONE]."""
    with Wire(llm.port) as wire:
        status, headers, data = wire.ask("POST", path, {"model": "tiny", "stream": True, **body})
    expected_status, expected_headers, expected = recorded(recording)
    assert status == expected_status
    for name in ("content-type", "transfer-encoding"):
        assert headers[name] == expected_headers[name]
    assert shapes_of(events_of(data)) == shapes_of(events_of(expected))


def test_every_event_is_one_http_chunk(llm):
    """As in vLLM's raw bytes: a chunk holds one event and its blank line, the role event and the first text being two."""
    with Wire(llm.port) as wire:
        wire.send("POST", CHAT, {"messages": MESSAGES, "max_tokens": 4, "stream": True})
        wire.head()
        chunks = []
        while chunk := wire.chunk():
            chunks.append(chunk)
    assert all(re.fullmatch(rb"data: [^\n]+\n\n", chunk) for chunk in chunks)
    assert len(chunks) == 6  # role, four tokens, [DONE]


def test_two_prompts_are_two_choices_interleaved_with_one_usage(llm):
    """Recorded: index 0 and 1, each with its finish_reason, one usage event over both."""
    with Wire(llm.port) as wire:
        body = {"prompt": ["Hello", "Bye"], "max_tokens": 3, "stream": True, "stream_options": USAGE}
        _, _, data = wire.ask("POST", "/v1/completions", body)
    *tokens, usage, done = events_of(data)
    *expected, expected_usage, _ = events_of(recorded("vllm/completions_stream_2prompts.http")[2])
    assert done == "[DONE]"
    assert skeleton(usage) == skeleton(expected_usage)
    assert {json.dumps(skeleton(event)) for event in tokens} == {json.dumps(skeleton(event)) for event in expected}
    assert [sum(event["choices"][0]["index"] == index for event in tokens) for index in (0, 1)] == [3, 3]
    assert usage["usage"] == {"prompt_tokens": 3, "total_tokens": 9, "completion_tokens": 6}


def test_n_choices_have_a_role_event_each(llm):
    """n = 2: both choices have a role, their tokens and an end; usage counts the prompt once."""
    with Wire(llm.port) as wire:
        body = {"messages": MESSAGES, "n": 2, "max_tokens": 4, "stream": True, "stream_options": USAGE}
        _, _, data = wire.ask("POST", CHAT, body)
    events = events_of(data)
    expected = events_of(recorded("vllm/chat_stream_n2.http")[2])
    assert {json.dumps(skeleton(event)) for event in events} == {json.dumps(skeleton(event)) for event in expected}
    assert events[-2]["usage"] == {"prompt_tokens": 10, "total_tokens": 18, "completion_tokens": 8}


@pytest.mark.parametrize(
    ("path", "recording", "body"),
    [
        (CHAT, "vllm/chat_nonstream.http", {"messages": MESSAGES, "max_tokens": 8}),
        ("/v1/completions", "vllm/completions_nonstream.http", {"prompt": "Hello", "max_tokens": 8}),
    ],
)
def test_an_answer_that_is_not_streamed_has_the_shape_that_vllm_sends(llm, path, recording, body):
    """One JSON with a length, the whole text and the usage."""
    with Wire(llm.port) as wire:
        status, headers, data = wire.ask("POST", path, body)
    _, _, expected = recorded(recording)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.dumps(skeleton(json.loads(data))) == json.dumps(skeleton(json.loads(expected)))
    assert json.loads(data)["usage"]["completion_tokens"] == 8


def test_continuous_usage_needs_include_usage(llm):
    """vLLM sends usage in no event when only continuous_usage_stats is asked for."""
    with Wire(llm.port) as wire:
        body = {"messages": MESSAGES, "max_tokens": 3, "stream": True, "stream_options": {"continuous_usage_stats": True}}
        _, _, data = wire.ask("POST", CHAT, body)
    assert b'"usage"' not in data


def test_models_are_listed_as_vllm_lists_them(llm):
    """The permissions, which nobody reads, are left empty."""
    with Wire(llm.port) as wire:
        _, _, data = wire.ask("GET", "/v1/models")
    assert skeleton(json.loads(data)) == skeleton(json.loads(recorded("vllm/models.http")[2]))


@pytest.mark.parametrize(
    ("recording", "method", "path", "body", "same_text"),
    [
        ("vllm/err_bad_json.http", "POST", CHAT, b'{"model":"tiny",', False),
        ("vllm/err_missing_messages.http", "POST", CHAT, {"model": "tiny"}, False),
        ("vllm/err_wrong_type.http", "POST", CHAT, {"model": "tiny", "messages": "hi"}, False),
        ("vllm/err_unknown_model.http", "POST", CHAT, {"model": "nope", "messages": MESSAGES}, True),
        ("vllm/err_unknown_model_stream.http", "POST", CHAT, {"model": "nope", "messages": MESSAGES, "stream": True}, True),
        (
            "vllm/err_prompt_too_long_stream.http",
            "POST",
            CHAT,
            {"messages": [{"role": "user", "content": "x" * 8166}], "stream": True},
            True,
        ),
        ("vllm/err_not_found.http", "GET", "/v1/nothing", None, True),
        ("vllm/err_method_not_allowed.http", "GET", CHAT, None, True),
    ],
)
def test_a_refusal_has_vllms_status_and_words(llm, recording, method, path, body, same_text):
    """Status and keys always; the very words where they do not quote a JSON parser."""
    with Wire(llm.port) as wire:
        status, headers, data = wire.ask(method, path, body)
    expected_status, expected_headers, expected = recorded(recording)
    got, wanted = json.loads(data), json.loads(expected)
    assert (status, headers.get("allow")) == (expected_status, expected_headers.get("allow"))
    assert skeleton(got) == skeleton(wanted)
    if same_text:
        assert got == wanted
    elif "err_bad_json" not in recording:
        assert got["error"]["param"] == wanted["error"]["param"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"max_tokens": 0}, 400, "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)"),
        ({"temperature": -1}, 400, "temperature must be non-negative, got -1.0. (parameter=temperature, value=-1.0)"),
        ({"stream_options": USAGE}, 400, "Stream options can only be defined when `stream=True`. (parameter=stream_options)"),
        ({"n": 0}, 400, "n must be at least 1, got 0. (parameter=n, value=0)"),
        (
            {"max_tokens": 1000000},
            400,
            (
                "max_tokens=1000000 cannot be greater than max_model_len=2048. "
                "Please request fewer output tokens. (parameter=max_tokens, value=1000000)"
            ),
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]},
            400,
            "tiny is not a multimodal model",
        ),
    ],
)
def test_odd_parameters_are_refused_in_vllms_words(llm, body, status, message):
    """The messages that vLLM 0.32.0 was recorded to send."""
    with Wire(llm.port) as wire:
        got, _, data = wire.ask("POST", CHAT, {"messages": MESSAGES, **body})
    assert (got, json.loads(data)["error"]["message"]) == (status, message)


def test_unknown_fields_and_other_content_types_are_accepted(llm):
    """vLLM accepts both."""
    with Wire(llm.port) as wire:
        status, _, _ = wire.ask("POST", CHAT, {"messages": MESSAGES, "max_tokens": 1, "color": "red"}, content_type="text/plain")
    assert status == 200


def test_a_request_id_that_was_sent_is_the_answers_id(llm):
    """As vLLM: chatcmpl- and the given id."""
    with Wire(llm.port) as wire:
        _, _, data = wire.ask("POST", CHAT, {"messages": MESSAGES, "max_tokens": 1}, X_Request_Id="my-id-1")
    assert json.loads(data)["id"] == "chatcmpl-my-id-1"


def test_prompt_tokens_follow_the_written_rule(llm):
    """10 bytes are 3 tokens, a message 4, a chat 3; token ids count one each."""
    with Wire(llm.port) as wire:
        chat = wire.ask("POST", CHAT, {"messages": MESSAGES, "max_tokens": 1})[2]
        ids = wire.ask("POST", "/v1/completions", {"prompt": [5, 6, 7, 8, 9], "max_tokens": 1})[2]
    assert json.loads(chat)["usage"]["prompt_tokens"] == 10
    assert json.loads(ids)["usage"]["prompt_tokens"] == 5


def test_embeddings_come_one_per_input_in_floats_or_base64(llm):
    """Both encodings hold the same unit vectors."""
    with Wire(llm.port) as wire:
        plain = json.loads(wire.ask("POST", "/v1/embeddings", {"input": ["Hello", "Bye"]})[2])
        packed = json.loads(wire.ask("POST", "/v1/embeddings", {"input": ["Hello", "Bye"], "encoding_format": "base64"})[2])
    vectors = [item["embedding"] for item in plain["data"]]
    assert [len(vector) for vector in vectors] == [64, 64]
    assert sum(value * value for value in vectors[0]) == pytest.approx(1)
    assert len(base64.b64decode(packed["data"][0]["embedding"])) == 64 * 4
    assert plain["usage"] == {"prompt_tokens": 3, "total_tokens": 3, "completion_tokens": 0, "prompt_tokens_details": None}


def test_an_image_counts_its_tokens_and_a_bad_one_is_refused(vlm):
    """A PNG of 280 x 140 is 50 squares of 28 pixels, plus 2; recorded refusals for what is no image."""
    header = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + (280).to_bytes(4, "big") + (140).to_bytes(4, "big") + b"\x08\x02\0\0\0IEND\xaeB`\x82"

    def ask(wire, url):
        parts = [{"type": "text", "text": "Say hello."}, {"type": "image_url", "image_url": {"url": url}}]
        return wire.ask("POST", CHAT, {"messages": [{"role": "user", "content": parts}], "max_tokens": 2})

    with Wire(vlm.port) as wire:
        status, _, data = ask(wire, "data:image/png;base64," + base64.b64encode(header).decode())
        assert (status, json.loads(data)["usage"]["prompt_tokens"]) == (200, 10 + 50 + 2)
        status, _, data = ask(wire, "data:image/png;base64,iVB*RwAA")
        assert (status, json.loads(data)) == (400, json.loads(recorded("vllm-vl/err_bad_base64.http")[2]))
        status, _, data = ask(wire, "file:///etc/hosts")
        assert (status, json.loads(data)) == (500, json.loads(recorded("vllm-vl/err_file_url.http")[2]))
