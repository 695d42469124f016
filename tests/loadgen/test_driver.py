"""The driver: slots kept full, turns that are due later, stop and cancel; against a transport that only counts."""

import asyncio
from time import perf_counter_ns

from clients.dialects import DIALECTS
from clients.errors import Outcome, request_error
from clients.messages import Sampling
from loadgen.closed_loop import ClosedLoop
from loadgen.driver import Driver
from loadgen.open_loop import OpenLoop
from loadgen.plan import Plan
from loadgen.recorded import read_records
from loadgen.records import RecordWriter
from loadgen.target import Target
from loadgen.workload import Workload, write_workload

TARGET = Target(base_url="http://127.0.0.1:1/v1", model="m", stream=False)
ANSWER = b'{"id":"x","model":"m","choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}]}'


class InstantTransport:
    """Answers each request on the loop's next turn, or when told; counts what is in flight."""

    name = "instant"
    stamping = "arrival"

    def __init__(self, *, hold=False):
        self.hold = hold
        self.held = []
        self.in_flight = self.peak = 0
        self.early = []
        self.order = []

    def start(self, request, exchange, done):
        now = perf_counter_ns()
        self.early.append(now < exchange.due_ns)
        self.order.append(request.turn)
        exchange.sent_ns = now
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        flight = _Flight(self, exchange, done)
        self.held.append(flight)
        if not self.hold:
            asyncio.get_running_loop().call_soon(flight.answer)
        return flight

    async def close(self):
        pass


class _Flight:
    def __init__(self, transport, exchange, done):
        self.transport, self.exchange, self.done = transport, exchange, done

    def _end(self):
        self.transport.in_flight -= 1
        self.transport.held.remove(self)
        self.done(self.exchange)

    def answer(self):
        now = perf_counter_ns()
        self.exchange.head(now, 200, {"content-type": "application/json"})
        self.exchange.data(now, ANSWER)
        self.exchange.finish(now)
        self._end()

    def cancel(self):
        self.exchange.fail(perf_counter_ns(), request_error(Outcome.CANCELLED, "cancelled"))
        asyncio.get_running_loop().call_soon(self._end)


def drive(tmp_path, plan, transport, *, meanwhile=None, worker=0, timetable=None):
    """Run one worker's share; the records it left."""
    write_workload(tmp_path / "w", ["a", "b", "c"], target=TARGET, sampling=Sampling(), cache="unique")
    writer = RecordWriter(
        tmp_path / "r", run_id=bytes(16), plan=plan.number, worker=worker, workers=plan.workers, share=plan.share(worker) or -1
    )

    async def main():
        finished = asyncio.Event()
        driver = Driver(
            plan,
            ClosedLoop(plan, worker) if timetable is None else OpenLoop(plan, worker, timetable),
            transport=transport,
            dialect=DIALECTS["chat"],
            workload=Workload(tmp_path / "w"),
            writer=writer,
            loop=asyncio.get_running_loop(),
            finished=finished.set,
        )
        driver.begin(perf_counter_ns())
        if meanwhile is not None:
            await meanwhile(driver)
        await asyncio.wait_for(finished.wait(), 10)
        return driver

    driver = asyncio.run(main())
    writer.close()
    return driver, read_records([tmp_path / "r"])


def plan(**settings):
    return Plan(**{"number": 1, "label": "p", "workers": 1, "max_concurrent": 4, "num_requests": 50, **settings})


def test_every_request_is_sent_once_and_recorded(tmp_path):
    """50 requests over 4 slots: 50 final frames with 50 numbers, never more than 4 in flight, none before its due."""
    transport = InstantTransport()
    _, records = drive(tmp_path, plan(), transport)
    assert sorted(records.heads["index"]) == list(range(50))
    assert transport.peak == 4
    assert not any(transport.early)
    assert set(records.heads["outcome"]) == {Outcome.OK}


def test_a_slots_next_request_is_due_when_the_last_byte_of_the_one_before_came(tmp_path):
    """Our own time between the two is send lag: with one slot, each due is the end before it."""
    _, records = drive(tmp_path, plan(max_concurrent=1), InstantTransport())
    heads = records.heads
    assert list(heads["due_ns"][1:]) == list(heads["end_ns"][:-1])
    assert (heads["sent_ns"] >= heads["due_ns"]).all()


def test_a_batch_waits_for_its_barrier_and_the_delay(tmp_path):
    """Batches of 5 over 4 slots (one lane): the sixth request is due when the fifth ended and the delay has passed, and not sent before."""
    transport = InstantTransport()
    _, records = drive(tmp_path, plan(batch_size=5, num_requests=10, delay_between_batches_s=0.05), transport)
    heads = sorted(records.heads, key=lambda head: head["index"])
    barrier = max(head["end_ns"] for head in heads[:5])
    assert min(head["due_ns"] for head in heads[5:]) == barrier + 50_000_000
    assert not any(transport.early)
    assert [int(head["batch"]) for head in heads] == [0] * 5 + [1] * 5


def test_stop_sends_nothing_more_and_lets_the_rest_finish(tmp_path):
    """4 in flight at the stop: they end in order, nobody follows."""
    transport = InstantTransport(hold=True)

    async def meanwhile(driver):
        driver.stop()
        for flight in list(transport.held):
            flight.answer()

    _, records = drive(tmp_path, plan(), transport, meanwhile=meanwhile)
    assert sorted(records.heads["index"]) == [0, 1, 2, 3]
    assert set(records.heads["outcome"]) == {Outcome.OK}


def test_stop_forgets_what_was_only_due_later(tmp_path):
    """A batch lane in its delay has nothing in flight: a stop ends it at once."""
    transport = InstantTransport()

    async def meanwhile(driver):
        while len(transport.order) < 4 or driver.in_flight:
            await asyncio.sleep(0)
        driver.stop()

    _, records = drive(tmp_path, plan(batch_size=4, delay_between_batches_s=3600.0), transport, meanwhile=meanwhile)
    assert len(records.heads) == 4


def test_cancel_ends_what_is_in_flight(tmp_path):
    """Each cancelled request leaves its final frame."""

    async def meanwhile(driver):
        driver.cancel()

    _, records = drive(tmp_path, plan(), InstantTransport(hold=True), meanwhile=meanwhile)
    assert list(records.heads["outcome"]) == [Outcome.CANCELLED] * 4


def test_a_run_by_duration_schedules_what_it_sends(tmp_path):
    """Without a number there is no share: scheduled counts each turn, and prompts wrap around."""
    transport = InstantTransport()

    async def meanwhile(driver):
        while len(transport.order) < 20:
            await asyncio.sleep(0)
        driver.stop()

    driver, records = drive(tmp_path, plan(num_requests=None, duration_s=60.0), transport, meanwhile=meanwhile)
    assert driver.sent >= 20
    assert records.files[0].counters["scheduled"] == driver.sent == len(records.heads)


def test_a_worker_sends_its_own_share_only(tmp_path):
    """Worker 1 of 2 with 4 slots: requests 1, 3, 5, … in two slots."""
    transport = InstantTransport()
    _, records = drive(tmp_path, plan(workers=2), transport, worker=1)
    assert sorted(records.heads["index"]) == list(range(1, 50, 2))
    assert transport.peak == 2
