"""The metronome: planned times, held against the truth file (its own stamps, so a busy machine makes tokens late, never early)."""

import threading

import pytest
from plain_wire import MESSAGES, Wire, events_of

from loadgen.simulator.metronome import TICK_NS
from loadgen.simulator.process import Simulator
from loadgen.simulator.settings import load_settings
from loadgen.simulator.truth import ARRIVED, TOKEN, read_truth

MS = 1_000_000
CHAT = "/v1/chat/completions"


def streams(simulator, count, tokens):
    """Bodies of `count` concurrent streams."""
    bodies = [b""] * count

    def one(place):
        with Wire(simulator.port) as wire:
            bodies[place] = wire.ask("POST", CHAT, {"messages": MESSAGES, "max_tokens": tokens, "stream": True})[2]

    threads = [threading.Thread(target=one, args=(place,)) for place in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return bodies


@pytest.mark.parametrize("lockstep", [False, True])
def test_no_token_leaves_before_its_planned_time_and_lateness_does_not_add_up(tmp_path, lockstep):
    """Token k is due at start + k x 4 ms. A late token does not delay the plan: the best of the later ones is near its time."""
    path = tmp_path / "truth.bin"
    settings = load_settings(
        truth=str(path), metronome=True, metronome_ttft_ms=20.0, metronome_itl_us=4000, metronome_lockstep=lockstep, keep_alive_s=1.0
    )
    with Simulator(settings) as simulator:
        bodies = streams(simulator, 8, 50)
        assert simulator.stats()["lateness"]["writes"] == 8 * 50
    for body in bodies:
        events = events_of(body)
        assert (len(events), events[-1], events[-2]["choices"][0]["finish_reason"]) == (52, "[DONE]", "length")
    records = read_truth(path)
    starts = set()
    for number in range(8):
        mine = records[records["request"] == number]
        arrived_ns = int(mine["t_ns"][mine["kind"] == ARRIVED][0])
        left_ns = mine["t_ns"][mine["kind"] == TOKEN].tolist()
        start_ns = arrived_ns + 20 * MS
        if lockstep:
            start_ns = -(-start_ns // (4 * MS)) * 4 * MS
            starts.add(start_ns % (4 * MS))
        late_ns = [left - (start_ns + k * 4 * MS) for k, left in enumerate(left_ns)]
        assert len(late_ns) == 50
        assert min(late_ns) >= 0
        assert min(late_ns[25:]) < 4 * MS + TICK_NS  # had lateness added up, the second half would be late by 25 gaps' worth
    assert starts in (set(), {0})


def test_an_answer_that_is_not_streamed_comes_when_its_last_token_would():
    """20 ms and 9 gaps of 1 ms, on the server's own account."""
    with Simulator(load_settings(metronome=True, metronome_ttft_ms=20.0, metronome_itl_us=1000)) as simulator, Wire(simulator.port) as wire:
        status, _, data = wire.ask("POST", CHAT, {"messages": MESSAGES, "max_tokens": 10})
        assert (status, b'"completion_tokens":10' in data) == (200, True)
        assert simulator.metrics()['vllm:generation_tokens_total{engine="0",model_name="simulated"}'] == 10


def test_what_is_in_the_making_is_running():
    """It has no queue: /metrics shows each answer under way as running, and none afterwards; who asks for idleness must not be told it early."""
    running = 'vllm:num_requests_running{engine="0",model_name="simulated"}'
    with Simulator(load_settings(metronome=True, metronome_ttft_ms=60_000.0)) as simulator, Wire(simulator.port) as wire:
        assert simulator.metrics()[running] == 0
        wire.send("POST", CHAT, {"messages": MESSAGES, "max_tokens": 10, "stream": True})
        wire.head()
        assert simulator.metrics()[running] == 1
        wire.close()
        simulator.wait_idle()
        assert simulator.metrics()[running] == 0
