"""The running server: queueing, counting, leaving, failing, changing limits, and the truth."""

import json
import socket
import time
import zlib

import pytest
from plain_wire import FIXTURES, MESSAGES, Wire, events_of

from loadgen.simulator.process import Simulator, SimulatorError
from loadgen.simulator.settings import load_settings
from loadgen.simulator.truth import ARRIVED, BROKEN, ENDED, TOKEN, read_truth

CHAT = "/v1/chat/completions"
SLOW_STEP = {"step_base_ms": 20.0, "step_per_seq_us": 0.0, "prefill_per_token_us": 0.0}


def chat(tokens, *, stream=True, **extra):
    return {"messages": MESSAGES, "max_tokens": tokens, "stream": stream, **extra}


def until(condition, timeout_s=5.0):
    """Poll until true; the deadline is for a machine that is busy."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "condition did not come true in time"
        time.sleep(0.005)


def metric(simulator, name, **labels):
    wanted = ",".join(f'{key}="{value}"' for key, value in sorted({"engine": "0", "model_name": "simulated", **labels}.items()))
    return simulator.metrics()[f"vllm:{name}{{{wanted}}}"]


def test_requests_beyond_max_num_seqs_queue_with_their_heads_already_sent():
    """Five streams on two seats: all heads come at once (vLLM's way), two run, three wait; peaks are counted, and end at zero."""
    with Simulator(load_settings(max_num_seqs=2, **SLOW_STEP)) as simulator:
        wires = [Wire(simulator.port) for _ in range(5)]
        for wire in wires:
            wire.send("POST", CHAT, chat(8))
        heads = [wire.head() for wire in wires]
        assert [status for status, _ in heads] == [200] * 5
        until(lambda: metric(simulator, "num_requests_running") == 2)
        assert metric(simulator, "num_requests_waiting") == 3
        assert metric(simulator, "kv_cache_usage_perc") > 0
        for wire, (_, headers) in zip(wires, heads, strict=True):
            assert events_of(wire.rest(headers))[-1] == "[DONE]"
            wire.close()
        stats = simulator.stats()
        assert (stats["requests_inflight_peak"], stats["running_peak"], stats["requests_inflight"]) == (5, 2, 0)
        assert (stats["requests_answered"], stats["tokens_written"], stats["lateness"]["writes"]) == (5, 40, 40)
        assert metric(simulator, "num_requests_running") == metric(simulator, "kv_cache_usage_perc") == 0


def test_the_next_request_on_the_same_connection_never_raises_the_peak():
    """A request is counted out before its last byte is written: one closed-loop client is one in flight, always."""
    with Simulator(load_settings(time_scale=0.001)) as simulator, Wire(simulator.port) as wire:
        for number in range(50):
            wire.ask("POST", CHAT, chat(2, stream=bool(number % 2)))
            assert metric(simulator, "request_success_total", finished_reason="length") == number + 1
        assert simulator.stats()["requests_inflight_peak"] == 1


def test_metrics_have_vllms_names_and_buckets():
    """Every sample name and bucket bound that the simulator has, vLLM was recorded to have."""
    text = (FIXTURES / "vllm-vl-metrics.http").read_text()
    theirs = {line.rpartition(" ")[0].replace("tiny-vl", "simulated") for line in text.splitlines() if line and not line.startswith("#")}
    with Simulator(load_settings(time_scale=0.01)) as simulator, Wire(simulator.port) as wire:
        wire.ask("POST", CHAT, chat(5))
        samples = simulator.metrics()
    assert set(samples) <= theirs
    assert samples['vllm:generation_tokens_total{engine="0",model_name="simulated"}'] == 5
    assert samples['vllm:prompt_tokens_total{engine="0",model_name="simulated"}'] == 10
    for name, count in (
        ("time_to_first_token_seconds", 1),
        ("inter_token_latency_seconds", 4),
        ("request_queue_time_seconds", 1),
        ("request_prefill_time_seconds", 1),
        ("request_decode_time_seconds", 1),
        ("request_inference_time_seconds", 1),
        ("e2e_request_latency_seconds", 1),
    ):
        assert samples[f'vllm:{name}_count{{engine="0",model_name="simulated"}}'] == count
        assert samples[f'vllm:{name}_bucket{{engine="0",le="+Inf",model_name="simulated"}}'] == count


def test_a_client_that_leaves_frees_its_seat_at_once():
    """One seat, taken by an endless answer: when its client closes, the next request is answered, and the leaving is counted."""
    with Simulator(load_settings(max_num_seqs=1, **SLOW_STEP)) as simulator, Wire(simulator.port) as second:
        first = Wire(simulator.port)
        first.send("POST", CHAT, chat(20_000))
        first.head()
        first.chunk()
        second.send("POST", CHAT, chat(2))
        until(lambda: metric(simulator, "num_requests_waiting") == 1)
        first.close()
        _, headers = second.head()
        assert events_of(second.rest(headers))[-1] == "[DONE]"
        stats = simulator.wait_idle()
        assert (stats["requests_cancelled"], stats["requests_answered"]) == (1, 1)
        assert metric(simulator, "kv_cache_usage_perc") == 0


def test_limits_change_while_it_runs():
    """More seats let the waiting run; an unknown or fixed limit is refused by name and changes nothing."""
    with Simulator(load_settings(max_num_seqs=1, **SLOW_STEP)) as simulator:
        wires = [Wire(simulator.port) for _ in range(3)]
        for wire in wires:
            wire.send("POST", CHAT, chat(10_000))
        until(lambda: metric(simulator, "num_requests_waiting") == 2)
        assert simulator.set_limits(max_num_seqs=3)["max_num_seqs"] == 3
        until(lambda: metric(simulator, "num_requests_running") == 3)
        with pytest.raises(SimulatorError, match="port: cannot be changed while the simulator runs"):
            simulator.set_limits(port=1)
        with pytest.raises(SimulatorError, match="max_num_seqs: Expected `int` >= 1, got 0"):
            simulator.set_limits(max_num_seqs=0)
        simulator.set_limits(faults="unavailable-503=1")
        with Wire(simulator.port) as other:
            assert other.ask("POST", CHAT, chat(1))[0] == 503
        for wire in wires:
            wire.close()


def test_reset_begins_a_new_stretch_and_leaves_the_metrics():
    """Peaks and counts start again; Prometheus counters only grow."""
    with Simulator(load_settings(time_scale=0.001)) as simulator, Wire(simulator.port) as wire:
        wire.ask("POST", CHAT, chat(3))
        simulator.reset()
        stats = simulator.stats()
        assert (stats["requests_total"], stats["requests_inflight_peak"], stats["tokens_written"], stats["steps"]) == (0, 0, 0, 0)
        assert metric(simulator, "generation_tokens_total") == 3


def test_equal_prompts_hit_the_prefix_cache():
    """The second of two equal prompts is a hit, in blocks of 16 tokens; another prompt is not."""
    text = "All work and no play makes a dull benchmark. " * 20
    with Simulator(load_settings(time_scale=0.001)) as simulator, Wire(simulator.port) as wire:
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": 1}
        prompt_tokens = json.loads(wire.ask("POST", CHAT, body)[2])["usage"]["prompt_tokens"]
        assert metric(simulator, "prefix_cache_hits_total") == 0
        wire.ask("POST", CHAT, body)
        hits = metric(simulator, "prefix_cache_hits_total")
        assert prompt_tokens - 32 < hits < prompt_tokens
        assert hits % 16 == 0
        wire.ask("POST", CHAT, {"messages": [{"role": "user", "content": "Unique. " + text}], "max_tokens": 1})
        assert metric(simulator, "prefix_cache_hits_total") == hits
        assert metric(simulator, "prefix_cache_queries_total") == 3 * prompt_tokens + 2


def test_answers_end_by_themselves_when_asked_to():
    """eos_mean_tokens: seeded lengths and "stop", an EOS without text counted as a token; ignore_eos goes to max_tokens."""
    with Simulator(load_settings(time_scale=0.001, eos_mean_tokens=20)) as simulator, Wire(simulator.port) as wire:
        answers = [json.loads(wire.ask("POST", CHAT, chat(1000, stream=False))[2]) for _ in range(20)]
        ignoring = json.loads(wire.ask("POST", CHAT, chat(50, stream=False, ignore_eos=True))[2])
        _, _, stream = wire.ask("POST", CHAT, chat(1000))
    lengths = [answer["usage"]["completion_tokens"] for answer in answers]
    assert {answer["choices"][0]["finish_reason"] for answer in answers} == {"stop"}
    assert [len(answer["choices"][0]["message"]["content"].split()) for answer in answers] == [length - 1 for length in lengths]
    assert len(set(lengths)) > 5
    assert 10 < sum(lengths) / 20 < 30  # gamma of shape 4: a standard error of 2.2; seeded, so never flaky
    assert (ignoring["usage"]["completion_tokens"], ignoring["choices"][0]["finish_reason"]) == (50, "length")
    last = events_of(stream)[-2]["choices"][0]
    assert (last["delta"], last["finish_reason"]) == ({"content": ""}, "stop")


def test_an_idle_connection_is_closed_and_a_busy_one_is_not():
    """Keep-alive ends the idle wait (5 s in vLLM, shortened here), not an answer that takes longer."""
    with Simulator(load_settings(keep_alive_s=0.2, **SLOW_STEP)) as simulator, Wire(simulator.port) as wire:
        _, _, data = wire.ask("POST", CHAT, chat(20))
        assert events_of(data)[-1] == "[DONE]"
        assert wire.file.read() == b""


def test_connection_close_is_honoured():
    """A client that says close gets its answer, then the end."""
    with Simulator(load_settings(time_scale=0.001)) as simulator, Wire(simulator.port) as wire:
        assert wire.ask("GET", "/health", connection="close") == (200, {"server": "uvicorn", "content-length": "0"}, b"")
        assert wire.file.read() == b""


def test_a_key_is_asked_for_under_v1_only():
    """401 in vLLM's shape without or with a wrong key; /health and /metrics are open, as in vLLM."""
    with Simulator(load_settings(api_key="k", time_scale=0.001)) as simulator, Wire(simulator.port) as wire:
        for headers in ({}, {"authorization": "Bearer wrong"}):
            status, _, data = wire.ask("POST", CHAT, chat(1), **headers)
            assert (status, json.loads(data)) == (401, {"error": "Unauthorized"})
        assert wire.ask("POST", CHAT, chat(1), authorization="Bearer k")[0] == 200
        assert wire.ask("GET", "/health")[0] == wire.ask("GET", "/metrics")[0] == 200
        assert "k" not in [str(value) for value in simulator.set_limits(max_num_seqs=2).values()]


@pytest.mark.parametrize(
    ("fault", "status", "has"),
    [
        ("rate-limit-429", 429, "rate_limit_error"),
        ("rate-limit-429-retry-after", 429, "rate_limit_error"),
        ("rate-limit-404", 404, "<html>"),
        ("model-missing-404", 404, "NotFoundError"),
        ("unavailable-503", 503, "Service Unavailable"),
    ],
)
def test_a_fault_at_once_is_an_error_answer(llm, fault, status, has):
    """Forced on one request by a header; the connection lives on."""
    with Wire(llm.port) as wire:
        got, headers, data = wire.ask("POST", CHAT, chat(4), x_simulator_fault=fault)
        assert (got, has in data.decode()) == (status, True)
        assert headers.get("retry-after") == ("1" if fault.endswith("after") else None)
        assert wire.ask("GET", "/health")[0] == 200


def test_faults_in_a_stream_break_it_as_named(llm):
    """An error event with [DONE]; an end without finish_reason and [DONE]; a reset after some tokens; a reset before any byte."""
    with Wire(llm.port) as wire:
        status, _, data = wire.ask("POST", CHAT, chat(8), x_simulator_fault="stream-error")
        error, done = events_of(data)
        assert (status, error["error"]["code"], done) == (200, 503, "[DONE]")
        for tokens in (8, 1):
            _, _, data = wire.ask("POST", CHAT, chat(tokens), x_simulator_fault="truncate")
            events = events_of(data)
            assert 2 <= len(events) <= 8
            assert all(event["choices"][0]["finish_reason"] is None for event in events)
        wire.send("POST", CHAT, chat(8), x_simulator_fault="reset")
        assert wire.head()[0] == 200
        with pytest.raises(ConnectionResetError):
            while wire.chunk():
                pass
    with Wire(llm.port) as wire:
        wire.send("POST", CHAT, chat(8), x_simulator_fault="reset-early")
        with pytest.raises(ConnectionResetError):
            wire.file.readline()
    with Wire(llm.port) as wire:
        wire.send("POST", CHAT, chat(8, stream=False), x_simulator_fault="truncate")
        _, headers = wire.head()
        assert len(wire.file.read()) < int(headers["content-length"])
    assert llm.wait_idle()["requests_faulted"]["truncate"] >= 3


def test_a_fault_that_does_not_exist_is_refused(llm):
    """A typing mistake in a test must not look like a healthy server."""
    with Wire(llm.port) as wire:
        assert wire.ask("POST", CHAT, chat(1), x_simulator_fault="rest")[0] == 400


def test_a_slow_answer_is_delayed_and_may_be_left():
    """The delay comes before the queue; a client that leaves meanwhile is never queued."""
    with Simulator(load_settings(faults="slow", fault_slow_ms=60_000, time_scale=0.001)) as simulator:
        with Wire(simulator.port) as wire:
            started = time.monotonic()
            assert wire.ask("POST", CHAT, chat(1))[0] == 200
            assert time.monotonic() - started >= 0.06
        simulator.set_limits(time_scale=1)
        wire = Wire(simulator.port)
        wire.send("POST", CHAT, chat(1))
        wire.head()
        wire.close()
        assert simulator.wait_idle()["requests_cancelled"] == 1


def test_bytes_that_are_not_http_get_400_and_the_end(llm):
    """And nothing else happens to the server."""
    with socket.create_connection(("127.0.0.1", llm.port), timeout=5) as raw:
        raw.sendall(b"\x16\x03\x01 this is TLS\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 400")
    assert llm.stats()["requests_inflight"] == 0


def test_a_request_may_come_byte_by_byte(llm):
    """And with Expect: 100-continue, as curl sends it for large bodies."""
    body = json.dumps(chat(1, stream=False)).encode()
    head = f"POST {CHAT}?x=1 HTTP/1.1\r\nhost: s\r\nexpect: 100-continue\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with Wire(llm.port) as wire:
        for position in range(len(head)):
            wire.socket.sendall(head[position : position + 1])
        assert wire.head() == (100, {})
        for position in range(0, len(body), 10):
            wire.socket.sendall(body[position : position + 10])
        status, headers = wire.head()
        assert (status, json.loads(wire.rest(headers))["object"]) == (200, "chat.completion")


@pytest.mark.parametrize("extra", [{}, {"metronome": True, "metronome_ttft_ms": 5.0, "metronome_itl_us": 1000}])
def test_the_truth_file_has_every_arrival_and_every_token(tmp_path, extra):
    """One arrival, its tokens in order, one end per request, on the clock of this process too; a left request is broken."""
    path = tmp_path / "truth.bin"
    settings = load_settings(truth=str(path), step_base_ms=1.0, **extra)
    with Simulator(settings) as simulator, Wire(simulator.port) as wire:
        before_ns = time.perf_counter_ns()
        ids = [json.loads(wire.ask("POST", CHAT, chat(6))[2].split(b"\n\n")[0][6:])["id"] for _ in range(3)]
        after_ns = time.perf_counter_ns()
        wire.send("POST", CHAT, chat(20_000))
        wire.head()
        wire.chunk()
        wire.close()
        assert simulator.wait_idle()["requests_cancelled"] == 1
    records = read_truth(path)
    for number, request_id in enumerate(ids):
        mine = records[records["request"] == number]
        assert mine["kind"].tolist() == [ARRIVED] + [TOKEN] * 6 + [ENDED]
        assert mine["aux"].tolist() == [zlib.crc32(request_id.encode()), 0, 1, 2, 3, 4, 5, 6]
        times = mine["t_ns"].tolist()
        assert times == sorted(times)
        assert before_ns < times[0]
        assert times[-1] < after_ns
    assert records[records["request"] == 3]["kind"].tolist()[-1] == BROKEN


def test_a_truth_file_cut_short_or_foreign_is_told_apart(tmp_path):
    """A torn last record is left out; another file is refused by name."""
    path = tmp_path / "truth.bin"
    path.write_bytes(b"loadgen-truth-1\n" + bytes(17) + bytes(5))
    assert len(read_truth(path)) == 1
    path.write_bytes(b"something else entirely")
    with pytest.raises(ValueError, match=r"truth\.bin: not a truth file"):
        read_truth(path)
