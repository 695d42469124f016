"""vLLM's numbers: from the times of one of its own runs, the figures that it gave of them; and what is ours, where it is not copied."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from clients.errors import Outcome
from clients.messages import Sampling
from loadgen.command_line import parse
from loadgen.datasets.sample import DataSet, Sample
from loadgen.order import Order
from loadgen.prompts import Prompts
from loadgen.recorded import read_records
from loadgen.records import RecordWriter
from loadgen.serve_bench import Ramp, Traffic
from loadgen.serve_bench_order import Asked
from loadgen.serve_bench_result import block, document, result_of, result_path, save
from loadgen.target import Target
from tests.loadgen.written import RUN_ID, T0, exchange

VLLM = Path(__file__).resolve().parents[1] / "fixtures" / "vllm-bench"
RESULT = json.loads((VLLM / "result.json").read_text())
FLAGS = "--backend openai-chat --model tiny --num-prompts 100 --request-rate 20 --tokenizer models/tiny-llama --save-result --save-detailed"
# Records hold the gaps of a request in whole microseconds, vLLM's clock has more.
ROUNDING_MS = 2e-3


def arguments(line):
    return parse(["serve-bench", *line.split()]).arguments


def asked(traffic, samples, tokenizer=None):
    target = Target(base_url="http://127.0.0.1:1/v1", model="tiny", dialect="chat")
    order = Order(
        command="serve-bench", target=target, sampling=Sampling(), content=Prompts(items=[], name="x"), results_dir=Path("results")
    )
    return Asked(order=order, traffic=traffic, data=DataSet(samples=samples, name="x"), tokenizer=tokenizer)


def records(directory, rows, *, parts=1, start_ns=T0):
    """Requests dealt over as many workers, read back. rows: (index, exchange)."""
    paths = []
    for part in range(parts):
        path = directory / f"worker-{part}.records"
        writer = RecordWriter(path, run_id=RUN_ID, plan=0, worker=part, workers=parts, share=len(rows[part::parts]))
        writer.started(start_ns)
        for index, made in rows[part::parts]:
            writer.request(made, index=index, phase=0, lane=0, due_ns=made.due_ns)
        writer.close()
        paths.append(path)
    return read_records(paths)


@pytest.fixture(params=[1, 3])
def replayed(tmp_path, request):
    """The run that vLLM measured, as records: each of its stamps is an output event. Its clock begins with the first request."""
    begin_s = RESULT["start_times"][0] - RESULT["queue_times"][0]
    rows, last_ms = [], 0.0
    for index, start_s in enumerate(RESULT["start_times"]):
        sent_ms = (start_s - begin_s) * 1e3
        outputs = [sent_ms + RESULT["ttfts"][index] * 1e3]
        for gap_s in RESULT["itls"][index]:
            outputs.append(outputs[-1] + gap_s * 1e3)
        last_ms = max(last_ms, outputs[-1])
        usage = (RESULT["input_lens"][index], RESULT["output_lens"][index])
        rows.append(
            (index, exchange(sent_ms - RESULT["queue_times"][index] * 1e3, outputs[-1], sent=sent_ms, outputs=outputs, usage=usage))
        )
    start_ns = T0 + round((last_ms - RESULT["duration"] * 1e3) * 1e6)
    return records(tmp_path, rows[::-1], parts=request.param, start_ns=start_ns)


def test_the_figures_of_a_run_are_those_that_vllm_gave_of_it(replayed):
    """Every one of its keys, each list, for any number of workers; texts are not kept."""
    given = arguments(FLAGS)
    samples = [Sample(prompt="x", output_len=32)] * 100
    what = asked(Traffic(count=100, request_rate=20.0), samples, "models/tiny-llama")
    found = document(given, what, result_of(given, what, replayed), 0.0)
    assert found.keys() == RESULT.keys()
    for key, value in RESULT.items():
        if key in ("date", "generated_texts"):
            continue
        if isinstance(value, float):
            assert found[key] == pytest.approx(value, rel=1e-4, abs=ROUNDING_MS), key
        elif key == "itls":
            assert [len(one) for one in found[key]] == [len(one) for one in value]
            assert sum(found[key], []) == pytest.approx(sum(value, []), abs=ROUNDING_MS)
        elif isinstance(value, list) and isinstance(value[0], float):
            if key == "start_times":
                value, found[key] = ([one - times[0] for one in times] for times in (value, found[key]))
            assert found[key] == pytest.approx(value, abs=ROUNDING_MS / 1e3), key
        else:
            assert found[key] == value, key
    assert found["generated_texts"] == [None] * 100


def test_the_block_is_the_one_that_vllm_printed(replayed):
    """Line by line; a figure may differ in its last digit, by the rounding of gaps."""
    given = arguments(FLAGS)
    what = asked(Traffic(count=100, request_rate=20.0), [Sample(prompt="x", output_len=32)] * 100)
    ours, theirs = (text.splitlines() for text in (block(given, result_of(given, what, replayed)), (VLLM / "block.txt").read_text()))
    assert len(ours) == len(theirs)
    for mine, vllms in zip(ours, theirs, strict=True):
        if mine != vllms:
            assert mine[:41] == vllms[:41]
            assert float(mine[41:]) == pytest.approx(float(vllms[41:]), abs=0.011)


def few(tmp_path, rows, line="", traffic=None):
    """The result document of a few requests, with all metrics."""
    every = "ttft,tpot,itl,e2el,client_queue_time,e2el_including_client_queue"
    given = arguments(f"--num-prompts {len(rows)} --percentile-metrics {every} --save-result --save-detailed {line}")
    what = asked(traffic or Traffic(count=len(rows)), [Sample(prompt="x", output_len=9, input_len=7)] * len(rows))
    result = result_of(given, what, records(tmp_path, rows))
    return document(given, what, result, 0.0), block(given, result), result


def test_of_an_infinite_rate_the_queue_is_waited_in_from_the_beginning(tmp_path):
    """vLLM's client holds all requests at once: in a closed loop a request has waited since the start, not since a slot was free."""
    rows = [(0, exchange(0, 50, outputs=(20, 50), usage=(7, 2))), (1, exchange(50, 90, sent=51, outputs=(70, 90), usage=(7, 2)))]
    found, _, _ = few(tmp_path, rows, "--max-concurrency 1", Traffic(count=2, max_concurrency=1))
    assert found["queue_times"] == pytest.approx([0.0, 0.051])
    assert found["latencies"] == pytest.approx([0.05, 0.039])
    assert found["mean_client_queue_time_ms"] == pytest.approx(25.5)
    assert "mean_e2el_including_client_queue_ms" not in found


