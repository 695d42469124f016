"""Tokens as servers count them: the `usage` object, and what is made of it.

Knows field names and the largest count that is believed; knows nothing of choices or streams.
A module of shapes is never compiled (hatch_build.py): msgspec reads annotations when a Struct is made, and a compiled class keeps none.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]  # a token count that records can hold (int32); others are refused


class Usage(msgspec.Struct, frozen=True):
    """Tokens by the server's own count. `cached_tokens` is part of the prompt's, `reasoning_tokens` of the completion's."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: Count | None = None


class CompletionDetails(msgspec.Struct, gc=False):
    reasoning_tokens: Count | None = None


class UsageObject(msgspec.Struct, gc=False):
    """The `usage` object of a chunk or a body, as far as it is read."""

    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None
