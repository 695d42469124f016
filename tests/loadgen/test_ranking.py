"""The best of a grid: the rules of DESIGN.md as tables."""

import random

import msgspec
import numpy as np
import pytest
from written import exchange, summarise

from loadgen.cell import Cell
from loadgen.ranking import contenders, rank
from loadgen.stretch import SLICES
from loadgen.summary import Verdict

VERDICTS = {level: Verdict(level=level, reasons=[]) for level in ("valid", "degraded", "invalid")}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A real summary, whose rates each test replaces."""
    return summarise(tmp_path_factory.mktemp("template"), [(k, exchange(10 * k, 10 * k + 10)) for k in range(5)], max_concurrent=1)


@pytest.fixture
def cell(template):
    """cell(C, B, rates...): a cell with one run per rate; noise: of its batch means, as a share."""

    def make(concurrency, batch, *rates, noise=0.0, levels=None, steady=True):
        runs = []
        for place, rate in enumerate(rates):
            draw = np.random.default_rng([concurrency, batch or 0, place])
            measures = msgspec.structs.replace(template.whole, requests_rps=rate)
            runs.append(
                msgspec.structs.replace(
                    template,
                    whole=measures,
                    steady=measures if steady else None,
                    batch_means=(rate * (1 + noise * draw.standard_normal(SLICES))).tolist(),
                )
            )
        levels = levels or ["valid"] * len(rates)
        return Cell(max_concurrent=concurrency, batch_size=batch, runs=runs, verdicts=[VERDICTS[level] for level in levels])

    return make


def setting(standing):
    return (standing.max_concurrent, standing.batch_size)


def test_results_are_sorted_by_throughput_and_do_not_depend_on_the_order_of_cells(cell):
    """results[0] is the highest; the mean over a cell's runs is what it is sorted by."""
    cells = [cell(1, 1, 10.0), cell(2, 2, 20.0, 24.0), cell(4, 4, 21.0)]
    ranking = rank(cells)
    assert [(setting(one), one.requests_rps) for one in ranking.results] == [((2, 2), 22.0), ((4, 4), 21.0), ((1, 1), 10.0)]
    random.Random(1).shuffle(cells)
    assert rank(cells) == ranking


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ({(4, 4): 100.0, (8, 4): 101.0, (8, 8): 101.5}, (4, 4)),  # all within 2 %: the smallest concurrency
        ({(4, 1): 100.0, (4, 4): 99.9, (4, 2): 99.8, (8, 8): 101.0}, (4, 4)),  # then the largest batch size
        ({(4, 4): 100.0, (4, None): 99.0}, (4, None)),  # no barrier is the largest of all
        ({(4, 4): 97.9, (8, 4): 100.0}, (8, 4)),  # 2.1 % below is outside
        ({(4, 4): 98.1, (8, 4): 100.0}, (4, 4)),  # 1.9 % below is inside
    ],
)
def test_best_is_the_smallest_setting_within_the_margin(cell, rates, best):
    """Without noise the margin is 2 %."""
    assert setting(rank([cell(*where, rate) for where, rate in rates.items()]).best) == best


def test_noise_widens_the_margin_up_to_five_percent(cell):
    """The interval of the paired difference: 4 % below is inside when batches scatter by 15 %, 6 % below never."""
    assert setting(rank([cell(4, 4, 96.0), cell(8, 4, 100.0)]).best) == (8, 4)
    noisy = rank([cell(4, 4, 96.0, noise=0.15), cell(8, 4, 100.0, noise=0.15)])
    assert setting(noisy.best) == (4, 4)
    assert 0.04 < noisy.best.margin <= 0.05
    assert setting(rank([cell(4, 4, 94.0, noise=5.0), cell(8, 4, 100.0, noise=5.0)]).best) == (8, 4)


def test_the_half_width_is_that_of_students_t_on_paired_batches(cell):
    """Worked out here with one run each: 20 batches."""
    ours, theirs = cell(4, 4, 96.0, noise=0.1), cell(8, 4, 100.0, noise=0.1)
    difference = np.array(ours.runs[0].batch_means) - np.array(theirs.runs[0].batch_means)
    expected = 2.093024 * difference.std(ddof=1) / np.sqrt(20) / np.mean(theirs.runs[0].batch_means)  # t(19), 97.5 %
    assert rank([ours, theirs]).results[1].half_width == pytest.approx(expected, rel=1e-6)


