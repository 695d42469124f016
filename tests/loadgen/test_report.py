"""The report: verdict first, what was sent and to whom, tables at 100 columns, the setting for the pipeline."""

import io
import re

import msgspec
import pytest
from rich.console import Console

from clients.errors import Outcome
from loadgen import selftest
from loadgen.ceiling import KeptCeiling
from loadgen.cli import main
from loadgen.distribution import Percentile
from loadgen.document import read_document
from loadgen.report import print_report, write_report
from loadgen.rundir import RunDirectory
from loadgen.selftest import Ceiling
from loadgen.server_side import ServerSide
from loadgen.summary import Reason, Verdict
from loadgen.tables import rate, seconds, share

QUICK = ["--simulate", "--sim-time-scale", "0.01", "--max-tokens", "4", "--num-requests", "8", "--num-warmups", "2"]
P99 = Percentile(percent=99.0, value=0.0015, low=0.001, high=None, needs=299, enough=True)


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """The document of a small grid."""
    results = tmp_path_factory.mktemp("results")
    line = ["grid", "--model", "olmocr", *QUICK, "--batch-sizes", "none,2", "--concurrencies", "1,4", "--repeats", "1"]
    assert main([*line, "--results-dir", str(results)]) == 0
    (path,) = results.iterdir()
    # A busy machine may give reasons that are none of this page's.
    document = read_document(RunDirectory.existing(path))
    standings = [msgspec.structs.replace(standing, level="valid") for standing in document.grid.results]
    ranked = msgspec.structs.replace(document.grid, results=standings)
    return msgspec.structs.replace(document, verdict=Verdict(level="valid", reasons=[]), grid=ranked)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """The document of a small bench in which half of the requests fail."""
    results = tmp_path_factory.mktemp("results")
    line = ["bench", "--model", "gpt-oss-20b", *QUICK, "--input-len", "9", "--sim-faults", "unavailable-503=0.5", "--num-requests", "40"]
    assert main([*line, "--results-dir", str(results)]) == 3
    (path,) = results.iterdir()
    return read_document(RunDirectory.existing(path))


def report(document, **options):
    stream = io.StringIO()
    write_report(document, stream, **options)
    return stream.getvalue()


def test_the_first_line_is_the_verdict(grid, bench):
    """VALID says that numbers may be believed; INVALID gives each reason with number, threshold and advice."""
    assert report(grid).startswith("VALID: the numbers below may be believed\n")
    lines = report(bench).splitlines()
    assert lines[0].startswith("INVALID: ")
    names = lines[0].removeprefix("INVALID: ").split(", ")
    assert "errors" in names
    (reason,) = [line for line in lines if line.startswith("  errors (invalid): 0.")]
    assert "threshold 0.1" in reason


def test_then_comes_what_was_sent_and_to_whom(grid):
    """Server, model, workload, transport and stamping, accounting; simulated timing is labelled uncalibrated."""
    text = " ".join(report(grid).split())
    assert "model olmocr (vlm), chat, streamed; chunks tell their tokens" in text
    assert "8 requests per run of a setting: 6 drawn pages of 995x1288 (seed 0) with an OCR prompt; max_tokens 4; cache unique" in text
    assert re.search(r"wire, (compiled|interpreted), reads stamped at arrival", text)
    assert "uncalibrated" in text
    assert "34 scheduled = 34 ok" in text


def test_a_metronome_is_no_estimate(tmp_path):
    """Its times are planned: they are named, scaled as they were, with how late they were kept."""
    line = ["bench", "--model-name", "m", *QUICK, "--sim-time-scale", "0.1", "--sim-metronome", "--sim-metronome-ttft-ms", "100"]
    assert main([*line, "--results-dir", str(tmp_path)]) in (0, 3)
    (path,) = tmp_path.iterdir()
    text = " ".join(report(read_document(RunDirectory.existing(path))).split())
    assert "loadgen's metronome: its timing is exact by plan (TTFT 10.0ms, a token each 2.0ms), and it wrote at most " in text
    assert "uncalibrated" not in text


