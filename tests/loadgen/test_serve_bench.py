"""`loadgen serve-bench` from its flags to its exit status: traffic, bodies, and runs against a simulated server."""

import json
import math
import socket
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from clients.errors import UsageError
from loadgen.bench import Load
from loadgen.cli import main
from loadgen.command_line import parse
from loadgen.dues import expected
from loadgen.plan import Plan
from loadgen.recorded import read_records
from loadgen.serve_bench import Ramp, ServeBench, Traffic
from loadgen.serve_bench_order import read_asked, read_target
from loadgen.simulator.process import Simulator
from loadgen.simulator.settings import load_settings
from loadgen.workload import Marker, Workload, write_workload

VLLM = Path(__file__).resolve().parents[1] / "fixtures" / "vllm-bench"
CHAT = "--backend openai-chat --endpoint /v1/chat/completions"
BELIEVED_OR_NOT = (0, 3)  # on a shared machine a generator may be late, and then says so
CUSTOM = f"--dataset-name custom --dataset-path {VLLM}/prompts.jsonl --skip-chat-template"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Each test in a directory of its own, without a key of the one who runs it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture(scope="module")
def served():
    """A simulated gpt-oss-20b; `root` is its address as vLLM's client is given it."""
    with Simulator(load_settings("gpt-oss-20b", time_scale=0.01)) as simulator:
        simulator.root = simulator.base_url.removesuffix("/v1")
        yield simulator


def asked(line):
    arguments = parse(["serve-bench", *line.split()]).arguments
    return read_asked(arguments, read_target(arguments))


# ---- traffic ---------------------------------------------------------------------------------------------------------------------


def test_an_infinite_rate_is_a_closed_loop_of_as_many_slots_as_may_be():
    """All at once without a bound; with one, that many."""
    for bound, slots in ((None, 30), (8, 8), (100, 30)):
        traffic = Traffic(count=30, max_concurrency=bound)
        assert (traffic.schedule(), traffic.slots, traffic.closed) == (None, slots, True)


def test_a_rate_is_an_open_loop_by_its_burstiness():
    """1 is Poisson, infinite is constant, anything else gamma."""
    for burstiness, process in ((1.0, "poisson"), (math.inf, "constant"), (0.5, "gamma")):
        schedule = Traffic(count=30, request_rate=5.0, burstiness=burstiness, seed=4).schedule()
        assert (schedule.process, schedule.seed, schedule.stages[0].start_rps) == (process, 4, 5.0)


@pytest.mark.parametrize(
    ("strategy", "start", "end"), [("linear", 0, 20), ("linear", 5, 20), ("exponential", 1, 30), ("linear", 7, 7), ("exponential", 7, 7)]
)
def test_a_ramp_takes_as_long_as_its_requests_and_then_goes_on(strategy, start, end):
    """The integral of the rate over the ramp is the number of requests; arrivals that chance left over come at the last rate."""
    ramp = Ramp(strategy=strategy, start_rps=start, end_rps=end)
    schedule = Traffic(count=100, ramp=ramp).schedule()
    assert expected(schedule, np.array([ramp.length_s(100)]))[0] == pytest.approx(100)
    assert schedule.length_s == math.inf
    assert schedule.stages[-1].end_rps == end
    assert ramp.reached_s(end, 100) == pytest.approx(0 if start == end else ramp.length_s(100))


@pytest.mark.parametrize(("strategy", "start", "end"), [("linear", 5, 4), ("linear", 0, 0), ("exponential", 0, 5)])
def test_a_ramp_that_cannot_rise_is_refused(strategy, start, end):
    """By the flag of the end that is wrong."""
    with pytest.raises(UsageError, match="^--ramp-up-(start|end)-rps: "):
        Ramp(strategy=strategy, start_rps=start, end_rps=end)


def test_the_warm_up_sends_what_stands_behind_the_measured_prompts():
    """At most one warm-up plan, closed; then the run, open or closed."""
    load = Load(processes=2, num_requests=30, num_warmups=5, seed=1)
    campaign = ServeBench(load, Traffic(count=30, request_rate=9.0, max_concurrency=4))
    warmup, run = campaign.next_plan([]), campaign.next_plan([None])
    assert (warmup.purpose, warmup.first_item, warmup.num_requests, warmup.schedule) == ("warmup", 30, 5, None)
    assert (run.purpose, run.num_requests, run.max_concurrent, run.schedule.process) == ("measure", 30, 4, "poisson")
    assert campaign.next_plan([None, None]) is None


# ---- what is sent ----------------------------------------------------------------------------------------------------------------


