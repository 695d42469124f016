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
from loadgen.histogram import Histogram
from loadgen.percentiles import describe, describe_histogram

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from loadgen.recorded import Block, Records
    from loadgen.stretch import Stretch
    from loadgen.summary import Distribution

EXACT_GAPS = 5_000_000  # DESIGN.md: 40 MB of float64 per distribution, sorted in under a second


class Gaps(NamedTuple):
    """What a set of requests says of its gaps; see `summary.Measures`."""

    itl: Distribution | None
    per_token: bool
    event_gap: Distribution | None
    largest: Distribution | None
    coalesced_share: float | None
    from_histogram: bool


class _Pool:
    """Values in seconds, exactly or in a histogram of nanoseconds."""

    def __init__(self, exact: bool) -> None:
        self._values: list[NDArray[np.float64]] = []
        self._histogram = None if exact else Histogram()

    def add(self, gaps_us: NDArray[np.float64], times: NDArray[np.int64] | None = None) -> None:
        """Each gap, or each as `times` gaps of 1/times."""
        if self._histogram is None:
            self._values.append((gaps_us if times is None else np.repeat(gaps_us / times, times)) / 1e6)
        else:
            each_ns = gaps_us * 1e3 if times is None else gaps_us * 1e3 / times
            self._histogram.add_array(np.rint(each_ns).astype(np.int64), times)

    def describe(self, percents: Sequence[float]) -> Distribution | None:
        if self._histogram is not None:
            return describe_histogram(self._histogram, percents, 1e-9)
        return describe(np.concatenate(self._values), percents) if self._values else None


def pool_gaps(records: Records, rows: NDArray[np.int64], percents: Sequence[float], exact_gaps: int = EXACT_GAPS) -> Gaps:
    """Fold the gaps of these rows (ascending)."""
    heads = records.heads
    events = int(heads["events"][rows].sum(dtype=np.int64))
    paced = rows[heads["count"][rows] > 0]
    if not len(paced):
        return Gaps(None, False, None, None, 0.0 if events else None, False)
    total = int(heads["count"][paced].sum(dtype=np.int64))
    per_token = bool((heads["flags"][paced] & fmt.TOKENS_KNOWN > 0).all())
    tokens = int(heads["completion_tokens"][paced].clip(0).sum(dtype=np.int64)) if per_token else 0
    exact = max(total, tokens) <= exact_gaps
    events_pool, tokens_pool = _Pool(exact), _Pool(exact)
    largest: list[NDArray[np.float64]] = []
    coalesced = 0
    for block in records.gaps(paced):
        firsts = np.cumsum(block.counts) - block.counts
        largest.append(np.maximum.reduceat(block.gaps, firsts) / 1e6)
        arrived = block.gaps > 0
        coalesced += int(len(arrived) - np.count_nonzero(arrived))
        events_pool.add(block.gaps[arrived].astype(np.float64))
        if per_token:
            tokens_pool.add(*_token_gaps(block, firsts))
    event_gap = events_pool.describe(percents)
    return Gaps(
        itl=tokens_pool.describe(percents) if per_token else event_gap,
        per_token=per_token,
        event_gap=event_gap,
        largest=describe(np.concatenate(largest), percents),
        coalesced_share=coalesced / events,
        from_histogram=not exact,
    )


def _token_gaps(block: Block, firsts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(gap in µs, tokens that it stands for) of each arrival after a request's first that brought a token."""
    starts_arrival = block.gaps > 0
    starts_arrival[firsts] = True  # events that came with the request's first one belong to no gap, nor to the request before
    segments = np.flatnonzero(starts_arrival)
    tokens = np.add.reduceat(block.tokens.astype(np.int64), segments)
    clock = np.cumsum(block.gaps, dtype=np.int64)
    origin = np.repeat(clock[firsts] - block.gaps[firsts], block.counts)  # the clock at each request's first event
    counted = (block.gaps[segments] > 0) & (tokens > 0)
    segments, tokens = segments[counted], tokens[counted]
    if not len(segments):
        return np.zeros(0), np.zeros(0, np.int64)
    times, origins = clock[segments], origin[segments]
    request = np.repeat(np.arange(len(block.counts)), block.counts)[segments]
    previous = np.concatenate(([0], times[:-1]))
    follows = np.concatenate(([False], request[1:] == request[:-1]))
    return (times - np.where(follows, previous, origins)).astype(np.float64), tokens


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
