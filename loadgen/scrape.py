"""What the server counted: vLLM's `/metrics`, read and subtracted.

Knows the names of a handful of series and the text format they come in; knows nothing of what we counted (the report sets
the two side by side). A server without the page, or without one of the series, is normal: the value is None.
Law: a delta is of the server's own counters only; it is withheld, and says so, when the server was restarted in between.
"""

from __future__ import annotations

import re
import ssl
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clients.endpoint import Endpoint

TIMEOUT_S = 1.0
# A page of vLLM 0.32 has 60 kB per engine; beyond this it is not a page of metrics.
PAGE_LIMIT = 8 * 1024 * 1024
# vLLM updates its counters once per engine step and its log task may come a little later: two equal reads so far apart.
POLL_S = 0.05

# Our name → the series, newest name first: vLLM renamed the last two in 0.9 (V1 engine).
_SERIES: dict[str, tuple[str, ...]] = {
    "prompt_tokens": ("vllm:prompt_tokens_total",),
    "generation_tokens": ("vllm:generation_tokens_total",),
    "preemptions": ("vllm:num_preemptions_total",),
    "prefix_queries": ("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"),
    "prefix_hits": ("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"),
    "running": ("vllm:num_requests_running",),
    "waiting": ("vllm:num_requests_waiting",),
    "kv_usage": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
}
_REQUESTS = "vllm:request_success_total"

_SAMPLE = re.compile(
    r"^(?P<name>[A-Za-z_:][A-Za-z0-9_:]*)(?:\{(?P<labels>(?:[^\"}]|\"(?:[^\"\\]|\\.)*\")*)\})?[ \t]+(?P<value>[^ \t]+)(?:[ \t]+-?\d+)?$"
)
_LABEL = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=\"((?:[^\"\\]|\\.)*)\"")


