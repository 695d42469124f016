"""sweep, search and objectives from the command line to the exit status."""

import json
import os
import signal
from pathlib import Path

import msgspec
import pytest

from loadgen.cli import main
from loadgen.document import read_document
from loadgen.fleet import Fleet
from loadgen.measurement import missed_status
from loadgen.rundir import RunDirectory
from loadgen.simulator.process import Simulator
from loadgen.simulator.settings import load_settings
from tests.loadgen.commands import children, gone, until

SENT = ["--num-warmups", "4", "--max-tokens", "4", "--input-len", "4", "--json"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Each test in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture(scope="module")
def served():
    """A simulated gpt-oss-20b of 4 seats, twenty times as fast as its estimate."""
    with Simulator(load_settings("gpt-oss-20b", time_scale=0.05, max_num_seqs=4)) as simulator:
        yield simulator


def run(capsys, simulator, *words):
    """A command against the server; (status, document, report)."""
    status = main([words[0], "--model", "gpt-oss-20b", "--base-url", simulator.base_url, *SENT, *map(str, words[1:])])
    out, err = capsys.readouterr()
    assert out, err
    return status, json.loads(out), err


REFUSED = [
    ("search --model olmocr", "--goodput: missing; takes what makes a request good"),
    ("search --model olmocr --goodput ttft:5 --min-rate 5 --max-rate 2", "--min-rate: got 5, which is above --max-rate 2"),
    ("search --model olmocr --goodput ttft:5 --by concurrency --max-rate 2", "--max-rate: has no use with --by concurrency"),
    ("search --model olmocr --goodput ttft:5 --min-concurrent 2", "--min-concurrent: has no use with --by rate"),
    ("search --model olmocr --goodput ttft:5 --by concurrency --arrival constant", "--arrival: has a use only with rates"),
    ("sweep --model olmocr", "--request-rates, --concurrencies: got none of the two, takes one"),
    ("sweep --model olmocr --request-rates 1 --concurrencies 1", "--request-rates, --concurrencies: got both of the two, takes one"),
    ("sweep --model olmocr --request-rates 1 --burstiness 2 --arrival poisson", "--burstiness: has a use only with --arrival gamma"),
    (
        "sweep --model olmocr --request-rates 1,1000000 --duration 1h",
        "duration: got 3600 s, in which this rate gives more than 500,000,000",
    ),
    (
        "search --model olmocr --goodput ttft:5 --duration 1h --budget 5s",
        "--duration: got 3600 s for each load, which is above --budget 5 s",
    ),
    ("run --model olmocr --request-rate 1 --goodput", "--goodput: missing; takes a metric"),
    ("run --model olmocr --request-rate 1e6 --duration 1h", "duration: got 3600 s, in which this rate gives more than 500,000,000"),
    ("run --model olmocr --request-rate 5 --num-requests 2000000000", "num_requests: got 2000000000, takes at most 500,000,000"),
    ("run --model olmocr --stages 99999999x1s", "--stages: got '99999999x1s', takes steps of requests/s"),
    ("bench --model olmocr --attainment 0.9", "--attainment: has a use only with --goodput METRIC:MS"),
    ("bench --model olmocr --goodput e2el:9 ttft:5 --no-stream", "--goodput: got ttft:5 with --no-stream, which has no first token"),
    ("grid --model olmocr --goodput e2el:9", "--goodput is an option of bench"),
]


@pytest.mark.parametrize(("line", "said"), REFUSED)
def test_what_contradicts_itself_is_refused_before_anything_is_sent(capsys, line, said):
    """Status 2, one line that names the option."""
    assert main(line.split()) == 2
    assert said in capsys.readouterr().err


def test_a_missed_attainment_is_status_4_and_a_kept_one_is_not(capsys, served):
    """A limit of a microsecond no request keeps; a minute each of them."""
    words = ["bench", "--max-concurrent", 2, "--num-requests", 80, "--attainment", 0.9, "--goodput"]
    status, document, report = run(capsys, served, *words, "ttft:0.001", "e2el:60000")
    goodput = document["plans"][-1]["summary"]["goodput"]
    assert (status, goodput["good"], goodput["share"]) == (4, 0, 0.0)
    assert {one["metric"]: one["within"] for one in goodput["objectives"]} == {"ttft": 0, "e2el": 80}
    assert "asked for 0.9: missed" in report
    status, document, report = run(capsys, served, *words, "ttft:60000", "e2el:60000")
    assert (status, document["plans"][-1]["summary"]["goodput"]["good"]) == (0, 80)
    assert "asked for 0.9: missed" not in report
    assert "asked for 0.9: " in report


def test_an_invalid_run_goes_before_a_missed_attainment(capsys, served, tmp_path):
    """3, then 4: numbers that may not be believed miss nothing. `loadgen report` gives the same status."""
    run(capsys, served, "bench", "--max-concurrent", 2, "--num-requests", 20, "--attainment", 0.9, "--goodput", "ttft:0.001")
    [directory] = (tmp_path / "results").iterdir()
    assert main(["report", str(directory)]) == 4
    document = read_document(RunDirectory.existing(directory))
    assert missed_status(document) == 4
    [plan] = [one for one in document.plans if one.plan.purpose == "measure"]
    invalid = msgspec.structs.replace(plan, verdict=msgspec.structs.replace(plan.verdict, level="invalid"))
    assert missed_status(msgspec.structs.replace(document, plans=[invalid])) == 0


@pytest.mark.parametrize("axis", [("--request-rates", "80,20", "offered/s"), ("--concurrencies", "4,1", "conc")])
def test_a_sweep_shows_each_load_by_rising_level(capsys, served, axis):
    """In run.json and in the report, with a chart; each load has its own plan at the full length."""
    name, levels, column = axis
    status, document, report = run(capsys, served, "sweep", name, levels, "--num-requests", 30, "--goodput", "e2el:60000")
    assert status in (0, 3)  # a machine that is shared may spoil a plan: what is asked here is its shape
    points = document["curve"]["points"]
    assert [point["level"] for point in points] == sorted(map(float, levels.split(",")))
    assert [one["plan"]["num_requests"] for one in document["plans"][1:]] == [30, 30]
    assert all(point["share"] in (1.0, None) for point in points)
    assert column in report
    assert "against" in report or any(point["verdict"] == "invalid" for point in points)


def test_a_search_keeps_its_budget_and_says_what_it_found(capsys, served, tmp_path):
    """Whatever the machine did meanwhile, the answer in run.json is the one that `loadgen report` makes again from the files."""
    words = ["search", "--goodput", "ttft:20", "--attainment", 0.9, "--budget", "6s", "--duration", "1", "--grace", "500ms"]
    status, document, report = run(capsys, served, *words, "--max-rate", 150)
    assert status in (0, 3, 4)
    curve = document["curve"]
    assert 1 <= len(curve["points"]) <= 7
    assert all(point["level"] <= 150 for point in curve["points"])
    assert curve["why"] in " ".join(report.split())
    # The longest point lasted a second, where half a minute is wanted; its parts are short by design and not held to that.
    assert [reason["threshold"] for reason in document["verdict"]["reasons"] if reason["name"] == "short"] == [30]
    assert all(reason["name"] != "short" for one in document["plans"] for reason in one["verdict"]["reasons"])
    [directory] = (tmp_path / "results").iterdir()
    main(["report", str(directory), "--json"])
    assert json.loads(capsys.readouterr().out)["curve"] == curve


def test_a_grid_that_searches_leaves_cells_out_and_names_the_same_best(capsys, served):
    """4 seats: of eight concurrencies those far below and above need not be run."""
    concurrencies = "1,2,3,4,6,8,12,16"
    words = ["grid", "--concurrencies", concurrencies, "--batch-sizes", "none", "--num-requests", 64, "--repeats", 1, "--search"]
    _, document, report = run(capsys, served, *words, "--max-tokens", 16, "--ignore-eos")
    assert len(document["grid"]["results"]) < len(concurrencies.split(","))
    assert document["grid"]["best"] is None or document["grid"]["best"]["max_concurrent"] <= 16
    assert "--search left out cells that cannot win" in " ".join(report.split())


def test_a_signal_before_a_plan_has_begun_loses_none_of_those_before_it(capsys, served, tmp_path, monkeypatch):
    """Ctrl-C while the third plan's workers start, and none has opened its records: 130, and the report has the second."""
    perform, performed = Fleet.run, []

    def interrupted(fleet, *rest, **more):
        performed.append(fleet)
        if len(performed) < 3:
            return perform(fleet, *rest, **more)
        os.kill(os.getpid(), signal.SIGINT)
        return []

    monkeypatch.setattr(Fleet, "run", interrupted)
    status, document, _ = run(capsys, served, "sweep", "--concurrencies", "1,2", "--num-requests", 20, "--results-dir", tmp_path)
    assert status == 130
    assert [one["summary"] and one["summary"]["requests"] for one in document["plans"]] == [4, 20, None]


def test_a_simulator_that_dies_costs_no_report(capsys, tmp_path, monkeypatch):
    """Its own statistics are missing; what was measured before is reported."""
    perform = Fleet.run

    def killed(fleet, *rest, **more):
        crew = perform(fleet, *rest, **more)
        for pid in children(os.getpid()):
            if b"loadgen.simulator" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
                until(lambda pid=pid: gone(pid), "the simulator's end")
        return crew

    monkeypatch.setattr(Fleet, "run", killed)
    words = [
        "run",
        "--simulate",
        "--max-concurrent",
        "2",
        "--num-requests",
        "20",
        "--sim-time-scale",
        "0.05",
        "--results-dir",
        str(tmp_path),
    ]
    main([*words, *SENT, "--num-warmups", "0"])
    out, err = capsys.readouterr()
    assert out, err
    [plan] = json.loads(out)["plans"]
    assert plan["summary"]["accounting"]["ok"] == 20
