"""Does every request that was scheduled have an end? The identity of DESIGN.md, per worker and merged.

Knows counts only. Frames are counted from the files; scheduled, unsent and in flight come from the plan's shares and from the
counters in the files' headers, which are stored apart from the frames: a frame that is missing or there twice shows.
Law: a worker that was killed loses nothing but what it had in flight, so its identity closes too; `problems` are for the rest.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from clients.errors import Outcome
from loadgen.summary import Accounting, WorkerSummary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from loadgen.plan_facts import PlanFacts
    from loadgen.recorded import RecordFile, Records

TERMS = ("ok", "failed", "timed_out", "cancelled", "dropped")


def account_workers(records: Records, facts: PlanFacts) -> list[WorkerSummary]:
    """One entry for each worker that the plan started, with a file or without."""
    files = {file.worker: file for file in records.files}
    summaries = []
    for worker in range(facts.workers):
        share = facts.shares[worker] if facts.shares else None
        file = files.pop(worker, None)
        if file is None:
            summaries.append(WorkerSummary(worker=worker, state="lost", accounting=_nothing(share), in_flight_peak=0))
            continue
        outcomes = records.heads["outcome"][records.worker == worker]
        summaries.append(
            WorkerSummary(
                worker=worker,
                state="ended" if file.ended else "lost",
                accounting=_account(file, _terms(outcomes), share),
                in_flight_peak=file.counters["in_flight_peak"],
            )
        )
    for extra in files.values():
        raise ValueError(f"records of worker {extra.worker}, but the plan has {facts.workers} workers ({extra.path})")
    return summaries


def account_all(records: Records, workers: Sequence[WorkerSummary], facts: PlanFacts) -> Accounting:
    """The sum over workers, and what only shows when they are seen together."""
    merged = Accounting.merged([(f"worker {worker.worker}", worker.accounting) for worker in workers])
    problems = list(merged.problems)
    index = records.heads["index"]
    if twice := int(np.count_nonzero(np.diff(np.sort(index)) == 0)):
        problems.append(f"{twice} requests have more than one final record")
    if facts.count is not None:
        if len(index) and int(index.max()) >= facts.count:
            problems.append(f"request {int(index.max())} is recorded, but there were {facts.count}")
        if sum(facts.shares) != facts.count:
            problems.append(f"the shares of the workers add up to {sum(facts.shares)}, not to {facts.count}")
    return msgspec.structs.replace(merged, problems=problems)


def _account(file: RecordFile, terms: dict[str, int], share: int | None) -> Accounting:
    counters = file.counters
    finals, finished = sum(terms.values()), counters["finished"]
    if not file.ended and finals == finished + 1:
        finished = finals  # killed between a frame and its counter
    problems = [file.damage] if file.damage else []
    if share is not None and file.share != share:
        problems.append(f"its file says a share of {file.share}, the plan {share}")
    scheduled = counters["scheduled"] if share is None else share
    in_flight = counters["sent"] - (finished - terms["dropped"])  # a dropped one was never handed to the transport
    unsent = scheduled - counters["sent"] - terms["dropped"]
    if in_flight < 0 or unsent < 0:
        problems.append(f"more ended than was sent, or more sent than scheduled: {counters}")
    if file.ended and in_flight > 0 and not file.damage:
        problems.append(f"ended with {in_flight} requests in flight")
    residual = scheduled - finals - unsent - in_flight
    return Accounting(scheduled=scheduled, **terms, unsent=unsent, in_flight=in_flight, residual=residual, problems=problems)


def _nothing(share: int | None) -> Accounting:
    """A worker that left no file: nothing of its share is known to have been sent."""
    none = dict.fromkeys(TERMS, 0)
    return Accounting(scheduled=share or 0, **none, unsent=share or 0, in_flight=0, residual=0, problems=["left no readable records"])


def count_outcomes(codes: NDArray[np.uint8]) -> Counter[Outcome]:
    """How many of each."""
    counts = np.bincount(codes, minlength=1)
    return Counter({Outcome(code): int(counts[code]) for code in np.flatnonzero(counts).tolist()})


def _terms(codes: NDArray[np.uint8]) -> dict[str, int]:
    terms = dict.fromkeys(TERMS, 0)
    for outcome, count in count_outcomes(codes).items():
        terms[outcome.counted_as] += count
    return terms
