"""What a report says of the server's side, from a live run against a simulator whose truth is known, and from documents made to disagree."""

import contextlib
import json
import threading

import msgspec
import numpy as np
import pytest

from loadgen import scrape
from loadgen.breakdown import Breakdown, Part
from loadgen.cli import main
from loadgen.document import read_document
from loadgen.rundir import RunDirectory
from loadgen.server_report import server_lines, server_table, where
from loadgen.server_side import Level, ServerSide
from loadgen.simulator.process import Simulator
from loadgen.simulator.settings import load_settings
from loadgen.simulator.truth import ARRIVED, TOKEN, read_truth
from tests.loadgen.test_report import report
from tests.servers import threaded

REQUESTS, SLOTS, TOKENS = 40, 8, 10


@pytest.fixture(scope="module")
def one_seat(tmp_path_factory):
    """A bench of 8 in flight at a server that runs one at a time, about 3 s long: (document, run directory, truth, lateness in s)."""
    place = tmp_path_factory.mktemp("one-seat")
    settings = load_settings(max_num_seqs=1, step_base_ms=7.0, truth=str(place / "truth"))
    words = ["--model-name", "simulated", "--model-type", "llm", "--num-requests", str(REQUESTS), "--max-concurrent", str(SLOTS)]
    words += ["--max-tokens", str(TOKENS), "--input-len", "20", "--num-warmups", "0", "--results-dir", str(place / "results")]
    with Simulator(settings) as simulator:
        assert main(["bench", "--base-url", simulator.base_url, *words]) == 0
    [path] = (place / "results").iterdir()
    return read_document(RunDirectory.existing(path)), path, read_truth(place / "truth")


def lines_of(document, index=0):
    """The lines as (label, text) of the plan at `index`."""
    return [(line.label, line.text) for line in server_lines(document, document.plans[index].summary)]


def text_of(document):
    return "\n".join(f"{label} {text}" for label, text in lines_of(document))


def served(document, **changes):
    """The document with other words of the server about its only plan."""
    [one] = document.plans
    return msgspec.structs.replace(document, plans=[msgspec.structs.replace(one, server=msgspec.structs.replace(one.server, **changes))])


def test_the_servers_times_lie_between_the_truth_of_its_sockets_and_ours(one_seat):
    """Its TTFT (virtual) is below what its sockets did, which is below what we saw; in sum, and to the last request."""
    document, _, truth = one_seat
    side = document.plans[0].server
    numbers = np.unique(truth["request"])[-REQUESTS:]  # before them, the preflight's own
    events = truth[np.isin(truth["request"], numbers)]
    arrived = events[events["kind"] == ARRIVED]
    first = events[(events["kind"] == TOKEN) & (events["aux"] == 0)]
    assert len(arrived) == len(first) == REQUESTS
    sockets_s = float(first["t_ns"].astype(np.int64).sum() - arrived["t_ns"].astype(np.int64).sum()) / 1e9
    ours = side.ttft
    from_sent_s = ours.mean_s * ours.requests * (1 - ours.share("held"))
    assert side.times["ttft"].count == REQUESTS
    assert side.times["ttft"].sum_s <= sockets_s <= from_sent_s


def test_where_the_time_went_is_what_one_seat_for_eight_means(one_seat):
    """The others wait while one is served: queueing is the largest part of TTFT and of latency, and the parts add up."""
    side = one_seat[0].plans[0].server
    for breakdown, name in ((side.ttft, "TTFT"), (side.latency, "latency")):
        assert breakdown.parts[0].phase == "queue"
        assert sum(part.share for part in breakdown.parts) == pytest.approx(1.0)
        assert where(name, breakdown).startswith(f"{breakdown.parts[0].share:.1%} of {name} (mean ")
    assert "% of TTFT" in text_of(one_seat[0])
    assert "was queueing in the server, " in text_of(one_seat[0])


def test_phases_are_those_of_the_engine(one_seat):
    """Ten steps an answer, one of them the prefill: decoding is nine times as long, and inference is prefill and decoding."""
    times = one_seat[0].plans[0].server.times
    assert times["itl"].count == REQUESTS * (TOKENS - 1)
    assert times["itl"].sum_s == pytest.approx(times["decode"].sum_s)
    assert times["ttft"].sum_s == pytest.approx(times["queue"].sum_s + times["prefill"].sum_s)
    assert times["latency"].sum_s == pytest.approx(times["ttft"].sum_s + times["decode"].sum_s)


