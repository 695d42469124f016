"""What the workers themselves had to do in a stretch of a run, and what it took: rates, CPU, lateness of their loops.

Knows records and the snapshots that workers leave in them; judges nothing (`verdict.py`). What a worker handles costs it whatever
comes of it, so all is counted here: requests that failed or were cancelled, attempts that were tried again.
Law: a worker's CPU and lag are those between two of its beats, and of nothing else; where there are not two, they are not known.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from loadgen import records as fmt
from loadgen.arrivals import output_inside
from loadgen.distribution import STANDARD_PERCENTILES
from loadgen.histogram import Histogram
from loadgen.packed import Packed
from loadgen.percentiles import describe_histogram

if TYPE_CHECKING:
    from loadgen.distribution import Distribution
    from loadgen.recorded import Records
    from loadgen.stretch import Stretch


class Pulse(msgspec.Struct, frozen=True):
    """The part of a worker's beat (`pipe.Beat`) that tells how it fared. lag: of the interval that the beat ends."""

    at_ns: int
    cpu_s: float
    lag: Packed


class Effort(NamedTuple):
    """cpu_share: of one core. loop_lag: lateness of a timer, in seconds; None where it never fired."""

    cpu_share: float
    loop_lag: Distribution | None


_decode = msgspec.msgpack.Decoder(Pulse).decode


def pulses(records: Records, worker: int, start_ns: int, end_ns: int) -> list[Pulse]:
    """A worker's beats within a stretch of time, two or more of them, or none.

    A loop that was too busy to beat twice in it is seen up to its end.
    """
    found = []
    for snapshot in records.snapshots:
        if snapshot.worker == worker:
            with contextlib.suppress(msgspec.MsgspecError):  # of a worker of another version: it tells nothing
                found.append(_decode(snapshot.payload))
    found = [pulse for pulse in found if pulse.at_ns >= start_ns]
    inside = [pulse for pulse in found if pulse.at_ns < end_ns]
    chosen = inside if len(inside) > 1 else found
    return chosen if len(chosen) > 1 and chosen[-1].at_ns > chosen[0].at_ns else []


def effort(records: Records, worker: int, stretch: Stretch) -> Effort | None:
    """What the stretch took out of one worker; None where it beat less than twice."""
    beats = pulses(records, worker, *stretch)
    if not beats:
        return None
    first, last = beats[0], beats[-1]
    lag = Histogram()
    for beat in beats[1:]:
        lag.merge(Histogram.unpack(beat.lag))
    share = (last.cpu_s - first.cpu_s) * 1e9 / (last.at_ns - first.at_ns)
    return Effort(share, describe_histogram(lag, STANDARD_PERCENTILES, 1e-6))


def handled(records: Records, stretch: Stretch) -> tuple[float, float]:
    """(requests and attempts that ended, output events that came), each per second of the stretch. Events of attempts are not kept."""
    length_s = stretch.length_s or float("inf")  # nothing happened: rates of 0
    ended = sum(
        int(np.count_nonzero((heads["end_ns"] > stretch.start_ns) & (heads["end_ns"] <= stretch.end_ns) & (heads["sent_ns"] > 0)))
        for heads in (records.heads, records.attempts)
    )
    heads = records.heads
    streamed = np.flatnonzero((heads["flags"] & fmt.STREAMED > 0) & (heads["first_output_ns"] > 0))
    events = output_inside(records, streamed, heads["events"][streamed].astype(np.float64), stretch)
    return ended / length_s, float(events.sum()) / length_s