def test_what_this_machine_can_drive_stands_beside_what_it_drove(grid):
    """Where no self-test told it, that; else each ceiling, marked where it is only a bound or computed, and the share that was reached."""
    assert "ceiling not known: `loadgen selftest` measures it once" in " ".join(report(grid).split())
    events = Ceiling(unit="token events", workers=1, rate_rps=8e4, cpu_s=1e-5, how="measured", lower_bound="the metronome was late")
    requests = Ceiling(unit="requests", workers=1, rate_rps=2e4, cpu_s=4e-5, how="measured", lower_bound="")
    both = [selftest.computed(one, 2) for one in (events, requests)]
    kept = KeptCeiling(id="a-self-test", started="", quick=True, machine=(), one=[events, requests], all=both, reaches=[])
    steady = [
        msgspec.structs.replace(one, summary=msgspec.structs.replace(one.summary, whole=long, steady=None, ended_rps=50.0, events_rps=2e4))
        for one in grid.plans
        for long in [msgspec.structs.replace(one.summary.whole, start_s=0.0, end_s=5.0)]
    ]
    known = msgspec.structs.replace(grid, plans=steady, run=msgspec.structs.replace(grid.run, ceiling=kept))
    text = " ".join(report(known).split())
    assert (
        "ceiling 1 worker: at least 80,000 token events/s, 20,000 requests/s; "
        "2 workers: at least 160,000 token events/s (computed), 40,000 requests/s (computed); by the self-test a-self-test (quick)"
    ) in text
    assert (
        "the workers handled 50.00 requests/s (0.2% of the ceiling) and 20,000 token events/s (25.0% of a lower bound of the ceiling); "
        "a lower bound is no reason for client-limited"
    ) in text
    alone = msgspec.structs.replace(kept, one=[], all=both)
    text = report(msgspec.structs.replace(known, run=msgspec.structs.replace(grid.run, ceiling=alone)))
    assert "no ceiling of 1 worker was measured, so none is a reason for client-limited" in " ".join(text.split())


def test_how_the_workers_fared_is_said(grid):
    """The busiest core and the latest loop, where the run was long enough to know them."""
    assert "of a core each" not in report(grid)
    [worker] = grid.plans[1].summary.workers
    lag = msgspec.structs.replace(grid.plans[1].summary.whole.latency, percentiles=dict.fromkeys(["p99"], P99))
    fared = msgspec.structs.replace(worker, cpu_share=0.125, loop_lag=lag)
    plans = [msgspec.structs.replace(one, summary=msgspec.structs.replace(one.summary, workers=[fared])) for one in grid.plans]
    text = " ".join(report(msgspec.structs.replace(grid, plans=plans)).split())
    assert "; at most 12.5% of a core each; loops at most 1.5ms late at p99" in text


def test_every_cell_is_in_the_table_sorted_by_throughput(grid):
    """One row a setting; req/s never grows downward."""
    lines = report(grid).splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[:3] == ["batch", "conc", "req/s"])
    rows = [line.split() for line in lines[start + 2 : start + 6]]
    assert {(row[0], row[1]) for row in rows} == {("-", "1"), ("-", "4"), ("2", "1"), ("2", "4")}
    rates = [float(row[2].replace(",", "")) for row in rows]
    assert rates == sorted(rates, reverse=True)


def test_a_grid_ends_with_the_setting_why_and_the_yaml(grid):
    """What a pipeline needs is the last thing on the screen."""
    text = report(grid)
    assert f"best: max_concurrent {grid.grid.best.max_concurrent}" in text
    assert text.endswith(grid.grid.pipeline)


def test_nothing_is_wider_than_a_hundred_columns(grid, bench):
    """Plain reports are read in files and mails."""
    for document in (grid, bench):
        assert max(map(len, report(document).splitlines())) <= 100


def test_the_servers_count_stands_beside_ours(grid):
    """Equal, or by how much they differ; a restarted server says nothing."""
    assert "by the server: 34 requests (equal)" in " ".join(report(grid).split())
    plans = [msgspec.structs.replace(one, server=msgspec.structs.replace(one.server, requests={"stop": 9})) for one in grid.plans]
    assert "45 requests (NOT EQUAL: we counted 34: 11 more there)" in " ".join(report(msgspec.structs.replace(grid, plans=plans)).split())
    plans = [msgspec.structs.replace(one, server=ServerSide(restarted=True)) for one in grid.plans]
    assert "restarted" in report(msgspec.structs.replace(grid, plans=plans))


def test_failures_are_listed_by_kind_with_their_latency(bench):
    """Kind, whose fault, status, an example."""
    line = next(line for line in report(bench).splitlines() if line.startswith("failed "))
    failure = bench.measured[0][0].failures[Outcome.OVERLOADED.label]
    assert f"{failure.count} overloaded (the server's), HTTP 503: {failure.count}" in line


def test_metrics_that_were_not_asked_for_are_left_out(grid):
    """`--percentile-metrics ttft` shows TTFT alone, beside throughput and latency."""
    text = report(grid, metrics=("ttft",))
    assert "TTFT, from due" in text
    assert "TPOT" not in text
    assert "latency, from sent" not in text


def test_a_run_that_was_interrupted_or_did_not_end_says_so(grid):
    """Numbers of a part are not those of the whole."""
    ended = msgspec.structs.replace(grid.ended, interrupted=2)
    assert "interrupted by signal 2" in report(msgspec.structs.replace(grid, ended=ended))
    assert "has not ended in order" in report(msgspec.structs.replace(grid, ended=None))


