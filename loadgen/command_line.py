"""The command line as argparse reads it, built from the table of options.

Knows argparse and nothing of what an option is for. Law: every word of a command line is read by the option it belongs to or
refused in one line that names it; abbreviations are refused, underscores are hyphens, and nothing here imports more than the
standard library and the table, so that `--help` is at once.
"""

from __future__ import annotations

import argparse
import os
import re
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from clients.errors import UsageError
from clients.secret import MASK
from loadgen.option import Option, nearest
from loadgen.options import COMMANDS, options_of, refusals_of

if TYPE_CHECKING:
    from collections.abc import Sequence

EXCLUSIVE = (("num_requests", "duration"), ("insecure", "ca_file"))
# What a command names beside its options.
_NAMED = {
    "report": ("RUN ", "the directory of a run (results/<id>)"),
    "run": ("[PLAN] ", "a YAML file of options by their names; what is typed goes before it"),
}
_FLAG = re.compile(r"--[A-Za-z0-9_-]+")


class Arguments(msgspec.Struct, frozen=True):
    """A command and the values of its options. values: by key, defaults filled in; typed: the keys that the user gave.

    run: what it names beside its options: the directory of a run (`report`), a plan file or "" (`run`).
    """

    command: str
    values: dict[str, Any]
    typed: frozenset[str]
    run: str = ""

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def chosen(self, key: str, *others: Any) -> Any:
        """What the user typed; else the first of `others` that is not None; else the option's default."""
        if key in self.typed:
            return self.values[key]
        return next((other for other in others if other is not None), self.values[key])

    def recorded(self) -> dict[str, Any]:
        """What was typed, for run.json: values of headers are masked."""
        shown = {key: self.values[key] for key in sorted(self.typed)}
        if "header" in shown:
            shown["header"] = [f"{name}={MASK}" for name, _ in shown["header"]]
        return shown


class Parsed(msgspec.Struct, frozen=True):
    """What a command line asks for: `arguments`, or text to print (help, version) and nothing else."""

    arguments: Arguments | None
    text: str = ""


def parse(words: Sequence[str]) -> Parsed:
    """Read a command line (without the program's name). Raises UsageError."""
    words = [_hyphened(_text(word)) for word in words]
    if not words or words[0] in {"-h", "--help", "help"}:
        return Parsed(None, overview())
    if words[0] in {"-V", "--version"}:
        from loadgen.environment import version

        return Parsed(None, f"loadgen {version('loadgen') or 'unknown'}\n")
    command = words[0]
    if command not in COMMANDS:
        takes = "a command first" if command.startswith("-") else "one of " + ", ".join(COMMANDS)
        raise UsageError(f"COMMAND: got {command!r}, takes {takes}{nearest(command, COMMANDS)}")
    options = options_of(command)
    parser = _parser(command, options)
    if "-h" in words[1:] or "--help" in words[1:]:
        return Parsed(None, parser.format_help())
    return Parsed(_arguments(command, options, parser, words[1:]))


def overview() -> str:
    """The help of `loadgen` itself."""
    width = max(map(len, COMMANDS)) + 2
    rows = "\n".join(f"  {name:{width}}{sentence}" for name, sentence in COMMANDS.items())
    return (
        f"usage: loadgen COMMAND [options]\n\nLoad for OpenAI-compatible model servers, and what it means.\n\n{rows}\n\n"
        "`loadgen COMMAND --help` lists a command's options. The first to try:\n\n"
        "  loadgen grid --model olmocr --base-url http://localhost:8000/v1\n"
        "  loadgen grid --model olmocr --simulate\n"
    )


