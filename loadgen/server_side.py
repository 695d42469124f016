"""What the server says of one plan: what it counted and timed between two reads, its gauges meanwhile, and where its time went.

Knows the counters of two reads and subtraction; must not know how they were read. Law: a difference is of the server's own counters only;
it is withheld, and says so, when the server was restarted in between; a percentile from buckets is the two bounds it lies between.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from loadgen.breakdown import Breakdown
from loadgen.distribution import percentile_key
from loadgen.server_counters import Buckets, ServerCounters

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadgen.scrape import Readings
    from loadgen.watch import Moment

PERCENTS = (50.0, 90.0, 99.0)
_COUNTS = ("prompt_tokens", "generation_tokens", "preemptions", "prefix_queries", "prefix_hits", "image_queries", "image_hits")
# Reasons of a request that the server did not finish: ours counts it as a failure.
_NOT_IN_ORDER = frozenset({"abort", "error"})


class Between(msgspec.Struct, frozen=True, kw_only=True):
    """A percentile is above `low_s` and at or below `high_s`, neighbouring bounds of buckets; high_s: None above the last bound."""

    low_s: float
    high_s: float | None


class ServerTimes(msgspec.Struct, frozen=True, kw_only=True):
    """One of the server's histograms, over what it timed between the two reads. percentiles: {} where it gave no buckets."""

    count: int
    sum_s: float
    percentiles: dict[str, Between] = {}

    @property
    def mean_s(self) -> float | None:
        return self.sum_s / self.count if self.count else None


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """A gauge over the reads inside the window: mean of them, highest, last."""

    mean: float
    max: float
    last: float


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """The reads inside the measuring window, about one a second. missed: those that gave nothing. took_*_s: how long a read took.

    None: the server has no such gauge, or no read gave it.
    """

    reads: int
    missed: int
    took_mean_s: float
    took_max_s: float
    running: Level | None
    waiting: Level | None
    kv_usage: Level | None


class Bracket(msgspec.Struct, frozen=True, kw_only=True):
    """When the two reads began and ended, in seconds since the measuring window's start (before it: below 0), which is `window_s` long.

    after_*: None where the second gave nothing. What the server counted between them is of the whole plan, lead and tail included, and of whoever else used it.
    """

    window_s: float
    before_began_s: float
    before_ended_s: float
    after_began_s: float | None = None
    after_ended_s: float | None = None


class ServerSide(msgspec.Struct, frozen=True, kw_only=True):
    """What the server says of a plan; None where it does not count or was restarted.

    requests: that ended, by its finish reason; requests_total: all of them. prefix_* are in tokens, image_* in images (vLLM's cache of
    processed images). running_before, waiting_before: what others had going when we began: their work is in the counts too. times: by
    name, `queue`, `prefill`, `decode`, `latency` of requests that ended, `ttft`, `itl`. notes: what could not be known, and why.
    """

    requests: dict[str, int] | None = None
    requests_total: int | None = None
    prompt_tokens: int | None = None
    generation_tokens: int | None = None
    preemptions: int | None = None
    prefix_queries: int | None = None
    prefix_hits: int | None = None
    image_queries: int | None = None
    image_hits: int | None = None
    running_before: int | None = None
    waiting_before: int | None = None
    running_after: int | None = None
    waiting_after: int | None = None
    restarted: bool = False
    times: dict[str, ServerTimes] = {}
    watched: Watched | None = None
    bracket: Bracket | None = None
    ttft: Breakdown | None = None
    latency: Breakdown | None = None
    notes: list[str] = []

    @property
    def in_order(self) -> int | None:
        """Requests that the server ended in order: what our successful ones are compared with."""
        if self.requests is None:
            return None
        return sum(count for reason, count in self.requests.items() if reason not in _NOT_IN_ORDER)

    @classmethod
    def between(cls, before: ServerCounters, after: ServerCounters) -> ServerSide:
        """The difference. A counter that went down, or another start, means a new server process: no difference is then meaningful."""
        requests = None
        if before.requests is not None and after.requests is not None:
            reasons = sorted(before.requests.keys() | after.requests.keys())
            requests = {reason: after.requests.get(reason, 0) - before.requests.get(reason, 0) for reason in reasons}
        times = {name: _since(before.times[name], one) for name, one in after.times.items() if name in before.times}
        side = cls(
            requests=requests,
            requests_total=None if requests is None else sum(requests.values()),
            prompt_tokens=_difference(before.prompt_tokens, after.prompt_tokens),
            generation_tokens=_difference(before.generation_tokens, after.generation_tokens),
            preemptions=_difference(before.preemptions, after.preemptions),
            prefix_queries=_difference(before.prefix_queries, after.prefix_queries),
            prefix_hits=_difference(before.prefix_hits, after.prefix_hits),
            image_queries=_difference(before.image_queries, after.image_queries),
            image_hits=_difference(before.image_hits, after.image_hits),
            running_before=before.running,
            waiting_before=before.waiting,
            running_after=after.running,
            waiting_after=after.waiting,
            times={name: _times(one) for name, one in times.items()},
        )
        counts = [getattr(side, name) for name in _COUNTS]
        counts += [*(requests or {}).values(), *(count for one in times.values() for count in (one.count, *one.counts))]
        another = before.process_started is not None and before.process_started != after.process_started
        return cls(restarted=True) if another or any(count is not None and count < 0 for count in counts) else side