def bodies(tmp_path, line):
    """What a run would send, in order."""
    order = asked(f"--model m {line}").order
    path = tmp_path / "workload.bin"
    write_workload(path, order.content.items, target=order.target, sampling=order.content.samplings, cache=order.cache)
    workload, plan = Workload(path), Plan(number=0, label="x", max_concurrent=1, workers=1, num_requests=1)
    return [json.loads(workload.body(item, Marker(plan, item))) for item in range(len(workload))]


def test_completions_are_asked_for_as_vllms_client_does(tmp_path):
    """Its own keys; each prompt as it stands in the file, to its own length; the warm-up is the first prompt again."""
    found = bodies(tmp_path, f"{CUSTOM} --custom-output-len -1 --disable-shuffle --num-prompts 3 --num-warmups 2 --top-k 5 --ignore-eos")
    rows = [json.loads(line) for line in (VLLM / "prompts.jsonl").read_text().splitlines()[:3]]
    assert found == [
        {
            "model": "m",
            "prompt": row["prompt"],
            "repetition_penalty": 1.0,
            "max_tokens": row["output_tokens"],
            "stream": True,
            "stream_options": {"include_usage": True},
            "ignore_eos": True,
            "top_k": 5,
        }
        for row in (*rows, rows[0], rows[0])
    ]


def test_chats_are_asked_for_as_vllms_client_does(tmp_path):
    """Content parts, text before images, max_completion_tokens; random data sets imply ignore_eos; --extra-body goes last."""
    line = f"{CHAT} --tokenizer {VLLM} --dataset-name random-mm --num-prompts 2 --input-len 9 --output-len 4 --temperature 0"
    buckets = "--random-mm-bucket-config {(8,8,1):1}"
    for body in bodies(tmp_path, f'{line} {buckets} --extra-body {{"max_completion_tokens":3,"x":[1]}}'):
        [message] = body.pop("messages")
        assert body == {
            "model": "m",
            "max_completion_tokens": 3,
            "stream": True,
            "stream_options": {"include_usage": True},
            "ignore_eos": True,
            "temperature": 0.0,
            "x": [1],
        }
        assert (message["role"], [part["type"] for part in message["content"]]) == ("user", ["text", "image_url"])


# Command line and what its refusal says. Nothing of it asks a server.
REFUSED = [
    ("--backend openai-chat", "--endpoint: got '/v1/completions', takes a path that ends in /chat/completions"),
    ("--endpoint /v1/chat/completions", "--endpoint: got '/v1/chat/completions'"),
    ("--dataset-path x", "--dataset-path: has no use with --dataset-name random"),
    ("--dataset-name custom", "--dataset-path: missing"),
    ("--dataset-name custom --dataset-path x", "--skip-chat-template: missing"),
    ("--dataset-name random-mm", "--backend: images go to /chat/completions"),
    ("--random-mm-base-items-per-request 2", "--random-mm-base-items-per-request: has a use only with --dataset-name random-mm"),
    (f"{CUSTOM} --input-len 5", "--input-len: has no use with --dataset-name custom"),
    (f"{CUSTOM} --sharegpt-output-len 5", "--sharegpt-output-len: has no use with --dataset-name custom"),
    ("--custom-output-len 5", "--custom-output-len: has no use with --dataset-name random"),
    ("--num-prompts 0", "--num-prompts: got 0"),
    (f"{CHAT} --logprobs 2", "--logprobs: has a use only with --backend openai or vllm"),
    ("--burstiness 2", "--burstiness: has a use only with --request-rate"),
    ("--request-rate 5 --ramp-up-strategy linear", "--request-rate: got --ramp-up-strategy as well"),
    ("--ramp-up-strategy linear --ramp-up-start-rps 5", "--ramp-up-start-rps, --ramp-up-end-rps: missing"),
    ("--ramp-up-start-rps 5", "--ramp-up-strategy: missing"),
    ("--goodput ttft:5 ttft:6", "--goodput: got ttft:5 and ttft:6"),
    ("--save-detailed", "--save-detailed: has a use only with --save-result"),
    ("--tokenizer x --skip-tokenizer-init", "--tokenizer: got --skip-tokenizer-init as well"),
    ("--base-url localhost:8000", "base_url: got 'localhost:8000"),
]


