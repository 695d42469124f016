"""Between virtual time and the clock: alarms and the batching pacer never act early, with any event loop."""

import asyncio
import time

import pytest
import uvloop

from loadgen import alarm
from loadgen.alarm import Alarm
from loadgen.simulator.answers import Answer
from loadgen.simulator.batching import BatchingPacer
from loadgen.simulator.dialect import Order
from loadgen.simulator.metrics import Metrics
from loadgen.simulator.prompts import Prompt
from loadgen.simulator.settings import SimulatorSettings
from loadgen.simulator.stats import Lateness, Stats


def test_no_token_is_delivered_before_its_steps_end_though_it_is_rendered_before():
    """Thirty streams of ten tokens: each delivery comes at or after its instant, and each stream gets one per step."""
    settings = SimulatorSettings(max_num_seqs=30, step_base_ms=4.0)
    delivered: list[tuple[int, int, int]] = []

    async def scenario():
        done = asyncio.Event()

        def deliver(answer, due_ns):
            delivered.append((answer.number, due_ns, time.perf_counter_ns() - due_ns))
            answer.out.clear()
            if sum(number == answer.number for number, _, _ in delivered) == 10 and len(delivered) == 300:
                done.set()

        pacer = BatchingPacer(settings, asyncio.get_running_loop(), Metrics("m"), Stats(), deliver)
        for number in range(30):
            prompt = Prompt()
            prompt.tokens = 10
            order = Order("m", [prompt])
            order.max_tokens, order.stream, order.chat = 10, True, True
            pacer.begin(Answer(None, order, settings, number=number, request_id="x", arrived_ns=time.perf_counter_ns(), created=0))
        await asyncio.wait_for(done.wait(), 10)
        pacer.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
    assert min(late_ns for _, _, late_ns in delivered) >= 0
    assert len({(number, due_ns) for number, due_ns, _ in delivered}) == 300


@pytest.mark.parametrize("timerfd", [True, False])
@pytest.mark.parametrize("factory", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_an_alarm_rings_once_and_never_early(monkeypatch, factory, timerfd):
    """Re-armed earlier, later, disarmed, and set in the past; with timerfd and with the loop's own timer (which may fire early)."""
    if not timerfd:
        monkeypatch.setattr(alarm.sys, "platform", "other")
    rung: list[int] = []

    async def scenario():
        clock = Alarm(asyncio.get_running_loop(), lambda: rung.append(time.perf_counter_ns()))
        for delays_ms in ([3], [50, 2], [1, 4], [1, None, 3], [-5]):
            rung.clear()
            for delay_ms in delays_ms:
                at_ns = None if delay_ms is None else time.perf_counter_ns() + int(delay_ms * 1e6)
                clock.set(at_ns)
            deadline = time.monotonic() + 5
            while not rung:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.005)  # a second ring would come now
            assert len(rung) == 1
            assert rung[0] >= at_ns
        clock.close()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(scenario())


def test_lateness_has_exact_mean_and_maximum_and_quantiles_to_ten_microseconds():
    """1 to 1,000 us, evenly; one stall far beyond the bins is the maximum, and does not break the quantiles."""
    late = Lateness()
    for value_us in range(1, 1001):
        late.add(value_us * 1000)
    assert late.mean_ns == 500_500
    assert late.quantile_ns(0.5) == pytest.approx(500_000, abs=10_000)
    assert late.quantile_ns(0.99) == pytest.approx(990_000, abs=10_000)
    late.add(3_000_000_000)
    assert late.max_ns == 3_000_000_000
    assert late.quantile_ns(0.5) == pytest.approx(500_000, abs=10_000)
