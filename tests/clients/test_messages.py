"""Messages and sampling parameters: what is sent, and what is refused by name."""

from __future__ import annotations

import math

import msgspec
import pytest

from clients.errors import Outcome, RequestError, UsageError
from clients.messages import Message, Sampling, as_messages

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("prompt", "sent"),
    [
        ("Hi", [{"role": "user", "content": "Hi"}]),
        (Message(role="user", content="Hi"), [{"role": "user", "content": "Hi"}]),
        ([Message("system", ""), Message("user", "Hi")], [{"role": "system", "content": ""}, {"role": "user", "content": "Hi"}]),
        ([{"role": "user", "content": "Hi", "x": 1}], [{"role": "user", "content": "Hi", "x": 1}]),  # extra keys pass
        (({"role": "user", "content": "Hi"},), [{"role": "user", "content": "Hi"}]),
        ([{"role": "user", "content": [IMAGE]}], [{"role": "user", "content": [IMAGE]}]),  # an image says something
        ([Message("assistant", None, tool_calls=[CALL])], [{"role": "assistant", "content": None, "tool_calls": [CALL]}]),
        ([Message("tool", "7", tool_call_id="a")], [{"role": "tool", "content": "7", "tool_call_id": "a"}]),
        ([Message("user", "é \u2028 😀", name="n")], [{"role": "user", "content": "é \u2028 😀", "name": "n"}]),
    ],
)
def test_prompts_become_messages(prompt, sent):
    """A string, a Message, or a list of messages and dicts."""
    assert as_messages(prompt) == sent


def test_a_callers_dict_is_not_changed():
    """What is returned is another dict."""
    message = {"role": "user", "content": "Hi"}
    assert as_messages([message])[0] is not message


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("", "prompt is blank"),
        (" \n\t\u2003", "prompt is blank"),
        ([], "empty list"),
        (None, "prompt is NoneType"),
        (7, "prompt is int"),
        (b"Hi", "prompt is bytes"),
        ({"role": "user", "content": "Hi"}, "prompt is dict"),
        (["Hi"], "message 0 is str"),
        ([Message("user", "a"), 3], "message 1 is int"),
        ([{"content": "Hi"}], "message 0 has role None"),
        ([{"role": "", "content": "Hi"}], "message 0 has role ''"),
        ([{"role": "user"}], "content is missing"),
        ([{"role": "user", "content": " "}], "message 0: content is blank"),
        ([{"role": "user", "content": []}], "message 0: content is blank"),
        ([{"role": "user", "content": [{"type": "text", "text": " "}]}], "message 0: content is blank"),
        ([{"role": "user", "content": [{"text": "x"}]}], "content part is dict"),
        ([{"role": "user", "content": ["x"]}], "content part is str"),
        ([{"role": "user", "content": 5}], "content is int"),
        ("a\ud800b", "lone surrogate at character 1"),
        ([{"role": "system", "content": "\udfff"}], "lone surrogate"),
        ([{"role": "user", "content": [{"type": "text", "text": "x\ud800"}]}], "lone surrogate at character 1"),
    ],
)
def test_what_is_no_prompt_is_the_items_error(prompt, words):
    """The error is a value of that item: typed, one line, and it says what is wrong where."""
    with pytest.raises(RequestError, match=words.replace("(", r"\(")) as caught:
        as_messages(prompt)
    assert caught.value.outcome is Outcome.INVALID_ITEM


def test_only_what_is_set_is_sent():
    """None leaves the server's default; 0 and False are values; extra_body comes last."""
    assert Sampling().as_body() == {}
    assert Sampling(temperature=0.0, seed=0, ignore_eos=False, max_tokens=5).as_body() == {
        "max_tokens": 5,
        "temperature": 0.0,
        "seed": 0,
        "ignore_eos": False,
    }
    assert Sampling(max_tokens=5, extra_body={"max_tokens": 6, "min_p": 0.1}).as_body() == {"max_tokens": 6, "min_p": 0.1}


def test_merging_puts_a_calls_parameters_over_the_clients():
    """The client's stay as they were; None takes a parameter back."""
    client = Sampling(max_tokens=5, stop=["a"])
    assert client.merged(temperature=1, stop=None).as_body() == {"max_tokens": 5, "temperature": 1}
    assert client.as_body() == {"max_tokens": 5, "stop": ["a"]}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"max_token": 5}, "max_token: not a sampling parameter; did you mean max_tokens?"),
        ({"temprature": 5}, "did you mean temperature?"),
        ({"zzz": 5}, "zzz: not a sampling parameter; what has no name here goes into extra_body"),
        ({"max_tokens": "5"}, "max_tokens: Expected `int | null`, got `str`"),
        ({"stop": [1]}, "stop"),
        ({"temperature": math.nan}, "temperature: got nan, takes a finite number"),
        ({"top_p": math.inf}, "top_p: got inf"),
        ({"n": 0}, "n: got 0, takes a whole number from 1"),
        ({"extra_body": {"stream": True}}, "extra_body: got 'stream'"),
        ({"extra_body": {"messages": []}}, "extra_body: got 'messages'"),
        ({"extra_body": {"n": 2}}, "extra_body: got 'n'"),
    ],
)
def test_a_misuse_names_the_parameter_and_what_it_takes(overrides, words):
    """A misspelt parameter is an error with the nearest name, never dropped; so is a value of another type."""
    with pytest.raises(UsageError) as caught:
        Sampling(max_tokens=1).merged(**overrides)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sampling_crosses_a_pipe():
    """It survives msgpack, and unknown fields are refused there too."""
    sampling = Sampling(max_tokens=5, stop="a", extra_body={"x": [1]})
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(sampling), type=Sampling) == sampling
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"max_token":5}', type=Sampling)
