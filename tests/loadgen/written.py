"""Record files made by hand: what the tests of records, reducer and ranking share. Times are in milliseconds since T0."""

import msgspec

from clients.answer import Answer
from clients.dialects import DIALECTS
from clients.errors import Outcome, request_error
from clients.exchange import Exchange, Request
from clients.usage import Usage
from loadgen.histogram import Histogram
from loadgen.pipe import Beat
from loadgen.plan_facts import PlanFacts
from loadgen.records import RecordWriter
from loadgen.schedule import Schedule

T0 = 5_000_000_000  # ns: any instant but 0, which means "did not happen"
RUN_ID = bytes(range(16))
EVENLY = Schedule.at_rate(100.0, process="constant")  # of what falls due every 10 ms


def at(ms):
    return T0 + round(ms * 1e6)


def exchange(
    due, end, *, sent=None, outputs=(), tokens=None, usage=None, outcome=Outcome.OK, stream=True, finish="stop", message="it broke", **more
):
    """One request that ended. outputs: ms of each output event; tokens: of each of them, where known."""
    made = Exchange(Request(DIALECTS["chat"], b"{}", stream=stream), at(due), keep=False)
    made.sent_ns = at(due if sent is None else sent)
    made.first_byte_ns = at(outputs[0]) if outputs else at(end)
    made.end_ns = at(end)
    made.outcome = outcome
    made.status = 200
    answer = made.answer = Answer(keep=False)
    for place, output in enumerate(outputs):
        answer.output(at(output), True, -1 if tokens is None else tokens[place])
    if usage is not None:
        answer._total = Usage(*usage)
    if outcome is Outcome.OK and finish:
        answer.finish_reasons[0] = finish
    if outcome is not Outcome.OK:
        made.error = request_error(outcome, message)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def beat(ms, cpu_s, late_us=()):
    """A worker's word about itself, as it stands in a snapshot. late_us: what its loop's timer was late by since the one before."""
    lag = Histogram()
    for late in late_us:
        lag.add(late)
    nothing = dict.fromkeys(("sent", "in_flight", "switches", "fds", "anon_kb", "shmem_kb", "file_kb", "gc_ns", "gc_longest_ns"), 0)
    packed = {"latency": Histogram().pack(), "ttft": Histogram().pack(), "lag": lag.pack()}
    return msgspec.msgpack.encode(Beat(at_ns=at(ms), cpu_s=cpu_s, outcomes={}, steal_s=0.0, **packed, **nothing))


def write(path, rows, *, worker=0, workers=1, share=None, unsent=0, close=True, run_id=RUN_ID, plan=0, beats=()):
    """A worker's file. rows: (index, exchange) or (index, exchange, {lane, batch, final, held_back}). beats: payloads of its snapshots."""
    finals = [row for row in rows if len(row) < 3 or row[2].get("final", True)]
    writer = RecordWriter(
        path, run_id=run_id, plan=plan, worker=worker, workers=workers, share=len(finals) + unsent if share is None else share
    )
    writer.scheduled(len(finals) + unsent)
    for row in finals:
        if row[1].outcome is not Outcome.DROPPED:
            writer.sent()
    for index, made, *more in rows:
        settings = {"lane": 0, "batch": -1, "final": True, **(more[0] if more else {})}
        writer.request(made, index=index, phase=0, due_ns=made.due_ns, **settings)
    for payload in beats:
        writer.snapshot(payload)
    if close:
        writer.close()
    return writer


def summarise(directory, rows, *, parts=1, max_concurrent=1, beats=(), **facts):
    """Deal the rows over as many files as there are parts, read them and reduce. beats: of each worker, those of its snapshots."""
    from loadgen.recorded import read_records  # numpy: the subprocesses of test_records start without
    from loadgen.reducer import reduce

    directory.mkdir(exist_ok=True)
    shares, paths = [], []
    for part in range(parts):
        mine = rows[part::parts]
        path = directory / f"worker-{part}-of-{parts}.records"
        write(path, mine, worker=part, workers=parts, beats=beats[part] if beats else ())
        shares.append(len(mine))
        paths.append(path)
    facts = {"label": "x", "shares": tuple(shares), "count": sum(shares), **facts}
    return reduce(read_records(paths), PlanFacts(max_concurrent=max_concurrent, workers=parts, **facts))