class ServerCounters(msgspec.Struct, frozen=True, kw_only=True):
    """One read of the page, summed over engines. None: the server has no such series.

    requests: requests that ended in order, by finish reason. running, waiting: requests now; kv_usage: share of KV blocks
    in use now, 0 to 1 (of the fullest engine). The others count since the server's start; prefix_* are in tokens.
    """

    requests: dict[str, int] | None = None
    prompt_tokens: int | None = None
    generation_tokens: int | None = None
    preemptions: int | None = None
    prefix_queries: int | None = None
    prefix_hits: int | None = None
    running: int | None = None
    waiting: int | None = None
    kv_usage: float | None = None

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits, as far as the server tells."""
        return not self.running and not self.waiting


class ServerDelta(msgspec.Struct, frozen=True, kw_only=True):
    """What the server counted between two reads; None where it does not count or was restarted.

    running_before, waiting_before: what others had going when we began: their work is in the counts too.
    """

    requests: dict[str, int] | None = None
    requests_total: int | None = None
    prompt_tokens: int | None = None
    generation_tokens: int | None = None
    preemptions: int | None = None
    prefix_queries: int | None = None
    prefix_hits: int | None = None
    running_before: int | None = None
    waiting_before: int | None = None
    running_after: int | None = None
    waiting_after: int | None = None
    restarted: bool = False

    @classmethod
    def between(cls, before: ServerCounters, after: ServerCounters) -> ServerDelta:
        """The difference. A counter that went down means a new server process: no difference is then meaningful."""
        requests = None
        if before.requests is not None and after.requests is not None:
            reasons = sorted(before.requests.keys() | after.requests.keys())
            requests = {reason: after.requests.get(reason, 0) - before.requests.get(reason, 0) for reason in reasons}
        delta = cls(
            requests=requests,
            requests_total=None if requests is None else sum(requests.values()),
            prompt_tokens=_difference(before.prompt_tokens, after.prompt_tokens),
            generation_tokens=_difference(before.generation_tokens, after.generation_tokens),
            preemptions=_difference(before.preemptions, after.preemptions),
            prefix_queries=_difference(before.prefix_queries, after.prefix_queries),
            prefix_hits=_difference(before.prefix_hits, after.prefix_hits),
            running_before=before.running,
            waiting_before=before.waiting,
            running_after=after.running,
            waiting_after=after.waiting,
        )
        counts = [delta.prompt_tokens, delta.generation_tokens, delta.preemptions, delta.prefix_queries, delta.prefix_hits]
        if any(count is not None and count < 0 for count in (*counts, *(requests or {}).values())):
            return cls(restarted=True)
        return delta


def scrape(endpoint: Endpoint, *, timeout_s: float = TIMEOUT_S) -> ServerCounters | None:
    """Read the server's counters; None when it has no such page, does not answer in time, or the page names none of them.

    Blocking: call it from a thread. Proxies of the environment are used as the client uses them.
    """
    request = urllib.request.Request(metrics_url(endpoint.base_url), headers=dict(endpoint.headers))  # noqa: S310 - Endpoint admits http and https only
    if endpoint.api_key is not None:
        request.add_unredirected_header("Authorization", f"Bearer {endpoint.api_key.reveal()}")
    handlers = []
    if endpoint.base_url.startswith("https:"):
        context = ssl.create_default_context(cafile=endpoint.ca_file)
        if endpoint.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        handlers.append(urllib.request.HTTPSHandler(context=context))
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout_s) as answer:
            page: bytes = answer.read(PAGE_LIMIT)
    except (OSError, ValueError, urllib.error.URLError):  # no page is normal; HTTP errors are URLErrors, bad HTTP ValueErrors
        return None
    return parse_counters(page.decode("utf-8", "replace"))


def wait_idle(endpoint: Endpoint, *, limit_s: float = 2.0) -> ServerCounters | None:
    """Poll until nothing runs or waits and two reads agree, at most `limit_s`; returns the last read, idle or not.

    None at once when the server has no counters. Blocking.
    """
    deadline_s = time.monotonic() + limit_s
    last: ServerCounters | None = None
    while True:
        now = scrape(endpoint)
        if now is None:
            return last
        if (now.idle and now == last) or time.monotonic() >= deadline_s:
            return now
        last = now
        time.sleep(POLL_S)


def metrics_url(base_url: str) -> str:
    """Where the page is: vLLM serves `/metrics` beside `/v1`, not in it."""
    return base_url.rstrip("/").removesuffix("/v1") + "/metrics"


def parse_counters(page: str) -> ServerCounters | None:
    """The counters in a page of the Prometheus text format; lines that are none are passed over. None: it names none of ours."""
    sums: dict[str, float] = {}
    peaks: dict[str, float] = {}
    requests: dict[str, int] = {}
    for name, labels, value in _samples(page):
        if name == _REQUESTS:
            reason = labels.get("finished_reason", "")
            requests[reason] = requests.get(reason, 0) + int(value)
        else:
            sums[name] = sums.get(name, 0.0) + value
            peaks[name] = max(peaks.get(name, 0.0), value)
    found: dict[str, float] = {}
    for ours, series in _SERIES.items():
        present = next((name for name in series if name in sums), None)
        if present is not None:
            found[ours] = peaks[present] if ours == "kv_usage" else sums[present]
    # A counter with labels may have no line before its first event; its TYPE line is there all the same.
    counted = bool(requests) or f"# TYPE {_REQUESTS} " in page
    if not found and not counted:
        return None
    kv_usage = found.pop("kv_usage", None)
    return ServerCounters(
        requests=requests if counted else None,
        kv_usage=kv_usage,
        **{name: int(value) for name, value in found.items()},
    )


def _samples(page: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """(name, labels, value) of each line that is a finite sample of vLLM's."""
    for line in page.split("\n"):
        if not line.startswith("vllm:"):
            continue
        match = _SAMPLE.match(line.strip())
        if match is None:
            continue
        try:
            value = float(match["value"])
        except ValueError:
            continue
        if value - value == 0.0:  # neither NaN nor infinite
            yield match["name"], dict(_LABEL.findall(match["labels"] or "")), value


def _difference(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before
