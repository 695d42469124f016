"""Sweep and search as pure functions: servers that are a formula, and what each makes the search do."""

import math
import random

import msgspec
import numpy as np
import pytest
from written import exchange, summarise

from clients.errors import UsageError
from loadgen.axis import Axis
from loadgen.bench import Load
from loadgen.campaign import Performed
from loadgen.curve import Sought
from loadgen.points import PARTS, points_of
from loadgen.proportion import lower_bound
from loadgen.search import MOST_POINTS, NEAR, PATIENCE, Search, curve_of
from loadgen.summary import Goodput, Reason, Verdict
from loadgen.sweep import Sweep, swept

VALID = Verdict(level="valid", reasons=[])
RATES = Axis(by="rate", max_concurrent=1000)
SLOTS = Axis(by="concurrency", max_concurrent=1000)
LONG = 4000  # requests of a whole point
# A load is not sure to be kept where its share is within two standard errors (0.35 % each) of the one asked for: with `falling`, as much in load.
UNSURE = 1.007


def failed(name):
    return Verdict(level="invalid", reasons=[Reason(name=name, level="invalid", number=1, threshold=0.5, advice="the reason why")])


def load(**more):
    return Load(processes=2, **{"num_requests": LONG, **more})


class Formula:
    """A server whose share of good requests at a load is `share_at(level)`, exactly; every load lasts as long as it is due."""

    def __init__(self, directory, share_at, verdict_at=lambda plan: VALID, attainment=0.95, probe_rps=10.0, early=None):
        self._template = summarise(directory, [(k, exchange(10 * k, 10 * k + 10)) for k in range(5)])
        self.early = early or {}  # shares of a load's first part
        self.share_at, self.verdict_at, self.attainment, self.probe_rps = share_at, verdict_at, attainment, probe_rps

    def performed(self, plan):
        level = plan.max_concurrent if plan.schedule is None else plan.schedule.stages[0].start_rps
        rps = self.probe_rps if plan.purpose == "warmup" else level
        length_s = plan.duration_s or plan.num_requests / rps
        n = plan.num_requests or round(plan.duration_s * rps)
        share = self.early.get(level) if plan.repeat == 1 else None
        good = math.floor(n * (self.share_at(level) if share is None else share))
        goodput = Goodput(
            rps=good / length_s,
            good=good,
            judged=n,
            undecided=0,
            failed=0,
            share=good / n,
            low=0.0,
            high=1.0,
            assured=lower_bound(good, n, 0.95),
            effective=float(n),
            later_share=good / n,
            attainment=self.attainment,
            objectives=[],
        )
        measures = msgspec.structs.replace(self._template.whole, requests_rps=rps, start_s=0.0, end_s=length_s)
        summary = msgspec.structs.replace(self._template, label=plan.label, whole=measures, steady=None, goodput=goodput)
        return Performed(plan=plan, summary=summary, verdict=self.verdict_at(plan), took_s=length_s + 2)

    def conduct(self, campaign):
        history = []
        while (plan := campaign.next_plan(history)) is not None:
            assert len(history) < 100, "a search ends"
            history.append(self.performed(plan))
        return history


def points(history, attainment=0.95, parts=PARTS, patience=PATIENCE):
    measured = [(one.plan, one.summary, one.verdict) for one in history if one.plan.purpose == "measure"]
    return points_of(measured, attainment, parts, patience=patience)


def falling(limit, steepness=1.0):
    """Good up to the limit and beyond it fewer and fewer; 0.95 exactly at the limit."""
    return lambda level: max(0.0, min(1.0, 0.95 - steepness * math.log(level / limit)))


@pytest.fixture
def search(tmp_path):
    """search(server, sought, ...) -> (its history, its curve)."""

    def run(share_at, *, axis=RATES, warm=True, verdict_at=lambda plan: VALID, early=None, **sought):
        sought = Sought(**{"by": axis.by, "attainment": 0.95, **sought})
        server = Formula(tmp_path / str(random.random()), share_at, verdict_at, early=early)
        campaign = Search(load(num_warmups=20 if warm else 0), axis, sought, warmup=10)
        history = server.conduct(campaign)
        return history, curve_of(points(history), sought, cut_short=False)

    return run


@pytest.mark.parametrize("limit", [5.5, 6.7, 7.9, 8.3, 9.9, 11.0])
def test_the_limit_lies_between_best_and_missed_which_are_near_each_other(search, limit):
    """A probe of 10 requests/s, limits within a factor of two below it: at most 7 loads, an answer within 5 %."""
    history, curve = search(falling(limit))
    assert curve.best <= limit <= curve.missed * UNSURE
    assert curve.best > 0.95 * limit
    assert len(curve.points) <= MOST_POINTS
    assert curve.missed / curve.best <= NEAR**2
    assert sum(one.plan.num_requests for one in history[1:]) <= len(curve.points) * LONG


