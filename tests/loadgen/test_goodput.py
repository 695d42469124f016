"""Goodput against cases that are worked out by hand, and its bounds against SciPy and against chance itself."""

import numpy as np
import pytest
from scipy.stats import binom
from written import exchange, summarise

from clients.errors import Outcome
from loadgen.goodput_report import goodput_lines
from loadgen.objectives import read_objectives
from loadgen.proportion import lower_bound, upper_bound

OBJECTIVES = read_objectives("ttft:20 tpot:10 e2el:100")


def goodput(tmp_path, made, objectives=OBJECTIVES, attainment=None):
    """Of requests made by hand, in one file."""
    rows = list(enumerate(made))
    return summarise(tmp_path, rows, max_concurrent=99, objectives=objectives, attainment=attainment).goodput


def stream(due, first, gap, tokens=5, **more):
    """A stream of evenly spaced tokens; its first after `first` ms."""
    outputs = [due + first + gap * k for k in range(tokens)]
    return exchange(due, outputs[-1], outputs=outputs, usage=(8, tokens, None, None), **more)


def test_a_request_is_good_when_it_keeps_every_objective(tmp_path):
    """One of each: good, slow to begin, slow to go on, slow altogether; limits themselves are within."""
    made = [stream(0, 20, 10), stream(100, 21, 9), stream(200, 5, 11), stream(300, 10, 9.9, tokens=11), stream(400, 1, 1)]
    found = goodput(tmp_path, made)
    assert (found.good, found.judged, found.share) == (2, 5, 0.4)
    assert [(one.metric, one.within) for one in found.objectives] == [("ttft", 4), ("tpot", 4), ("e2el", 4)]
    assert found.rps == pytest.approx(2 / 0.409)  # first due to last end: 300 + 10 + 10 * 9.9 ms


def test_latency_runs_from_due(tmp_path):
    """Sent 15 ms late, the same 10 ms to a first token are 25 ms to a user."""
    found = goodput(tmp_path, [stream(0, 10, 1), stream(100, 25, 1, sent=115)], read_objectives("ttft:20"))
    assert (found.good, found.judged) == (1, 2)


def test_what_failed_is_a_miss_of_every_objective(tmp_path):
    """Quick failures and timeouts and drops, however soon they came."""
    failures = [Outcome.RESET, Outcome.TOTAL_TIMEOUT, Outcome.DROPPED, Outcome.RATE_LIMITED]
    made = [stream(0, 1, 1), *(exchange(10 * k, 10 * k + 1, outcome=outcome) for k, outcome in enumerate(failures))]
    found = goodput(tmp_path, made)
    assert (found.good, found.judged, found.failed) == (1, 5, 4)
    assert all(one.within == 1 for one in found.objectives)


def test_what_we_cancelled_is_a_miss_only_where_it_was_too_late_already(tmp_path):
    """After 200 ms without a word: a miss. After 15 ms: nothing is known, and it is not judged."""
    late = exchange(0, 200, outcome=Outcome.CANCELLED)
    open_still = exchange(0, 15, outcome=Outcome.CANCELLED)
    found = goodput(tmp_path, [stream(0, 1, 1), late, open_still])
    assert (found.good, found.judged, found.undecided, found.failed) == (1, 2, 1, 0)


def test_an_answer_of_one_token_keeps_every_pace(tmp_path):
    """vLLM's rule: TPOT is 0 there. A whole answer that is not streamed has its first token at its end."""
    one = stream(0, 5, 0, tokens=1)
    whole = exchange(0, 30, stream=False, usage=(8, 50, None, None))
    assert goodput(tmp_path, [one], read_objectives("tpot:1")).share == 1
    assert goodput(tmp_path / "whole", [whole], read_objectives("ttft:20")).share == 0


def test_without_objectives_there_is_no_goodput(tmp_path):
    """None, not 0 and not 1."""
    assert goodput(tmp_path, [stream(0, 1, 1)], ()) is None


def independent(share, n, seed):
    """Streams of which a share keeps the objective, as chance deals them."""
    misses = np.random.default_rng(seed).random(n) >= share
    return [stream(10 * k, 50 if miss else 5, 1) for k, miss in enumerate(misses)]


def test_the_bounds_are_clopper_and_pearsons(tmp_path):
    """What SciPy's binomial says of the counts; validity.md: with one miss in 93 a share of 0.95 is shown, in 92 it is not."""
    for yes, n in [(0, 10), (7, 10), (58, 59), (299, 299)]:
        low, high = lower_bound(yes, n, 0.95), upper_bound(yes, n, 0.95)
        assert binom.sf(yes - 1, n, low) == pytest.approx(0.05 if yes else 1)
        assert high == 1 if yes == n else binom.cdf(yes, n, high) == pytest.approx(0.05)
    assert lower_bound(59, 59, 0.95) >= 0.95 > lower_bound(58, 58, 0.95)
    assert lower_bound(92, 93, 0.95) >= 0.95 > lower_bound(91, 92, 0.95)


def test_misses_that_come_together_count_as_fewer(tmp_path):
    """Blocks of 25 misses: 500 requests are worth at most as many as there are blocks and gaps."""
    clustered = [stream(10 * k, 50 if k % 250 < 25 else 5, 1) for k in range(1000)]
    found = goodput(tmp_path, clustered, read_objectives("ttft:20"))
    assert found.share == 0.9
    assert found.effective < 100
    scattered = goodput(tmp_path / "scattered", independent(0.9, 1000, seed=3), read_objectives("ttft:20"))
    assert scattered.effective > 600
    assert found.high - found.low > 2 * (scattered.high - scattered.low)


def test_the_share_that_was_asked_for_is_kept_reached_or_missed(tmp_path):
    """Kept is sure of it; reached is not; both are no miss."""
    said = {}
    for name, share, n in [("kept", 0.99, 600), ("reached", 0.96, 100), ("missed", 0.9, 600)]:
        found = goodput(tmp_path / name, independent(share, n, seed=5), read_objectives("ttft:20"), 0.95)
        said[name] = goodput_lines(found)[-1]
        assert found.missed == (name == "missed")
    assert said["kept"].startswith("asked for 0.95: kept; with 95 % confidence the share is at least")
    assert said["reached"].startswith("asked for 0.95: reached, but not surely:")
    assert said["missed"] == "asked for 0.95: missed"
