"""The dialect of `/completions`: plain text, or token ids, continued.

Knows prompts (one or several in a request), text chunks and bodies. Knows nothing of messages or HTTP.
Invariant: as in chat: nothing that a server can send raises; a chunk is one output event at most, and one only if it carries text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from clients.envelope import Envelope
from clients.messages import checked_text, invalid_item
from clients.pieces import Index
from clients.refusals import UNDECODABLE
from clients.wire_json import generation_body, read_envelope, read_without_choices, unreadable_body, unreadable_event

if TYPE_CHECKING:
    from clients.answer import Answer
    from clients.messages import Sampling


class _Choice(msgspec.Struct, gc=False):
    text: str | None = None
    finish_reason: str | None = None
    index: Index = 0


class _Chunk(Envelope, gc=False):
    """A chunk of a stream and a body alike: here they have one shape."""

    choices: list[_Choice] | None = None


_decode_chunk = msgspec.json.Decoder(_Chunk | None).decode  # llama-server's stream for two prompts begins with `null`


class Completions:
    """`/completions`. A prompt is a string, a list of strings (several prompts in one request) or a list of token ids."""

    name = "completions"
    path = "/completions"

    def encode(
        self, model: str, prompt: str | list[str] | list[int], sampling: Sampling, *, stream: bool, continuous_usage: bool = False
    ) -> bytes:
        """The request body. Raises the item's error (INVALID_ITEM) for a prompt that cannot be sent."""
        fields: dict[str, Any] = {"model": model, "prompt": checked_prompt(prompt)}
        return generation_body(fields, sampling, stream=stream, continuous_usage=continuous_usage)

    def choices(self, prompt: str | list[str] | list[int], sampling: Sampling) -> int:
        """How many finish reasons make the answer whole: n for each prompt."""
        several = isinstance(prompt, list | tuple) and isinstance(prompt[0], str)
        return (sampling.n or 1) * (len(prompt) if several else 1)

    def decode_event(self, data: bytes, now_ns: int, answer: Answer) -> None:
        """The data of one event of the stream, which arrived at now_ns."""
        if answer.done:
            return
        try:
            chunk = _decode_chunk(data)
        except UNDECODABLE as fault:
            unreadable_event(data, fault, answer)
            return
        if chunk is None:
            return
        choices = chunk.choices
        if not choices:
            read_without_choices(chunk, data, answer)
            return
        if not answer.id or chunk.error:
            read_envelope(chunk, answer)
        output = False
        for choice in choices:
            if choice.finish_reason:
                answer.finish_reasons[choice.index] = choice.finish_reason
            if choice.text:
                output = True
        tokens = -1
        if chunk.usage is not None:
            if len(choices) == 1:
                tokens = answer.chunk_usage(chunk.usage, choice.index, output=output, finishing=bool(choice.finish_reason))
            else:
                answer.replace_usage(chunk.usage)
        if output:
            _stamp(choices, now_ns, tokens, answer)

    def decode_body(self, data: bytes, now_ns: int, answer: Answer) -> None:
        """An answer that was not streamed: all of its output is one event, at now_ns."""
        try:
            body = _decode_chunk(data)
        except UNDECODABLE as fault:
            unreadable_body(data, fault, answer)
            return
        if body is None or not body.choices:
            read_without_choices(body or _Chunk(), data, answer)
            return
        read_envelope(body, answer)
        for choice in body.choices:
            if choice.finish_reason:
                answer.finish_reasons[choice.index] = choice.finish_reason
        if body.usage is not None:
            answer.total_usage(body.usage)
        if any(choice.text for choice in body.choices):
            _stamp(body.choices, now_ns, -1, answer)


def _stamp(choices: list[_Choice], now_ns: int, tokens: int, answer: Answer) -> None:
    answer.output(now_ns, True, tokens)
    if answer.keep or answer.listener is not None:
        for choice in choices:
            if choice.text:
                answer.add(choice.index, choice.text)


def checked_prompt(prompt: Any) -> str | list[str] | list[int]:
    """Text, texts or token ids that can be sent; raises the item's error for anything else."""
    if isinstance(prompt, str):
        return checked_text(prompt, "prompt")
    if isinstance(prompt, list | tuple) and prompt:
        if all(isinstance(text, str) for text in prompt):
            return [checked_text(text, f"prompt {i}") for i, text in enumerate(prompt)]
        if all(type(token) is int and token >= 0 for token in prompt):
            return list(prompt)
    raise invalid_item(f"prompt is {type(prompt).__name__}: it takes a string, a list of strings or a list of token ids, not empty")
