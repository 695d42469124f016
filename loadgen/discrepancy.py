"""What the records say of a rung, held against what the server says of it.

Knows records, the metronome's truth file and its planned times; knows no process and judges nothing (`selftest.py`).
Law: a request is compared only with the server's own account of the same answer (joined by the CRC-32 of its id; one that two
answers share is left out, and counted); a stamp of one side is never taken for one of the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from clients.errors import Outcome
from loadgen import records as fmt
from loadgen.selftest import Error, Rung
from loadgen.simulator import truth as server
from loadgen.strain import pulses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from loadgen.recorded import Records
    from loadgen.selftest import Mode

_STOP = fmt.FINISHES.index("stop")


class Window(NamedTuple):
    """The settled part of a rung, on the shared monotonic clock."""

    start_ns: int
    end_ns: int

    def holds(self, at_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
        return (at_ns >= self.start_ns) & (at_ns < self.end_ns)

    @property
    def length_s(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9


class Pace(NamedTuple):
    """The metronome's plan."""

    ttft_ns: int
    itl_ns: int
    lockstep: bool


class Account:
    """The servers' requests, by column; tokens_ns: of all of them, one request after another, `first` and `count` say which."""

    def __init__(self, truths: Sequence[NDArray[np.void]]) -> None:
        arrived, tokens, ended = (
            [truth[truth["kind"] == kind] for truth in truths] for kind in (server.ARRIVED, server.TOKEN, server.ENDED)
        )
        # Servers number their requests from 0: the upper half tells the server.
        requests = _numbered(arrived)
        order = np.argsort(requests)
        self.crc = np.concatenate([rows["aux"] for rows in arrived])[order]
        self.arrived_ns = np.concatenate([rows["t_ns"] for rows in arrived]).astype(np.int64)[order]
        requests = requests[order]
        owners = _numbered(tokens)
        order = np.lexsort((np.concatenate([rows["aux"] for rows in tokens]), owners))
        owners = owners[order]
        self.tokens_ns = np.concatenate([rows["t_ns"] for rows in tokens]).astype(np.int64)[order]
        self.first = np.searchsorted(owners, requests)
        self.count = np.searchsorted(owners, requests, side="right") - self.first
        self.ended_ns = np.zeros(len(requests), np.int64)
        self.ended_ns[np.searchsorted(requests, _numbered(ended))] = np.concatenate([rows["t_ns"] for rows in ended])

    def late_ns(self, pace: Pace, window: Window) -> NDArray[np.int64]:
        """Actual minus planned, of the tokens that left in the window; of answers that were not streamed, of their end."""
        if not len(self.tokens_ns):
            return (self.ended_ns - self.arrived_ns - pace.ttft_ns)[window.holds(self.ended_ns)]
        start = self.arrived_ns + pace.ttft_ns
        if pace.lockstep:
            start = -(-start // pace.itl_ns) * pace.itl_ns
        place = np.arange(len(self.tokens_ns)) - np.repeat(self.first, self.count)
        late = self.tokens_ns - np.repeat(start, self.count) - place * pace.itl_ns
        return late[window.holds(self.tokens_ns)]

    def rows_of(self, heads: NDArray[np.void]) -> NDArray[np.int64]:
        """The account's row of each record; -1 where it has none, or not as many tokens as the record has events.

        A token that ends an answer of itself (EOS) has no text: it is none of the client's events.
        """
        known, at, times = np.unique(self.crc, return_index=True, return_counts=True)
        crc = heads["answer_crc"]
        _, back, same = np.unique(crc, return_inverse=True, return_counts=True)
        if not len(known):
            return np.full(len(heads), -1)
        place = np.searchsorted(known, crc).clip(max=len(known) - 1)
        rows = at[place]
        streamed = heads["flags"] & fmt.STREAMED > 0
        whole = heads["outcome"] == Outcome.OK
        events, tokens = heads["events"].astype(np.int64), self.count[rows] - (heads["finish"] == _STOP)
        agrees = ~streamed | np.where(whole, events == tokens, events <= tokens)
        sound = (crc != 0) & (known[place] == crc) & (times[place] == 1) & (same[back] == 1) & agrees
        return np.where(sound, rows, -1)


def compare(
    records: Records, truths: Sequence[NDArray[np.void]], *, mode: Mode, streams: int, workers: int, window: Window, pace: Pace
) -> Rung:
    """One rung. window: what is compared; before it, the start's burst settles."""
    heads = records.heads
    account = Account(truths)
    row = account.rows_of(heads)
    outcome = heads["outcome"]
    ok = outcome == Outcome.OK
    due, output, end = heads["due_ns"], heads["first_output_ns"], heads["end_ns"]
    found = row >= 0
    begun = np.flatnonzero(found & (output > 0) & (account.count[row] > 0))
    ttft = output[begun] - due[begun] - (account.tokens_ns[account.first[row[begun]]] - account.arrived_ns[row[begun]])
    sent_lag = heads["sent_ns"][begun] - due[begun]
    at_start = due[begun] == due.min(initial=np.iinfo(np.int64).max)
    done = np.flatnonzero(found & ok & window.holds(due))
    latency = end[done] - due[done] - (account.ended_ns[row[done]] - account.arrived_ns[row[done]])
    stamps, owners, itl, coalesced = _gaps(records, row, account, window)
    requests = mode == "requests"
    if requests:
        stamps, owners = end[ok], records.worker[ok]
    cpu = [_cpu(records, worker, stamps[owners == worker], window) for worker in range(workers)]
    known = [one for one in cpu if one is not None]
    units = sum(one.units for one in known)
    return Rung(
        mode=mode,
        streams=streams,
        workers=workers,
        events_rps=0.0 if requests else int(np.count_nonzero(window.holds(stamps))) / window.length_s,
        requests_rps=int(np.count_nonzero(ok & window.holds(end))) / window.length_s,
        cpu_s=sum(one.cpu_s for one in known) / units if units and len(known) == workers else None,
        cpu_share=sum(one.cpu_s / one.length_s for one in known) / workers if len(known) == workers else None,
        ttft=_error(ttft[window.holds(due[begun])]),
        ttft_from_sent=_error((ttft - sent_lag)[window.holds(due[begun])]),
        itl=_error(itl),
        latency=_error(latency),
        send_lag=_error(sent_lag[window.holds(due[begun])]),
        transit=_error((account.arrived_ns[row[begun]] - heads["sent_ns"][begun])[window.holds(due[begun])]),
        start=_error(ttft[at_start]),
        server_late=_error(account.late_ns(pace, window)),
        ok=int(np.count_nonzero(ok)),
        failed=int(np.count_nonzero(~ok & (outcome != Outcome.CANCELLED))),
        unmatched=int(np.count_nonzero(~found & (ok | (output > 0)))),
        coalesced_share=coalesced,
    )


def _gaps(
    records: Records, row: NDArray[np.int64], account: Account, window: Window
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], float | None]:
    """(stamp of every output event, its worker, error of each gap that ended in the window, share of events that came with another)."""
    heads, worker = records.heads, records.worker
    streamed = np.flatnonzero((heads["flags"] & fmt.STREAMED > 0) & (heads["first_output_ns"] > 0))
    stamps, owners, errors = [heads["first_output_ns"][streamed]], [worker[streamed]], [np.zeros(0, np.int64)]
    together = seen = 0
    for block in records.gaps(streamed):
        gaps_ns = block.gaps.astype(np.int64) * 1000
        before = np.cumsum(block.counts) - block.counts
        sums = np.cumsum(gaps_ns)
        at = np.repeat(heads["first_output_ns"][block.rows] - (sums - gaps_ns)[before], block.counts) + sums
        stamps.append(at)
        owners.append(np.repeat(worker[block.rows], block.counts))
        inside = window.holds(at)
        together += int(np.count_nonzero(inside & (gaps_ns == 0)))
        seen += int(np.count_nonzero(inside))
        # The gap after event k of a request is the one between its tokens k and k + 1.
        place = np.arange(len(gaps_ns)) - np.repeat(before, block.counts)
        known = np.repeat(row[block.rows] >= 0, block.counts)
        token = (np.repeat(account.first[row[block.rows]], block.counts) + place + 1)[known]
        true_ns = account.tokens_ns[token] - account.tokens_ns[token - 1]
        errors.append((gaps_ns[known] - true_ns)[window.holds(account.tokens_ns[token])])
    return np.concatenate(stamps), np.concatenate(owners), np.concatenate(errors), together / seen if seen else None


class _Cpu(NamedTuple):
    """What one worker used between two of its beats, and the units that it received meanwhile."""

    cpu_s: float
    length_s: float
    units: int


def _cpu(records: Records, worker: int, stamps: NDArray[np.int64], window: Window) -> _Cpu | None:
    """Between the first and the last beat of the settled window."""
    beats = pulses(records, worker, *window)
    if not beats:
        return None
    first, last = beats[0], beats[-1]
    units = int(np.count_nonzero((stamps >= first.at_ns) & (stamps < last.at_ns)))
    return _Cpu(last.cpu_s - first.cpu_s, (last.at_ns - first.at_ns) / 1e9, units)


def _numbered(parts: Sequence[NDArray[np.void]]) -> NDArray[np.int64]:
    return np.concatenate([rows["request"].astype(np.int64) + (number << 32) for number, rows in enumerate(parts)])


def _error(differences_ns: NDArray[np.int64]) -> Error | None:
    if not len(differences_ns):
        return None
    p50, p99, most = np.percentile(np.abs(differences_ns), (50, 99, 100)) / 1e9
    return Error(count=len(differences_ns), p50_s=float(p50), p99_s=float(p99), max_s=float(most))