@pytest.mark.parametrize("limit", [0.02, 0.5, 40.0, 900.0])
def test_a_guess_that_is_far_off_is_left_in_growing_steps(search, limit):
    """Three orders of magnitude: both sides of the limit are found still, if less near to each other."""
    _, curve = search(falling(limit))
    assert curve.best is None or curve.best <= limit
    assert len(curve.points) == MOST_POINTS
    if curve.best is not None:
        assert curve.missed is None or curve.missed / curve.best < 4.1


def test_a_hopeless_load_is_given_up_at_its_first_look(search):
    """An eighth of its length; a load that clearly keeps them is passed early, but the answer has its whole length."""
    _, curve = search(falling(7.0))
    judged = {point.level: point.judged for point in curve.points}
    assert judged[8.0] == LONG * PARTS[0]
    assert judged[curve.best] == LONG
    assert min(judged.values()) < LONG


def test_a_load_that_is_not_sure_is_not_the_answer(search):
    """0.955 of 4,000 does not show 0.95: the answer is lower, and the words say what was not sure."""
    _, curve = search(lambda level: 0.955 if level > 6 else 1.0, least=6.0, most=6.2)
    assert curve.best == 6.0
    assert [point.state for point in curve.points if point.level > 6.0][0] == "unproven"
    assert "is not sure to" in curve.why


def test_a_load_that_was_passed_for_now_and_is_not_sure_in_the_end_loses_little(search):
    """Its first parts look perfect, its whole is not sure: the next load is a little lower, not a growing step away."""

    def share_at(level):
        return 1.0 if level <= 7.9 else 0.948 if level <= 8.2 else 0.5

    _, curve = search(share_at, early={8.0: 1.0})
    assert next(point for point in curve.points if point.level == 8.0).state == "unproven"
    assert 0.94 * 8.0 < curve.best <= 7.9


def test_a_queue_that_grows_is_no_pass(tmp_path):
    """The first half is perfect, the second is not: the whole reaches the share, the end does not."""
    server = Formula(tmp_path, lambda level: 0.96)
    one = server.performed(RATES.plan(load(), 0, 5.0))
    grown = msgspec.structs.replace(one.summary.goodput, later_share=0.92)
    worse = msgspec.structs.replace(one, summary=msgspec.structs.replace(one.summary, goodput=grown))
    assert [points([one], parts=(1.0,))[0].state, points([worse], parts=(1.0,))[0].state] == ["kept", "unproven"]


def test_looking_four_times_errs_no_more_often_than_once(tmp_path):
    """A load whose true share is the one asked for, less a hair: called kept at some look in at most 5 % of 2,000 trials (seed fixed; the
    bound is 5 % and 3 standard errors of 0.5 %). With 5 % for each look it is 11 %."""
    server = Formula(tmp_path, lambda level: 1.0)
    plans = [RATES.plan(load(), number, 5.0, part=part, repeat=number + 1) for number, part in enumerate(PARTS)]
    parts = [server.performed(plan) for plan in plans]
    draw = np.random.default_rng(17)
    kept = 0
    for _ in range(2_000):
        drawn = []
        for one in parts:
            goodput = one.summary.goodput
            good = int(draw.binomial(goodput.judged, 0.9499))
            goodput = msgspec.structs.replace(goodput, good=good, share=good / goodput.judged, later_share=good / goodput.judged)
            drawn.append(msgspec.structs.replace(one, summary=msgspec.structs.replace(one.summary, goodput=goodput)))
            [point] = points(drawn)
            if point.state != "open":
                break
        kept += point.state == "kept"
    assert 0.01 < kept / 2_000 <= 0.065


def test_a_client_that_was_the_limit_ends_the_search(search):
    """Twice at one load, and no load is taken for the server's limit; a load that it spoiled once is measured again."""
    history, curve = search(falling(90.0), verdict_at=lambda plan: failed("client-limited") if plan.schedule else VALID)
    assert [point.state for point in curve.points] == ["unusable"]
    assert len(history) == 1 + PATIENCE + 1
    assert (curve.best, curve.missed) == (None, None)
    assert "the client was the limit, not the server: client-limited: the reason why" in curve.why

    spoiled = lambda plan: failed("rate-not-achieved") if plan.number == 1 else VALID  # noqa: E731  # one plan only
    _, curve = search(falling(9.0), verdict_at=spoiled)
    assert curve.best == pytest.approx(9.0, rel=0.05)
    first = next(point for point in curve.points if point.level == 8.0)
    assert (first.parts, len(first.plans)) == (first.parts, first.parts + 1)
    assert first.judged == LONG * sum(PARTS[: first.parts])


def test_requests_that_fail_are_the_servers_doing(search):
    """An invalid run by errors is a load that the server does not bear: the search goes below it."""
    _, curve = search(
        falling(6.0), verdict_at=lambda plan: failed("errors") if plan.schedule and plan.schedule.stages[0].start_rps > 6.5 else VALID
    )
    assert curve.best == pytest.approx(6.0, rel=0.05)


