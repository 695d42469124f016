"""Timestamps of a trace: read from a file, and replayed as dues.

Knows two forms of file: a number of seconds in each line, or JSONL whose rows have a `timestamp`; knows no plan.
Law: a replay has the trace's own gaps, divided by its speed, and begins with its first arrival; what is no time is refused with file
and line.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from clients.errors import UsageError
from loadgen.quantities import LONGEST_S

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def read_trace(path: Path, where: str = "--trace") -> NDArray[np.int64]:
    """Nanoseconds since the first arrival, ascending, (n,). Raises UsageError naming file and line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UsageError(f"{where}: cannot read {str(path)!r} ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: {str(path)!r} is no UTF-8 text (byte {error.start})") from None
    times_s = np.array([_seconds(line, f"{where}: {path}:{number}") for number, line in enumerate(lines, 1) if line.strip()])
    if not len(times_s):
        raise UsageError(f"{where}: {str(path)!r} holds no timestamp")
    times_s.sort()  # logs are written by end, or by several threads
    if times_s[-1] - times_s[0] > LONGEST_S:
        raise UsageError(
            f"{where}: {str(path)!r} lasts {times_s[-1] - times_s[0]:.3g} s, takes at most 10 years: timestamps are in seconds"
        )
    offsets_ns: NDArray[np.int64] = np.rint((times_s - times_s[0]) * 1e9).astype(np.int64)
    return offsets_ns


def replayed(trace_ns: NDArray[np.int64], speed: float, *, count: int | None = None, duration_s: float | None = None) -> NDArray[np.int64]:
    """The first `count` dues of the replay, or all before `duration_s`, or all. Raises UsageError for more than the trace has."""
    offsets_ns = np.rint(trace_ns / speed).astype(np.int64)
    if count is not None and count > len(offsets_ns):
        raise UsageError(f"num_requests: got {count}, but the trace has {len(offsets_ns)}")
    if duration_s is not None:
        offsets_ns = offsets_ns[offsets_ns < duration_s * 1e9]
    return offsets_ns[:count]


def _seconds(line: str, where: str) -> float:
    value: Any = line.strip()
    if value.startswith("{"):
        try:
            value = msgspec.json.decode(value).get("timestamp")
        except msgspec.DecodeError as error:
            raise UsageError(f"{where}: no JSON: {error}") from None
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise UsageError(f"{where}: got {line.strip()[:40]!r}, takes a number of seconds, or a JSON object with one as timestamp")
    return seconds
