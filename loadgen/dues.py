"""The dues of a schedule: one seeded sequence for the whole run, whatever the number of workers.

Knows arrival processes and rates as arrays; reads no clock: times are offsets from the start, in nanoseconds.
Law: the same schedule gives the same offsets, ascending; a longer run begins with those of a shorter one.

An arrival process of unit rate (gaps of mean 1) is stretched by the rate: with L(t) the integral of the rate from 0 to t, arrival i is due
when L(t) = S_i, S_i being the sum of the first gaps (time rescaling; Brown et al. 2002, Neural Computation 14:325). So a ramp of a Poisson
process is the inhomogeneous Poisson process of that rate, and a ramp of a constant one has no jitter.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from clients.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from loadgen.schedule import Schedule, Stage

_CHUNK = 65_536  # gaps made at a time: half a megabyte
LARGEST_COUNT = 500_000_000  # offsets of a run: 4 GB of file; more is a typing error


def offsets_ns(schedule: Schedule, *, count: int | None = None, duration_s: float | None = None) -> NDArray[np.int64]:
    """The first `count` dues, or all before `duration_s`; at least one of them is given, or the rate ends. int64, ascending, from the start.

    Raises UsageError for more than can be kept, and where the rate ends before `count` requests.
    """
    assert schedule.process != "trace", "a trace's offsets are read, not made"
    end_s = min(math.inf if duration_s is None else duration_s, schedule.length_s)
    assert count is not None or end_s < math.inf, "a schedule without end needs a number or a duration"
    refuse_too_many(schedule, count=count, duration_s=end_s)
    limit = LARGEST_COUNT if count is None else count
    parts: list[NDArray[np.int64]] = []
    have = 0
    for sums in _sums(schedule):
        due_s = _when(schedule.stages, sums)
        inside = due_s[due_s < end_s][: limit - have]
        parts.append(np.rint(inside * 1e9).astype(np.int64))
        have += len(inside)
        if have == limit or len(inside) < len(due_s):
            break
    if count is None and have == limit:
        raise UsageError(f"duration: got {end_s:g} s, in which this rate gives more than {LARGEST_COUNT:,} requests")
    if count is not None and have < count and duration_s is None:
        raise UsageError(f"num_requests: got {count}, but the rate ends after {have}")
    return np.concatenate(parts)


def refuse_too_many(schedule: Schedule, *, count: int | None, duration_s: float | None) -> None:
    """Raises UsageError for more requests than can be kept, before any is made."""
    if count is not None:
        if count > LARGEST_COUNT:
            raise UsageError(f"num_requests: got {count}, takes at most {LARGEST_COUNT:,} on a schedule")
    elif duration_s is not None and float(expected(schedule, np.array([duration_s]))[0]) > LARGEST_COUNT:
        raise UsageError(f"duration: got {duration_s:g} s, in which this rate gives more than {LARGEST_COUNT:,} requests")


def expected(schedule: Schedule, elapsed_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Requests due up to each time, on average: the integral of the rate, (n,) from (n,)."""
    total = np.zeros(len(elapsed_s))
    begin_s = 0.0
    for stage in schedule.stages:
        length_s = math.inf if stage.length_s is None else stage.length_s
        total += _begun(stage, np.clip(elapsed_s - begin_s, 0.0, length_s))
        begin_s += length_s
    return total


def _sums(schedule: Schedule) -> Iterator[NDArray[np.float64]]:
    """Sums of unit gaps, in chunks without end. A constant rate begins at once, a random one after its first gap."""
    if schedule.process == "constant":
        first = 0
        while True:
            yield np.arange(first, first + _CHUNK, dtype=np.float64)
            first += _CHUNK
    # By inversion of uniforms: what numpy's own exponential and gamma streams give may change with its version.
    uniforms = np.random.Generator(np.random.PCG64(schedule.seed))
    shape = schedule.burstiness if schedule.process == "gamma" else 1.0
    total = 0.0
    while True:
        uniform = uniforms.random(_CHUNK)
        if shape == 1.0:
            gaps = -np.log1p(-uniform)
        else:
            from scipy.special import gammaincinv

            gaps = gammaincinv(shape, uniform) / shape
        sums = total + np.cumsum(gaps)
        total = float(sums[-1])
        yield sums


def _when(stages: tuple[Stage, ...], sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """The time at which the integral of the rate reaches each sum; infinite where it never does."""
    when = np.full(len(sums), math.inf)
    begin_s = begun = 0.0
    for stage in stages:
        requests = math.inf if stage.length_s is None else float(_begun(stage, np.array([stage.length_s]))[0])
        inside = (sums >= begun) & (sums < begun + requests)
        when[inside] = begin_s + _elapsed_s(stage, sums[inside] - begun)
        begun += requests
        begin_s += math.inf if stage.length_s is None else stage.length_s
    return when


def _begun(stage: Stage, elapsed_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """The integral of the rate from the stage's beginning."""
    a, b = stage.start_rps, stage.end_rps
    if a == b or stage.length_s is None:
        return elapsed_s * a
    if stage.growth == "linear":
        return elapsed_s * a + (b - a) * elapsed_s**2 / (2 * stage.length_s)
    g = math.log(b / a) / stage.length_s
    return a * np.expm1(g * elapsed_s) / g


def _elapsed_s(stage: Stage, requests: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of `_begun`."""
    a, b = stage.start_rps, stage.end_rps
    if a == b or stage.length_s is None:
        return requests / a
    if stage.growth == "linear":
        # The root of (b-a)/(2T) t^2 + a t - m, written so that nothing cancels when b is near a; 0/0 is the start of a ramp from 0.
        divisor = a + np.sqrt(np.maximum(a * a + 2 * (b - a) / stage.length_s * requests, 0.0))
        return np.divide(2 * requests, divisor, out=np.zeros(len(requests)), where=divisor > 0)
    g = math.log(b / a) / stage.length_s
    return np.log1p(g * requests / a) / g
