"""run.json: written first, rebuilt from the files alone, described as it is."""

import fcntl
import json
import shutil
import sys
from pathlib import Path

import msgspec
import pytest

from clients.errors import UsageError
from clients.messages import Sampling
from loadgen import document
from loadgen.cli import main
from loadgen.document import Opening, build, conclude, read_document, rebuild
from loadgen.plan_report import plan_report
from loadgen.rundir import RunDirectory
from loadgen.target import Target

ROOT = Path(__file__).parents[2]
QUICK = ["--simulate", "--sim-time-scale", "0.02", "--max-tokens", "4", "--input-len", "20", "--num-requests", "12", "--num-warmups", "4"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The directory of a bench that ended in order, two workers."""
    results = tmp_path_factory.mktemp("results")
    line = ["bench", "--model", "gpt-oss-20b", *QUICK, "--max-concurrent", "4", "--processes", "2", "--results-dir", str(results)]
    assert main([*line, "--metadata", "who=me", "--header", "X-Team=abc"]) == 0
    (path,) = results.iterdir()
    return path


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it to damage."""
    return RunDirectory.existing(shutil.copytree(finished, tmp_path / finished.name))


def test_the_document_of_the_live_run_is_what_its_files_give(run):
    """A report is a pure function of the files: built again, it is the same to the last field."""
    assert build(run) == read_document(run)


def test_what_a_live_run_kept_of_its_plans_is_what_their_files_give(run):
    """run.json at the live end, where each plan was reduced once, and rebuilt from nothing but the files: the same bytes."""
    live = run.document_path.read_bytes()
    rebuild(run)
    assert run.document_path.read_bytes() == live


def test_a_live_run_reduces_each_plan_once(tmp_path, monkeypatch):
    """Warm-up and measurement: two plans, and no file of records is read again for the document."""
    read = []
    monkeypatch.setattr(document, "plan_report", lambda place, *more: read.append(place.name) or plan_report(place, *more))
    line = ["bench", "--model", "gpt-oss-20b", *QUICK, "--max-concurrent", "4", "--results-dir", str(tmp_path)]
    assert main(line) == 0
    assert read == ["000-warmup", "001-c4-r1"]


def test_a_plan_that_was_not_kept_is_made_of_its_files(run):
    """One that a signal cut off before it was reduced: at the end it stands in the document all the same."""
    before = read_document(run)
    first, second = (place.name for place in run.plan_directories())
    document.write_opening(run, before.run)
    after = conclude(run, {first: before.plans[0]}, interrupted=2)
    assert (after.plans, after.verdict, after.ended.interrupted) == (before.plans, before.verdict, 2)
    assert after.plans[0] is before.plans[0]
    assert after.plans[1].directory == second


def test_the_document_names_what_was_asked_and_made(run):
    """Identity, arguments without secrets, environment, workload, seed, the simulator and its label."""
    opening = read_document(run).run
    assert (opening.id, opening.command, opening.seed, opening.cache) == (run.id, "bench", 0, "unique")
    assert opening.metadata == {"who": "me"}
    assert opening.arguments["header"] == ["X-Team=***"]
    assert opening.target.headers == {"X-Team": "***"}
    assert b"abc" not in run.document_path.read_bytes()
    assert opening.target.model == "gpt-oss-20b"
    assert opening.workload == "16 generated prompts of 20 words (seed 0)"
    assert opening.simulator is not None
    assert opening.simulator["calibrated"] is False
    assert opening.environment.libraries["aiohttp"]
    assert opening.stamping == "arrival"
    assert "OPENAI" not in json.dumps(opening.arguments)


def test_warm_up_and_measurement_are_both_accounted_and_only_one_is_measured(run):
    """4 + 12 requests scheduled, 12 measured."""
    done = read_document(run)
    assert [one.plan.purpose for one in done.plans] == ["warmup", "measure"]
    assert [summary.requests for summary, _ in done.measured] == [12]
    assert (done.accounting.scheduled, done.accounting.ok, done.accounting.closes) == (16, 16, True)
    assert done.verdict == done.plans[1].verdict


def test_the_servers_own_count_equals_ours(run):
    """Requests and tokens of each plan, by the difference of /metrics."""
    for one in read_document(run).plans:
        assert one.server.requests_total == one.summary.ok
        assert one.server.prompt_tokens == one.summary.tokens.prompt
        assert one.server.generation_tokens == one.summary.tokens.completion


def test_a_crash_before_the_end_leaves_a_document_without_an_ending(run):
    """run.json as written at the start, and records: summary and verdict are there, `ended` is not."""
    before = read_document(run)
    document.write_opening(run, before.run)
    after = build(run)
    assert after.ended is None
    assert after.plans == before.plans
    assert after.verdict == before.verdict


def test_a_run_that_goes_on_has_no_verdict_yet(run):
    """Its workers have not ended, which is not the same as lost; its run.json is left alone."""
    before = run.document_path.read_bytes()
    with (run.path / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        so_far = rebuild(run)
    assert so_far.verdict is None
    assert so_far.measured
    assert run.document_path.read_bytes() == before
    assert rebuild(run).verdict is not None


def test_a_torn_record_file_costs_its_tail_and_is_said(run):
    """Half of one worker's file is gone: the rest is reported, and the verdict is invalid."""
    path = run.plan_directories()[1] / "worker-0.records"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    after = build(run)
    assert after.verdict.level == "invalid"
    assert 0 < after.measured[0][0].requests < 12


def test_a_plan_without_records_is_reported_as_that(run):
    """A crash between the plan and its workers."""
    for path in run.plan_directories()[1].glob("*.records"):
        path.unlink()
    after = build(run)
    assert after.plans[1].summary is None
    assert after.plans[1].absent == "there are no records: no worker had begun"
    assert (after.verdict.level, after.verdict.reasons[0].name) == ("invalid", "nothing-measured")
    (run.plan_directories()[1] / "plan.json").unlink()
    assert build(run).plans[1].absent.startswith("plan.json is missing")


def test_a_record_file_of_another_run_or_plan_is_not_read(run):
    """Copied there by mistake, alone or as the first: its worker is lost, and the report says which file was not read."""
    warmup, measured = run.plan_directories()
    for worker in range(2):
        shutil.copy(warmup / f"worker-{worker}.records", measured / f"worker-{worker}.records")
    after = build(run)
    [(summary, verdict)] = after.measured
    assert (summary.requests, verdict.level) == (0, "invalid")
    assert [note.rsplit(": ", 1)[1] for note in summary.notes] == ["of another run or plan"] * 2


def test_a_run_that_was_renamed_is_still_the_run_that_it_was(run, tmp_path):
    """Record files belong to the id in run.json, not to the name of the directory."""
    before = build(run)
    assert build(RunDirectory.existing(run.path.rename(tmp_path / "kept"))) == before


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("plan.json", lambda path: path.write_text("{"), "plan.json cannot be read"),
        ("plan.json", lambda path: path.write_text(path.read_text().replace('"workers":2', '"workers":9')), "plan.json cannot be read"),
        ("plan.json", lambda path: path.write_text(path.read_text().replace('"workers":2', '"workers":1')), "the plan has 1 workers"),
        ("worker-0.records", lambda path: path.unlink() or path.mkdir(), "its records cannot be read"),
    ],
)
def test_a_plan_that_cannot_be_read_does_not_hide_the_others(run, name, damage, said):
    """It says why it is absent; the warm-up beside it is reported."""
    damage(run.plan_directories()[1] / name)
    after = build(run)
    assert said in after.plans[1].absent
    assert after.plans[0].summary.ok == 4


