"""Ending at a precision: looked at only at doubling numbers of samples, and decided by the interval that a report shows."""

from pathlib import Path

import pytest
from written import EVENLY, RUN_ID, exchange, write

from loadgen.plan_facts import PlanFacts
from loadgen.precision import Observer, Precision
from loadgen.recorded import read_records
from loadgen.reducer import reduce

FACTS = PlanFacts(label="x", max_concurrent=10_000, workers=1, count=10_000, shares=(10_000,), schedule=EVENLY)


def observer(path: Path, share: float, percent: float = 50.0) -> Observer:
    return Observer(Precision(percent=percent, metric="e2el", share=share), [path], (RUN_ID, 0), FACTS)


def kept(path, number):
    """So many requests of 100 to 150 ms, in an order without a pattern that an autocorrelation would see."""
    path.unlink(missing_ok=True)
    write(path, [(k, exchange(10 * k, 10 * k + 100 + (k * 7919) % 50)) for k in range(number)], share=10_000, unsent=10_000 - number)


def test_it_looks_at_doubling_numbers_only(tmp_path):
    """Asked at every second, it reads the records at the first number that has an interval, and then at twice as many each time."""
    path = tmp_path / "r"
    kept(path, 100)
    watching = observer(path, share=1e-9)
    looks = []
    for ok in range(101):
        before = len(watching.found.looks)
        assert not watching.enough(ok)
        if len(watching.found.looks) > before:
            looks.append(ok)
    assert looks == [5, 10, 20, 40, 80]  # p50 needs 5 samples


def test_it_is_reached_when_the_reports_interval_is_narrow_enough(tmp_path):
    """The same percentile and interval that the summary has: just above it is enough, just below is not; once reached, it stays."""
    path = tmp_path / "r"
    kept(path, 400)
    median = reduce(read_records([path]), FACTS).whole.latency.percentiles["p50"]
    width = (median.high - median.low) / median.value
    assert not observer(path, share=width * 0.999).enough(400)
    watching = observer(path, share=width * 1.001)
    assert watching.enough(400)
    assert watching.enough(401)
    [look] = watching.found.looks
    assert (look.samples, look.value_s, look.width) == (400, median.value, pytest.approx(width))
    assert watching.found.reached


def test_too_few_samples_for_an_interval_are_never_enough(tmp_path):
    """p99 of 100 samples has no upper bound: the width is not known, however alike the samples are."""
    path = tmp_path / "r"
    kept(path, 100)
    watching = observer(path, share=0.99, percent=99.0)
    assert not watching.enough(299)  # as the beats say; the file is behind
    assert watching.found.looks[0].width is None
