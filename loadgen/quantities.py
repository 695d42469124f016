"""What an option's text means: durations, whole numbers, lists, `K=V`, JSON.

Knows text and values; must not know which options there are. A `Reader` turns text into a value or raises ValueError; `takes`
is the sentence about what it accepts, so that every refusal can name it.
Law: a value that was read is inside its bounds; NaN and infinity are in no bounds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import msgspec

_UNITS_S = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ms|s|m|h|)")
# 10 years: a typing error, not a plan; and sums of nanoseconds stay far inside 64 bits.
LONGEST_S = 10 * 365 * 86400.0
# What every file format, array and server takes; more is a typing error.
_LARGEST = 2**31 - 1
_LONGEST_LABEL = 200
# Far above what a machine sends; more is a typing error.
LARGEST_RPS = 1_000_000.0


class Reader(msgspec.Struct, frozen=True):
    """How one kind of text is read. takes: what it accepts, in words; metavar: its place in the help."""

    metavar: str
    takes: str
    read: Callable[[str], Any]


def whole(least: int = 0, most: int = _LARGEST) -> Reader:
    """A whole number in decimal digits; `_` may group them."""
    takes = f"a whole number from {least} to {most}"

    def read(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]+(_[0-9]+)*", text):
            raise ValueError(text)
        number = int(text)
        if not least <= number <= most:
            raise ValueError(text)
        return number

    return Reader("N", takes, read)


def number(least: float = -math.inf, most: float = math.inf, takes: str = "a number") -> Reader:
    """A finite number from `least` to `most`."""

    def read(text: str) -> float:
        value = float(text)
        if not math.isfinite(value) or not least <= value <= most:
            raise ValueError(text)
        return value

    return Reader("X", takes, read)


def read_duration(text: str) -> float:
    """Seconds of `90`, `30s`, `15m`, `8h`, `250ms`; above zero."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    seconds = float(match[1]) * _UNITS_S[match[2]]
    if not 0 < seconds <= LONGEST_S:
        raise ValueError(text)
    return seconds


DURATION = Reader("TIME", "a time above zero: 90, 30s, 15m, 8h or 250ms", read_duration)
DELAY = Reader(
    "TIME", "a time: 0, 90, 30s, 15m or 250ms", lambda text: 0.0 if re.fullmatch(r"0+(\.0*)?(ms|s|m|h)?", text) else read_duration(text)
)
TIMEOUT = Reader(
    "TIME", "a time above zero (90, 30s, 15m) or none for no limit", lambda text: None if text == "none" else read_duration(text)
)


def choice(*names: str) -> Reader:
    """One of `names`."""

    def read(text: str) -> str:
        if text not in names:
            raise ValueError(text)
        return text

    return Reader("|".join(names), "one of " + ", ".join(names), read)


def listed(item: Reader, takes: str, metavar: str = "") -> Reader:
    """A list like `1,2,4` without repetition: a value that comes twice counts once."""

    def read(text: str) -> tuple[Any, ...]:
        values = tuple(dict.fromkeys(item.read(piece.strip()) for piece in text.split(",")))
        if not values:
            raise ValueError(text)
        return values

    return Reader(metavar or f"{item.metavar},{item.metavar},…", takes, read)


def text_of(takes: str, metavar: str = "TEXT") -> Reader:
    """Any text but an empty one."""

    def read(text: str) -> str:
        if not text.strip():
            raise ValueError(text)
        return text

    return Reader(metavar, takes, read)


def _read_label(text: str) -> str:
    if not text.strip() or len(text) > _LONGEST_LABEL or not text.isprintable():
        raise ValueError(text)
    return text


def _read_pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise ValueError(text)
    return key.strip(), value


def _read_object(text: str) -> dict[str, Any]:
    """Strict: what Python's own reader takes beyond JSON (NaN, lone surrogates) or beyond a body (integers of more than 64 bits) is refused."""
    import orjson  # bodies are written by it

    try:
        value = msgspec.json.decode(text, type=dict[str, Any])
        orjson.dumps(value)
    except (msgspec.DecodeError, TypeError):
        raise ValueError(text) from None
    return value


def _read_count_or_auto(text: str) -> int | None:
    return None if text == "auto" else int(whole(1).read(text))


def _read_barrier(text: str) -> int | None:
    """A batch size; None for no barrier."""
    return None if text in {"0", "none"} else int(whole(1).read(text))


def _read_percentile(text: str) -> float:
    value = float(text)
    if not 0 < value < 100 or float(f"{value:g}") != value:  # its name in a report has six digits: p99.9999
        raise ValueError(text)
    return value


def _read_rate(text: str) -> float:
    """Requests/s; infinite: no schedule, as fast as slots come free."""
    value = float(text)
    if not 0 < value <= LARGEST_RPS and value != math.inf:
        raise ValueError(text)
    return value


LABEL = Reader("TEXT", f"one line of at most {_LONGEST_LABEL} characters", _read_label)
PAIR = Reader("K=V", "a name and a value: K=V", _read_pair)
JSON_OBJECT = Reader("JSON", 'a JSON object, as in {"top_k": 1}', _read_object)
RATE = Reader("R", "requests/s above 0, at most 1000000, or inf", _read_rate)
COUNT_OR_AUTO = Reader("auto|N", f"auto, or {whole(1).takes}", _read_count_or_auto)
BARRIER = Reader("N", f"{whole(1).takes}, or none for no barrier", _read_barrier)
BARRIERS = listed(BARRIER, "a list like 1,2,4 (0 or none: no barrier)")
COUNTS = listed(whole(1, 50_000), "a list like 1,2,4 of whole numbers from 1 to 50000")
PERCENTILES = listed(Reader("P", "", _read_percentile), "a list like 50,90,99.9 of numbers above 0 and below 100 with at most six digits")
