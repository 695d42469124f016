"""What a page of a server's `/metrics` says: vLLM's series, read from Prometheus' text format and summed over engines.

Knows the names of a handful of series, new and old, and the format they come in; knows no socket, no clock, and nothing of what we
counted. Law: a server without one of the series is normal, its value is None; a line that is none of ours is passed over; a number is
the server's own, never one of ours in its place.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

# Our name -> the series, newest name first. vLLM renamed gpu_* with its V1 engine (0.9).
_SERIES: dict[str, tuple[str, ...]] = {
    "prompt_tokens": ("vllm:prompt_tokens_total",),
    "generation_tokens": ("vllm:generation_tokens_total",),
    "preemptions": ("vllm:num_preemptions_total",),
    "prefix_queries": ("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"),
    "prefix_hits": ("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"),
    "image_queries": ("vllm:mm_cache_queries_total",),
    "image_hits": ("vllm:mm_cache_hits_total",),
    "running": ("vllm:num_requests_running",),
    "waiting": ("vllm:num_requests_waiting",),
    "kv_usage": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    "process_started": ("process_start_time_seconds",),  # of prometheus_client, where one process answers; no name of vLLM's
}
# The same for histograms. time_in_queue_requests was a duplicate until 0.9; time_per_output_token_seconds was the gap between tokens,
# and not a request's mean, until it was given the name that says so.
_HISTOGRAMS: dict[str, tuple[str, ...]] = {
    "queue": ("vllm:request_queue_time_seconds", "vllm:time_in_queue_requests"),
    "prefill": ("vllm:request_prefill_time_seconds",),
    "decode": ("vllm:request_decode_time_seconds",),
    "ttft": ("vllm:time_to_first_token_seconds",),
    "itl": ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
    "latency": ("vllm:e2e_request_latency_seconds",),
}
_REQUESTS = "vllm:request_success_total"
_PEAKS = frozenset({"kv_usage", "process_started"})  # of several engines the highest; the rest adds up
_PARTS = ("_bucket", "_sum", "_count")
_WANTED = frozenset(
    {name for names in _SERIES.values() for name in names}
    | {name + part for names in _HISTOGRAMS.values() for name in names for part in _PARTS}
    | {_REQUESTS}
)

_SAMPLE = re.compile(
    r"^(?P<name>[A-Za-z_:][A-Za-z0-9_:]*)(?:\{(?P<labels>(?:[^\"}]|\"(?:[^\"\\]|\\.)*\")*)\})?[ \t]+(?P<value>[^ \t]+)(?:[ \t]+-?\d+)?$"
)
_NAME_ENDS = re.compile(r"[{ \t]")
_LABEL = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=\"((?:[^\"\\]|\\.)*)\"")


class Buckets(msgspec.Struct, frozen=True, kw_only=True):
    """A histogram in seconds. counts: for each of the rising `bounds_s`, the samples at or below it; `count` is all of them."""

    count: int
    sum_s: float
    bounds_s: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()


class ServerCounters(msgspec.Struct, frozen=True, kw_only=True):
    """One read of the page, summed over engines. None: the server has no such series.

    requests: requests that ended, by finish reason. running, waiting: requests now; kv_usage: share of KV blocks in use now, 0 to 1 (of
    the fullest engine). The others count since the server's start; prefix_* are in tokens, image_* in images. times: of vLLM's
    histograms, by our names: `queue`, `prefill`, `decode` and `latency` of requests that ended, `ttft` and `itl` of tokens that left.
    process_started: seconds since 1970.
    """

    requests: dict[str, int] | None = None
    prompt_tokens: int | None = None
    generation_tokens: int | None = None
    preemptions: int | None = None
    prefix_queries: int | None = None
    prefix_hits: int | None = None
    image_queries: int | None = None
    image_hits: int | None = None
    running: int | None = None
    waiting: int | None = None
    kv_usage: float | None = None
    times: dict[str, Buckets] = {}
    process_started: float | None = None

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits, as far as the server tells."""
        return not self.running and not self.waiting


def parse_counters(page: str) -> ServerCounters | None:
    """The counters in a page of the Prometheus text format; lines that are none are passed over. None: it names none of vLLM's."""
    sums: dict[str, float] = {}
    peaks: dict[str, float] = {}
    requests: Counter[str] = Counter()
    buckets: dict[str, Counter[float]] = {}
    for name, labels, value in _samples(page):
        if name == _REQUESTS:
            requests[labels.get("finished_reason", "")] += int(value)
        elif name.endswith("_bucket"):
            if (bound := _number(labels.get("le", ""))) is not None and bound < math.inf:  # that of +Inf is the count again
                buckets.setdefault(name.removesuffix("_bucket"), Counter())[bound] += int(value)
        else:
            sums[name] = sums.get(name, 0.0) + value
            peaks[name] = max(peaks.get(name, value), value)
    found: dict[str, float] = {}
    for ours, series in _SERIES.items():
        present = next((name for name in series if name in sums), None)
        if present is not None:
            found[ours] = (peaks if ours in _PEAKS else sums)[present]
    times = {}
    for ours, series in _HISTOGRAMS.items():
        present = next((name for name in series if {name + "_sum", name + "_count"} <= sums.keys()), None)
        if present is not None:
            times[ours] = _histogram(int(sums[present + "_count"]), sums[present + "_sum"], buckets.get(present, Counter()))
    # A counter with labels may have no line before its first event; its TYPE line is there all the same.
    counted = bool(requests) or f"# TYPE {_REQUESTS} " in page
    started, kv_usage = found.pop("process_started", None), found.pop("kv_usage", None)
    if not found and not times and not counted and kv_usage is None:
        return None
    return ServerCounters(
        requests=dict(requests) if counted else None,
        kv_usage=kv_usage,
        times=times,
        process_started=started,
        **{name: int(value) for name, value in found.items()},
    )


def _histogram(count: int, sum_s: float, buckets: Counter[float]) -> Buckets:
    bounds = sorted(buckets)
    return Buckets(count=count, sum_s=sum_s, bounds_s=tuple(bounds), counts=tuple(buckets[bound] for bound in bounds))


def _samples(page: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """(name, labels, value) of each line that is a finite sample of a series that we read."""
    for line in page.split("\n"):
        # The name alone decides about most lines: a page has thousands, and it is read each second while load is made.
        if _NAME_ENDS.split(line, maxsplit=1)[0] not in _WANTED:
            continue
        match = _SAMPLE.match(line.strip())
        value = None if match is None else _number(match["value"])
        if match is not None and value is not None and math.isfinite(value):
            yield match["name"], dict(_LABEL.findall(match["labels"] or "")), value


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
