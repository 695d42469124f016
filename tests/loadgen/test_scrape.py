"""The server's own counters: parsed from recorded vLLM bytes, subtracted, polled until idle."""

import contextlib
from pathlib import Path

import pytest

from clients.endpoint import Endpoint
from loadgen.scrape import ServerCounters, ServerDelta, metrics_url, parse_counters, scrape, wait_idle
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


def test_the_page_of_a_real_vllm_is_read():
    """The bytes of vLLM 0.32 give every counter that the report compares with."""
    counters = parse_counters((FIXTURES / "vllm-vl-metrics.http").read_text())
    assert counters == ServerCounters(
        requests={"stop": 0, "length": 17, "abort": 0, "error": 0, "repetition": 0},
        prompt_tokens=6543,
        generation_tokens=136,
        preemptions=0,
        prefix_queries=6543,
        prefix_hits=4096,
        running=0,
        waiting=0,
        kv_usage=0.0,
    )


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ('vllm:prompt_tokens_total{engine="0"} 5\nvllm:prompt_tokens_total{engine="1"} 7\n', "prompt_tokens", 12),  # engines add up
        ('vllm:kv_cache_usage_perc{engine="0"} 0.5\nvllm:kv_cache_usage_perc{engine="1"} 0.25\n', "kv_usage", 0.5),  # the fullest
        ("vllm:prompt_tokens_total 5\n", "prompt_tokens", 5),  # no labels
        ('vllm:prompt_tokens_total{m="a\\"}b"} 5 1700000000000\n', "prompt_tokens", 5),  # a quoted brace, a time stamp
        ("vllm:prompt_tokens_total 1.2e3\r\n", "prompt_tokens", 1200),  # a float, CRLF
        ("vllm:gpu_prefix_cache_hits_total 3\n", "prefix_hits", 3),  # the name before vLLM 0.9
        ("vllm:prompt_tokens_total NaN\nvllm:num_requests_running 1\n", "prompt_tokens", None),  # not a number is no count
        ("vllm:prompt_tokens_total{ 5\nvllm:num_requests_running 1\n", "running", 1),  # a line that is none is passed over
        ("# TYPE vllm:request_success_total counter\n", "requests", {}),  # counted, and nothing yet
    ],
)
def test_the_text_format_is_read_tolerantly(text, field, value):
    """Each shape that a page may have gives its value or none."""
    counters = parse_counters(text)
    assert counters is not None
    assert getattr(counters, field) == value


@pytest.mark.parametrize("text", ["", "<html>not found</html>", "go_goroutines 5\n"])
def test_a_page_without_our_series_is_no_page(text):
    """Other servers have other pages: that is None, not zeros."""
    assert parse_counters(text) is None


def test_a_delta_is_after_minus_before():
    """Differences by reason and in total; a reason that appeared in between counts from zero."""
    before = ServerCounters(requests={"stop": 5}, prompt_tokens=100, generation_tokens=10, running=0, waiting=0)
    after = ServerCounters(requests={"stop": 7, "length": 1}, prompt_tokens=130, generation_tokens=25, running=1, waiting=0)
    delta = ServerDelta.between(before, after)
    assert (delta.requests, delta.requests_total) == ({"stop": 2, "length": 1}, 3)
    assert (delta.prompt_tokens, delta.generation_tokens, delta.preemptions) == (30, 15, None)
    assert (delta.running_after, delta.restarted) == (1, False)


def test_a_restarted_server_gives_no_delta():
    """A counter that went down: the difference would be a number about nothing."""
    before = ServerCounters(requests={"stop": 5}, prompt_tokens=100)
    delta = ServerDelta.between(before, ServerCounters(requests={"stop": 2}, prompt_tokens=300))
    assert (delta.restarted, delta.prompt_tokens, delta.requests) == (True, None, None)


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
    """The page of a running server is fetched from its root."""
    with serving([page(prompt_tokens_total=4)]) as (endpoint, seen):
        assert scrape(endpoint) == ServerCounters(prompt_tokens=4)
        assert seen == [("/metrics", None)]


def test_a_server_without_the_page_is_none():
    """404, and nobody listening."""
    with serving(["no"], path="/elsewhere") as (endpoint, _):
        assert scrape(endpoint) is None
    assert scrape(endpoint) is None


def test_waiting_for_idle_ends_when_two_idle_reads_agree():
    """A busy read, an idle one, an idle one with more tokens (counted late), and one that agrees."""
    pages = [page(num_requests_running=running, generation_tokens_total=tokens) for running, tokens in ((1, 5), (0, 9), (0, 10), (0, 10))]
    with serving(pages) as (endpoint, seen):
        assert wait_idle(endpoint) == ServerCounters(running=0, generation_tokens=10)
        assert len(seen) == 4


def test_waiting_for_idle_gives_up_at_its_limit():
    """Others may keep the server busy for ever: the last read is returned, and says that it is not idle."""
    with serving([page(num_requests_running=1)]) as (endpoint, _):
        counters = wait_idle(endpoint, limit_s=0.1)
    assert counters is not None
    assert not counters.idle