def test_of_a_rate_the_queue_is_waited_in_from_due(tmp_path):
    """It is in no latency, and in the queue-inclusive one."""
    rows = [(0, exchange(0, 50, outputs=(20, 50), usage=(7, 2))), (1, exchange(10, 90, sent=50, outputs=(70, 90), usage=(7, 2)))]
    found, text, _ = few(tmp_path, rows, "--max-concurrency 1 --request-rate 100", Traffic(count=2, request_rate=100.0, max_concurrency=1))
    assert found["queue_times"] == pytest.approx([0.0, 0.04])
    assert found["mean_e2el_ms"] == pytest.approx(45.0)
    assert found["mean_e2el_including_client_queue_ms"] == pytest.approx(65.0)
    assert "--------Queue-inclusive End-to-end Latency--------" in text.splitlines()


def test_without_a_bound_there_is_no_queue_to_name(tmp_path):
    """As vLLM: its keys come with --max-concurrency."""
    found, _, _ = few(tmp_path, [(0, exchange(0, 50, outputs=(20, 50), usage=(7, 2)))])
    assert not [key for key in found if key.endswith("_ms") and "queue" in key]


def test_failures_and_answers_without_output_are_in_no_latency_of_tokens(tmp_path):
    """A failed request keeps the length that was asked for and its message; where no output came there is no TTFT, where vLLM says 0."""
    rows = [
        (0, exchange(0, 50, outputs=(20, 30, 50), usage=(70, 4))),
        (1, exchange(0, 40, outcome=Outcome.OVERLOADED, message="no room")),
        (2, exchange(0, 60, usage=(5, 1))),
    ]
    found, _, result = few(tmp_path, rows)
    assert (found["completed"], found["failed"], result.without_output, result.errors) == (2, 1, 1, ["no room"])
    assert (found["input_lens"], found["output_lens"]) == ([70, 7, 5], [4, 0, 1])
    assert (found["total_input_tokens"], found["total_output_tokens"]) == (75, 5)
    assert (found["errors"], found["ttfts"]) == (["", "no room", ""], pytest.approx([0.02, 0.0, 0.0]))
    assert (found["mean_ttft_ms"], found["mean_tpot_ms"]) == (pytest.approx(20.0), pytest.approx(10.0))
    assert found["mean_e2el_ms"] == pytest.approx(55.0)


