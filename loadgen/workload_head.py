"""The head of a workload file: where the parts of each body lie, and what goes between them.

Knows offsets and kinds of markers; the bytes are `workload.py`'s.
A module of shapes is never compiled (hatch_build.py): msgspec reads annotations when a Struct is made, and a compiled class keeps none.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Splice = Literal["text", "png", "jpeg"]


class Index(msgspec.Struct, frozen=True):
    """Where an item's parts lie, [start, length] each, and which marker goes between part i and part i + 1."""

    parts: list[tuple[int, int]]
    splices: list[Splice]


class WorkloadHead(msgspec.Struct, frozen=True):
    """The file's head: all a worker needs beside the bytes. choices: finish reasons that success needs, per item.

    id_prefix: requests carry an x-request-id, this and the number of the item; "" where they carry none.
    """

    dialect: str
    stream: bool
    items: list[Index]
    choices: list[int]
    id_prefix: str = ""
