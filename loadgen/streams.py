"""The three standard streams of a command, as they are found: closed, full, with a reader that left, in an old encoding.

Knows descriptors and `sys`; knows nothing of what is written. Law: whatever is written to them can fail without a traceback, and no
file that is opened later becomes one of them.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO


def prepare_streams() -> None:
    """Make `sys.stdin`, `sys.stdout` and `sys.stderr` usable, in this order: a closed one becomes the null device.

    A descriptor left free would go to the next file that is opened, and uvloop aborts the process when that is a socket of its own. A
    name that the terminal's encoding lacks (LC_ALL=C) is shown with marks instead of ending the command.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # how Python says that its descriptor is closed
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def silence(stream: TextIO) -> None:
    """Nothing more can be written here: what is left in its buffer, which the interpreter flushes at its end, goes nowhere."""
    with contextlib.suppress(OSError, ValueError):  # it has no descriptor, or is closed
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
