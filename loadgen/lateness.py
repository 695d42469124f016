"""How late the client itself was, apart from what requests waited for a slot.

Knows stamps as arrays; judges nothing (`verdict.py`). Pure. Law: a request is late from when it was due and, of the slots of its worker,
one was free: before that it queues, because the server is slow or the bound on requests in flight is low, and no client could have
sent it. In a closed loop a due is a slot that came free, so both are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from loadgen.evidence import Lateness

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from loadgen.plan_facts import PlanFacts
    from loadgen.recorded import Records
    from loadgen.stretch import Stretch

# A request sent later than this is no longer part of the load that was asked for, whatever latencies are like: users are told apart by
# tenths of a second, and dispersion of arrivals is shown from such windows on.
MISSED_AFTER_S = 0.1


def lateness(records: Records, stretch: Stretch, facts: PlanFacts) -> Lateness | None:
    """Of all final frames due in the stretch, whatever came of them; None where none was, or none could be sent."""
    heads = records.heads
    due, sent, end = (heads[name].copy() for name in ("due_ns", "sent_ns", "end_ns"))  # columns side by side are read ten times as fast
    ready = due.copy()
    for worker in range(facts.workers if facts.open_loop else 0):
        slots = facts.max_concurrent // facts.workers + (worker < facts.max_concurrent % facts.workers)
        mine = np.flatnonzero(records.worker == worker)
        ready[mine] = ready_ns(due[mine], sent[mine], end[mine], slots)
    inside = stretch.holds(due)
    # One that never went out is the client's where a slot was free to the very end.
    went, never = inside & (sent > 0), inside & (sent == 0) & (ready < end)
    if not went.any():
        return None
    late_s = np.maximum(sent[went] - ready[went], 0) / 1e9
    missed = np.count_nonzero(late_s > MISSED_AFTER_S) + np.count_nonzero(never & (end - ready > MISSED_AFTER_S * 1e9))
    requests = int(np.count_nonzero(inside))
    return Lateness(
        requests=requests,
        p50_s=float(np.median(late_s)),
        p99_s=float(np.percentile(late_s, 99, method="lower")),
        largest_s=float(late_s.max()),
        offered_rps=requests / stretch.length_s if facts.open_loop and stretch.length_s else None,
        missed=int(missed) if facts.open_loop else None,
    )


def ready_ns(due_ns: NDArray[np.int64], sent_ns: NDArray[np.int64], end_ns: NDArray[np.int64], slots: int) -> NDArray[np.int64]:
    """When each request of one worker was due and a slot was free for it, (n,).

    Requests get slots in the order in which they are sent, so the k-th of them has one as soon as k - slots of all have ended. One that was
    not sent (0) would have been the next one after all that were sent before its end.
    """
    went = sent_ns > 0
    ends = np.sort(end_ns[went])
    before = np.where(went, 0, np.searchsorted(np.sort(sent_ns[went]), end_ns))
    in_order = np.flatnonzero(went)[np.lexsort((due_ns[went], sent_ns[went]))]  # what one system call sent has one stamp
    before[in_order] = np.arange(len(in_order))
    freed = before - slots
    free_at = np.where(freed >= 0, np.append(ends, np.iinfo(np.int64).max)[np.clip(freed, 0, len(ends))], 0)
    return np.maximum(due_ns, free_at)
