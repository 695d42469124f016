"""The README's Python runs as it stands there."""

from pathlib import Path

from loadgen.pages import drawn_page
from loadgen.simulator.process import Simulator
from loadgen.simulator.settings import load_settings
from tests.documents import blocks, run_block

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def test_the_readmes_python_runs_in_a_running_loop(tmp_path, monkeypatch, capsys):
    """Against a server that answers in a hundredth of its time; 200 prompts become 80 and 1,000 become 50."""
    settings = load_settings("olmocr", port=0, model_name="gpt-oss-20b,olmocr", max_num_seqs=64, time_scale=0.01)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page1.png").write_bytes(drawn_page(0, 1))
    [code] = blocks(README, "python")
    with Simulator(settings) as server:
        monkeypatch.setenv("LOADGEN_BASE_URL", server.base_url)
        code = (
            code.replace('"http://localhost:8000/v1"', repr(server.base_url)).replace("* 200", "* 80").replace("range(1000)", "range(50)")
        )
        namespace = {}
        run_block(code, namespace)
        namespace["client"].close()
    assert namespace["results"].best in namespace["results"]
    assert [page.ok for page in namespace["pages"]] == [True]
    assert capsys.readouterr().out.splitlines()[1] == "50 []"
