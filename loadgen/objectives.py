"""What a request must keep to be good: limits of TTFT, TPOT and latency, as `vllm bench serve --goodput` writes them.

Knows metrics, limits and their text; must not know records, how many requests kept them (`goodput.py`), nor options. No numpy: a worker's
plan and the table of options read this. Law: limits are in seconds here, in milliseconds where people write them; each metric once.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from clients.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

Metric = Literal["ttft", "tpot", "e2el"]  # ITL is pooled over all gaps of all requests: no one request has it (DESIGN.md, "ITL")
METRICS: tuple[Metric, ...] = get_args(Metric)
STREAMED_METRICS = frozenset({"ttft", "tpot"})  # need the time of a first token

OBJECTIVES_TAKEN = f"a metric ({', '.join(METRICS)}) and milliseconds, once each, as in ttft:500 tpot:50 e2el:5000"


class Objective(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request keeps it when its metric is at most the limit: TTFT and latency (e2el) from due, TPOT where it has one."""

    metric: Metric
    limit_s: float

    def __str__(self) -> str:
        return f"{self.metric}:{self.limit_s * 1e3:g}"


def read_objectives(text: str) -> tuple[Objective, ...]:
    """`ttft:500 tpot:50` or with commas, in the order of METRICS. Raises ValueError for what is none, or a metric that comes twice."""
    limits: dict[str, float] = {}
    for word in text.replace(",", " ").split():
        metric, _, written = word.partition(":")
        limit_ms = float(written)
        if metric not in METRICS or metric in limits or not 0 < limit_ms < math.inf:
            raise ValueError(word)
        limits[metric] = limit_ms / 1e3
    if not limits:
        raise ValueError(text)
    return tuple(Objective(metric=metric, limit_s=limits[metric]) for metric in METRICS if metric in limits)


def merged(parts: Iterable[tuple[Objective, ...]]) -> tuple[Objective, ...]:
    """Those of several words of an option. Raises UsageError for a metric that comes twice."""
    found: dict[str, Objective] = {}
    for one in (one for part in parts for one in part):
        if one.metric in found:
            raise UsageError(f"--goodput: got {found[one.metric]} and {one}, takes each metric once")
        found[one.metric] = one
    return tuple(found[metric] for metric in METRICS if metric in found)


def written(objectives: tuple[Objective, ...]) -> str:
    """As they are typed."""
    return " ".join(map(str, objectives))
