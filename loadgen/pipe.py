"""What parent and worker say to each other: one line of JSON a message, over the worker's stdin and stdout.

Knows the messages; knows nothing of who sends them. Request data never crosses: records go to the worker's own file.
Invariant: every message is one line, of one of the types below, and an unknown one is an error.
"""

from __future__ import annotations

import msgspec

from loadgen.packed import Packed
from loadgen.plan import Plan
from loadgen.target import Target


class Assign(msgspec.Struct, tag="assign", frozen=True, kw_only=True):
    """Parent, first: everything a worker needs. key: travels here and nowhere else. timetable: of an open loop, the file of its dues."""

    plan: Plan
    target: Target
    key: str | None
    worker: int
    run_id: str
    workload: str
    records: str
    timetable: str = ""


class Start(msgspec.Struct, tag="start", frozen=True):
    """Parent, when all are ready: the common start instant, on the shared monotonic clock."""

    start_ns: int


class Stop(msgspec.Struct, tag="stop", frozen=True):
    """Parent: send nothing more; what is in flight has `grace_s`."""

    grace_s: float


class Cancel(msgspec.Struct, tag="cancel", frozen=True):
    """Parent: end what is in flight now."""


class Ready(msgspec.Struct, tag="ready", frozen=True):
    """Worker: the workload is mapped, the record file is open, the loop runs."""

    stamping: str


class Beat(msgspec.Struct, tag="beat", frozen=True, kw_only=True):
    """Worker, once a second and at the end: the counters so far, and how the worker itself fares.

    The same bytes are the snapshot frame of its record file. latency, ttft: histograms of microseconds since the start.
    lag: histogram of the loop's lateness in microseconds in this interval. gc_ns: the pauses of this interval.
    """

    at_ns: int
    sent: int
    in_flight: int
    outcomes: dict[str, int]
    latency: Packed
    ttft: Packed
    lag: Packed
    cpu_s: float
    steal_s: float
    switches: int
    fds: int
    anon_kb: int
    shmem_kb: int
    file_kb: int
    gc_ns: int
    gc_longest_ns: int
    recording_failed: str = ""


class Done(msgspec.Struct, tag="done", frozen=True):
    """Worker, last: everything is recorded and the file is closed."""


class Failed(msgspec.Struct, tag="failed", frozen=True):
    """Worker, instead: it cannot do its part; one line says why."""

    message: str


ToWorker = Assign | Start | Stop | Cancel
ToParent = Ready | Beat | Done | Failed

_encode = msgspec.json.Encoder().encode
decode_for_worker = msgspec.json.Decoder(ToWorker).decode
decode_for_parent = msgspec.json.Decoder(ToParent).decode


def line(message: ToWorker | ToParent) -> bytes:
    """The message as it goes over the pipe."""
    return _encode(message) + b"\n"