@pytest.mark.parametrize(("line", "said"), REFUSED)
def test_flags_that_do_not_go_together_are_refused_by_name(capsys, line, said):
    """Status 2, one line, nothing kept."""
    assert main(["serve-bench", *line.split()]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err
    assert list(Path.cwd().iterdir()) == []


def test_a_server_that_is_not_there_is_named_with_status_5(capsys):
    """At once, or after the time that was given to it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for more in ("", "--model m", "--ready-check-timeout-sec 1"):
        assert main(["serve-bench", "--port", str(port), *more.split()]) == 5
        assert f"127.0.0.1:{port}" in capsys.readouterr().err


# ---- runs ------------------------------------------------------------------------------------------------------------------------


def test_a_run_prints_vllms_block_and_our_verdict_and_saves_vllms_keys(served, tmp_path, capsys):
    """Closed loop, random prompts without a tokenizer; the server's model is asked for, and its usage counts."""
    line = f"--base-url {served.root} --num-prompts 24 --input-len 50 --output-len 6 --max-concurrency 4 --num-warmups 3 --processes 2"
    served.reset()
    assert (
        main(["serve-bench", *line.split(), "--save-result", "--result-filename", "r.json", "--metadata", "a=b", "c=d"]) in BELIEVED_OR_NOT
    )
    out, err = capsys.readouterr()
    found, stats = json.loads((tmp_path / "r.json").read_text()), served.stats()
    assert (found["completed"], found["failed"], found["total_output_tokens"], found["max_concurrency"]) == (24, 0, 144, 4)
    assert (found["model_id"], found["tokenizer_id"], found["a"], found["c"]) == ("gpt-oss-20b", None, "b", "d")
    assert found["total_input_tokens"] == pytest.approx(24 * 50, rel=0.05)
    assert stats["requests_answered"] == 24 + 3 + 3 + 1  # warm-up, calibration, preflight
    lines = out.splitlines()
    assert "============ Serving Benchmark Result ============" in lines
    assert f"{'Successful requests:':<40} {24:<10}" in lines
    verdicts = [line for line in lines if line.split(":")[0] in ("VALID", "DEGRADED", "INVALID")]
    assert len(verdicts) == 1
    assert lines.index(verdicts[0]) > lines.index("=" * 50)
    assert out.count("role") == 1  # what is not vLLM's is said once
    assert "run directory" in err


def test_each_request_is_answered_at_the_length_it_asked_for(served, tmp_path, capsys):
    """Open loop, a file in its order: lists are in the order of the file, whatever worker sent what."""
    line = f"--base-url {served.root} --model gpt-oss-20b {CHAT} {CUSTOM} --custom-output-len -1 --disable-shuffle --num-prompts 11"
    more = "--ignore-eos --request-rate 200 --burstiness 0.5 --processes 2 --save-result --save-detailed --result-filename r.json --disable-tqdm"
    assert main(["serve-bench", *line.split(), *more.split()]) in BELIEVED_OR_NOT
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["output_lens"] == list(range(1, 12))
    assert [len(gaps) for gaps in found["itls"]] == list(range(11))
    assert (found["request_rate"], found["burstiness"]) == (200.0, 0.5)
    assert capsys.readouterr().err == ""


def test_each_request_carries_an_id_of_its_own(served, tmp_path, capsys):
    """The prefix and its number in the data set, which the server's own account shows; warm-ups come after them."""
    line = f"--base-url {served.root} --model gpt-oss-20b {CUSTOM} --num-prompts 3 --num-warmups 2 --custom-output-len 2 --disable-tqdm"
    assert main(["serve-bench", *line.split(), "--request-id-prefix", "job-7/", "--results-dir", "kept"]) in BELIEVED_OR_NOT
    found = set()
    for place in sorted((tmp_path / "kept").glob("*/plans/*")):
        heads = read_records(sorted(place.glob("*.records"))).heads
        found |= {(int(head["index"]), int(head["answer_crc"])) for head in heads}
    ids = [(0, 3), (1, 4), (0, 0), (1, 1), (2, 2)]  # of a plan's request, the item that it sends
    assert found == {(index, crc32(f"cmpl-job-7/{item}".encode())) for index, item in ids}
    assert "request_id_prefix" in next((tmp_path / "kept").glob("*/run.json")).read_text()
    capsys.readouterr()


def test_a_run_whose_requests_fail_is_invalid_with_status_3(served, capsys):
    """Images to a model that takes none: the messages are shown, and nothing is called 0."""
    line = f"--base-url {served.root} {CHAT} --model gpt-oss-20b --dataset-name random-mm --num-prompts 3 --input-len 9 --output-len 4"
    small = "--random-mm-bucket-config {(8,8,1):1}"
    assert main(["serve-bench", *line.split(), *small.split(), "--disable-tqdm"]) == 3
    out = capsys.readouterr().out
    assert out.count("Error: ") == 3
    assert "INVALID" in out
    assert f"{'Mean TTFT (ms):':<40} n/a       " in out.splitlines()