def test_gauges_are_read_while_the_plan_runs(one_seat):
    """One seat, seven waiting, each read of them in the plan's file; the last ones of the file may lie after the window."""
    document, path, _ = one_seat
    seen = document.plans[0].server.watched
    assert seen.running == Level(mean=1.0, max=1.0, last=1.0)
    assert 0 < seen.waiting.max <= SLOTS - 1
    lines = (path / "plans" / document.plans[0].directory / "server-series.jsonl").read_text().splitlines()
    assert len(lines) >= seen.reads > 0
    assert {"began_ns", "ended_ns", "running", "waiting", "kv_usage", "preemptions"} == json.loads(lines[0]).keys()
    assert "gauges 1.0 running on average, at most 1, 1 at last" in text_of(document)


def test_the_bracket_is_around_the_window(one_seat):
    """The first read ended before the first due, the second began after the last end; the report says by how much."""
    document = one_seat[0]
    bracket = document.plans[0].server.bracket
    assert bracket.before_began_s < bracket.before_ended_s < 0
    assert bracket.window_s < bracket.after_began_s < bracket.after_ended_s
    assert " before the window of " in text_of(document)


def test_the_table_has_what_the_server_timed(one_seat):
    """A row each; percentiles as the two bounds they lie between."""
    document = one_seat[0]
    table = server_table(document, document.plans[0].summary)
    assert list(table.columns[0].cells) == ["queue", "prefill", "decode", "TTFT", "ITL", "latency"]
    prefill = [list(column.cells)[1] for column in table.columns]
    assert prefill[1] == str(REQUESTS)
    assert prefill[3:] == ["0us-300ms"] * 3
    text = report(document)
    assert "as the server timed it" in text
    assert max(map(len, text.splitlines())) <= 100


def test_counts_that_agree_are_said_to_be_equal(one_seat):
    """Requests and both kinds of token, idle to idle."""
    tokens = one_seat[0].plans[0].summary.tokens
    expected = (
        f"by the server: {REQUESTS} requests (equal); {tokens.prompt} prompt tokens (equal); {tokens.completion} generated tokens (equal)"
    )
    assert ("counted", expected) in lines_of(one_seat[0])


def test_counts_that_disagree_are_said_with_both_numbers_and_what_others_did(one_seat):
    """Somebody else had two going when we began, and one at the end."""
    requests = {"stop": 0, "length": REQUESTS + 3, "abort": 1}
    document = served(one_seat[0], requests=requests, running_before=2, waiting_before=5, running_after=1, waiting_after=0)
    text = text_of(document)
    assert f"{REQUESTS + 3} requests (NOT EQUAL: we counted {REQUESTS}: 3 more there)" in text
    assert "others had 2 requests running and 5 waiting when it began: the server's counts and times hold their work, too" in text
    assert f"the server ended {REQUESTS + 3} requests in order, {REQUESTS} succeeded here" in text
    assert "1 were running and 0 waiting when it was read again" in text
    assert [line.warning for line in server_lines(document, document.plans[0].summary) if "others had" in line.text] == [True]


def test_others_are_named_even_where_the_counts_agree(one_seat):
    """Agreement of numbers is no proof that they are of the same requests."""
    assert "others had 1 requests running and 0 waiting" in text_of(served(one_seat[0], running_before=1))


def test_plans_that_disagree_each_way_do_not_cancel_out(one_seat):
    """Two more in one plan, two fewer in the next: the sums are equal and the plans are not."""
    [one] = one_seat[0].plans
    plans = [
        msgspec.structs.replace(one, server=msgspec.structs.replace(one.server, requests={"length": REQUESTS + more})) for more in (2, -2)
    ]
    text = text_of(msgspec.structs.replace(one_seat[0], plans=plans))
    assert f"{2 * REQUESTS} requests (NOT EQUAL: we counted {2 * REQUESTS}, but not in each plan)" in text


def test_a_restart_is_all_that_is_said_of_the_counts(one_seat):
    """No difference, no times, one line."""
    [one] = one_seat[0].plans
    document = msgspec.structs.replace(one_seat[0], plans=[msgspec.structs.replace(one, server=ServerSide(restarted=True))])
    assert lines_of(document) == [("counted", "the server was restarted during the run: its counters say nothing")]


