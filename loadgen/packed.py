"""A histogram as it travels between processes and into files.

A module of shapes is never compiled (hatch_build.py): msgspec reads annotations when a Struct is made, and a compiled class keeps none.
"""

from __future__ import annotations

import msgspec


class Packed(msgspec.Struct, frozen=True, array_like=True):
    """A histogram as it travels: on the pipe, in a snapshot frame. buckets: their numbers, in no order; counts: one for each."""

    total: int
    minimum: int
    maximum: int
    buckets: list[int]
    counts: list[int]
