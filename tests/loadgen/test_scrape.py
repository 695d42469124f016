"""One read of /metrics: over HTTP, in time and without raising, whatever the server does; and the wait until it is idle."""

import contextlib
import threading
import time
from pathlib import Path

import pytest

from clients.endpoint import Endpoint
from clients.secret import Secret
from loadgen.scrape import PAGE_LIMIT, metrics_url, scrape, wait_idle
from loadgen.server_counters import ServerCounters
from tests.servers import threaded

FIXTURES = Path(__file__).parent.parent / "fixtures"


def page(**values):
    """A page with these vLLM series."""
    return "".join(f'vllm:{name}{{engine="0"}} {value}\n' for name, value in values.items())


@contextlib.contextmanager
def serving(pages, path="/metrics"):
    """A server that answers each GET with the next page (the last one again and again); yields its endpoint and the requests."""
    seen = []

    class Handler(threaded.Quiet):
        def do_GET(self):
            seen.append((self.path, self.headers.get("Authorization")))
            self.send(200 if self.path == path else 404, pages[min(len(seen), len(pages)) - 1].encode())

    with threaded.serving(Handler) as url:
        yield Endpoint.parse(url), seen


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("http://h:1/v1", "http://h:1/metrics"),
        ("http://h:1/v1/", "http://h:1/metrics"),
        ("http://h:1/team/v1", "http://h:1/team/metrics"),  # behind a path
        ("http://h:1", "http://h:1/metrics"),  # no /v1 at all
    ],
)
def test_the_page_is_beside_v1(base_url, url):
    """`/metrics` is at the root of the server, not under the API."""
    assert metrics_url(base_url) == url


def test_a_scrape_reads_over_http():
    """The page of a running server is fetched from its root; the read knows when it began and ended, on the records' clock."""
    before_ns = time.perf_counter_ns()
    with serving([page(prompt_tokens_total=4)]) as (endpoint, seen):
        read = scrape(endpoint)
        assert (read.counters, read.absent) == (ServerCounters(prompt_tokens=4), "")
        assert before_ns <= read.began_ns <= read.ended_ns <= time.perf_counter_ns()
        assert seen == [("/metrics", None)]


def test_the_key_goes_with_the_read():
    """Some servers guard the page as they guard the API."""
    with serving([page(prompt_tokens_total=4)]) as (endpoint, seen):
        scrape(Endpoint.parse(endpoint.base_url, api_key=Secret("k")))
        assert seen == [("/metrics", "Bearer k")]


def test_a_server_without_the_page_says_which_way_it_has_none():
    """404; a page of another server; nobody listening."""
    with serving(["no"], path="/elsewhere") as (endpoint, _):
        assert (scrape(endpoint).counters, scrape(endpoint).absent) == (None, "HTTP 404")
    assert "refused" in scrape(endpoint).absent
    with serving(["go_goroutines 5\n"]) as (endpoint, _):
        assert scrape(endpoint).absent == "the page names none of vLLM's series"


def test_a_page_of_eight_megabytes_is_read_and_a_larger_one_is_none():
    """At the limit every line counts; beyond it nothing does, and that is said."""
    line = page(num_requests_waiting_by_reason=1)
    filled = page(prompt_tokens_total=4) + line * ((PAGE_LIMIT - 100) // len(line))
    with serving([filled]) as (endpoint, _):
        assert scrape(endpoint, timeout_s=20).counters == ServerCounters(prompt_tokens=4)
    with serving([filled + line * 10]) as (endpoint, _):
        assert scrape(endpoint, timeout_s=20).absent == "a page of more than 8 MiB, which is none of metrics"


@pytest.mark.parametrize("manner", ["silent", "drips a head", "drips a body"])
def test_a_server_that_hangs_ends_a_read_in_time(manner):
    """No answer at all, or a byte now and then, which no socket's timeout ends: the read is over all the same."""
    over = threading.Event()

    class Handler(threaded.Quiet):
        def do_GET(self):
            self.close_connection = True
            with contextlib.suppress(OSError):
                if manner == "drips a body":
                    self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
                while not over.wait(0.01):
                    if manner != "silent":
                        self.wfile.write(b"x")

    with threaded.serving(Handler) as url:
        try:
            assert scrape(Endpoint.parse(url), timeout_s=0.1).absent == "no answer within 0.1 s"
        finally:
            over.set()


@pytest.mark.parametrize(
    "answer",
    [
        b"",  # closed without a word
        b"nonsense\r\n\r\n",  # no HTTP
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nvllm:",  # broken off
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",  # a chunk of no size
    ],
)
def test_bad_http_is_said_and_not_raised(answer):
    """Whatever breaks, a read is a value."""

    class Handler(threaded.Quiet):
        def do_GET(self):
            self.wfile.write(answer)
            self.close_connection = True

    with threaded.serving(Handler) as url:
        read = scrape(Endpoint.parse(url))
    assert read.counters is None
    assert read.absent


def test_waiting_for_idle_ends_when_two_idle_reads_agree():
    """A busy read, an idle one, an idle one with more tokens (counted late), and one that agrees."""
    pages = [page(num_requests_running=running, generation_tokens_total=tokens) for running, tokens in ((1, 5), (0, 9), (0, 10), (0, 10))]
    with serving(pages) as (endpoint, seen):
        assert wait_idle(endpoint).counters == ServerCounters(running=0, generation_tokens=10)
        assert len(seen) == 4


def test_waiting_for_idle_gives_up_at_its_limit():
    """Others may keep the server busy for ever: the last read is returned, and says that it is not idle."""
    with serving([page(num_requests_running=1)]) as (endpoint, _):
        counters = wait_idle(endpoint, limit_s=0.1).counters
    assert counters is not None
    assert not counters.idle


def test_waiting_for_idle_keeps_what_it_read_when_the_page_goes():
    """A busy read, then a page of nothing: the last counters that there were."""
    with serving([page(num_requests_running=1), ""]) as (endpoint, _):
        assert wait_idle(endpoint).counters == ServerCounters(running=1)


def test_there_is_nothing_to_wait_for_without_a_page():
    """One read, and its reason."""
    with serving(["no"]) as (endpoint, seen):
        assert wait_idle(endpoint).absent == "the page names none of vLLM's series"
        assert len(seen) == 1
