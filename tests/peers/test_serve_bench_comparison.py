"""What the comparison of the two clients calls agreement; the clients themselves are run by `serve_bench_comparison.py`."""

import pytest
import serve_bench_comparison as comparison


def result(ttft, tpot=5.0, tokens=640):
    counts = {"completed": 10, "failed": 0, "total_input_tokens": 90, "total_output_tokens": tokens}
    return {**counts, "median_ttft_ms": ttft, "median_tpot_ms": tpot, "request_throughput": 2.0}


def both(ours, theirs):
    return dict(zip(comparison.PEERS, (ours, theirs), strict=True))


# Our TTFT and theirs, round by round; whether they agree.
ROUNDS = [
    ((20, 21, 22, 23, 24), (22, 22, 23, 23, 23), True),  # medians 22 and 23: 1 apart, 4 spread
    ((20, 20, 20, 20, 20), (21, 21, 21, 21, 21), False),  # neither is spread at all
    ((20, 21, 22, 23, 24), (26, 26, 26, 26, 26), True),  # just as far apart as one is spread
    ((20, 21, 22, 23, 24), (26.1, 26.1, 26.1, 26.1, 26.1), False),
]


@pytest.mark.parametrize(("ours", "theirs", "agree"), ROUNDS)
def test_medians_agree_when_they_are_no_further_apart_than_one_client_is_spread(ours, theirs, agree):
    """By the medians over the rounds and the larger of the two spreads."""
    said, agrees = comparison.judged(both([result(one) for one in ours], [result(one) for one in theirs]))
    assert agrees is agree
    assert ("NOT within" in said) is not agree


def test_counts_agree_when_they_are_equal_in_every_run():
    """One token more in one run of one client is a difference."""
    same = [result(20), result(25)]
    assert comparison.judged(both(same, same))[1]
    said, agrees = comparison.judged(both(same, [result(20), result(25, tokens=641)]))
    assert (agrees, "differ" in said) == (False, True)


def test_the_table_has_a_line_for_every_run():
    """Both clients, round by round."""
    lines = comparison.table(both([result(20)] * 3, [result(21)] * 3)).splitlines()
    assert len(lines) == 2 + 6
    assert lines[2].startswith("| 1 | loadgen serve-bench | 10 | 0 | 90 | 640 | 20.00 | 5.00 | 2.00 |")