def test_reasons_are_shown_with_number_threshold_and_advice(grid):
    """Each reason is a line below the verdict."""
    reason = Reason(name="too-few-samples", level="degraded", number=64.0, threshold=299.0, advice="send more requests")
    text = report(msgspec.structs.replace(grid, verdict=Verdict(level="degraded", reasons=[reason])))
    assert text.startswith("DEGRADED: too-few-samples\n  too-few-samples (degraded): 64, threshold 299: send more requests\n")


def test_a_grid_without_a_best_prints_no_yaml(grid):
    """No setting can be believed: none is named."""
    report_of = msgspec.structs.replace(grid.grid, best=None, why="every cell is invalid", pipeline="")
    text = report(msgspec.structs.replace(grid, grid=report_of))
    assert text.endswith("best: none. every cell is invalid\n")
    assert "generation:" not in text


def test_a_document_of_the_very_start_can_be_shown(grid):
    """`loadgen report` of a run that has just begun."""
    start = msgspec.structs.replace(grid, plans=[], grid=None, verdict=None, accounting=None, ended=None)
    assert report(start).startswith("UNFINISHED: nothing has been measured yet\n")
    so_far = msgspec.structs.replace(grid, verdict=None)
    assert report(so_far).startswith("UNFINISHED: what follows is what its records hold so far\n")


def test_a_terminal_gets_colours_and_its_own_width(grid):
    """The same report on a narrow colour terminal."""
    stream = io.StringIO()
    print_report(grid, Console(file=stream, force_terminal=True, width=70, color_system="standard", legacy_windows=False))
    assert "\x1b[1;32mVALID" in stream.getvalue()


def test_a_number_is_never_cut(grid):
    """On a terminal of 60 columns, and with more percentiles than a hundred columns hold: rows go on in the next line."""
    stream = io.StringIO()
    print_report(grid, Console(file=stream, width=60))
    wide = msgspec.structs.replace(grid, run=msgspec.structs.replace(grid.run, percentiles=(1.0, 5.0, 10.0, 25.0, 50.0, 90.0, 95.0, 99.0)))
    for text in (stream.getvalue(), report(wide)):
        assert "…" not in text
    rows = [line for line in report(grid).splitlines() if line.startswith(" latency, from due")]
    assert rows
    assert [line.rstrip() for line in stream.getvalue().splitlines() if line.startswith(" latency, from due")] == rows


def test_lines_of_tables_are_drawn_with_what_the_stream_can_write(grid):
    """LC_ALL=C: dashes, not marks of what could not be encoded."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    write_report(grid, stream)
    text = stream.buffer.getvalue().decode("ascii")
    assert "?????" not in text
    assert "-----" in text


def test_long_reasons_and_remarks_keep_their_indentation(grid):
    """What does not fit goes on below itself, not at the left edge."""
    reason = Reason(name="errors", level="degraded", number=1, threshold=0, advice="word " * 40)
    lines = report(msgspec.structs.replace(grid, verdict=Verdict(level="degraded", reasons=[reason]))).splitlines()
    assert lines[1].startswith("  errors (degraded): 1, threshold 0: word word")
    assert lines[2].startswith("  word word")


def test_a_file_that_was_not_read_is_named_whichever_plan_it_is_of(grid):
    """Not only of the setting that is shown in detail."""
    plans = [
        msgspec.structs.replace(one, summary=msgspec.structs.replace(one.summary, notes=[f"x{place} was not read: twice"]))
        for place, one in enumerate(grid.plans)
    ]
    text = " ".join(report(msgspec.structs.replace(grid, plans=plans)).split())
    assert all(f"{one.directory}: x{place} was not read: twice" in text for place, one in enumerate(plans))


def test_the_account_says_that_warm_up_is_in_it(grid):
    """Two requests more than were measured: a reader who adds up must not wonder."""
    assert "account    34 scheduled = 34 ok (warm-up included)\n" in report(grid)


def test_the_text_is_a_function_of_the_document(grid):
    """Twice the same."""
    assert report(grid) == report(grid)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),  # not measured
        (0.0, "0us"),
        (0.000_85, "850us"),
        (0.000_999_9, "1.0ms"),  # rounds into the next unit, not to 1000us
        (0.0123, "12.3ms"),
        (0.5, "500ms"),
        (0.999_9, "1.00s"),
        (12.34, "12.3s"),
        (125.2, "2m05s"),
        (119.7, "2m00s"),  # never 1m60s
    ],
)
def test_times_have_a_unit(value, text):
    """Short enough for a column, three digits of meaning."""
    assert seconds(value) == text


def test_shares_and_rates_do_not_round_into_a_lie():
    """One failure in ten thousand is not 100.0 %."""
    assert (share(1.0), share(0.9999), share(0.0), share(0.0001), share(None)) == ("100.0%", "99.9%", "0.0%", "<0.1%", "-")
    assert (rate(1.234), rate(123.4), rate(12345.6), rate(None)) == ("1.23", "123.4", "12,346", "-")
