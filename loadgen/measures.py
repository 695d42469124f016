"""What requests took within one stretch of a run.

Knows the arrays of one plan's final frames; knows no verdict and no other plan.
Law: percentiles are of successful requests due in the stretch, followed to their end, however late; rates are of what
happened in the stretch, whenever it was due.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from clients.errors import Outcome
from loadgen import records as fmt
from loadgen.arrivals import EXACT_GAPS, output_inside, pool_gaps
from loadgen.distribution import STANDARD_PERCENTILES
from loadgen.percentiles import describe
from loadgen.steadiness import Series
from loadgen.stretch import Work, intervals
from loadgen.summary import Measures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from loadgen.distribution import Distribution
    from loadgen.recorded import Records
    from loadgen.stretch import Stretch


class Measuring:
    """The final frames of one plan, ready to be measured over any stretch. percents: beyond the standard ones.

    start_ns: the plan's start instant, 0 where it is not known; then the first due stands for it.
    """

    def __init__(self, records: Records, percents: Sequence[float] = (), exact_gaps: int = EXACT_GAPS, start_ns: int = 0) -> None:
        heads = records.heads
        self.percents = tuple(sorted({*STANDARD_PERCENTILES, *percents}))
        self.from_histogram = False  # whether any stretch had too many gaps to pool exactly
        self._records = records
        self._exact_gaps = exact_gaps
        ok = np.flatnonzero(heads["outcome"] == Outcome.OK)
        # By due, however they are dealt to files: how surely a percentile is known depends on what follows what.
        self._rows = ok[
            np.lexsort((heads["index"][ok], heads["due_ns"][ok]))
        ]  # all below are of successful requests, but for the next three
        self._in_flight = intervals(heads["sent_ns"], heads["end_ns"])
        self._all_due = heads["due_ns"]
        self.origin_ns = start_ns or (int(heads["due_ns"].min()) if len(heads) else 0)
        # A column at a time: whole rows would copy the file.
        self._due, self._sent, self._end = (heads[name][self._rows] for name in ("due_ns", "sent_ns", "end_ns"))
        self._output, self._last = heads["first_output_ns"][self._rows], heads["last_output_ns"][self._rows]
        self.work = Work.of(self._due, self._end, self._output, self._last)
        self._answer = heads["first_answer_ns"][self._rows]
        self._streamed = (heads["flags"][self._rows] & fmt.STREAMED > 0) & (self._output > 0)  # else all output comes with the end
        self._completion = completion_tokens(heads, self._rows)
        self._prompt = heads["prompt_tokens"][self._rows].clip(0).astype(np.float64)
        # Where not known, an event is taken for a token, as vLLM does.
        self._first_tokens = np.maximum(heads["first_event_tokens"][self._rows], 1)

    def series(self, stretch: Stretch) -> list[Series]:
        """Latency of the requests due in the stretch, and the TTFT of those that have one, in the order of time."""
        first, last = np.searchsorted(self._due, stretch).tolist()
        due, output = self._due[first:last], self._output[first:last]
        streamed = self._streamed[first:last]
        found = [Series("latency", due, (self._end[first:last] - due) / 1e9)]
        if streamed.any():
            found.append(Series("ttft", due[streamed], (output - due)[streamed] / 1e9))
        return found

    def within(self, stretch: Stretch, *, whole: bool) -> Measures:
        """Measure one stretch.

        whole: it is the measuring window, and a request is completed in it or not. Else it is a part, and each request counts by
        the share of it that was done inside (`stretch.Work`).
        """
        due = stretch.holds(self._due)
        completed = ((self._end > stretch.start_ns) & (self._end <= stretch.end_ns)).astype(np.float64)
        credit = completed if whole else self.work.inside(stretch)
        streamed = self._streamed
        output = credit * self._completion
        output[streamed] = output_inside(self._records, self._rows[streamed], self._completion[streamed], stretch)
        length_s = stretch.length_s or float("inf")  # nothing happened: rates of 0
        gaps = pool_gaps(self._records, self._rows[due], self.percents, self._exact_gaps)
        self.from_histogram |= gaps.from_histogram
        first = due & streamed
        # Where the first output is the answer there was no reasoning, and nothing differs from TTFT.
        reasoned = first & (self._answer > self._output)
        paced = self._completion - self._first_tokens
        several = first & (paced > 0) & (self._last > self._output)
        return Measures(
            start_s=(stretch.start_ns - self.origin_ns) / 1e9,
            end_s=(stretch.end_ns - self.origin_ns) / 1e9,
            requests=int(np.count_nonzero(stretch.holds(self._all_due))),
            ok=int(np.count_nonzero(due)),
            requests_rps=float(credit.sum()) / length_s,
            output_tokens_tps=float(output.sum()) / length_s,
            input_tokens_tps=float((credit * self._prompt).sum()) / length_s,
            latency=self._distribution(self._end[due] - self._due[due]),
            latency_from_sent=self._distribution(self._end[due] - self._sent[due]),
            send_lag=self._distribution(self._sent[due] - self._due[due]),
            ttft=self._distribution(self._output[first] - self._due[first]),
            ttft_from_sent=self._distribution(self._output[first] - self._sent[first]),
            first_answer=self._distribution(self._answer[first & (self._answer > 0)] - self._due[first & (self._answer > 0)])
            if reasoned.any()
            else None,
            itl=gaps.itl,
            itl_per_token=gaps.per_token,
            event_gap=gaps.event_gap,
            largest_gap=gaps.largest,
            tpot=self._distribution((self._last[several] - self._output[several]) / paced[several]),
            coalesced_share=gaps.coalesced_share,
            in_flight_peak=self._in_flight.peak(stretch),
            in_flight_mean=self._in_flight.mean(stretch),
        )

    def _distribution(self, spans_ns: NDArray[np.int64] | NDArray[np.float64]) -> Distribution | None:
        return describe(spans_ns / 1e9, self.percents)


def completion_tokens(heads: NDArray[np.void], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """By the server's usage; where it told none, output events in their place."""
    told = heads["completion_tokens"][rows]
    return np.where(told >= 0, told, heads["events"][rows]).astype(np.float64)