def test_a_plan_without_the_servers_counts_has_none(run):
    """Killed between the last record and the second read of /metrics."""
    (run.plan_directories()[1] / "server.json").unlink()
    assert build(run).plans[1].server is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read"),  # lost
        (b"{", "is no run.json"),  # not JSON
        (b'{"schema": 99}', "has schema 99; this version reads 1"),  # of a later version
        (b'{"schema": 1}', "is no run.json"),  # of nobody
    ],
)
def test_a_run_json_that_cannot_be_read_is_one_line(run, content, said):
    """What was asked for is only there: without it nothing can be rebuilt."""
    run.document_path.unlink()
    if content is not None:
        run.document_path.write_bytes(content)
    with pytest.raises(UsageError, match=r"^RUN: ") as caught:
        build(run)
    assert said in str(caught.value)


def test_asked_percentiles_are_computed_beside_the_standard_ones(tmp_path):
    """And only those asked for can have too few samples."""
    with RunDirectory.create(tmp_path, "bench", "m") as directory:
        opening = Opening.of(
            directory,
            command="bench",
            target=Target(base_url="http://127.0.0.1:1/v1", model="m"),
            workload="w",
            sampling=Sampling(max_tokens=5),
            asked_percentiles=(99.9,),
            profile={"name": "m", "api_key": "sk-1"},
        )
        document.write_opening(directory, opening)
        written = read_document(directory)
    assert (written.run.percentiles, written.run.asked_percentiles) == ((50.0, 90.0, 95.0, 99.0, 99.9), (99.9,))
    assert written.run == opening
    assert "api_key" not in opening.profile
    assert written.ended is None


def test_the_page_about_run_json_is_what_the_structs_say():
    """docs/run-json.md is written from the Structs; when they change, it is written again."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from describe_run_json import described
    finally:
        sys.path.pop(0)
    assert (ROOT / "docs" / "run-json.md").read_text() == described()


def test_a_document_survives_its_own_encoding(run):
    """encode then decode is the identity: no number becomes null on its way."""
    done = read_document(run)
    assert msgspec.json.decode(document.encode(done), type=document.Document) == done
