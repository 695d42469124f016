"""The chunks and bodies of `/chat/completions`, as far as they are read.

Knows shapes as five kinds of server write them; what they mean is `chat.py`'s.
A module of shapes is never compiled (hatch_build.py): msgspec reads annotations when a Struct is made, and a compiled class keeps none.
"""

from __future__ import annotations

import msgspec

from clients.envelope import Envelope
from clients.pieces import Index


class Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct, gc=False):
    index: Index | None = None
    id: str | None = None
    function: Function | None = None


class Said(msgspec.Struct, gc=False):
    """A delta, or the message of an answer that was not streamed. vLLM calls it reasoning, others (and vLLM before) reasoning_content."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None


class ChunkChoice(msgspec.Struct, gc=False):
    delta: Said | None = None
    finish_reason: str | None = None
    index: Index = 0


class Chunk(Envelope, gc=False):
    choices: list[ChunkChoice] | None = None


class BodyChoice(msgspec.Struct, gc=False):
    message: Said | None = None
    finish_reason: str | None = None
    index: Index = 0


class Body(Envelope, gc=False):
    choices: list[BodyChoice] | None = None