def test_what_was_not_measured_is_null_and_not_zero(tmp_path):
    """A run in which nothing succeeded has no latency."""
    found, text, _ = few(tmp_path, [(0, exchange(0, 40, outcome=Outcome.RESET))])
    assert (found["completed"], found["mean_ttft_ms"], found["p99_itl_ms"], found["request_throughput"]) == (0, None, None, 0.0)
    assert f"{'P99 TTFT (ms):':<40} n/a       " in text.splitlines()


def test_goodput_counts_requests_that_keep_every_objective_from_sent(tmp_path):
    """A wait in the client is not the server's miss, under vLLM's key; one token has no TPOT to miss; failures are misses."""
    rows = [
        (0, exchange(0, 100, sent=40, outputs=(60, 100), usage=(7, 5))),  # good: TTFT 20, TPOT 10
        (1, exchange(0, 100, outputs=(60, 100), usage=(7, 5))),  # TTFT 60
        (2, exchange(0, 100, outputs=(20, 100), usage=(7, 5))),  # TPOT 20
        (3, exchange(0, 20, outputs=(20,), usage=(7, 1))),  # good: a single token
        (4, exchange(0, 20, outcome=Outcome.RESET)),
    ]
    found, _, _ = few(tmp_path, rows, "--goodput ttft:50 tpot:15")
    assert found["request_goodput"] == pytest.approx(2 / 0.1)


def test_a_ramp_lists_when_its_rate_came_to_each_whole_number(tmp_path):
    """From 1 to 3 requests/s over 8 requests takes 4 s; the rate is linear in time."""
    traffic = Traffic(count=8, ramp=Ramp(strategy="linear", start_rps=1, end_rps=3))
    rows = [(0, exchange(0, 50, outputs=(20, 50), usage=(7, 2)))]
    found, _, _ = few(tmp_path, rows, "--ramp-up-strategy linear --ramp-up-start-rps 1 --ramp-up-end-rps 3", traffic)
    times = [datetime.fromisoformat(one["timestamp"]) for one in found["rps_change_events"]]
    assert [one["rps"] for one in found["rps_change_events"]] == [1, 2, 3]
    assert [(time - times[0]).total_seconds() for time in times] == pytest.approx([0, 2, 4], abs=1e-5)
    assert (found["ramp_up_strategy"], found["ramp_up_start_rps"], found["ramp_up_end_rps"]) == ("linear", 1, 3)


def test_result_files_have_vllms_names_and_lines(tmp_path):
    """By label, rate, bound, model and time, unless named; --append-result adds a line."""
    given = arguments(f"--save-result --request-rate 20 --max-concurrency 8 --result-dir {tmp_path}/new")
    path = result_path(given, "org/model", 0.0)
    assert path.name.startswith("openai-20.0qps-concurrency8-model-")
    assert path.parent.is_dir()
    assert not path.exists()
    named = result_path(arguments(f"--append-result --result-dir {tmp_path} --result-filename r.json"), "m", 0.0)
    for number in range(2):
        save(named, {"n": number}, append=True)
    assert [json.loads(line) for line in named.read_text().split("\n")] == [{"n": 0}, {"n": 1}]
    save(named, {"n": 2}, append=False)
    assert json.loads(named.read_text()) == {"n": 2}
    assert result_path(arguments("--label x"), "m", 0.0) is None
