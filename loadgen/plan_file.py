"""`loadgen run plan.yaml`: options kept in a file, under their own names.

Knows YAML and the table of options; knows nothing of what an option is for. Law: a key is an option of the command or refused with the
nearest name; what is typed goes before what the file says; every refusal names file and key.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from clients.errors import UsageError
from loadgen.command_line import EXCLUSIVE
from loadgen.options import read_table

if TYPE_CHECKING:
    from loadgen.command_line import Arguments


def with_plan_file(arguments: Arguments) -> Arguments:
    """The arguments with those of the file that was named, if any. Raises UsageError."""
    if not arguments.run:
        return arguments
    path = Path(arguments.run)
    table: dict[str, Any] = {}
    for key, value in _mapping(path).items():
        name = str(key).replace("-", "_")
        if name in table:
            raise UsageError(f"PLAN: {path}: {key!r} comes twice, with - and with _")
        table[name] = value
    found = read_table(table, arguments.command, str(path))
    for one, other in EXCLUSIVE:
        if one in found and other in found:
            raise UsageError(f"{path}: {one}: got {other} as well, takes one of the two")
        for kept, left_out in ((one, other), (other, one)):  # another end was typed: it goes before the file's
            if kept in arguments.typed:
                found.pop(left_out, None)
    given = {key: value for key, value in found.items() if key not in arguments.typed}
    return msgspec.structs.replace(arguments, values={**arguments.values, **given}, typed=arguments.typed | given.keys())


def _mapping(path: Path) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        value = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"PLAN: cannot read {str(path)!r} ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"PLAN: {str(path)!r} is no UTF-8 text (byte {error.start})") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
        raise UsageError(f"PLAN: {path}{place}: {error.problem or error.context}") from None
    except YAMLError as error:
        raise UsageError(f"PLAN: {path}: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise UsageError(f"PLAN: {str(path)!r} holds no mapping; takes options by name, as in `request_rate: 50`")
    return value
