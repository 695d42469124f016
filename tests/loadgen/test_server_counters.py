"""The server's page: parsed from recorded vLLM bytes and from every shape that the text format has."""

from pathlib import Path

import msgspec
import pytest

from loadgen.server_counters import Buckets, ServerCounters, parse_counters

FIXTURES = Path(__file__).parent.parent / "fixtures"
REAL = (FIXTURES / "vllm-vl-metrics.http").read_text()


def test_the_page_of_a_real_vllm_is_read():
    """The bytes of vLLM 0.32 give every counter that the report compares with."""
    counters = parse_counters(REAL)
    assert counters is not None
    times, counters = counters.times, msgspec.structs.replace(counters, times={})
    assert counters == ServerCounters(
        requests={"stop": 0, "length": 17, "abort": 0, "error": 0, "repetition": 0},
        prompt_tokens=6543,
        generation_tokens=136,
        preemptions=0,
        prefix_queries=6543,
        prefix_hits=4096,
        image_queries=0,
        image_hits=0,
        running=0,
        waiting=0,
        kv_usage=0.0,
        process_started=1.7953577109e9,
    )
    assert {name: (one.count, round(one.sum_s, 6)) for name, one in times.items()} == {
        "queue": (17, 0.000475),
        "prefill": (17, 0.269607),
        "decode": (17, 0.464357),
        "ttft": (17, 1.551826),
        "itl": (119, 0.464357),
        "latency": (17, 2.030919),
    }
    ttft = times["ttft"]
    assert len(ttft.bounds_s) == len(ttft.counts) == 22
    assert (ttft.bounds_s[0], ttft.bounds_s[-1]) == (0.001, 2560.0)
    assert ttft.counts[:10] == (0, 0, 0, 1, 9, 12, 13, 13, 15, 17)


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
        ("vllm:gpu_cache_usage_perc 0.25\n", "kv_usage", 0.25),  # before 0.9, and nothing else on the page
    ],
)
def test_the_text_format_is_read_tolerantly(text, field, value):
    """Each shape that a page may have gives its value or none."""
    counters = parse_counters(text)
    assert counters is not None
    assert getattr(counters, field) == value


def histogram(name, engine, *counts):
    """A histogram with bounds of 0.1 and 1 s; counts: at or below each, and all."""
    lines = [f'{name}_bucket{{engine="{engine}",le="{le}"}} {count}' for le, count in zip(("0.1", "1.0", "+Inf"), counts, strict=True)]
    return "\n".join([*lines, f'{name}_count{{engine="{engine}"}} {counts[-1]}', f'{name}_sum{{engine="{engine}"}} 2.5']) + "\n"


@pytest.mark.parametrize(
    ("ours", "name"),
    [
        ("queue", "vllm:request_queue_time_seconds"),
        ("queue", "vllm:time_in_queue_requests"),  # until 0.9
        ("itl", "vllm:time_per_output_token_seconds"),  # the older name of inter_token_latency_seconds
    ],
)
def test_histograms_of_several_engines_add_up_bucket_by_bucket(ours, name):
    """Two engines, new names and old."""
    counters = parse_counters(histogram(name, 0, 1, 2, 4) + histogram(name, 1, 0, 3, 3))
    assert counters is not None
    assert counters.times == {ours: Buckets(count=7, sum_s=5.0, bounds_s=(0.1, 1.0), counts=(1, 5))}


def test_of_a_new_name_and_its_old_one_the_new_one_counts():
    """vLLM had both for a while: they are the same requests, and are not added."""
    page = histogram("vllm:time_in_queue_requests", 0, 9, 9, 9) + histogram("vllm:request_queue_time_seconds", 0, 1, 2, 4)
    counters = parse_counters(page)
    assert counters is not None
    assert counters.times["queue"].count == 4


def test_a_histogram_without_buckets_has_its_sum_and_count():
    """A proxy may thin the page out: the mean is there, percentiles are not."""
    counters = parse_counters("vllm:request_queue_time_seconds_count 3\nvllm:request_queue_time_seconds_sum 1.5\n")
    assert counters is not None
    assert counters.times == {"queue": Buckets(count=3, sum_s=1.5)}


@pytest.mark.parametrize(
    "text",
    ["", "<html>not found</html>", "go_goroutines 5\n", "process_start_time_seconds 1.7e9\n"],  # the last: any Python server
)
def test_a_page_without_our_series_is_no_page(text):
    """Other servers have other pages: that is None, not zeros."""
    assert parse_counters(text) is None
