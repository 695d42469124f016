"""The `loadgen` command: one line in, an exit status out.

Knows which file performs which verb and what a failure looks like to a user; imports a verb only when it is asked for.
Law: what we raise on purpose is one line on stderr and its status, never a traceback. Statuses: 0 valid or degraded, 2 usage,
3 invalid (or degraded, if asked), 4 an attainment missed, 5 server unusable, 130 and 143 interrupted.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import TYPE_CHECKING

from clients.errors import LoadgenError, UsageError
from loadgen.command_line import parse
from loadgen.streams import prepare_streams, silence

if TYPE_CHECKING:
    from collections.abc import Sequence

_USAGE, _INVALID, _UNUSABLE, _INTERRUPTED = 2, 3, 5, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; `argv` without the program's name. Never raises for what a user did or a server is."""
    prepare_streams()
    try:
        status = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except BrokenPipeError:  # `loadgen … | head`: the reader has what it wanted
        silence(sys.stdout)
        return 0
    except KeyboardInterrupt:  # before a session took the signals over, or the third Ctrl-C
        return _fail("interrupted", _INTERRUPTED)
    except UsageError as error:
        return _fail(str(error), _USAGE)
    except LoadgenError as error:
        return _fail(str(error), _UNUSABLE if _is_unusable(error) else _INVALID)
    except OSError as error:  # the disk is full, the results were removed under the run: the system's word, not a bug of ours
        silence(sys.stdout)
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", _INVALID)
    return status


def _run(argv: Sequence[str]) -> int:
    parsed = parse(argv)
    if parsed.arguments is None:
        sys.stdout.write(parsed.text)
        return 0
    command = importlib.import_module(f"loadgen.commands.{parsed.arguments.command.replace('-', '_')}")
    status: int = command.run(parsed.arguments)
    return status


def _is_unusable(error: LoadgenError) -> bool:
    from loadgen.preflight import ServerUnusableError

    return isinstance(error, ServerUnusableError)


def _fail(message: str, status: int) -> int:
    with contextlib.suppress(OSError, ValueError):  # stderr may be closed, too
        sys.stderr.write(f"loadgen: {' '.join(message.split())}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