class _Parser(argparse.ArgumentParser):
    """Raises instead of leaving the process."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message.replace("argument ", "", 1))


def _parser(command: str, options: list[Option]) -> _Parser:
    """Argparse only splits the words: values are read by their options afterwards, so that all refusals have one form."""
    columns = os.environ.get("COLUMNS", "")
    width = max(60, int(columns) if columns.isdecimal() else 110)
    parser = _Parser(
        prog=f"loadgen {command}",
        usage=f"loadgen {command} {_NAMED.get(command, ('', ''))[0]}[options]",
        description=COMMANDS[command].capitalize() + ".",
        allow_abbrev=False,
        add_help=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=width),
    )
    if command in _NAMED:
        metavar, sentence = _NAMED[command]
        parser.add_argument("run", metavar=metavar.strip("[] "), nargs="?", help=sentence)
    groups: dict[str, Any] = {}
    for option in options:
        group = groups.get(option.group)
        if group is None:
            group = groups[option.group] = parser.add_argument_group(option.group)
        flags = ["--" + name for name in (option.name, *option.aliases)]
        sentence = option.help.replace("%", "%%")
        if option.reader is None:
            action = argparse.BooleanOptionalAction if option.negatable else "store_true"
            group.add_argument(*flags, dest=option.key, action=action, help=sentence)
        else:
            action = "append" if option.many else "extend" if option.several else "store"
            words = "*" if option.several else None
            metavar = option.reader.metavar.replace("%", "%%")
            group.add_argument(*flags, dest=option.key, action=action, nargs=words, help=sentence, metavar=metavar)
    return parser


def _arguments(command: str, options: list[Option], parser: _Parser, words: list[str]) -> Arguments:
    found, rest = parser.parse_known_args(words)
    if rest:
        _refuse(rest[0], command, options)
    by_key = {option.key: option for option in options}
    values = {option.key: option.default for option in options}
    typed = vars(found)
    run = typed.pop("run", None)
    if run is None and command == "report":
        raise UsageError("RUN: missing; takes the directory of a run (results/<id>)")
    for key, raw in typed.items():
        option = by_key[key]
        if option.reader is None:
            values[key] = raw
        elif option.several and not raw:
            raise UsageError(f"--{option.name}: missing; takes {option.reader.takes}")
        elif option.many or option.several:
            values[key] = tuple(option.read(text) for text in raw)
        else:
            values[key] = option.read(raw)
    for one, other in EXCLUSIVE:
        if one in typed and other in typed:
            raise UsageError(f"--{one.replace('_', '-')}: got --{other.replace('_', '-')} as well, takes one of the two")
    return Arguments(command=command, values=values, typed=frozenset(typed), run=run or "")


def _refuse(word: str, command: str, options: list[Option]) -> NoReturn:
    """A word that belongs to no option."""
    flag = word.partition("=")[0]
    if not flag.startswith("-"):
        raise UsageError(f"{command}: got {word!r}, which belongs to no option (quote a value that has spaces)")
    if reason := refusals_of(command).get(flag.removeprefix("--")):
        raise UsageError(f"{flag}: {reason}")
    known = [name for option in options for name in (option.name, *option.aliases)]
    elsewhere = [name for name in COMMANDS if name != command and any("--" + option.name == flag for option in _cheap_options(name))]
    if elsewhere:
        raise UsageError(f"{command}: {flag} is an option of {' and '.join(elsewhere)}")
    near = nearest(flag.lstrip("-"), known).replace("nearest: ", "nearest: --")
    raise UsageError(f"{command}: unknown option {flag}{near}")


def _cheap_options(command: str) -> list[Option]:
    from loadgen.options import TABLE

    return [option for option in TABLE if command in option.commands]


def _text(word: str) -> str:
    """A word as text; what was typed is kept in run.json, which is UTF-8 and nothing else."""
    try:
        word.encode()
    except UnicodeEncodeError:  # Python stands bytes that its encoding lacks in as lone surrogates
        raise UsageError(f"got {word!a}, which is no text in this system's encoding; takes UTF-8") from None
    return word


def _hyphened(word: str) -> str:
    """`--max_concurrent=4` is `--max-concurrent=4`; values are left alone."""
    match = _FLAG.match(word)
    if match is None or (match.end() < len(word) and word[match.end()] != "="):
        return word
    return match[0].replace("_", "-") + word[match.end() :]
