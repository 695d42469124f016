"""Search against the truth: the simulator's engine in virtual time, where the capacity under an objective can be bisected.

The truth is bisected over runs of many requests; the search has runs of a sweep's length, and must land within 5 % of it with at most 7
loads. The whole of it (`make accept`: 10^6 requests, the three profiles) and a short form that `make test` runs. Nothing here knows an
answer beforehand: both sides ask the same engine, with arrivals of different seeds.
"""

import json
import time

import pytest
from commands import loadgen
from virtual import VirtualSession, Workload

from loadgen.axis import Axis
from loadgen.bench import Load
from loadgen.curve import Sought
from loadgen.objectives import read_objectives
from loadgen.points import PARTS, points_of
from loadgen.schedule import Schedule
from loadgen.search import MOST_POINTS, Search, curve_of

ATTAINMENT = 0.95
WITHIN = 0.05
_TRUTHS_SEED = 1_000_003  # the search's seeds are 0 to 3

GPT = ("gpt-oss-20b", 512, 32, 0), "ttft:500 tpot:50"
QWEN = ("qwen2.5-coder-14b-qiskit", 512, 32, 0), "ttft:1000 tpot:100"
OLMOCR = ("olmocr", 1628, 32, 1_200_000), "ttft:2000 e2el:4000"  # a page of 1,500 image tokens
SHORT = ("olmocr", 1628, 8, 1_200_000), "ttft:2000 e2el:4000"
FULL = [pytest.param(*profile, 64_000, 1_000_000, marks=pytest.mark.accept, id=profile[0][0]) for profile in (GPT, QWEN, OLMOCR)]


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("profile", "objectives", "length", "requests"), [pytest.param(*SHORT, 16_000, 100_000, id="short"), *FULL])
def test_search_lands_within_5_percent_of_the_true_capacity(tmp_path, profile, objectives, length, requests):
    """At most 7 loads, each of at most the length that a sweep's points would have; and the answer is a load that the server does bear."""
    workload, objectives = Workload(*profile), read_objectives(objectives)
    session = VirtualSession(tmp_path, workload, objectives, ATTAINMENT)
    sought = Sought(by="rate", attainment=ATTAINMENT)
    seats = workload.settings.max_num_seqs
    load = Load(processes=1, num_requests=length, num_warmups=2 * seats)
    begun = time.perf_counter()
    history = session.conduct(Search(load, Axis(by="rate", max_concurrent=50_000), sought, warmup=seats))
    measured = [(one.plan, one.summary, one.verdict) for one in history if one.plan.purpose == "measure"]
    curve = curve_of(points_of(measured, ATTAINMENT, PARTS), sought, cut_short=False)
    searched = time.perf_counter()
    truth = capacity(workload, objectives, requests)
    print(f"\n{profile[0]}: searched {curve.best:.4g} requests/s, true {truth:.4g} ({curve.best / truth - 1:+.1%})")
    print(
        f"{len(curve.points)} loads, {sum(point.judged for point in curve.points)} requests judged; {searched - begun:.0f} s of search, "
        f"{time.perf_counter() - searched:.0f} s of truth (over {requests:,} requests); {curve.why}"
    )
    assert len(curve.points) <= MOST_POINTS
    assert max(point.judged for point in curve.points) <= length
    assert abs(curve.best / truth - 1) <= WITHIN


def capacity(workload, objectives, requests):
    """The rate at which the share of good requests is ATTAINMENT: bisected over more and more requests, then interpolated in the last bracket."""

    def share(rate_rps, count):
        schedule = Schedule.at_rate(rate_rps, seed=_TRUTHS_SEED)
        return workload.goodput(schedule, count, objectives, ATTAINMENT, lead_s=0.02 * count / rate_rps)[0].share

    high = workload.throughput(2 * workload.settings.max_num_seqs, 2_000)  # no queue is finite above it
    low = high / 2
    for count, near in ((requests // 32, 1.06), (requests // 8, 1.03), (requests, 1.02)):
        middle = (low * high) ** 0.5
        low, high = (middle / near**0.5, middle * near**0.5) if high / low <= near**2 else (low, high)
        while (at_low := share(low, count)) < ATTAINMENT:
            low, high = low / near, low
        while (at_high := share(high, count)) >= ATTAINMENT:
            low, high, at_low = high, high * near, at_high
        while high / low > near * 1.001:
            middle = (low * high) ** 0.5
            at_middle = share(middle, count)
            if at_middle >= ATTAINMENT:
                low, at_low = middle, at_middle
            else:
                high, at_high = middle, at_middle
    assert at_low >= ATTAINMENT > at_high
    return low + (high - low) * (at_low - ATTAINMENT) / (at_low - at_high)


@pytest.mark.accept
@pytest.mark.timeout(1500)
def test_a_live_search_lands_within_5_percent_of_what_virtual_time_computes(tmp_path):
    """gpt-oss-20b of 8 seats, four times as fast, short answers: the whole command, its fleets and its server, on a machine left alone."""
    words = [
        "--model",
        "gpt-oss-20b",
        "--simulate",
        "--sim-max-num-seqs",
        8,
        "--sim-time-scale",
        0.25,
        "--input-len",
        64,
        "--max-tokens",
        16,
    ]
    words += ["--ignore-eos", "--goodput", "ttft:50", "--attainment", ATTAINMENT, "--num-requests", 10_000, "--budget", "15m"]
    done = loadgen("search", *words, "--json", "--results-dir", tmp_path, timeout=1400)
    print(done.stderr)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    curve = document["curve"]
    plans = [one["summary"]["tokens"]["prompt"] / one["summary"]["ok"] for one in document["plans"]]
    workload = Workload("gpt-oss-20b", round(sum(plans) / len(plans)), 16, max_num_seqs=8, time_scale=0.25)
    truth = capacity(workload, read_objectives("ttft:50"), 400_000)
    print(f"searched {curve['best']:.4g} requests/s, true {truth:.4g} ({curve['best'] / truth - 1:+.1%}), {len(curve['points'])} loads")
    assert len(curve["points"]) <= MOST_POINTS
    assert abs(curve["best"] / truth - 1) <= WITHIN
