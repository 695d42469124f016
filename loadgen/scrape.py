"""One read of a server's `/metrics`, and the wait until it is idle.

Knows the address of the page and how long a read may take; must not know what its numbers mean. Law: whatever the server does (no page, a
page of others, silence, megabytes, half an answer), a read ends in time and is a value that says why there are no counters.
"""

from __future__ import annotations

import functools
import http.client
import ssl
import threading
import time
import urllib.error
import urllib.request
from time import perf_counter_ns
from typing import TYPE_CHECKING

import msgspec

from loadgen.server_counters import ServerCounters, parse_counters

if TYPE_CHECKING:
    from clients.endpoint import Endpoint

TIMEOUT_S = 1.0
# A page of vLLM 0.32 has 60 kB per engine; beyond this it is not a page of metrics.
PAGE_LIMIT = 8 * 1024 * 1024
# vLLM updates its counters once per engine step and its log task may come a little later: two equal reads so far apart.
POLL_S = 0.05
# What a server may take to become idle before and after a plan; one that others keep busy never does.
IDLE_LIMIT_S = 2.0


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """What one read gave. began_ns, ended_ns: around it, on the clock of the records. counters: None for the reason in `absent`."""

    began_ns: int
    ended_ns: int
    counters: ServerCounters | None = None
    absent: str = ""


class Readings(msgspec.Struct, frozen=True, kw_only=True):
    """The reads around a plan. after: None when there was nothing before, or the run was killed."""

    before: Read
    after: Read | None = None


def scrape(endpoint: Endpoint, *, timeout_s: float = TIMEOUT_S) -> Read:
    """Read the server's counters. Blocking, for at most `timeout_s` and the time that parsing takes; raises nothing.

    Proxies of the environment are used as the client uses them.
    """
    fetched: list[bytes | str] = []
    # A socket's timeout is for each of its reads: a server that drips would hold us for ever, and so would a resolver.
    fetching = threading.Thread(target=lambda: fetched.append(_fetch(endpoint, timeout_s)), name="scrape", daemon=True)
    began_ns = perf_counter_ns()
    fetching.start()
    fetching.join(timeout_s)
    ended_ns = perf_counter_ns()
    page = fetched[0] if fetched else f"no answer within {timeout_s:g} s"
    if isinstance(page, str):
        return Read(began_ns=began_ns, ended_ns=ended_ns, absent=page)
    counters = parse_counters(page.decode("utf-8", "replace"))
    absent = "" if counters is not None else "the page names none of vLLM's series"
    return Read(began_ns=began_ns, ended_ns=ended_ns, counters=counters, absent=absent)


def wait_idle(endpoint: Endpoint, *, limit_s: float = IDLE_LIMIT_S) -> Read:
    """Read until nothing runs or waits and two reads agree, at most `limit_s`; returns the last read that gave counters, idle or not.

    At once when the server gives none. Blocking.
    """
    deadline_s = time.monotonic() + limit_s
    last: Read | None = None
    while True:
        now = scrape(endpoint)
        if now.counters is None:
            return last or now
        if (last is not None and now.counters.idle and now.counters == last.counters) or time.monotonic() >= deadline_s:
            return now
        last = now
        time.sleep(POLL_S)


def metrics_url(base_url: str) -> str:
    """Where the page is: vLLM serves `/metrics` beside `/v1`, not in it."""
    return base_url.rstrip("/").removesuffix("/v1") + "/metrics"


@functools.cache  # reading the system's certificates takes 20 ms of CPU, and a plan is watched each second
def _context(ca_file: str | None, insecure: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _fetch(endpoint: Endpoint, timeout_s: float) -> bytes | str:
    """The page, or why there is none."""
    request = urllib.request.Request(metrics_url(endpoint.base_url), headers=dict(endpoint.headers))  # noqa: S310 - Endpoint admits http and https only
    if endpoint.api_key is not None:
        request.add_unredirected_header("Authorization", f"Bearer {endpoint.api_key.reveal()}")
    handlers = []
    try:
        if endpoint.base_url.startswith("https:"):
            handlers.append(urllib.request.HTTPSHandler(context=_context(endpoint.ca_file, endpoint.insecure)))
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout_s) as answer:
            page: bytes = answer.read(PAGE_LIMIT + 1)
    except urllib.error.HTTPError as error:
        error.close()
        return f"HTTP {error.code}"
    except TimeoutError:
        return f"no answer within {timeout_s:g} s"
    except urllib.error.URLError as error:
        return str(error.reason)
    except (OSError, ValueError, http.client.HTTPException) as error:  # bad HTTP is either of the last two
        return f"{type(error).__name__}: {error}"
    return page if len(page) <= PAGE_LIMIT else f"a page of more than {PAGE_LIMIT // 2**20} MiB, which is none of metrics"