def test_no_load_is_found_where_none_keeps_the_objectives(search):
    """And the words say what the lowest did."""
    _, curve = search(lambda level: 0.2)
    assert curve.best is None
    assert curve.why.startswith("no load was shown to keep 0.95 of requests within the objectives: ")


def test_bounds_of_the_loads_are_kept_to(search):
    """Up to the highest and no further; the words say that nothing was found that does not keep them."""
    _, curve = search(lambda level: 1.0, least=3.0, most=20.0)
    assert curve.best == 20.0
    assert all(3.0 <= point.level <= 20.0 for point in curve.points)
    assert "no load was found that does not" in curve.why
    _, curve = search(lambda level: 0.0, least=3.0, most=20.0)
    assert min(point.level for point in curve.points) == 3.0


def test_no_more_than_the_budget_is_spent(search):
    """Every plan fits with its grace and with what starting one costs, or it is not begun; what is known is the answer."""
    for budget_s, enough in ((60.0, False), (700.0, False), (1500.0, False), (4000.0, True)):
        history, curve = search(falling(7.0), budget_s=budget_s)
        assert sum(one.took_s for one in history) <= budget_s
        assert ("the budget of time was used up" in curve.why) != enough


def test_slots_are_whole_numbers(search):
    """By concurrency the same search bisects integers, down to neighbours."""
    _, curve = search(falling(11.5), axis=SLOTS)
    assert (curve.best, curve.missed) == (11, 12)
    assert all(point.level == int(point.level) for point in curve.points)


def test_without_a_probe_the_bounds_are_the_guess(search):
    """Their geometric middle."""
    history, _ = search(falling(7.0), warm=False, least=2.0, most=32.0)
    assert history[0].plan.schedule.stages[0].start_rps == 8.0


def test_the_same_history_gives_the_same_plan(tmp_path):
    """A campaign is pure."""
    server = Formula(tmp_path, falling(7.0))
    campaign = Search(load(num_warmups=20), RATES, Sought(by="rate", attainment=0.95), warmup=10)
    history = server.conduct(campaign)
    for place in range(len(history)):
        assert campaign.next_plan(history[:place]) == history[place].plan


def test_parts_of_a_point_have_arrivals_of_their_own_and_loads_share_them():
    """So that parts are independent, and loads differ in nothing but their pace."""
    first, second = (RATES.plan(load(), 0, 5.0, part=0.125, repeat=repeat) for repeat in (1, 2))
    faster = RATES.plan(load(), 0, 9.0, part=0.125, repeat=1)
    assert first.schedule.seed != second.schedule.seed
    assert first.schedule.seed == faster.schedule.seed
    assert (first.num_requests, first.lead_s) == (500, 0.1 * 500 / 5.0)


def test_a_short_part_has_requests():
    """By duration, at a low rate: never so short that none falls due in it, never longer than the whole."""
    rare = load(num_requests=None, duration_s=60.0)
    assert RATES.plan(rare, 0, 2.0, part=0.125).duration_s == 15.0
    assert RATES.plan(rare, 0, 0.01, part=0.125).duration_s == 60.0
    assert RATES.plan(rare, 0, 100.0, part=0.125).duration_s == 7.5


def test_a_sweep_measures_each_load_once_and_rising(tmp_path):
    """After a warm-up, each at the full length; the curve says where the objectives end."""
    server = Formula(tmp_path, falling(7.0))
    history = server.conduct(Sweep(load(num_warmups=8), RATES, [9.0, 2.0, 5.0], warmup=4))
    assert [one.plan.label for one in history] == ["warmup", "2rps-r1", "5rps-r1", "9rps-r1"]
    assert {one.plan.num_requests for one in history[1:]} == {LONG}
    curve = swept(points(history, parts=(1.0,)), "rate")
    assert [point.state for point in curve.points] == ["kept", "kept", "missed"]
    assert (curve.best, curve.missed) == (5.0, 9.0)
    with pytest.raises(UsageError, match="takes one value or more"):
        Sweep(load(), RATES, [], warmup=4)


def test_the_knee_is_where_throughput_over_latency_is_highest(tmp_path):
    """Worked out by hand: 2/1, 5/1.25, 9/9 requests/s for each second."""
    server = Formula(tmp_path, lambda level: 1.0)
    history = server.conduct(Sweep(load(), RATES, [2.0, 5.0, 9.0], warmup=4))
    latency = {2.0: 1.0, 5.0: 1.25, 9.0: 9.0}
    slowed = []
    for one in history:
        whole = one.summary.whole
        mean = latency[one.plan.schedule.stages[0].start_rps]
        whole = msgspec.structs.replace(whole, latency=msgspec.structs.replace(whole.latency, mean=mean))
        slowed.append(msgspec.structs.replace(one, summary=msgspec.structs.replace(one.summary, whole=whole)))
    assert swept(points(slowed, attainment=None, parts=(1.0,)), "rate").knee == 5.0
    assert swept(points(slowed[:2], attainment=None, parts=(1.0,)), "rate").knee is None
    assert [point.state for point in points(slowed, attainment=None, parts=(1.0,))] == ["measured"] * 3
