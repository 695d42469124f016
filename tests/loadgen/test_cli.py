"""The command from its line to its exit status: one line for what is wrong, numbers on stdout, all else on stderr."""

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from clients.registry import ModelRegistry
from loadgen.cli import main
from loadgen.command_line import parse
from loadgen.document import read_document
from loadgen.measurement import deliver
from loadgen.order import read_order
from loadgen.rundir import RunDirectory
from loadgen.simulator.process import Simulator
from loadgen.simulator.settings import load_settings
from loadgen.summary import Verdict

ROOT = Path(__file__).parents[2]
LOADGEN = [sys.executable, "-m", "loadgen"]
SHORT = ["--sim-time-scale", "0.01", "--max-tokens", "4", "--num-requests", "8", "--num-warmups", "0"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Each test in a directory of its own, without keys or models of the one who runs it."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "LOADGEN_BASE_URL", "LOADGEN_MODELS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def served():
    """A simulated olmocr."""
    with Simulator(load_settings("olmocr", time_scale=0.01)) as simulator:
        yield simulator


def unused_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# Command line, exit status, and what its one line on stderr must say. {url} is a server that has olmocr, {dead} one that is not there.
FAILS = [
    ("bench --nun-requests 5", 2, "--num-requests"),  # A1
    ("bench", 2, "--base-url: missing; name a model by --model NAME"),
    ("bench --base-url {url}", 2, "--model-name: missing"),
    ("bench --model olmoccr", 2, "did you mean olmocr?"),
    ("bench --model-name x --base-url localhost:8000/v1", 2, "base_url: got 'localhost:8000/v1'"),  # A6: no scheme
    ("bench --model-name x --base-url http://me:pw@h/v1", 2, "has credentials in it"),  # A6, never echoed
    ("bench --model olmocr --base-url {url} --header A=b\tc\nd", 2, "line break"),  # A13
    ("bench --model olmocr --api-key-env NOPE_KEY", 2, "--api-key-env: the environment variable NOPE_KEY is not set"),  # A12
    ("bench --model olmocr --api-key-env BAD_KEY", 2, "api_key: has a control character"),  # A12, not shown
    ("bench --model olmocr --base-url {url} --images-dir empty", 2, "has no image in it"),
    ("bench --model olmocr --base-url {url} --images-dir nowhere", 2, "is no directory"),
    ("bench --model olmocr --base-url {url} --results-dir file/x", 2, "--results-dir: "),  # A10
    ("bench --model gpt-oss-20b --base-url {url} --prompts none.txt", 2, "--prompts: cannot read"),
    ("bench --model gpt-oss-20b --base-url {url} --prompts empty.txt", 2, "--prompts: "),  # B19
    ("bench --model gpt-oss-20b --images-dir empty", 2, "has a use only for a vlm"),
    ("bench --model olmocr --input-len 5", 2, "--input-len: has no use for a vlm"),
    ("bench --model olmocr --sim-seed 5", 2, "--sim-seed: has a use only with --simulate"),
    ("bench --model olmocr --simulate --base-url {url}", 2, "takes one of the two"),
    ("bench --model olmocr --simulate --sim-max-num-seqs 0", 2, "max_num_seqs"),
    ("bench --model olmocr --models-file models.txt", 2, "models file"),
    ("bench --model olmocr --models-file broken.yaml", 2, "broken.yaml:3:1"),  # A2: file, line, column
    ("grid --model olmocr --base-url {url} --write-config list.yaml", 2, "--write-config: "),
    ("grid --model olmocr --base-url {url} --concurrencies " + ",".join(map(str, range(1, 80))), 2, "237 cells"),  # A16
    ("report nowhere", 2, "RUN: got 'nowhere'"),
    ("report empty", 2, "has neither run.json nor plans/"),
    ("simulate --model olmoccr", 2, "olmocr"),
    ("simulate --port 0 --truth none/x", 2, "--truth: cannot write 'none/x' (No such file or directory)"),
    ("simulate --port 0 --host 192.0.2.1", 2, "--host, --port: "),  # TEST-NET-1: nobody's address
    ("bench --model olmocr --base-url {dead}", 5, "cannot be reached"),
    ("grid --model olmocr --base-url {dead}", 5, "cannot be reached"),
    ("bench --model olmocr --base-url {url} --model-name other", 5, "has no model 'other'; it has olmocr"),
]


@pytest.mark.parametrize(("line", "status", "said"), FAILS)
def test_what_cannot_be_done_is_one_line_and_its_status(served, monkeypatch, capsys, tmp_path, line, status, said):
    """Before any load: nothing on stdout, one line on stderr, nothing kept, no secret shown."""
    monkeypatch.setenv("BAD_KEY", "sk-secret\n")
    (tmp_path / "empty").mkdir()
    for name, content in {"file": "", "empty.txt": "", "list.yaml": "- 1\n", "broken.yaml": "models:\n  a: [\n", "models.txt": ""}.items():
        (tmp_path / name).write_text(content)
    before = served.stats()["requests_total"]
    words = line.format(url=served.base_url, dead=f"http://127.0.0.1:{unused_port()}/v1").split(" ")
    assert main(words) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("loadgen: ")
    assert err.count("\n") == 1
    assert said in err
    assert "sk-secret" not in err
    assert "pw" not in err
    assert not (tmp_path / "results").exists() or status == 5
    if status == 2:
        assert served.stats()["requests_total"] == before


def test_a_disk_without_room_for_the_workload_is_an_unwritable_results_directory(served, monkeypatch, capsys):
    """Found while the run's files are made: nothing was sent but the preflight's one request."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("loadgen.session.write_workload", full)
    before = served.stats()["requests_total"]
    assert main(["bench", "--model", "olmocr", "--base-url", served.base_url]) == 2
    assert capsys.readouterr().err.startswith("loadgen: --results-dir: cannot write in 'results' (No space left on device)")
    assert served.stats()["requests_total"] == before + 1


@pytest.mark.parametrize(("moment", "file"), [("planned", "000-c4-r1"), ("performed", "run.json")])
def test_results_that_are_removed_under_a_run_are_one_line(served, monkeypatch, capsys, tmp_path, moment, file):
    """The system's refusal is told as it is, with the file it speaks of; nothing is made again in their place."""

    def removed(*_):
        shutil.rmtree(tmp_path / "results")

    monkeypatch.setattr(f"loadgen.progress.PlainProgress.{moment}", removed)
    line = ["bench", "--model", "olmocr", "--base-url", served.base_url, "--max-tokens", "4"]
    assert main([*line, "--num-requests", "2", "--num-warmups", "0"]) == 3
    out, err = capsys.readouterr()
    assert (out, "Traceback" in err) == ("", False)
    assert err.splitlines()[-1].startswith("loadgen: results/")
    assert f"{file}: No such file or directory" in err.splitlines()[-1]
    assert not (tmp_path / "results").exists()


def test_the_embedded_simulator_is_reached_past_a_proxy(monkeypatch):
    """A proxy of the environment knows no way to this machine's loopback; what the user set is as before afterwards."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{unused_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("no_proxy", "example.org")
    assert main(["bench", "--model", "olmocr", "--simulate", *SHORT]) == 0
    assert os.environ["no_proxy"] == "example.org"


def test_a_bench_with_json_prints_the_document_and_nothing_else_on_stdout(served, capsys, tmp_path):
    """What a script pipes into jq is what lies in run.json."""
    line = ["bench", "--model", "olmocr", "--base-url", served.base_url, "--json", "--label", "mine"]
    assert main([*line, "--max-tokens", "4", "--num-requests", "6", "--max-concurrent", "3", "--num-warmups", "0"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    (run,) = (tmp_path / "results").iterdir()
    assert out == (run / "run.json").read_text()
    assert document["run"]["label"] == "mine"
    assert f"{document['verdict']['level'].upper()}: " in err
    assert "6 requests" in err


def test_report_gives_the_same_document_and_status(capsys, tmp_path):
    """`loadgen report RUN` is the run's own report again."""
    assert main(["bench", "--model", "gpt-oss-20b", "--simulate", *SHORT, "--input-len", "9", "--json"]) == 0
    first = capsys.readouterr().out
    (run,) = (tmp_path / "results").iterdir()
    assert main(["report", str(run), "--json"]) == 0
    assert capsys.readouterr().out == first
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out.startswith(f"{json.loads(first)['verdict']['level'].upper()}: ")


def test_grid_writes_the_best_setting_into_a_config(capsys, tmp_path):
    """--write-config merges what results.best says."""
    (tmp_path / "config.yaml").write_text("# mine\nname: x\n")
    line = ["grid", "--model", "olmocr", "--simulate", *SHORT, "--batch-sizes", "2", "--concurrencies", "2,4", "--repeats", "1"]
    assert main([*line, "--write-config", "config.yaml", "--json"]) == 0
    best = json.loads(capsys.readouterr().out)["grid"]["best"]
    assert (tmp_path / "config.yaml").read_text() == (
        f"# mine\nname: x\ngeneration:\n  batch_size: {best['batch_size']}\n  max_concurrent: {best['max_concurrent']}\n"
    )


def test_a_server_that_wants_a_key_gets_it_from_the_environment(monkeypatch, capsys, tmp_path):
    """OPENAI_API_KEY or the variable named; without it, status 5 and how to give one; the key is nowhere on disk."""
    with Simulator(load_settings("gpt-oss-20b", api_key="sk-right", time_scale=0.01)) as simulator:
        line = ["bench", "--model", "gpt-oss-20b", "--base-url", simulator.base_url, "--num-requests", "4", "--max-tokens", "2"]
        assert main(line) == 5
        assert "it wants a key: set OPENAI_API_KEY" in capsys.readouterr().err
        monkeypatch.setenv("TEAM_KEY", "sk-right")
        assert main([*line, "--api-key-env", "TEAM_KEY"]) == 0
    for path in (tmp_path / "results").rglob("*"):
        assert not path.is_file() or b"sk-right" not in path.read_bytes(), path


def test_models_are_listed_and_show_no_key(monkeypatch, capsys, tmp_path):
    """The three that are shipped, and one's own; --json for scripts."""
    (tmp_path / "models.yaml").write_text("models:\n  mine: {kind: llm, base_url: 'http://h:1/v1', api_key: sk-mine, max_num_seqs: 7}\n")
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    for name in ("gpt-oss-20b (llm, A100 80GB)", "olmocr (vlm", "mine (llm)", "max_num_seqs 7"):
        assert name in text
    assert "sk-mine" not in text
    assert main(["models", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in listed] == [profile.name for profile in ModelRegistry().list()]
    assert all("api_key" not in one for one in listed)


# Verdict level, --fail-on-degraded, and the status.
STATUSES = [("valid", [], 0), ("degraded", [], 0), ("degraded", ["--fail-on-degraded"], 3), ("invalid", [], 3)]


@pytest.mark.parametrize(("level", "options", "status"), STATUSES)
def test_the_exit_status_follows_the_verdict(served, capsys, tmp_path, level, options, status):
    """0 for numbers that may be believed, 3 for those that may not."""
    line = ["bench", "--model", "olmocr", "--base-url", served.base_url, "--max-tokens", "1", "--num-requests", "1", "--num-warmups", "0"]
    assert main(line) == 0
    (run,) = (tmp_path / "results").iterdir()
    document = read_document(RunDirectory.existing(run))
    judged = msgspec.structs.replace(document, verdict=Verdict(level=level, reasons=[]))
    assert deliver(judged, parse(["report", str(run), *options]).arguments, run) == status


def test_a_profile_goes_before_a_default_and_the_line_before_both(monkeypatch):
    """Values of one order from four places."""
    order = read_order(parse(["grid", "--model", "gpt-oss-20b", "--max-tokens", "9"]).arguments)
    assert (order.sampling.max_tokens, order.num_requests, order.target.kind) == (9, 768, "llm")
    assert order.content.name.endswith("of 512 words (seed 0)")
    assert order.target.base_url == "http://localhost:8000/v1"
    monkeypatch.setenv("LOADGEN_BASE_URL", "http://h:1/v1/")
    assert read_order(parse(["grid", "--model", "gpt-oss-20b"]).arguments).target.base_url == "http://h:1/v1"
    typed = read_order(parse(["bench", "--model", "gpt-oss-20b", "--base-url", "http://i:2/v1", "--duration", "5s"]).arguments)
    assert (typed.target.base_url, typed.num_requests, typed.duration_s) == ("http://i:2/v1", None, 5.0)


def test_odd_wishes_are_noted(tmp_path):
    """Too few prompts, no certificate check, retries: done, and said."""
    (tmp_path / "p.txt").write_text("a\nb\na\n")
    line = "bench --model gpt-oss-20b --prompts p.txt --num-requests 9 --insecure --retries 2".split()
    notes = " | ".join(read_order(parse(line).arguments).notes)
    for said in ("repeat an earlier one", "3 prompts for 9 requests", "INSECURE", "up to 2 retries"):
        assert said in notes


def test_prompts_of_ones_own_go_with_pages_in_turn(tmp_path):
    """For a vlm each pair of text and image is a message; the shorter list begins again."""
    (tmp_path / "p.txt").write_text("read\nlook\n")
    order = read_order(parse("bench --model olmocr --prompts p.txt".split()).arguments)
    texts = [part["text"] for (message,) in order.content.items for part in message["content"] if part["type"] == "text"]
    assert texts == ["read", "look"] * 3
    assert order.content.name.startswith("6 drawn pages of 995x1288 (seed 0) with 2 prompts of p.txt")


def test_help_imports_nothing_heavy():
    """`loadgen --help` is at once: neither numpy nor aiohttp nor rich is imported for it."""
    heavy = ["numpy", "scipy", "rich", "aiohttp", "PIL", "ruamel", "orjson"]
    code = (
        "import sys; from loadgen.cli import main; main(['grid', '--help']); main([]); "
        f"print([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stderr.strip() == "[]"
    assert "usage: loadgen grid" in done.stdout


def test_it_works_with_an_ascii_locale_and_a_reader_that_has_gone():
    """Faults A17: LC_ALL=C without coercion; `| head` that closed its end."""
    poor = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "NO_COLOR": "1"}
    done = subprocess.run([*LOADGEN, "grid", "--help"], capture_output=True, env=poor, cwd=ROOT)
    assert done.returncode == 0
    assert done.stdout.isascii()
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*LOADGEN, "grid", "--help"], stdout=write, stderr=subprocess.PIPE, cwd=ROOT)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_old_script_is_bench(served, tmp_path):
    """The command line of the original documentation, against a server of now."""
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "a.png").write_bytes((ROOT / "tests/fixtures/page.png").read_bytes())
    line = "--model-type vlm --model-name olmocr --test-images-dir assets --num-requests 5 --max-tokens 4".split()
    script = [sys.executable, str(ROOT / "scripts/benchmark_models.py"), *line, "--base-url", served.base_url]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("VALID: ", "DEGRADED: "))
    assert "1 images of assets with an OCR prompt" in done.stdout