def server_side(readings: Readings, moments: Sequence[Moment], window_ns: tuple[int, int]) -> ServerSide:
    """All that the reads around and during a plan say. window_ns: from where to where it was measured, on the records' clock."""
    before, after = readings.before, readings.after
    if before.counters is None:
        return ServerSide(notes=[f"the server gives no counters ({before.absent})"])
    if after is None or after.counters is None:
        why = "the run ended before they were asked for" if after is None else after.absent
        side = ServerSide(notes=[f"the server gave no counters after the plan ({why})"])
        after = None
    else:
        side = ServerSide.between(before.counters, after.counters)
    start_ns, end_ns = window_ns

    def since_start(stamp_ns: int | None) -> float | None:
        return None if stamp_ns is None else (stamp_ns - start_ns) / 1e9

    bracket = Bracket(
        window_s=(end_ns - start_ns) / 1e9,
        before_began_s=(before.began_ns - start_ns) / 1e9,
        before_ended_s=(before.ended_ns - start_ns) / 1e9,
        after_began_s=since_start(after.began_ns if after else None),
        after_ended_s=since_start(after.ended_ns if after else None),
    )
    inside = [moment for moment in moments if moment.began_ns >= start_ns and moment.ended_ns <= end_ns]
    return msgspec.structs.replace(side, bracket=bracket, watched=watched(inside))


def watched(moments: Sequence[Moment]) -> Watched | None:
    """The moments in short; None where there is none."""
    if not moments:
        return None
    took_s = [(moment.ended_ns - moment.began_ns) / 1e9 for moment in moments]
    return Watched(
        reads=len(moments),
        missed=sum(bool(moment.absent) for moment in moments),
        took_mean_s=sum(took_s) / len(took_s),
        took_max_s=max(took_s),
        running=_level(moments, lambda moment: moment.running),
        waiting=_level(moments, lambda moment: moment.waiting),
        kv_usage=_level(moments, lambda moment: moment.kv_usage),
    )


def _level(moments: Sequence[Moment], gauge: Callable[[Moment], float | None]) -> Level | None:
    values = [float(value) for value in map(gauge, moments) if value is not None]
    return Level(mean=sum(values) / len(values), max=max(values), last=values[-1]) if values else None


def _difference(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before


def _since(before: Buckets, after: Buckets) -> Buckets:
    """What was timed after `before`; without buckets where their bounds changed."""
    alike = before.bounds_s == after.bounds_s
    return Buckets(
        count=after.count - before.count,
        sum_s=after.sum_s - before.sum_s,
        bounds_s=after.bounds_s if alike else (),
        counts=tuple(late - early for early, late in zip(before.counts, after.counts, strict=True)) if alike else (),
    )


def _times(timed: Buckets) -> ServerTimes:
    known = bool(timed.count and timed.bounds_s)
    percentiles = {percentile_key(percent): _between(timed, percent) for percent in PERCENTS} if known else {}
    return ServerTimes(count=timed.count, sum_s=timed.sum_s, percentiles=percentiles)


def _between(timed: Buckets, percent: float) -> Between:
    """The bucket that holds the sample of rank ceil(p n), the smallest with at least that share at or below it."""
    rank = max(1, math.ceil(percent / 100 * timed.count))
    low_s = 0.0
    for bound_s, count in zip(timed.bounds_s, timed.counts, strict=True):
        if count >= rank:
            return Between(low_s=low_s, high_s=bound_s)
        low_s = bound_s
    return Between(low_s=low_s, high_s=None)
