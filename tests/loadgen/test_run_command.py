"""`loadgen run` as a user types it: shapes and plan files end in a report, and the report can be made again from the files."""

import json

import pytest

from loadgen.simulator.process import Simulator
from loadgen.simulator.settings import SimulatorSettings
from tests.loadgen.commands import loadgen


@pytest.fixture(scope="module")
def server():
    """Answers at once."""
    with Simulator(SimulatorSettings(model_name="m", metronome=True, metronome_ttft_ms=0.0, metronome_itl_us=100)) as running:
        yield running


def words(server, tmp_path, *more):
    target = ["--base-url", server.base_url, "--model-name", "m", "--max-tokens", "2", "--input-len", "4"]
    return ["run", *more, *target, "--results-dir", tmp_path / "results", "--json"]


def document(done):
    assert done.returncode in (0, 3), done.stderr  # on a shared machine no run is sure to be valid
    return json.loads(done.stdout)


def measured(found):
    [one] = [one for one in found["plans"] if one["plan"]["purpose"] == "measure"]
    return one


def test_a_rate_is_offered_and_the_report_can_be_made_again(server, tmp_path):
    """60 of a Poisson process at 100/s, over two workers: all accounted for; `report` gives the same document from the files alone."""
    done = loadgen(*words(server, tmp_path, "--request-rate", "100", "--num-requests", "60", "--processes", "2", "--num-warmups", "4"))
    found = document(done)
    one = measured(found)
    assert one["plan"]["schedule"]["process"] == "poisson"
    assert (one["summary"]["requests"], one["summary"]["accounting"]["scheduled"]) == (60, 60)
    assert one["summary"]["accounting"]["problems"] == []
    assert one["summary"]["held_back"] == {"started_late": 0, "dropped": 0, "wait": None}
    [run] = (tmp_path / "results").iterdir()
    again = document(loadgen("report", run, "--json"))
    assert measured(again)["summary"] == one["summary"]


def test_a_plan_file_is_run(server, tmp_path):
    """Steps of the rate, gamma arrivals, a lead; what is typed goes before it."""
    plan = tmp_path / "plan.yaml"
    plan.write_text("stages: [20x0.5s, 60x1s]\narrival: gamma\nburstiness: 0.5\nlead: 0.5s\nnum_warmups: 0\nseed: 1\n")
    one = measured(document(loadgen(*words(server, tmp_path, plan, "--seed", "3"))))
    assert [stage["start_rps"] for stage in one["plan"]["schedule"]["stages"]] == [20.0, 60.0]
    assert (one["plan"]["schedule"]["seed"], one["plan"]["duration_s"]) == (3, 1.5)
    assert one["summary"]["whole"]["start_s"] == 0.5
    assert one["summary"]["whole"]["requests"] < one["summary"]["requests"] == one["summary"]["accounting"]["scheduled"]


def test_a_trace_is_replayed_at_its_speed(server, tmp_path):
    """Ten requests recorded over 9 s, ninety times as fast: the last one is due 100 ms after the first."""
    trace = tmp_path / "trace.jsonl"
    trace.write_text("".join(f'{{"timestamp": {1700000000 + k}}}\n' for k in range(10)))
    one = measured(document(loadgen(*words(server, tmp_path, "--trace", trace, "--trace-speed", "90", "--num-warmups", "0"))))
    assert one["plan"]["num_requests"] == one["summary"]["requests"] == 10
    assert one["summary"]["accounting"]["problems"] == []


def test_a_run_ends_when_it_is_precise_enough(server, tmp_path):
    """Ten minutes of load at most: a median within 90 % of itself is known after a few looks, and run.json says which."""
    more = ["--request-rate", "50", "--arrival", "constant", "--duration", "10m", "--precision", "p50:e2el:90%", "--num-warmups", "0"]
    one = measured(document(loadgen(*words(server, tmp_path, *more))))
    assert one["precision"]["reached"]
    assert one["precision"]["looks"][-1]["width"] <= 0.9
    account = one["summary"]["accounting"]
    assert account["scheduled"] == 30_000
    assert account["unsent"] > 0
    assert account["problems"] == []


def test_levels_of_concurrency_are_run(server, tmp_path):
    """A closed loop whose slots grow: the plan says them, and the account closes."""
    one = measured(document(loadgen(*words(server, tmp_path, "--levels", "1x0.3s,2..4x0.6s", "--num-warmups", "0"))))
    assert one["plan"]["levels"] == [[0.0, 1], [0.3, 2], [pytest.approx(0.5), 3], [pytest.approx(0.7), 4]]
    assert one["summary"]["accounting"]["problems"] == []
    assert one["summary"]["whole"]["in_flight_peak"] <= 4


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "loadgen: --request-rate: missing"),
        (["none.yaml"], "loadgen: PLAN: cannot read 'none.yaml'"),
        (["--request-rate", "5", "--lead", "1h", "--duration", "5s"], "loadgen: --lead, --tail: together 3600 s"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_sent(server, tmp_path, more, said):
    """Status 2, one line, nothing left on disk."""
    done = loadgen(*words(server, tmp_path, *more))
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()
