"""The driver: slots kept full, dues kept, turns that are due later, stop and cancel; against a transport that only counts."""

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
from loadgen.records import HELD_BACK, RecordWriter
from loadgen.schedule import Schedule
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


OPEN = Schedule.at_rate(1.0)  # its rate does not matter: a timetable says when


def drive(tmp_path, plan, transport, *, meanwhile=None, worker=0, timetable=None):
    """Run one worker's share; the records it left."""
    write_workload(tmp_path / "w", ["a", "b", "c"], target=TARGET, sampling=Sampling(), cache="unique")
    writer = RecordWriter(
        tmp_path / "r",
        run_id=bytes(16),
        plan=plan.number,
        worker=worker,
        workers=plan.workers,
        share=(plan.share(worker) if timetable is None else len(timetable)) or -1,
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


def test_an_open_loop_sends_each_request_at_or_after_its_due(tmp_path):
    """50 dues within 50 ms, some together: each is sent once, none early, and the file knows the instant that they count from."""
    transport = InstantTransport()
    dues = [k // 2 * 2_000_000 for k in range(50)]
    _, records = drive(tmp_path, plan(max_concurrent=50, schedule=OPEN), transport, timetable=dues)
    heads = sorted(records.heads, key=lambda head: head["index"])
    [file] = records.files
    assert [int(head["due_ns"]) - file.counters["start_ns"] for head in heads] == dues
    assert not any(transport.early)
    assert set(records.heads["outcome"]) == {Outcome.OK}
    assert not (records.heads["flags"] & HELD_BACK).any()


def test_what_an_open_loop_holds_back_at_the_end_is_dropped_and_recorded(tmp_path):
    """One slot, never free: of five due at once one is in flight, four are held back; a cancel leaves a final frame of each."""

    async def meanwhile(driver):
        driver.cancel()

    driver, records = drive(
        tmp_path,
        plan(max_concurrent=1, num_requests=5, schedule=OPEN),
        InstantTransport(hold=True),
        meanwhile=meanwhile,
        timetable=[0] * 5,
    )
    found = {int(head["index"]): Outcome(head["outcome"]) for head in records.heads}
    assert found == {0: Outcome.CANCELLED, **dict.fromkeys(range(1, 5), Outcome.DROPPED)}
    dropped = records.heads[records.heads["outcome"] == Outcome.DROPPED]
    assert (dropped["flags"] & HELD_BACK).all()
    assert not dropped["sent_ns"].any()
    assert driver.sent == records.files[0].counters["sent"] == 1
    assert records.files[0].counters["scheduled"] == 5
    assert driver.outcomes == {"cancelled": 1, "dropped": 4}


def test_a_stop_leaves_what_was_never_due_unsent(tmp_path):
    """A due in an hour is no request that was dropped: it is scheduled, and unsent."""

    async def meanwhile(driver):
        driver.stop()

    _, records = drive(tmp_path, plan(num_requests=2, schedule=OPEN), InstantTransport(), meanwhile=meanwhile, timetable=[0, 3_600 * 10**9])
    assert list(records.heads["index"]) == [0]
    assert records.files[0].counters["scheduled"] == 2


def test_requests_that_were_held_back_are_marked_when_they_are_sent(tmp_path):
    """Two slots, six due at once: four start late, from their own due."""
    _, records = drive(tmp_path, plan(max_concurrent=2, num_requests=6, schedule=OPEN), InstantTransport(), timetable=[0] * 6)
    heads = sorted(records.heads, key=lambda head: head["index"])
    assert [bool(head["flags"] & HELD_BACK) for head in heads] == [False] * 2 + [True] * 4
    assert len({int(head["due_ns"]) for head in heads}) == 1


def test_levels_of_concurrency_wake_the_driver(tmp_path):
    """1 slot, then 3: with nothing that ends, only the level lets more go."""
    transport = InstantTransport(hold=True)

    async def meanwhile(driver):
        while transport.in_flight < 3:
            await asyncio.sleep(0.001)
        driver.cancel()

    shape = plan(max_concurrent=3, num_requests=None, duration_s=60.0, levels=((0.0, 1), (0.02, 3)))
    _, records = drive(tmp_path, shape, transport, meanwhile=meanwhile)
    start_ns = records.files[0].counters["start_ns"]
    assert sorted(int(head["due_ns"]) - start_ns for head in records.heads) == [0, 20_000_000, 20_000_000]
    assert not any(transport.early)
