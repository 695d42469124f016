"""A slot's permission to send one request.

A module of shapes is never compiled (hatch_build.py): msgspec reads annotations when a Struct is made, and a compiled class keeps none.
"""

from __future__ import annotations

import msgspec


class Turn(msgspec.Struct, frozen=True, gc=False):
    """Request `index` may go at `due_ns`, in a slot of `lane`. Give it back to `Lanes.freed` when it has ended.

    held_back: when it fell due (in an open loop), as many were in flight as may be.
    """

    index: int
    lane: int
    due_ns: int
    held_back: bool = False
