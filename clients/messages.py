"""What is said to a model: messages, and the sampling parameters that go beside them.

Knows the shapes a caller may give and the JSON objects they become. Knows nothing of endpoints, images or bytes on the wire.
Invariant: whatever `as_messages` and `Sampling.as_body` return can be encoded as JSON and means what was given: a blank prompt,
a lone surrogate, a misspelt or mistyped parameter and a NaN (which JSON encoders write as null) are refused here.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import msgspec

from clients.errors import Outcome, RequestError, UsageError, request_error


class Message(msgspec.Struct, omit_defaults=True):
    """One message of a conversation. `content` is text, or a list of content parts (`{"type": "text", ...}`, images)."""

    role: str
    content: str | list[dict[str, Any]] | None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


# The lists of str and int are the completions endpoint's: several prompts, or one of token ids. Chat refuses them.
Prompt = str | Message | Sequence[Message | Mapping[str, Any]] | list[str] | list[int]


def invalid_item(message: str) -> RequestError:
    """The typed error of one item that cannot be sent; its neighbours are not touched by it."""
    return request_error(Outcome.INVALID_ITEM, message)


def checked_text(text: str, what: str) -> str:
    """The text itself, if it says something and UTF-8 can hold it; raises the item's error otherwise."""
    if not text or text.isspace():
        raise invalid_item(f"{what} is blank: it takes text that is not only whitespace")
    if not text.isascii():  # a flag of the string: base64 of a large image is not read here
        encodable(text, what)
    return text


def encodable(text: str, what: str) -> None:
    """Raises the item's error for a lone surrogate, which has no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as fault:
        raise invalid_item(f"{what} holds a lone surrogate at character {fault.start}, which UTF-8 cannot hold") from None


def as_messages(prompt: Prompt) -> list[dict[str, Any]]:
    """The `messages` of a chat request: a string is one user message; dicts pass through with the keys they have.

    Raises the item's error (`Outcome.INVALID_ITEM`) for anything else, a user message that says nothing, a lone surrogate.
    """
    if isinstance(prompt, str):
        return [{"role": "user", "content": checked_text(prompt, "prompt")}]
    if isinstance(prompt, Message):
        return [_as_object(prompt, "prompt")]
    if not isinstance(prompt, list | tuple):
        raise invalid_item(f"prompt is {type(prompt).__name__}: it takes a string, a Message or a list of messages")
    if not prompt:
        raise invalid_item("prompt is an empty list: it takes at least one message")
    return [_as_object(message, f"message {i}") for i, message in enumerate(prompt)]


def _as_object(message: Message | Mapping[str, Any], what: str) -> dict[str, Any]:
    if isinstance(message, Message):
        body: dict[str, Any] = {"role": message.role, "content": message.content}
        for key in ("name", "tool_calls", "tool_call_id"):
            value = getattr(message, key)
            if value is not None:
                body[key] = value
    elif isinstance(message, Mapping):
        body = dict(message)
    else:
        raise invalid_item(f"{what} is {type(message).__name__}: it takes a Message or a dict with role and content")
    role = body.get("role")
    if not isinstance(role, str) or not role:
        raise invalid_item(f"{what} has role {role!r}: it takes a word such as user, system or assistant")
    _check_content(body.get("content"), role, what)
    return body


def _check_content(content: object, role: str, what: str) -> None:
    # Only the user has to say something: an assistant turn of tool calls has content null, a system prompt may be empty.
    if isinstance(content, str):
        if role == "user":
            checked_text(content, f"{what}: content")
        else:
            encodable(content, f"{what}: content")
    elif isinstance(content, list | tuple):
        for part in content:
            if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
                raise invalid_item(f"{what}: a content part is {type(part).__name__}: it takes dicts with a type")
            if isinstance(part.get("text"), str):
                encodable(part["text"], f"{what}: text part")
        if role == "user" and not any(part["type"] != "text" or str(part.get("text", "")).strip() for part in content):
            raise invalid_item(f"{what}: content is blank: it takes text that is not only whitespace, or an image")
    elif content is not None:
        raise invalid_item(f"{what}: content is {type(content).__name__}: it takes a string or a list of content parts")
    elif role == "user":
        raise invalid_item(f"{what}: content is missing: a user message takes text or content parts")


class SamplingOptions(TypedDict, total=False):
    """The fields of `Sampling` as keywords, for editors and type checkers; a test holds the two equal."""

    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    stop: str | list[str] | None
    seed: int | None
    n: int | None
    presence_penalty: float | None
    frequency_penalty: float | None
    logprobs: bool | int | None
    top_logprobs: int | None
    response_format: dict[str, Any] | None
    tools: list[dict[str, Any]] | None
    tool_choice: str | dict[str, Any] | None
    ignore_eos: bool | None
    extra_body: dict[str, Any] | None


# What the dialect writes itself, and `n`, which decides when an answer is whole: from extra_body they would contradict what was asked for.
_RESERVED = ("input", "messages", "model", "n", "prompt", "stream")


class Sampling(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Sampling parameters, by their names in the OpenAI API. None is not sent: the server's own default holds.

    Types are checked by `merged` and by decoding; ranges are the server's to judge (servers differ, see their 400).
    `ignore_eos` and `top_k` go at the top level, as vLLM takes them. `extra_body` is merged last and may hold anything.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: bool | int | None = None
    top_logprobs: int | None = None
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    ignore_eos: bool | None = None
    extra_body: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty"):
            value = getattr(self, name)
            if isinstance(value, float) and not math.isfinite(value):
                raise UsageError(f"{name}: got {value}, takes a finite number")
        if self.n is not None and self.n < 1:
            raise UsageError(f"n: got {self.n}, takes a whole number from 1")
        for name in _RESERVED:
            if self.extra_body and name in self.extra_body:
                raise UsageError(f"extra_body: got {name!r}, which has its own argument; it takes parameters that have none")

    def merged(self, **overrides: Any) -> Sampling:
        """These parameters with others in their place; None leaves a parameter to the server again.

        Raises UsageError for an unknown name (with the nearest one) and for a value of another type.
        """
        for name in overrides:
            if name not in self.__struct_fields__:
                nearest = difflib.get_close_matches(name, self.__struct_fields__, n=1)
                hint = f"did you mean {nearest[0]}?" if nearest else "what has no name here goes into extra_body"
                raise UsageError(f"{name}: not a sampling parameter; {hint}")
        try:
            return msgspec.convert(self._set_fields() | overrides, Sampling)
        except msgspec.ValidationError as fault:
            message, _, path = str(fault).partition(" - at `$.")
            raise UsageError(f"{path.rstrip('`')}: {message}" if path else message) from None  # without path: of __post_init__

    def as_body(self) -> dict[str, Any]:
        """The keys that these parameters add to a request body: only what is set, extra_body last."""
        body = self._set_fields()
        body.update(body.pop("extra_body", None) or {})
        return body

    def _set_fields(self) -> dict[str, Any]:
        return {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}
