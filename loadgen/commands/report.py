"""`loadgen report RUN`: the report again, from the records.

Knows the directory and the rendering; the document is a pure function of the files (`loadgen/document.py`).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from loadgen.document import rebuild
from loadgen.measurement import deliver
from loadgen.rundir import RunDirectory

if TYPE_CHECKING:
    from loadgen.command_line import Arguments


def run(arguments: Arguments) -> int:
    """Rebuild run.json and show it. Returns 3 when its numbers may not be believed."""
    directory = RunDirectory.existing(Path(arguments.run))
    if directory.is_running():
        sys.stderr.write("loadgen: this run goes on; what is shown is what it has so far, and run.json is left to it\n")
    return deliver(rebuild(directory), arguments, directory.path)
