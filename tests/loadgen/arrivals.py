"""Arrivals that are wrong in ways that load generators are, and the alarms that tell them from right ones.

A mutant is a function of numbers to arrivals in seconds since the start, ascending: what a server would see of it. The same alarms, with
the same allowance for a busy machine, judge mutants here and the arrivals of real runs.
"""

import numpy as np
from scipy import stats

from loadgen import proof
from loadgen.dues import expected, offsets_ns

# Of the runs that are judged: enough that every mutant is caught, and three seconds.
RATE_RPS, COUNT = 500.0, 1500
# Of each alarm: how often it is raised by a run in which nothing is wrong. `alarms` has ten at most, so one run in 10,000 raises one.
FALSE_ALARM = 1e-5
# What sending and the way to the server may do to any gap; and what a busy machine may do: this share of arrivals anywhere.
ALLOWED_S = 0.0005
ALLOWED = 0.05
LATE_S = 0.02  # of a constant rate: what counts as displaced


def alarms(arrivals_s, schedule):
    """Which properties of the process these arrivals lack: names, none for sound ones. arrivals_s: request by request for a constant rate."""
    if schedule.process == "constant":
        return _of_constant(arrivals_s, schedule)
    requests = expected(schedule, np.sort(arrivals_s))
    n, variance = len(requests), proof.cv_of(schedule) ** 2
    memory, phase = proof.memory(requests), proof.fit_phase(schedule, np.sort(arrivals_s))
    p = {
        "gaps": _gaps_p(np.sort(arrivals_s), schedule),
        "count": 2 * stats.norm.sf(abs(requests[-1] - n) / np.sqrt(variance * n)),
        **{f"memory {lag}": 2 * stats.norm.sf(abs(r) / memory.standard_error) for lag, r in enumerate(memory.correlations, 1)},
    }
    if phase is not None:  # it holds a whole second
        p["phase"] = proof.ks_p(max(phase.distance - ALLOWED, 0.0), phase.count / max(1.0, variance))
    for window_s in (0.1, 1.0):
        edges = np.arange(0.0, arrivals_s.max(), window_s)
        found = proof.dispersion(np.sort(arrivals_s), edges, expected(schedule, edges))
        if found is not None:  # of counts that are many: chi-square distributed
            degrees = len(edges) - 2
            below = stats.chi2.cdf(found / variance * degrees, degrees)
            p[f"dispersion {window_s}"] = 2 * min(below, 1 - below)
    return {name for name, value in p.items() if value < FALSE_ALARM}


def _gaps_p(arrivals_s, schedule):
    """Kolmogorov-Smirnov with an allowance: each gap may be off by so much to either side."""
    law = proof.law_of(schedule)
    up, down = (
        law(np.sort(expected(schedule, arrivals_s[1:] + off) - expected(schedule, arrivals_s[:-1]))) for off in (ALLOWED_S, -ALLOWED_S)
    )
    n = len(up)
    distance = max((np.arange(1, n + 1) / n - up).max(), (down - np.arange(n) / n).max())
    return proof.ks_p(max(distance - ALLOWED, 0.0), n)


def _of_constant(arrivals_s, schedule):
    late_s = arrivals_s - offsets_ns(schedule, count=len(arrivals_s)) / 1e9
    gaps = np.diff(expected(schedule, np.sort(arrivals_s)))
    found = {
        "early": late_s.min() < -1e-9,
        "late": (late_s > LATE_S).mean() > ALLOWED,
        "uneven": np.median(np.abs(gaps - 1)) > 0.25,  # of exponential gaps this is 0.6; of even ones half are within a quarter of a gap
    }
    return {name for name, raised in found.items() if raised}


# ---- mutants -------------------------------------------------------------------------------------------------------------


def blocks(rate_rps, count, workers, seed):
    """Every worker draws arrivals of its own share of the rate from one seed: all of them send at the same times."""
    own = np.cumsum(np.random.default_rng(seed).exponential(workers / rate_rps, -(-count // workers)))
    return np.repeat(own, workers)[:count]


def repeated_gaps(rate_rps, count, workers, seed):
    """guidellm's: one clock of arrivals, onto which each worker in turn adds a gap that it draws from the seed they share."""
    return np.cumsum(np.repeat(np.random.default_rng(seed).exponential(1 / rate_rps, -(-count // workers)), workers))[:count]


def whole_seconds(rate_rps, count, seed):
    """inference-perf's: for each second a Poisson number of exponential gaps, scaled to fill it; its last arrival falls on the second."""
    random = np.random.default_rng(seed)
    arrivals = []
    second = 0
    while len(arrivals) < count:
        gaps = random.exponential(1 / rate_rps, random.poisson(rate_rps))
        arrivals += list(second + np.cumsum(gaps / gaps.sum())) if len(gaps) else []
        second += 1
    return np.array(arrivals[:count])


def sleep_loop(gaps_s, late_s):
    """SGLang's: after each request sleep for the next gap; each sleep ends late, and the next begins there."""
    return np.cumsum(gaps_s + late_s)


def exponential_constant(rate_rps, count, seed):
    """inference-perf's constant rate: its gaps are exponential."""
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate_rps, count))
