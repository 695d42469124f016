"""The shape of a load, from options and from a plan file: what each becomes, and what is refused in one line."""

import math

import pytest

from clients.errors import UsageError
from loadgen.command_line import parse
from loadgen.plan_file import with_plan_file
from loadgen.precision import Precision
from loadgen.preflight import most_connections
from loadgen.schedule import Schedule, Stage
from loadgen.shape import processes_for, read_shape


def shaped(line):
    return read_shape(with_plan_file(parse(["run", *line.split()]).arguments))[0]


def flat(rate_rps):
    return (Stage(start_rps=rate_rps, end_rps=rate_rps),)


def test_a_rate_is_poisson_and_has_a_default_number():
    """As vLLM's: --request-rate alone is a Poisson process; the seed is the run's."""
    shape = shaped("--request-rate 50 --seed 7")
    assert shape.schedule == Schedule(process="poisson", stages=flat(50.0), seed=7)
    assert (shape.num_requests, shape.duration_s) == (100, None)
    assert shape.max_concurrent == most_connections()


def test_burstiness_alone_means_gamma():
    """As vLLM's --burstiness."""
    assert shaped("--request-rate 50 --burstiness 0.5").schedule == Schedule(process="gamma", stages=flat(50.0), burstiness=0.5)


def test_an_infinite_rate_is_a_closed_loop():
    """With --max-concurrent, as vLLM's interface has it."""
    shape = shaped("--request-rate inf --max-concurrent 8 --duration 60")
    assert (shape.schedule, shape.max_concurrent, shape.duration_s) == (None, 8, 60.0)


def test_a_ramp_lasts_as_long_as_the_run():
    """By duration its own; by number, the time in which so many fall due on average: 100 from 0 to 20/s take 10 s."""
    by_time = shaped("--ramp-up-strategy exponential --ramp-up-start-rps 1 --ramp-up-end-rps 50 --duration 60")
    assert by_time.schedule.stages == (Stage(start_rps=1.0, end_rps=50.0, length_s=60.0, growth="exponential"),)
    by_number = shaped("--ramp-up-strategy linear --ramp-up-start-rps 0 --ramp-up-end-rps 20 --num-requests 100")
    assert by_number.schedule.stages == (Stage(start_rps=0.0, end_rps=20.0, length_s=10.0, growth="linear"), *flat(20.0))


def test_stages_end_a_run_by_themselves():
    """Their times add up to its duration; a longer one would be measured without load."""
    assert shaped("--stages 10x60s,20..40x30s").duration_s == 90.0
    assert shaped("--stages 10x60s,20x30s --duration 1000").duration_s == 90.0
    assert shaped("--stages 10x60s,20 --duration 1000").duration_s == 1000.0


def test_levels_are_a_closed_loop():
    """The largest is the bound that plans know."""
    shape = shaped("--levels 2x10s,8x5s")
    assert (shape.levels, shape.max_concurrent, shape.duration_s, shape.schedule) == (((0.0, 2), (10.0, 8)), 8, 15.0, None)


def test_a_trace_is_replayed_to_its_end(tmp_path):
    """As many requests as it has, unless fewer are asked for."""
    (tmp_path / "t").write_text("5\n6\n8\n")
    shape, trace = read_shape(parse(["run", "--trace", str(tmp_path / "t"), "--trace-speed", "2"]).arguments)
    assert shape.warm_with == 2  # as many as come in a second of it
    assert (shape.num_requests, shape.schedule, len(trace)) == (3, Schedule(process="trace", speed=2.0), 3)


def test_workers_are_as_many_as_the_highest_rate_needs():
    """One for each thousand requests/s, at most the cores."""
    ramp = Schedule(process="constant", stages=(Stage(start_rps=1, end_rps=2_500, length_s=9, growth="linear"),))
    assert [processes_for(schedule, 8) for schedule in (Schedule.at_rate(50), ramp, Schedule.at_rate(1e6))] == [1, 3, 8]