def test_repeats_narrow_the_interval(cell):
    """Six runs tell more than one."""
    one = rank([cell(4, 4, 96.0, noise=0.1), cell(8, 4, 100.0, noise=0.1)]).results[1].half_width
    six = rank([cell(4, 4, *[96.0] * 6, noise=0.1), cell(8, 4, *[100.0] * 6, noise=0.1)]).results[1].half_width
    assert six < 0.75 * one


def test_an_invalid_cell_never_wins(cell):
    """It comes last, whatever its rate; a cell keeps its believed runs and drops the others."""
    ranking = rank([cell(8, 8, 900.0, levels=["invalid"]), cell(4, 4, 500.0, 100.0, levels=["invalid", "degraded"]), cell(2, 2, 90.0)])
    assert [(setting(one), one.level, one.requests_rps, one.runs) for one in ranking.results] == [
        ((4, 4), "degraded", 100.0, 1),
        ((2, 2), "valid", 90.0, 1),
        ((8, 8), "invalid", 900.0, 1),
    ]
    assert setting(ranking.best) == (4, 4)


def test_without_a_cell_to_believe_there_is_no_best(cell):
    """And the sentence says so; no cells at all are no error."""
    ranking = rank([cell(8, 8, 900.0, levels=["invalid"])])
    assert (ranking.best, ranking.why) == (None, "no cell can be believed: every one of them is invalid")
    assert rank([]).best is None


def test_the_sentence_says_why(cell):
    """Which rule decided, with numbers, and what the rate rests on."""
    assert rank([cell(4, 4, 99.0), cell(8, 4, 100.0), cell(16, 4, 50.0)]).why == (
        "max_concurrent 4, batch_size 4: 99 requests/s, 1.0% below the highest (max_concurrent 8, batch_size 4: 100), which is within "
        "the margin of 2.0%; of 2 such settings it has the smallest concurrency, then the largest batch size"
    )
    assert rank([cell(4, None, 100.0, steady=False), cell(8, 4, 50.0)]).why == (
        "max_concurrent 4, no batch size: 100 requests/s, the highest; no other setting comes within the margin of it"
        "; there was no steady stretch, so the whole run counts"
    )


def test_contenders_are_repeated_until_each_has_three_runs(cell):
    """Those inside the margin and the top three, one more run each per round; then a winner can be named."""
    rates = {(1, 1): 50.0, (2, 1): 98.5, (4, 1): 99.0, (8, 1): 99.5, (16, 1): 100.0, (32, 1): 60.0}
    runs = dict.fromkeys(rates, 1)
    rounds = []
    while places := contenders([cell(*where, *[rates[where]] * runs[where]) for where in rates]):
        rounds.append(sorted(list(rates)[place] for place in places))
        for place in places:
            runs[list(rates)[place]] += 1
    assert rounds == [[(2, 1), (4, 1), (8, 1), (16, 1)]] * 2
    assert [runs[where] for where in rates] == [1, 3, 3, 3, 3, 1]


def test_a_disturbed_run_does_not_exclude_its_cell(cell):
    """11 % below in its one run, whose batches differ by 25 %: that may be chance, so it is run again; a calm one at 11 % is out."""
    top = [cell(concurrency, None, 100.0, noise=0.01) for concurrency in (4, 5, 6)]
    assert contenders([*top, cell(3, None, 89.0, noise=0.25)]) == [0, 1, 2, 3]
    assert contenders([*top, cell(3, None, 89.0, noise=0.01)]) == [0, 1, 2]


def test_invalid_cells_are_not_repeated(cell):
    """More runs of what cannot be believed say nothing; a cell with one believed run is still in."""
    assert contenders([cell(1, 1, 50.0, levels=["invalid"]), cell(2, 1, 40.0, 41.0, levels=["invalid", "valid"])]) == [1]
