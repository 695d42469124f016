"""Against a real vLLM: every count is the server's own.

Skipped unless LOADGEN_REAL_VLLM_TEXT or LOADGEN_REAL_VLLM_VL is `MODEL@BASE_URL` of a server that nobody else uses meanwhile.
"""

import json
import os

import pytest

from tests.loadgen.commands import loadgen

pytestmark = [pytest.mark.accept, pytest.mark.timeout(900)]


def server(kind):
    given = os.environ.get(f"LOADGEN_REAL_VLLM_{kind.upper()}", "")
    if not given:
        pytest.skip(f"no real vLLM: LOADGEN_REAL_VLLM_{kind.upper()} is not set")
    model, _, base_url = given.partition("@")
    return ["--base-url", base_url, "--model-name", model, "--model-type", "llm" if kind == "text" else "vlm"]


@pytest.mark.parametrize("kind", ["text", "vl"])
@pytest.mark.parametrize("transport", ["wire", "aiohttp"])
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["bench", "--num-requests", "100", "--max-concurrent", "8"], id="bench"),
        pytest.param(["bench", "--num-requests", "50", "--max-concurrent", "8", "--batch-size", "3"], id="bench-batches"),
        pytest.param(["bench", "--num-requests", "50", "--max-concurrent", "8", "--no-stream"], id="bench-no-stream"),
        pytest.param(["bench", "--duration", "5s", "--max-concurrent", "8"], id="bench-duration"),
        pytest.param(["grid", "--num-requests", "48", "--concurrencies", "2,4,8", "--batch-sizes", "none,4"], id="grid"),
    ],
)
def test_every_count_is_the_servers_own(tmp_path, kind, processes, transport, words):
    """Requests, prompt tokens and generated tokens of each plan equal the difference of /metrics over it."""
    where = server(kind)
    done = loadgen(
        *words,
        *where,
        "--max-tokens",
        16,
        "--processes",
        processes,
        "--transport",
        transport,
        "--json",
        "--results-dir",
        tmp_path,
        timeout=800,
    )
    assert done.returncode in (0, 3), done.stderr  # no test on a shared machine asserts that a run is valid
    print(done.stderr)
    document = json.loads(done.stdout)
    assert document["run"]["target"]["transport"] == transport
    assert document["accounting"]["ok"] == document["accounting"]["scheduled"] > 0
    for plan in document["plans"]:
        ours, theirs = plan["summary"], plan["server"]
        assert theirs["running_after"] == theirs["waiting_after"] == 0
        assert (ours["ok"], ours["tokens"]["prompt"], ours["tokens"]["completion"]) == (
            theirs["requests_total"],
            theirs["prompt_tokens"],
            theirs["generation_tokens"],
        ), plan["directory"]
