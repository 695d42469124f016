"""Schedules as values: what makes one meaningful, each refusal in one line that names the field."""

import math

import msgspec
import pytest

from clients.errors import UsageError
from loadgen.schedule import Schedule, Stage


def stage(start=10.0, end=None, length_s=5.0, growth="flat"):
    return Stage(start_rps=start, end_rps=start if end is None else end, length_s=length_s, growth=growth)


def process(name="poisson", *stages, **settings):
    return Schedule(process=name, stages=stages or (stage(),), **settings)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: stage(0.0), "start_rps: got 0.0, takes a rate above 0 requests/s"),
        (lambda: stage(-1.0), "start_rps: got -1.0, takes a rate above 0 requests/s"),
        (lambda: stage(math.nan), "start_rps: got nan, takes a rate above 0 requests/s"),
        (lambda: stage(math.inf), "start_rps: got inf, takes a rate above 0 requests/s"),
        (lambda: stage(0.0, 9.0, growth="exponential"), "start_rps: got 0.0, takes a rate above 0 requests/s"),  # no factor leads out of 0
        (lambda: stage(9.0, -1.0, growth="linear"), "end_rps: got -1.0, takes a rate above 0 requests/s or 0"),
        (lambda: stage(0.0, 0.0, growth="linear"), "end_rps: got 0 and start_rps 0, takes a rate above 0 requests/s for one of them"),
        (lambda: stage(1.0, 2.0), "growth: got flat from 1.0 to 2.0 requests/s, takes linear or exponential"),
        (lambda: stage(length_s=0.0), "length_s: got 0.0, takes a time above 0 s"),
        (lambda: stage(length_s=math.inf), "length_s: got inf, takes a time above 0 s"),  # None says it
        (lambda: stage(1.0, 2.0, None, "linear"), "length_s: a ramp of the rate needs one"),
        (lambda: Schedule(process="poisson"), "stages: a schedule needs at least one rate"),
        (lambda: process("constant", stage(length_s=None), stage()), "length_s: only the last stage may have no end"),
        (lambda: process("gamma", burstiness=0.0), "burstiness: got 0.0, takes a number above 0 (1 = Poisson)"),
        (lambda: process("gamma", burstiness=math.inf), "burstiness: got inf, takes a number above 0 (1 = Poisson)"),
        (lambda: process("trace"), "stages: a trace has its own times"),
        (lambda: Schedule(process="trace", speed=0.0), "speed: got 0.0, takes a factor above 0"),
    ],
)
def test_what_is_no_schedule_is_refused_in_one_line(make, said):
    """The message names the field, what it got and what it takes."""
    with pytest.raises(UsageError) as refused:
        make()
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("schedule", "length_s"),
    [
        (process("poisson", stage(length_s=2.0), stage(5.0, 10.0, 3.0, "linear")), 5.0),
        (process("poisson", stage(length_s=2.0), stage(length_s=None)), math.inf),
        (Schedule.at_rate(3.0), math.inf),
        (Schedule(process="trace"), math.inf),  # it ends by itself
    ],
)
def test_a_schedule_is_as_long_as_its_stages(schedule, length_s):
    """Without end where the last stage has none."""
    assert schedule.length_s == length_s


def test_a_schedule_survives_the_pipe_and_the_disk():
    """A plan is written as JSON, and read strictly: an unknown key is an error."""
    schedule = process("gamma", stage(length_s=2.0), stage(5.0, 10.0, 3.0, "exponential"), burstiness=0.5, seed=7)
    assert msgspec.json.decode(msgspec.json.encode(schedule), type=Schedule) == schedule
    with pytest.raises(msgspec.ValidationError, match="brustiness"):
        msgspec.json.decode(b'{"process": "trace", "brustiness": 2}', type=Schedule)