def wait_for_line(process, text, limit_s=30.0):
    """Read stderr until a line has the text."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        line = process.stderr.readline()
        assert line, "the command ended early"
        if text in line:
            return
    raise AssertionError(f"no {text!r} within {limit_s} s")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_with_a_report_and_its_status(tmp_path, number, status):
    """What was measured is shown and kept; the status names the signal."""
    line = [*LOADGEN, "bench", "--model", "gpt-oss-20b", "--simulate", "--duration", "60s", "--num-warmups", "0", "--max-tokens", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*line, "--sim-time-scale", "0.1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    with process:
        wait_for_line(process, "plan 1 of 1")
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob("results/*/plans/*/worker-0.records")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == status
    assert f"interrupted by signal {number.value}" in out
    (run,) = (tmp_path / "results").iterdir()
    assert json.loads((run / "run.json").read_text())["ended"]["interrupted"] == number


def test_simulate_serves_until_it_is_interrupted(tmp_path):
    """One line says where; Ctrl-C is its end in order; a port that is taken is one line and status 2."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [*LOADGEN, "simulate", "--model", "olmocr", "--max-num-seqs", "2"]
    process = subprocess.Popen([*line, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    with process:
        said = process.stdout.readline()
        port = said.split("127.0.0.1:")[1].split("/")[0]
        taken = subprocess.run([*line, "--port", port], capture_output=True, text=True, env=environment)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert said == f"simulating olmocr (vlm) at http://127.0.0.1:{port}/v1, timing uncalibrated: a written estimate\n"
    assert process.returncode == 0
    assert (taken.returncode, taken.stdout, taken.stderr.count("\n")) == (2, "", 1)
    assert "in use" in taken.stderr
