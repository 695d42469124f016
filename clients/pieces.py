"""What an answer is made of, piece by piece: text, reasoning, parts of tool calls.

Knows their shapes; knows nothing of how a server writes them.
A module of shapes is never compiled (hatch_build.py): msgspec reads annotations when a Struct is made, and a compiled class keeps none.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

Index = Annotated[int, msgspec.Meta(ge=0, le=2**16 - 1)]  # of a choice or a tool call: readers make lists as long as the largest


class ToolCall(msgspec.Struct):
    """One call that the model asks for; `arguments` is JSON text as the model wrote it, which may be none."""

    id: str
    name: str
    arguments: str


class ToolPart(msgspec.Struct, gc=False):
    """What one chunk adds to a tool call: the call's place, and the text to append. Place None: a new id opens a new call."""

    place: int | None
    id: str
    name: str
    arguments: str


class Piece(msgspec.Struct):
    """What one output event added to one choice."""

    text: str
    reasoning: str = ""
    tool_calls: tuple[ToolPart, ...] = ()
    choice: int = 0

    def __str__(self) -> str:
        return self.text
