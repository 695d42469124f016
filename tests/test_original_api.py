"""The documentation of the module this grew out of: every block of it runs, as it stands there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from loadgen.pages import drawn_page
from loadgen.simulator.process import Simulator
from loadgen.simulator.settings import load_settings
from tests.documents import blocks, run_block

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = (ROOT / "docs" / "original-api.md").read_text()
# A hundredth of the estimate: the document's searches send thousands of requests.
TIME_SCALE = 0.01
DEADLINE_S = 100


@pytest.fixture(scope="module")
def server():
    """A server that answers to the document's model names, in short answers."""
    settings = load_settings("olmocr", port=0, model_name="gpt-oss-20b,olmocr", max_num_seqs=128, time_scale=TIME_SCALE, eos_mean_tokens=8)
    with Simulator(settings) as running:
        yield running


@pytest.fixture
def images(tmp_path):
    for name in ("img1.png", "img2.png"):
        (tmp_path / name).write_bytes(drawn_page(0, int(name[3])))
    return tmp_path


def substituted(code, server, images):
    """The block with this project's imports, this server, a model it has, and images that are there."""
    code = code.replace("from models import", "from loadgen import")
    code = code.replace('"http://localhost:8000/v1"', repr(server.base_url)).replace('base_url="..."', f"base_url={server.base_url!r}")
    code = code.replace('model_name="..."', 'model_name="gpt-oss-20b"')
    return re.sub(r'Path\("(img\d\.png)"\)', lambda found: f"Path({str(images / found[1])!r})", code)


@pytest.mark.timeout(DEADLINE_S + 60)
def test_the_python_blocks_run_in_order_in_one_namespace(server, images, monkeypatch, capsys):
    """Quick start, benchmark, batches: in a running event loop, and each result is what the document says it is."""
    from loadgen import Message, VLMClient

    monkeypatch.chdir(images)
    vlm_client = VLMClient(base_url=server.base_url, model_name="olmocr")
    lists = [[Message(role="user", content=f"Question {i}")] for i in range(5)]
    namespace = {"message_lists": lists, "vlm_client": vlm_client, "Path": Path}
    found = blocks(DOCUMENT, "python")
    assert len(found) == 4
    quick, benchmark, llm_batch, vlm_batch = (substituted(code, server, images) for code in found)
    run_block(quick, namespace)
    assert namespace["response"].ok
    assert len(namespace["responses"]) == 100
    assert all(response.ok for response in namespace["responses"])
    namespace["client"].close()
    run_block(benchmark, namespace)
    result, results = namespace["result"], namespace["results"]
    assert result.success_rate == 1.0
    assert "requests/s" in capsys.readouterr().out
    assert [one.throughput_rps for one in results] == sorted((one.throughput_rps for one in results), reverse=True)
    assert {(one.batch_size, one.max_concurrent) for one in results} == {(b, c) for b in (5, 10, 20, 50) for c in (10, 20, 50, 100)}
    assert namespace["best"] is results[0]
    assert results.best in results
    run_block(llm_batch, namespace)
    assert [response.ok for response in namespace["responses"]] == [True] * 5
    run_block(vlm_batch, namespace)
    assert [response.ok for response in namespace["responses"]] == [True] * 2
    namespace["client"].close()
    vlm_client.close()


@pytest.mark.timeout(DEADLINE_S + 60)
def test_the_benchmark_block_runs_as_an_unguarded_script(server, images):
    """No `if __name__` guard: workers are fresh interpreters that never import the caller's script."""
    script = images / "script.py"
    code = (
        substituted(blocks(DOCUMENT, "python")[1], server, images)
        .replace("[5, 10, 20, 50]", "[5, 50]")
        .replace("[10, 20, 50, 100]", "[10, 100]")
    )
    script.write_text(f"print('imported once')\n{code}\nprint('best', best.max_concurrent)\n")
    done = subprocess.run([sys.executable, script.name], cwd=images, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("imported once") == 1
    assert "throughput" in done.stdout
    assert "best 100" in done.stdout or "best 10" in done.stdout


@pytest.mark.parametrize("number", [0, 1])
def test_the_command_lines_run(server, images, number):
    """scripts/benchmark_models.py is still there and takes what it took."""
    (images / "assets").mkdir()
    (images / "assets" / "tests").mkdir()
    for image in images.glob("img*.png"):
        image.rename(images / "assets" / "tests" / image.name)
    [block] = blocks(DOCUMENT, "bash")
    commands = [shlex.split(c, comments=True) for c in re.sub(r"\\\n", " ", block).split("\n") if c.startswith("python ")]
    assert len(commands) == 2
    words = [word.replace("http://localhost:8000/v1", server.base_url) for word in commands[number][1:]]
    words[0] = str(ROOT / words[0])
    done = subprocess.run([sys.executable, *words], cwd=images, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr
    assert re.search(r"(VALID|DEGRADED)", done.stdout.splitlines()[0])
    assert list((images / "results").iterdir())
