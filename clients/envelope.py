"""What the chunks and bodies of all endpoints have beside their choices.

Knows shapes as servers write them; what they mean is `wire_json.py`'s.
A module of shapes is never compiled (hatch_build.py): msgspec reads annotations when a Struct is made, and a compiled class keeps none.
"""

from __future__ import annotations

from typing import Any

import msgspec

from clients.usage import UsageObject


class Envelope(msgspec.Struct, gc=False):
    """What chunks and bodies have beside their choices, as far as it is read."""

    usage: UsageObject | None = None
    error: Any = None
    id: str | None = None
    model: str | None = None


class OldError(msgspec.Struct):
    """The error of older vLLM and of SGLang: its fields at the top of the chunk."""

    object: Any = None
    message: Any = None
    type: Any = None
    code: Any = None
