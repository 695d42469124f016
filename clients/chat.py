"""The dialect of `/chat/completions`: messages to a body, chunks and bodies to an Answer.

Knows deltas of content, reasoning (both of its names) and tool calls, as five kinds of server write them. Knows nothing of HTTP.
Invariant: nothing that a server can send raises; a chunk is one output event at most, and one only if it carries text.
`decode_event` is on the path of every token: no closure, no look-up that can be spared, nothing built that measuring does not need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from clients.chat_shapes import Body, Chunk
from clients.messages import as_messages
from clients.pieces import ToolPart
from clients.refusals import UNDECODABLE
from clients.wire_json import generation_body, read_envelope, read_without_choices, unreadable_body, unreadable_event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clients.answer import Answer
    from clients.chat_shapes import Said, ToolCall
    from clients.messages import Prompt, Sampling


_decode_chunk = msgspec.json.Decoder(Chunk | None).decode  # llama-server has been seen to begin a stream with `null`
_decode_body = msgspec.json.Decoder(Body).decode


class Chat:
    """`/chat/completions`."""

    name = "chat"
    path = "/chat/completions"

    def encode(self, model: str, prompt: Prompt, sampling: Sampling, *, stream: bool, continuous_usage: bool = False) -> bytes:
        """The request body. Raises the item's error (INVALID_ITEM) for a prompt that cannot be sent."""
        fields: dict[str, Any] = {"model": model, "messages": as_messages(prompt)}
        return generation_body(fields, sampling, stream=stream, continuous_usage=continuous_usage)

    def choices(self, prompt: Prompt, sampling: Sampling) -> int:  # noqa: ARG002  one conversation, whatever it says
        """How many finish reasons make the answer whole."""
        return sampling.n or 1

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
        output = answering = False
        for choice in choices:
            if choice.finish_reason:
                answer.finish_reasons[choice.index] = choice.finish_reason
            said = choice.delta
            if said is None:
                continue
            if said.content or (said.tool_calls and _tool_text(said.tool_calls)):
                output = answering = True
            elif said.reasoning or said.reasoning_content:
                output = True
        tokens = -1
        if chunk.usage is not None:
            if len(choices) == 1:
                tokens = answer.chunk_usage(chunk.usage, choice.index, output=output, finishing=bool(choice.finish_reason))
            else:
                answer.replace_usage(chunk.usage)
        if output:
            answer.output(now_ns, answering, tokens)
            if answer.keep or answer.listener is not None:
                for choice in choices:
                    _tell(choice.index, choice.delta, answer)

    def decode_body(self, data: bytes, now_ns: int, answer: Answer) -> None:
        """An answer that was not streamed: all of its output is one event, at now_ns."""
        try:
            body = _decode_body(data)
        except UNDECODABLE as fault:
            unreadable_body(data, fault, answer)
            return
        choices = body.choices
        if not choices:
            read_without_choices(body, data, answer)
            return
        read_envelope(body, answer)
        for choice in choices:
            if choice.finish_reason:
                answer.finish_reasons[choice.index] = choice.finish_reason
        if body.usage is not None:
            answer.total_usage(body.usage)
        output = answering = False
        for choice in choices:
            said = choice.message
            if said is None:
                continue
            for place, call in enumerate(said.tool_calls or ()):
                call.index = place  # each is whole here; servers leave the index out, or write 0 for all
            if said.content or said.tool_calls:
                output = answering = True
            elif said.reasoning or said.reasoning_content:
                output = True
        if output:
            answer.output(now_ns, answering, -1)
            if answer.keep or answer.listener is not None:
                for choice in choices:
                    _tell(choice.index, choice.message, answer)


def _tell(choice: int, said: Said | None, answer: Answer) -> None:
    if said is None:
        return
    text = said.content or ""
    reasoning = said.reasoning or said.reasoning_content or ""  # servers that send both send the same text twice
    parts = _tool_parts(said.tool_calls or ())
    if text or reasoning or parts:
        answer.add(choice, text, reasoning, parts)


def _tool_text(calls: Sequence[ToolCall]) -> bool:
    return any(call.function is not None and (call.function.name or call.function.arguments) for call in calls)


def _tool_parts(calls: Sequence[ToolCall]) -> tuple[ToolPart, ...]:
    return tuple(
        ToolPart(
            call.index,
            call.id or "",
            (call.function.name or "") if call.function else "",
            (call.function.arguments or "") if call.function else "",
        )
        for call in calls
    )
