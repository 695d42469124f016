"""Fresh interpreters: how this project starts a process of its own.

Knows how a child finds this package; knows nothing of what runs in it. No fork (threads and loops do not survive one), no
multiprocessing (it imports the caller's script again). Invariant: the child imports the very package that the parent runs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def fresh(module: str) -> tuple[list[str], dict[str, str]]:
    """Command line and environment that run `module` of this project in a new interpreter.

    -P keeps the current directory off the child's path: a user's `clients/` or `loadgen.py` must not shadow ours.
    """
    package_parent = str(Path(__file__).resolve().parents[1])
    paths = [package_parent, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return [sys.executable, "-P", "-m", module], {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the parent is gone (Linux; elsewhere the pipe's end must do).

    The kernel watches the thread that started this process, so a parent starts workers on the thread that waits for them.
    """
    if sys.platform != "linux":
        return
    import ctypes
    import signal

    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # 1 = PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it went before the call took effect
        os._exit(1)
