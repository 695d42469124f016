"""From the records of one plan to its summary.

Knows records and the plan's facts, and reads nothing else: the same files always give the same summary, whatever the number of
workers they were split over. Judges nothing (`verdict.py`).
Law: every final frame is counted once, by its outcome; attempts that a retry followed are counted beside and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from clients.errors import Outcome
from loadgen import records as fmt
from loadgen import stretch
from loadgen.accounting import account_all, account_workers, count_outcomes
from loadgen.goodput import goodput_of
from loadgen.lateness import lateness
from loadgen.measures import Measuring, completion_tokens
from loadgen.percentiles import describe
from loadgen.proof import prove
from loadgen.steadiness import find_warm_up, little, steadiness
from loadgen.strain import effort, handled
from loadgen.summary import Attempts, Batches, Failure, HeldBack, Summary, Tokens, Wasted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from loadgen.offered import Offered
    from loadgen.plan_facts import PlanFacts
    from loadgen.recorded import Records
    from loadgen.strain import Effort
    from loadgen.summary import WorkerSummary


def reduce(records: Records, facts: PlanFacts) -> Summary:
    """Summarise one plan. Raises ValueError for records that cannot be of this plan (of a worker it does not have)."""
    heads = records.heads
    workers = account_workers(records, facts)
    accounting = account_all(records, workers, facts)
    due, end, ok = heads["due_ns"], heads["end_ns"], heads["outcome"] == Outcome.OK
    start_ns = max((file.counters["start_ns"] for file in records.files), default=0)
    measuring = Measuring(records, facts.percentiles, start_ns=start_ns)
    window = stretch.window(due, end, start_ns, facts)
    steady, absent = stretch.steady_stretch(due, end, records.worker, heads["lane"], facts, window)
    if facts.open_loop and facts.even and steady is not None:
        steady, absent = find_warm_up(measuring.series(steady)[0], steady)
    whole = measuring.within(window, whole=True)
    steady_measures = None if steady is None else measuring.within(steady, whole=False)
    ranked = window if steady is None else steady
    ended_rps, events_rps = handled(records, ranked)
    finishes = _finishes(heads["finish"][ok])
    judged = len(heads) - accounting.cancelled  # what we cancelled says nothing of the server
    return Summary(
        label=facts.label,
        max_concurrent=facts.max_concurrent,
        batch_size=facts.batch_size,
        requests=len(heads),
        ok=accounting.ok,
        success_rate=accounting.ok / judged if judged else None,
        whole=whole,
        steady=steady_measures,
        steady_absent=absent,
        batch_means=measuring.work.slice_rates(ranked),
        failures=_failures(records, measuring.percents),
        finishes=finishes,
        length_share=finishes.get("length", 0) / accounting.ok if finishes.keys() - {"none"} else None,
        attempts=_attempts(records),
        tokens=_tokens(heads, np.flatnonzero(ok)),
        wasted=_wasted(heads, np.flatnonzero(~ok)),
        batches=None if facts.batch_size is None else _batches(heads, facts, measuring.percents),
        accounting=accounting,
        workers=[_with_effort(worker, effort(records, worker.worker, ranked)) for worker in workers],
        itl_source="histogram" if measuring.from_histogram else "records",
        notes=[f"{refusal.path} was not read: {refusal.reason}" for refusal in records.refused],
        ended_rps=ended_rps,
        events_rps=events_rps,
        goodput=goodput_of(heads, window, facts.objectives, facts.attainment),
        # The start burst of a closed loop is like no later moment: without a stretch after it, nothing is said of lateness.
        lateness=None if steady is None and not facts.open_loop else lateness(records, ranked, facts),
        steadiness=steadiness(
            measuring.series(ranked),
            little(heads["sent_ns"], heads["end_ns"], (steady_measures or whole).in_flight_mean, ranked),
            steady=steady,
            window=window,
            origin_ns=measuring.origin_ns,
            facts=facts,
        ),
        held_back=_held_back(heads, measuring.percents) if facts.open_loop else None,
        offered=_offered(records, facts, window, start_ns),
    )


def _held_back(heads: NDArray[np.void], percents: Sequence[float]) -> HeldBack:
    """Whatever became of them after."""
    held = heads[heads["flags"] & fmt.HELD_BACK > 0]
    sent = held[held["sent_ns"] > 0]
    dropped = int(np.count_nonzero(held["outcome"] == Outcome.DROPPED))
    return HeldBack(started_late=len(held) - dropped, dropped=dropped, wait=describe((sent["sent_ns"] - sent["due_ns"]) / 1e9, percents))


def _offered(records: Records, facts: PlanFacts, window: stretch.Stretch, start_ns: int) -> Offered | None:
    """A request arrives once: by its first attempt, whatever was tried after it."""
    if facts.schedule is None:
        return None
    index, due, sent = (
        np.concatenate([rows[name][rows["attempt"] <= 1] for rows in (records.heads, records.attempts)])
        for name in ("index", "due_ns", "sent_ns")
    )
    if facts.duration_s is None:  # it ends with the last due, and only the answers come after
        window = window._replace(end_ns=min(window.end_ns, int(due.max(initial=window.start_ns)) + 1))
    return prove(index, due, sent, facts.schedule, window, start_ns=start_ns, count=facts.count)


def _with_effort(worker: WorkerSummary, known: Effort | None) -> WorkerSummary:
    return worker if known is None else msgspec.structs.replace(worker, cpu_share=known.cpu_share, loop_lag=known.loop_lag)


def _finishes(codes: NDArray[np.uint8]) -> dict[str, int]:
    counts = np.bincount(codes, minlength=len(fmt.FINISHES)).tolist()
    return {name: count for name, count in zip(fmt.FINISHES, counts, strict=True) if count}


def _failures(records: Records, percents: Sequence[float]) -> dict[str, Failure]:
    """By label of the outcome, most frequent first."""
    heads = records.heads
    failures = {}
    for outcome, count in count_outcomes(heads["outcome"]).most_common():
        if outcome is Outcome.OK:
            continue
        rows = np.flatnonzero(heads["outcome"] == outcome)
        latency = describe((heads["end_ns"][rows] - heads["due_ns"][rows]) / 1e9, percents)
        assert latency is not None  # there is at least one of each outcome found
        statuses, times = np.unique(heads["status"][rows], return_counts=True)
        failures[outcome.label] = Failure(
            count=count,
            fault=outcome.fault,
            statuses={str(status): n for status, n in zip(statuses.tolist(), times.tolist(), strict=True) if status},
            latency=latency,
            example=records.error(int(rows[0])),
        )
    return failures


def _attempts(records: Records) -> Attempts:
    return Attempts(
        count=len(records.attempts),
        errors={outcome.label: n for outcome, n in count_outcomes(records.attempts["outcome"]).most_common()},
        reconnects=int(records.heads["reconnects"].sum(dtype=np.int64) + records.attempts["reconnects"].sum(dtype=np.int64)),
    )


def _tokens(heads: NDArray[np.void], ok: NDArray[np.int64]) -> Tokens:
    told = int(np.count_nonzero(heads["flags"][ok] & fmt.HAS_USAGE))
    source: Literal["usage", "events", "mixed"] = "usage" if told == len(ok) else "mixed" if told else "events"
    return Tokens(
        source=source,
        with_usage=told,
        prompt=_sum_known(heads["prompt_tokens"][ok]) or 0,
        completion=int(completion_tokens(heads, ok).sum()),
        cached=_sum_known(heads["cached_tokens"][ok]),
        reasoning=_sum_known(heads["reasoning_tokens"][ok]),
        events=int(heads["events"][ok].sum(dtype=np.int64)),
    )


def _sum_known(counts: NDArray[np.int32]) -> int | None:
    known = counts[counts >= 0]
    return int(known.sum(dtype=np.int64)) if len(known) else None


def _wasted(heads: NDArray[np.void], failed: NDArray[np.int64]) -> Wasted:
    taken = heads["end_ns"] - heads["due_ns"]
    return Wasted(
        requests=len(failed),
        output_tokens=int(completion_tokens(heads, failed).sum()),
        time_share=float(taken[failed].sum() / taken.sum()) if taken.any() else 0.0,
    )


def _batches(heads: NDArray[np.void], facts: PlanFacts, percents: Sequence[float]) -> Batches:
    """Makespans of whole batches, and what their barriers cost (DESIGN.md, "batch_size")."""
    assert facts.batch_size is not None
    numbers, place, sizes = np.unique(heads["batch"], return_inverse=True, return_counts=True)
    first = np.full(len(numbers), np.iinfo(np.int64).max)
    last = np.zeros(len(numbers), np.int64)
    busy = np.zeros(len(numbers), np.int64)
    np.minimum.at(first, place, heads["due_ns"])
    np.maximum.at(last, place, heads["end_ns"])
    np.add.at(busy, place, heads["end_ns"] - heads["due_ns"])
    expected = np.full(len(numbers), facts.batch_size)
    if facts.count is not None:
        expected = np.minimum(expected, facts.count - numbers * facts.batch_size)
    whole = sizes == expected
    lanes = -(-facts.max_concurrent // facts.batch_size)
    lane = numbers % lanes
    slots = facts.max_concurrent // lanes + (lane < facts.max_concurrent % lanes)
    followed = whole & np.isin(numbers + lanes, numbers)  # the last batch of a lane waits for nothing: no barrier
    held = float((slots * (last - first))[followed].sum())
    return Batches(
        size=facts.batch_size,
        count=int(np.count_nonzero(whole)),
        makespan=describe((last - first)[whole] / 1e9, percents),
        straggler_waste=1 - float(busy[followed].sum()) / held if held else None,
    )