REFUSED = [
    ("", "--request-rate: missing"),  # nothing says how much
    ("--request-rate 0", "--request-rate: got '0', takes requests/s above 0"),
    ("--request-rate inf", "--request-rate: got inf, which is a closed loop: takes --max-concurrent N beside it"),
    ("--request-rate 5 --stages 10x5s", "--stages: got --request-rate as well, takes one of the two"),
    ("--levels 8x5s --max-concurrent 9", "--max-concurrent: got --levels as well"),
    ("--levels 8x5s,16", "--levels: its last step has no end"),
    ("--stages 8x5s,16", "--stages: its last step has no end"),
    ("--max-concurrent 5 --arrival constant", "--arrival: has a use only with a rate"),
    ("--request-rate 5 --arrival poisson --burstiness 2", "--burstiness: has a use only with --arrival gamma, got poisson"),
    ("--request-rate 5 --trace-speed 2", "--trace-speed: has a use only with --trace"),
    ("--request-rate 5 --ramp-up-end-rps 2", "--ramp-up-end-rps: has a use only with --ramp-up-strategy"),
    ("--ramp-up-strategy linear --ramp-up-end-rps 2", "--ramp-up-start-rps: missing"),
    ("--ramp-up-strategy linear --ramp-up-start-rps 2 --ramp-up-end-rps 2", "which is the start rate"),
    ("--ramp-up-strategy exponential --ramp-up-start-rps 0 --ramp-up-end-rps 2", "takes rates above 0"),
    ("--trace /nowhere", "--trace: cannot read '/nowhere'"),
    ("--request-rate 5 --precision p99:ttft:5%", "--precision: needs a bound"),
    ("--request-rate 5 --precision p99:ttfb:5%", "--precision: got 'p99:ttfb:5%', takes a percentile"),
    ("--request-rate 5 --precision p99:ttft:5", "--precision: got 'p99:ttft:5'"),
    ("--request-rate 5 --duration 10 --lead 6 --tail 4", "--lead, --tail: together 10 s of a run of 10 s"),
    ("--request-rate 0.001 --duration 1", "--duration: the first request of this schedule is due after"),
    ("--stages 1x1s --num-requests 100", "num_requests: got 100, but the rate ends after"),
]


@pytest.mark.parametrize(("line", "said"), REFUSED)
def test_what_contradicts_itself_is_refused(line, said):
    """One line that names the option, before anything is asked of a server."""
    with pytest.raises(UsageError) as caught:
        shaped(line)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def planned(tmp_path, text, *typed):
    path = tmp_path / "plan.yaml"
    path.write_text(text, encoding="utf-8")
    return with_plan_file(parse(["run", str(path), *typed]).arguments)


def test_a_plan_file_has_the_options_by_their_names(tmp_path):
    """Numbers, lists, mappings and switches as YAML has them; hyphens or underscores."""
    arguments = planned(
        tmp_path,
        "request-rate: 50\narrival: gamma\nburstiness: 0.5\nduration: 2m\nstream: false\nheader: {x-team: a}\nmetric_percentiles: [50, 99.9]\n"
        "extra_body: {top_k: 1}\nprecision: p99:ttft:5%\nsim_max_num_seqs: 6\n",
    )
    assert arguments["request_rate"] == 50.0
    assert (arguments["duration"], arguments["stream"], arguments["extra_body"]) == (120.0, False, {"top_k": 1})
    assert (arguments["header"], arguments["metric_percentiles"]) == ((("x-team", "a"),), (50.0, 99.9))
    assert arguments["precision"] == Precision(percent=99.0, metric="ttft", share=0.05)
    assert arguments["sim_max_num_seqs"] == 6
    assert "burstiness" in arguments.typed


def test_what_is_typed_goes_before_the_file(tmp_path):
    """Also another kind of end: a typed duration stands for the file's number."""
    arguments = planned(tmp_path, "request_rate: 50\nnum_requests: 10\n", "--request-rate", "5", "--duration", "3s")
    assert (arguments["request_rate"], arguments["num_requests"], arguments["duration"]) == (5.0, None, 3.0)
    assert planned(tmp_path, "request_rate: .inf\n")["request_rate"] == math.inf


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("request_rat: 5\n", "plan.yaml: unknown key 'request_rat' (nearest: request_rate)"),
        ("request_rate: fast\n", "plan.yaml: request_rate: got 'fast', takes requests/s above 0"),
        ("stages: [10x5s, x]\n", "plan.yaml: stages: got '10x5s,x', takes steps"),
        ("stream: 1\n", "plan.yaml: stream: got 1, takes true or false"),
        ("duration: 5\nnum_requests: 5\n", "plan.yaml: num_requests: got duration as well"),
        ("request-rate: 5\nrequest_rate: 6\n", "plan.yaml: 'request_rate' comes twice, with - and with _"),
        ("extra_body: &a {x: *a}\n", "plan.yaml: extra_body: got"),
        ("goodput: []\n", "plan.yaml: goodput: missing; takes a metric"),
        ("a: [\n", "plan.yaml:2:1:"),
        ("- 5\n", "holds no mapping"),
        ("batch_size: 5\n", "unknown key 'batch_size'"),  # it is bench's
    ],
)
def test_a_plan_file_that_cannot_be_used_is_refused(tmp_path, text, said):
    """One line with file and key."""
    with pytest.raises(UsageError) as caught:
        planned(tmp_path, text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_plan_file_that_is_not_there_is_refused(tmp_path):
    """By name."""
    with pytest.raises(UsageError, match="PLAN: cannot read"):
        with_plan_file(parse(["run", str(tmp_path / "none.yaml")]).arguments)
