"""Steps and ramps, read from their short form."""

import pytest

from loadgen.steps import RATES, SLOTS, length_s, levels, stages


def test_steps_become_stages_of_a_rate():
    """A pair is a ramp, linear in time; the last may go on."""
    found = stages(RATES.read("10x60s, 20..50x2m,50"))
    assert [(one.start_rps, one.end_rps, one.length_s, one.growth) for one in found] == [
        (10, 10, 60, "flat"),
        (20, 50, 120, "linear"),
        (50, 50, None, "flat"),
    ]
    assert length_s(RATES.read("10x60s,20x500ms")) == 60.5
    assert length_s(RATES.read("10x60s,20")) == float("inf")


def test_a_ramp_of_concurrency_stays_equally_long_at_each_number():
    """Up and down, and the steps follow each other."""
    assert levels(SLOTS.read("1..4x8s,2x1s,3..2x4s,8")) == (
        (0, 1), (2, 2), (4, 3), (6, 4), (8, 2), (9, 3), (11, 2), (13, 8),
    )  # fmt: skip


@pytest.mark.parametrize(
    "text", ["", "x60s", "10x", "10x0s", "10,20x5s", "1..5", "0x5s", "-1x5s", "10x60s,", "10x60s 20x60s", "1..x5s", "infx5s"]
)
def test_what_is_no_shape_is_refused(text):
    """Nothing, no time in the middle, a ramp without a time, no load at all."""
    with pytest.raises(ValueError):
        RATES.read(text)


@pytest.mark.parametrize("text", ["0..4x8s", "1.5x8s", "99999x5s"])
def test_slots_are_whole_and_at_least_one(text):
    """A rate may begin at 0; concurrency may not."""
    with pytest.raises(ValueError):
        SLOTS.read(text)
    assert RATES.read("0..4x8s")