def test_a_server_without_counters_is_one_line_however_many_plans(one_seat):
    """It is normal, and no warning."""
    [one] = one_seat[0].plans
    plan = msgspec.structs.replace(one, server=ServerSide(notes=["the server gives no counters (HTTP 404)"]))
    document = msgspec.structs.replace(one_seat[0], plans=[plan, plan])
    assert lines_of(document) == [("counted", "the server gives no counters (HTTP 404)")]
    assert server_table(document, one.summary) is None


COUNTED = "vllm:prompt_tokens_total {}\nvllm:num_requests_running 0\n"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda _: (404, b""), "the server gives no counters (HTTP 404)"),
        (lambda _: None, "the server gives no counters (no answer within 0.2 s)"),  # it hangs
        (lambda _: (200, b"go_goroutines 5\n"), "the server gives no counters (the page names none of vLLM's series)"),
        (lambda _: (200, bytes(9 << 20)), "the server gives no counters (a page of more than 8 MiB, which is none of metrics)"),
        # Each read has counted less than the one before: it is started anew all the time.
        (
            lambda number: (200, COUNTED.format(10**6 - number).encode()),
            "the server was restarted during the run: its counters say nothing",
        ),
        # It is there before the plan (two reads that agree) and gone afterwards.
        (
            lambda number: (200, COUNTED.format(5).encode()) if number < 3 else (500, b""),
            "the server gave no counters after the plan (HTTP 500)",
        ),
    ],
)
def test_whatever_the_page_does_a_run_ends_in_order(answer, said, monkeypatch, tmp_path):
    """A bench whose server's page is missing, hangs, is another's, is too long, starts anew or goes away: valid, and a line says it."""
    over, asked = threading.Event(), []

    class Handler(threaded.Quiet):
        def do_GET(self):
            asked.append(self.path)
            given = answer(len(asked))
            if given is None:
                over.wait()
                given = 200, b""
            with contextlib.suppress(OSError):  # who asked has gone
                self.send(*given)

    with threaded.serving(Handler) as url:
        monkeypatch.setattr(scrape, "metrics_url", lambda _: url)
        monkeypatch.setattr(scrape.scrape, "__kwdefaults__", {"timeout_s": 0.2 if answer(0) is None else 20.0})
        words = [
            "--simulate",
            "--sim-time-scale",
            "0.01",
            "--model-name",
            "m",
            "--max-tokens",
            "2",
            "--num-requests",
            "4",
            "--num-warmups",
            "0",
        ]
        try:
            assert main(["bench", *words, "--max-concurrent", "2", "--results-dir", str(tmp_path)]) == 0
        finally:
            over.set()
    [path] = tmp_path.iterdir()
    document = read_document(RunDirectory.existing(path))
    assert document.plans[0].summary.ok == 4
    assert said in text_of(document)
    assert document.plans[0].server.times == {}


def test_cache_and_preemptions_are_summed(one_seat):
    """Tokens of prompts, images, and a full KV cache."""
    text = text_of(served(one_seat[0], prefix_queries=200, prefix_hits=50, image_queries=8, image_hits=2, preemptions=3))
    assert "prefix cache: 25.0% of 200 tokens were hits" in text
    assert "cache of processed images: 25.0% of 8 images were hits" in text
    assert "3 preemptions: the KV cache was full" in text


def test_the_largest_part_is_said_first_and_nothings_are_left_out():
    """A reader wants to know where the time went, not that 0.0 % of it went elsewhere."""
    parts = [
        Part(phase="queue", mean_s=0.71, share=0.71),
        Part(phase="prefill", mean_s=0.289, share=0.289),
        Part(phase="outside", mean_s=0.0012, share=0.0012),
        Part(phase="front_end", mean_s=-0.0002, share=-0.0002),
    ]
    said = where("TTFT", Breakdown(requests=10, mean_s=1.0, parts=parts))
    assert said == "71.0% of TTFT (mean 1.00s) was queueing in the server, 28.9% prefill, 0.1% network and client"


def test_where_it_cannot_be_said_the_reason_is():
    """With the numbers that disagree."""
    said = where("TTFT", Breakdown(requests=10, absent="the server timed queue of 9 requests, we timed 10: not the same ones"))
    assert said == "where TTFT went cannot be said: the server timed queue of 9 requests, we timed 10: not the same ones"
