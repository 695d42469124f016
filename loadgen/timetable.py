"""The dues of an open-loop plan, in one file that every worker maps.

Knows offsets in nanoseconds and their file; knows nothing of how they came about (`schedule.py`, or a trace) or of who sends them.
Law: entry k is the due of request k, whatever the number of workers; worker i of P sends the entries k with k mod P = i.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from loadgen.mapped import mapped

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

TIMETABLE = "timetable.bin"  # its name in a plan's directory
MAGIC = b"LGTIME01"
_HEADER = struct.Struct("<8sQ")


def write_timetable(path: Path, offsets_ns: NDArray[np.int64]) -> None:
    """Write the offsets: int64, ascending, from the start instant."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(_HEADER.pack(MAGIC, len(offsets_ns)))
        file.write(offsets_ns.astype("<i8").tobytes())


class Timetable:
    """The mapped file: `offsets_ns[k]`, without numpy, which a worker never imports. Raises ValueError for another file."""

    def __init__(self, path: str | Path) -> None:
        view = mapped(path)
        magic, count = _HEADER.unpack_from(view)
        if magic != MAGIC or len(view) != _HEADER.size + 8 * count:
            raise ValueError(f"{path} is no timetable")
        self.offsets_ns = view[_HEADER.size :].cast("q")

    def __len__(self) -> int:
        return len(self.offsets_ns)
