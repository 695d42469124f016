"""Cells that are left out: never one that could have won."""

import math
import random

import pytest

from loadgen.pruning import next_cell
from loadgen.ranking import LARGEST_MARGIN

CONCURRENCIES = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256)
BATCHES = (None, 8, 32)


def measured(rate_of, settings):
    """The cells that are measured until no other can win, with their rates."""
    rates = {}
    while (cell := next_cell(settings, rates)) is not None:
        assert cell not in rates
        rates[cell] = rate_of(*cell)
    return rates


def server(seats, service_s=1.0, slowing=0.004, waste=0.1, thrash=0.0):
    """A batching server: requests slow each other down, seats are limited, barriers cost a share, beyond the seats it may fall."""

    def rate_of(concurrency, batch):
        busy = min(concurrency, seats)
        rate = busy / (service_s + slowing * busy) * (1 - thrash * max(0.0, math.log(concurrency / seats)))
        return rate * (1.0 if batch is None else 1 - waste * 8 / batch)

    return rate_of


@pytest.mark.parametrize("seats", [1, 3, 8, 20, 64, 100, 128, 500])
@pytest.mark.parametrize("thrash", [0.0, 0.2])
def test_the_smallest_concurrency_within_the_margin_is_never_left_out(seats, thrash):
    """For each batch size whose knee may win, it is measured; and the highest cell is, whatever the server admits."""
    settings = [(c, b) for b in BATCHES for c in CONCURRENCIES]
    rate_of = server(seats, thrash=thrash)
    rates = measured(rate_of, settings)
    truth = {cell: rate_of(*cell) for cell in settings}
    highest = max(truth.values())
    assert max(rates.values()) >= highest * (1 - 0.02)
    winner = min((cell for cell in settings if truth[cell] >= highest * (1 - 0.02)), key=lambda cell: cell[0])
    assert winner in rates
    assert len(rates) < 0.7 * len(settings)


def test_what_is_left_out_cannot_reach_the_margin_or_has_more_in_flight():
    """Random servers, seed fixed: each cell that was left out is below the largest margin, or a smaller one is as good."""
    draw = random.Random(11)
    settings = [(c, None) for c in CONCURRENCIES]
    for _ in range(200):
        rate_of = server(draw.uniform(1, 300), slowing=draw.uniform(0, 0.05), thrash=draw.choice([0.0, draw.uniform(0, 0.3)]))
        rates = measured(rate_of, settings)
        highest = max(rates.values())
        for concurrency, _ in set(settings) - rates.keys():
            rate = rate_of(concurrency, None)
            as_good = any(c < concurrency and x * 1.02 >= rate for (c, _), x in rates.items())
            assert as_good or rate < highest * (1 - LARGEST_MARGIN) * 1.02


def test_a_cell_that_cannot_be_believed_bounds_nothing():
    """It is not measured again, and no other is left out by it."""
    settings = [(1, None), (2, None), (4, None)]
    assert next_cell(settings, {(2, None): None}) == (4, None)
    assert next_cell(settings, {(2, None): None, (4, None): 10.0}) == (1, None)
    assert next_cell(settings, dict.fromkeys(settings)) is None


def test_bounds_stay_within_a_batch_size():
    """A flat curve of one says nothing of another."""
    settings = [(c, b) for b in (None, 4) for c in (2, 4, 8)]
    flat = {(2, None): 10.0, (4, None): 10.0}
    assert next_cell(settings, flat) == (4, 4)
    assert next_cell(settings, flat | {(4, 4): 1.0, (2, 4): 0.9, (8, 4): 1.0}) is None
