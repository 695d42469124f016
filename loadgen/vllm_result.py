"""The numbers of `vllm bench serve`, by its own definitions, from the records of a run.

Knows records and vLLM's formulas (benchmarks/serve.py of 0.32, `calculate_metrics`); must not know its layout, files or flags. The report and
the verdict of a run do not come from here. Law: latency runs from sent and ends with the last output; ITL is between events; percentiles are
NumPy's; where there is no value, None: vLLM says 0. What is not copied are its faults: a chunk without output is no token.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from clients.errors import Outcome
from loadgen.measures import completion_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from loadgen.datasets.sample import Sample
    from loadgen.objectives import Objective
    from loadgen.recorded import Records


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """In milliseconds; None where there is no value. std: of the population, as vLLM's."""

    mean: float | None
    median: float | None
    std: float | None
    percentiles: tuple[tuple[float, float | None], ...]


class Requests:
    """The requests of a run in the order of the data set, as arrays of seconds (n,). Times of what did not happen are 0, as vLLM has them.

    begin_ns: the run's start instant. queue_s: in the client. Of an open loop from due to sent; of a closed one from the beginning, when vLLM's client holds all requests at once.
    """

    def __init__(self, records: Records, samples: Sequence[Sample], *, closed: bool) -> None:
        order = np.argsort(records.heads["index"], kind="stable")
        heads = records.heads[order]
        self._records = records
        self._order = order
        self.ok = heads["outcome"] == Outcome.OK
        self.had_output = self.ok & (heads["first_output_ns"] > 0)
        sent, due, end = heads["sent_ns"], heads["due_ns"], heads["end_ns"]
        was_sent = sent > 0
        first, last = heads["first_output_ns"], heads["last_output_ns"]
        self.start_s = sent / 1e9
        self.ttft_s = np.where(self.had_output, first - sent, 0) / 1e9
        self.latency_s = np.where(self.had_output, last - sent, np.where(self.ok, end - sent, 0)) / 1e9
        starts = [file.counters["start_ns"] for file in records.files if file.counters["start_ns"]]
        self.begin_ns = min(starts, default=int(due.min()) if len(due) else 0)
        arrived = self.begin_ns if closed else due
        self.queue_s = np.where(was_sent, sent - arrived, 0) / 1e9
        self.output_lens = np.where(self.ok, completion_tokens(heads, np.arange(len(heads))), 0).astype(np.int64)
        own = np.array([samples[int(index)].input_len for index in heads["index"]], np.int64)
        self.input_lens = np.where(self.ok & (heads["prompt_tokens"] >= 0), heads["prompt_tokens"], own)
        self.duration_s = (int(end.max()) - self.begin_ns) / 1e9 if len(heads) else 0.0
        self._first_s = first / 1e9

    @property
    def tpot_s(self) -> NDArray[np.float64]:
        """Time per output token after the first, of each request; 0 for one of a single token."""
        several = self.had_output & (self.output_lens > 1)
        return np.where(several, (self.latency_s - self.ttft_s) / np.maximum(self.output_lens - 1, 1), 0.0)

    def gaps_s(self) -> list[NDArray[np.float64]]:
        """Between the events of each request."""
        found: list[NDArray[np.float64]] = [np.zeros(0)] * len(self.ok)
        place = np.empty(len(self._order), np.int64)  # of a row of the records in our order
        place[self._order] = np.arange(len(self._order))
        for block in self._records.gaps(np.arange(len(self._records))):
            pieces = np.split(block.gaps / 1e6, np.cumsum(block.counts)[:-1])
            for row, piece in zip(block.rows, pieces, strict=True):
                found[place[row]] = piece
        return found

    def errors(self) -> list[str]:
        """The message of each failed request, "" of the others."""
        return ["" if ok else self._records.error(int(row)) for ok, row in zip(self.ok, self._order, strict=True)]

    def peaks(self, gaps: Sequence[NDArray[np.float64]]) -> tuple[float, int]:
        """The most output events in a second, and the most requests that were under way in some part of one: seconds since the first sent."""
        if not self.ok.any():
            return 0.0, 0
        begin_s = float(self.start_s[self.ok].min())
        starts = (self.start_s[self.ok] - begin_s).astype(np.int64)
        ends = (self.start_s[self.ok] + self.latency_s[self.ok] - begin_s).astype(np.int64)
        requests = np.zeros(int(ends.max()) + 2, np.int64)
        np.add.at(requests, starts, 1)
        np.add.at(requests, ends + 1, -1)
        events = np.zeros(int(ends.max()) + 1, np.int64)
        for row in np.flatnonzero(self.had_output).tolist():
            at_s = self._first_s[row] - begin_s + np.concatenate([[0.0], np.cumsum(gaps[row])])
            np.add.at(events, np.minimum(at_s.astype(np.int64), len(events) - 1), 1)
        return float(events.max()), int(np.cumsum(requests).max())


