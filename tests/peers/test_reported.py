"""What is read from the files that clients leave; the loops themselves are run by `compare.py`."""

import json
import sys

import peers
import pytest
import reported
import yardstick

MS = 1_000_000


def test_stamps_of_a_plain_loop_give_first_tokens_and_pooled_gaps(tmp_path):
    """TTFT is from sent to the first content; gaps of all requests are pooled; a request without content has neither."""
    with open(tmp_path / "stamps", "wb") as file:
        yardstick.keep(file, 100 * MS, [300 * MS, 320 * MS, 350 * MS])
        yardstick.keep(file, 200 * MS, [])
        yardstick.keep(file, 200 * MS, [500 * MS])
    assert yardstick.kept(tmp_path / "stamps") == ([200 * MS, 300 * MS], [20 * MS, 30 * MS])
    assert reported.by_stamps(tmp_path) == reported.Reported((250.0, 299.0), (25.0, 29.9))


def test_the_figures_of_bench_serve_are_its_own(tmp_path):
    """Either client of vLLM writes milliseconds under these keys."""
    result = {"p50_ttft_ms": 200.5, "p99_ttft_ms": 231.0, "p50_itl_ms": 20.0, "p99_itl_ms": 26.0, "mean_itl_ms": 19.7}
    (tmp_path / "result.json").write_text(json.dumps(result))
    assert reported.by_vllm(tmp_path) == reported.Reported((200.5, 231.0), (20.0, 26.0))


def test_the_server_is_read_at_the_same_percents():
    """`/stats` has more than is compared."""
    stats = {"server_ttft_ms": {"p50": 200.0, "p90": 200.5, "p99": 201.0}, "server_itl_ms": {"p50": 20.0, "p90": 20.1, "p99": 21.0}}
    assert reported.by_server(stats) == reported.Reported((200.0, 201.0), (20.0, 21.0))


@pytest.mark.parametrize("python", ["", sys.executable])  # not named; named, but without vLLM
def test_a_vllm_that_is_not_there_says_so(monkeypatch, python):
    """The row is left out with a word, and nothing is installed."""
    monkeypatch.setenv("LOADGEN_VLLM_PYTHON", python)
    with pytest.raises(peers.Absent, match="LOADGEN_VLLM_PYTHON"):
        peers.ready_vllm()
