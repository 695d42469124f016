"""A file of the run as bytes in memory, shared by all who map it.

Knows how a file is mapped to be read; knows nothing of what is in it. Law: nothing here copies it, and the view keeps the mapping alive.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def mapped(path: str | Path) -> memoryview:
    """The whole file, read-only. Raises OSError where it cannot be opened, ValueError for an empty one."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return memoryview(mmap.mmap(fd, 0, prot=mmap.PROT_READ))
    finally:
        os.close(fd)