def metric(values_s: NDArray[np.float64], percents: Sequence[float]) -> Metric:
    """One quantity over requests or gaps, in seconds."""
    if not len(values_s):
        return Metric(mean=None, median=None, std=None, percentiles=tuple((percent, None) for percent in percents))
    return Metric(
        mean=float(np.mean(values_s)) * 1e3,
        median=float(np.median(values_s)) * 1e3,
        std=float(np.std(values_s)) * 1e3,
        percentiles=tuple((percent, float(np.percentile(values_s, percent)) * 1e3) for percent in percents),
    )


def metrics(requests: Requests, gaps: Sequence[NDArray[np.float64]], percents: Sequence[float]) -> dict[str, Metric]:
    """All that can be asked for, by vLLM's names: of successful requests, in its order."""
    ok, had = requests.ok, requests.had_output
    own = [gaps[row] for row in np.flatnonzero(had).tolist()]
    values = {
        "ttft": requests.ttft_s[had],
        "tpot": requests.tpot_s[had & (requests.output_lens > 1)],
        "itl": np.concatenate(own) if own else np.zeros(0),
        "e2el": requests.latency_s[ok],
        "client_queue_time": requests.queue_s[ok],
        "e2el_including_client_queue": requests.latency_s[ok] + requests.queue_s[ok],
    }
    return {name: metric(found, percents) for name, found in values.items()}


def totals(requests: Requests, gaps: Sequence[NDArray[np.float64]], objectives: Sequence[Objective]) -> dict[str, Any]:
    """Counts and rates, by vLLM's keys. request_goodput: None where nothing was asked of a request."""
    ok, duration_s = requests.ok, requests.duration_s or math.inf
    completed, tokens_in, tokens_out = int(ok.sum()), int(requests.input_lens[ok].sum()), int(requests.output_lens.sum())
    events_per_s, in_flight = requests.peaks(gaps)
    return {
        "duration": requests.duration_s,
        "completed": completed,
        "failed": len(ok) - completed,
        "total_input_tokens": tokens_in,
        "total_output_tokens": tokens_out,
        "request_throughput": completed / duration_s,
        "request_goodput": int(_good(requests, objectives).sum()) / duration_s if objectives else None,
        "output_throughput": tokens_out / duration_s,
        "total_token_throughput": (tokens_in + tokens_out) / duration_s,
        "max_output_tokens_per_s": events_per_s,
        "max_concurrent_requests": in_flight,
        "rtfx": 0.0,
    }


def details(requests: Requests, gaps: Sequence[NDArray[np.float64]]) -> dict[str, list[Any]]:
    """The values of every request, by vLLM's keys, beyond `brief`. No text is kept by a worker that measures: each is None."""
    return {
        "input_lens": requests.input_lens.tolist(),
        "output_lens": requests.output_lens.tolist(),
        "ttfts": requests.ttft_s.tolist(),
        "itls": [one.tolist() for one in gaps],
        "start_times": requests.start_s.tolist(),
        "generated_texts": [None] * len(requests.ok),
        "errors": requests.errors(),
    }


def brief(requests: Requests) -> dict[str, list[Any]]:
    """The two lists that vLLM leaves in every result."""
    return {"latencies": requests.latency_s.tolist(), "queue_times": requests.queue_s.tolist()}


def _good(requests: Requests, objectives: Sequence[Objective]) -> NDArray[np.bool_]:
    """Successful requests that keep every objective, latency from sent; one without output has no TTFT to keep."""
    values = {"ttft": np.where(requests.had_output, requests.ttft_s, np.inf), "tpot": requests.tpot_s, "e2el": requests.latency_s}
    good: NDArray[np.bool_] = requests.ok.copy()
    for objective in objectives:
        good &= values[objective.metric] <= objective.limit_s
    return good
