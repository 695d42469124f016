"""Gaps between arrivals of output, pooled over requests.

Knows blocks of gaps; knows no plan. An arrival is one read from the socket: events in it share a stamp (gap 0) and are one.
Law (DESIGN.md, "ITL"): an arrival of k tokens, k known, gives its gap as k gaps of 1/k; one of no token gives its time to the
next that has some; so per-token gaps of a request always add up to first output until its last token.
Above `EXACT_GAPS` gaps go into a histogram, in nanoseconds, and the distribution carries the bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from loadgen import records as fmt
from loadgen.dependence import GROUPS
from loadgen.distribution import percentile_key
from loadgen.histogram import Histogram
from loadgen.percentiles import describe, describe_histogram

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from loadgen.distribution import Distribution
    from loadgen.recorded import Block, Records
    from loadgen.stretch import Stretch

EXACT_GAPS = 5_000_000  # DESIGN.md: 40 MB of float64 per distribution, sorted in under a second


class Gaps(NamedTuple):
    """What a set of requests says of its gaps; see `summary.Measures`."""

    itl: Distribution | None
    per_token: bool
    event_gap: Distribution | None
    largest: Distribution | None
    coalesced_share: float | None
    from_histogram: bool


class _Parts(NamedTuple):
    """`GROUPS` equal parts of the time in which output came. begun_ns: its beginning; length_us: all of it."""

    begun_ns: int
    length_us: int

    def of(self, block: Block, firsts: NDArray[np.int64], output_ns: NDArray[np.int64]) -> NDArray[np.int16]:
        """In which of them each gap ended. output_ns: when the first output of each request came."""
        clock = np.cumsum(block.gaps, dtype=np.int64)
        origins = (output_ns - self.begun_ns) // 1000 - clock[firsts] + block.gaps[firsts]
        at_us = clock + np.repeat(origins, block.counts)
        return np.clip(at_us * GROUPS // (self.length_us + 1), 0, GROUPS - 1).astype(np.int16)


class _Pool:
    """Values in seconds, exactly or in a histogram of nanoseconds."""

    def __init__(self, exact: bool) -> None:
        self._values: list[NDArray[np.float64]] = []
        self._moments: list[NDArray[np.int16]] = []
        self._histogram = None if exact else Histogram()

    def add(self, gaps_us: NDArray[np.float64], times: NDArray[np.int64], moments: NDArray[np.int16]) -> None:
        """Each as `times` gaps of 1/times. moments: in which part of the time it ended."""
        if self._histogram is None:
            self._values.append(np.repeat(gaps_us / times, times) / 1e6)
            self._moments.append(np.repeat(moments, times))
        else:
            self._histogram.add_array(np.rint(gaps_us * 1e3 / times).astype(np.int64), times)

    def describe(self, percents: Sequence[float], sample: Distribution | None) -> Distribution | None:
        """sample: of some of the gaps. From a histogram nothing is seen of how gaps depend on each other: there they count as these do."""
        if self._histogram is not None:
            effective = None if sample is None else [sample.percentiles[percentile_key(percent)].effective or 1 for percent in percents]
            return describe_histogram(self._histogram, percents, 1e-9, effective)
        return describe(np.concatenate(self._values), percents, np.concatenate(self._moments)) if self._values else None


def pool_gaps(records: Records, rows: NDArray[np.int64], percents: Sequence[float], exact_gaps: int = EXACT_GAPS) -> Gaps:
    """Fold the gaps of these rows (by due).

    Gaps of all requests at one time come from the same step of the server, so they count together: as many samples as there are parts of the
    time, at most (`dependence.py`).
    """
    heads = records.heads
    events = int(heads["events"][rows].sum(dtype=np.int64))
    paced = rows[heads["count"][rows] > 0]
    if not len(paced):
        return Gaps(None, False, None, None, 0.0 if events else None, False)
    total = int(heads["count"][paced].sum(dtype=np.int64))
    per_token = bool((heads["flags"][paced] & fmt.TOKENS_KNOWN > 0).all())
    tokens = int(heads["completion_tokens"][paced].clip(0).sum(dtype=np.int64)) if per_token else 0
    exact = max(total, tokens) <= exact_gaps or len(paced) == 1
    # Of every few requests: they are fewer samples than all, never more.
    sample = (
        Gaps(None, False, None, None, None, False)
        if exact
        else pool_gaps(records, paced[:: 2 * max(total, tokens) // exact_gaps], percents, exact_gaps)
    )
    events_pool, tokens_pool = _Pool(exact), _Pool(exact)
    begun_ns = int(heads["first_output_ns"][paced].min())
    parts = _Parts(begun_ns, max((int(heads["last_output_ns"][paced].max()) - begun_ns) // 1000, 1))
    largest = np.zeros(len(heads))
    coalesced = 0
    for block in records.gaps(paced):
        firsts = np.cumsum(block.counts) - block.counts
        largest[block.rows] = np.maximum.reduceat(block.gaps, firsts) / 1e6
        arrived = block.gaps > 0
        coalesced += int(len(arrived) - np.count_nonzero(arrived))
        moments = parts.of(block, firsts, heads["first_output_ns"][block.rows])
        events_pool.add(block.gaps[arrived].astype(np.float64), np.ones(np.count_nonzero(arrived), np.int64), moments[arrived])
        if per_token:
            gaps_us, times, segments = _token_gaps(block, firsts)
            tokens_pool.add(gaps_us, times, moments[segments])
    event_gap = events_pool.describe(percents, sample.event_gap)
    return Gaps(
        itl=tokens_pool.describe(percents, sample.itl) if per_token else event_gap,
        per_token=per_token,
        event_gap=event_gap,
        largest=describe(largest[paced], percents),
        coalesced_share=coalesced / events,
        from_histogram=not exact,
    )


def _token_gaps(block: Block, firsts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """(gap in µs, tokens that it stands for, its place in the block) of each arrival after a request's first that brought a token."""
    starts_arrival = block.gaps > 0
    starts_arrival[firsts] = True  # events that came with the request's first one belong to no gap, nor to the request before
    segments = np.flatnonzero(starts_arrival)
    tokens = np.add.reduceat(block.tokens.astype(np.int64), segments)
    clock = np.cumsum(block.gaps, dtype=np.int64)
    origin = np.repeat(clock[firsts] - block.gaps[firsts], block.counts)  # the clock at each request's first event
    counted = (block.gaps[segments] > 0) & (tokens > 0)
    segments, tokens = segments[counted], tokens[counted]
    if not len(segments):
        return np.zeros(0), np.zeros(0, np.int64), segments
    times, origins = clock[segments], origin[segments]
    request = np.repeat(np.arange(len(block.counts)), block.counts)[segments]
    previous = np.concatenate(([0], times[:-1]))
    follows = np.concatenate(([False], request[1:] == request[:-1]))
    return (times - np.where(follows, previous, origins)).astype(np.float64), tokens, segments


def output_inside(records: Records, rows: NDArray[np.int64], output: NDArray[np.float64], stretch: Stretch) -> NDArray[np.float64]:
    """Of each request's output (tokens, or events: `output` has them), what was stamped in the stretch (its edges included)."""
    first_ns, last_ns = records.heads["first_output_ns"][rows], records.heads["last_output_ns"][rows]
    inside = output * ((first_ns >= stretch.start_ns) & (last_ns <= stretch.end_ns))
    across = (first_ns <= stretch.end_ns) & (last_ns >= stretch.start_ns) & (inside == 0)
    place = {int(row): at for at, row in enumerate(rows[across])}
    found = np.zeros(len(place))
    for block in records.gaps(rows[across]):
        first = 0
        for row, count in zip(block.rows.tolist(), block.counts.tolist(), strict=True):
            at = records.heads["first_output_ns"][row] + 1000 * np.concatenate(
                ([0], np.cumsum(block.gaps[first : first + count], dtype=np.int64))
            )
            within = np.count_nonzero((at >= stretch.start_ns) & (at <= stretch.end_ns)) / (count + 1)
            found[place[row]] = within * output[across][place[row]]
            first += count
    inside[across] = found
    return inside
