"""One option: what it is called, what it takes, and what is said of a text that it does not take.

Knows no option by name (`options.py`, `serve_bench_options.py`) and no argparse (`command_line.py`). Law: a refusal names the option, what it
got and what it takes, whether that was typed or stands in a file.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import msgspec

from clients.errors import UsageError
from loadgen.quantities import Reader

if TYPE_CHECKING:
    from collections.abc import Iterable


class Option(msgspec.Struct, frozen=True):
    """One option. reader: None for a switch. default: what holds when neither the command line nor a table says otherwise.

    negatable: a switch with a `--no-` form. many: may be given several times. several: takes any number of values each time.
    """

    name: str
    commands: tuple[str, ...]
    help: str
    reader: Reader | None = None
    default: Any = None
    aliases: tuple[str, ...] = ()
    negatable: bool = False
    many: bool = False
    several: bool = False
    group: str = "options"

    @property
    def key(self) -> str:
        """Its name as a key of a file and as an attribute."""
        return self.name.replace("-", "_")

    def read(self, text: str, *, where: str = "") -> Any:
        """The value of `text`; raises UsageError naming the option, what it got and what it takes."""
        assert self.reader is not None
        try:
            return self.reader.read(text)
        except ValueError:
            shown = text if len(text) <= 60 else text[:57] + "..."
            raise UsageError(f"{where or '--' + self.name}: got {shown!r}, takes {self.reader.takes}") from None


def nearest(name: str, known: Iterable[str]) -> str:
    """` (nearest: known-name)`, or nothing when no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (nearest: {near[0]})" if near else ""
