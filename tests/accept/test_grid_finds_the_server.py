"""A grid names the concurrency that the server admits; nothing but the server and virtual time knows which that is.

The long runs are the acceptance of the main job (`make accept`); each has a short form that `make test` runs.
"""

import json
import re

import pytest

from loadgen.simulator.capacity import closed_loop_throughput
from loadgen.simulator.settings import load_settings
from tests.loadgen.commands import loadgen

# The knee: the smallest concurrency that reaches this share of the highest throughput.
KNEE = 0.95
# How late the simulator may be for its virtual time, as a share of a step; asked of the long runs, on a machine that is left alone.
LATENESS = 0.02
# Completions that are timed in virtual time: enough that the first and last wave of a concurrency of 192 weigh under 1 %.
VIRTUAL_REQUESTS = 24_000


def grid(tmp_path, *words, timeout):
    """Run a grid; its document and its report. The whole of its text is shown when it fails."""
    done = loadgen("grid", "--simulate", "--json", "--results-dir", tmp_path, *words, timeout=timeout)
    assert done.returncode == 0, done.stderr
    print(done.stderr)
    return json.loads(done.stdout), done.stderr


def commas(values):
    return ",".join(map(str, values))


ADMITTED = [
    pytest.param(3, (2, 3, 4), 64, 24, "none", id="short-3"),
    *(
        pytest.param(seats, (1, 2, 3, 4, 5, 6, 8), 128, 64, batches, marks=pytest.mark.accept, id=f"{seats}-batches-{batches}")
        for seats in (3, 4, 6)
        for batches in ("none", "1,2,4")
    ),
]


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("seats", "concurrencies", "max_tokens", "requests", "batches"), ADMITTED)
def test_best_is_the_concurrency_that_the_server_admits(tmp_path, seats, concurrencies, max_tokens, requests, batches):
    """The olmocr profile unchanged, the server's max_num_seqs overridden, its times a quarter: `best` follows the server."""
    words = ["--model", "olmocr", "--sim-max-num-seqs", seats, "--sim-time-scale", 0.25, "--max-tokens", max_tokens, "--ignore-eos"]
    words += ["--concurrencies", commas(concurrencies), "--batch-sizes", batches, "--num-requests", requests]
    document, _ = grid(tmp_path, *words, timeout=1400)
    assert document["run"]["profile"]["max_num_seqs"] == 4
    assert document["grid"]["best"]["max_concurrent"] == seats
    assert document["accounting"]["ok"] == document["accounting"]["scheduled"]


KNEES = [
    pytest.param({"max_num_seqs": 16, "step_base_ms": 12.0}, (12, 14, 16, 20), 32, 80, 1, id="short-16"),  # steps of 13 ms
    # Steps of 41 to 50 ms: 128 sequences emit 2,500 events/s.
    pytest.param({"step_base_ms": 40.0}, (16, 32, 64, 96, 112, 128, 160, 192), 64, 640, 1, marks=pytest.mark.accept, id="128"),
]


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("overrides", "concurrencies", "max_tokens", "requests", "repeats"), KNEES)
def test_the_knee_is_where_virtual_time_computes_it(request, tmp_path, overrides, concurrencies, max_tokens, requests, repeats):
    """gpt-oss-20b with longer steps: the engine alone, in virtual time, gives the same knee; and the simulator keeps its time."""
    words = ["--model", "gpt-oss-20b", "--concurrencies", commas(concurrencies), "--batch-sizes", "none", "--input-len", 24]
    words += ["--max-tokens", max_tokens, "--num-requests", requests, "--ignore-eos", "--repeats", repeats]
    for name, value in overrides.items():
        words += [f"--sim-{name.replace('_', '-')}", value]
    document, _ = grid(tmp_path, *words, timeout=1400)
    plans = [plan["summary"] for plan in document["plans"] if plan["plan"]["purpose"] == "measure"]
    prompt_tokens = round(plans[0]["tokens"]["prompt"] / plans[0]["ok"])
    settings = load_settings("gpt-oss-20b", **overrides)
    computed = {c: closed_loop_throughput(settings, c, prompt_tokens, max_tokens, VIRTUAL_REQUESTS) for c in concurrencies}
    measured = {cell["max_concurrent"]: cell["requests_rps"] for cell in document["grid"]["results"]}
    print("concurrency  computed  measured  requests/s")
    for c in concurrencies:
        print(f"{c:11}  {computed[c]:8.2f}  {measured[c]:8.2f}")
    assert knee(measured) == knee(computed)
    lateness = max(plan["simulator"]["lateness_share_of_step"] for plan in document["plans"])
    print(f"lateness {lateness:.2%} of a step")
    if request.node.get_closest_marker("accept"):
        assert lateness < LATENESS


# Server, grid, and the cell that must be named. Of the short one no cell comes near it: half the slots give half the throughput, and a
# barrier behind answers of unequal length leaves half of them idle (the longest of four is twice the mean).
SAME_BEST = [
    pytest.param(
        ["--model", "gpt-oss-20b", "--sim-max-num-seqs", 4, "--sim-time-scale", 0.2, "--sim-eos-mean-tokens", 40, "--max-tokens", 256],
        ["--concurrencies", "2,4", "--batch-sizes", "none,4", "--num-requests", 32, "--input-len", 8, "--repeats", 1],
        (4, None),
        id="short",
    ),
    pytest.param(
        ["--model", "olmocr", "--sim-max-num-seqs", 6, "--sim-time-scale", 0.25, "--max-tokens", 128, "--ignore-eos"],
        ["--concurrencies", "2,4,6,8", "--batch-sizes", "none", "--num-requests", 64],
        (6, None),
        marks=pytest.mark.accept,
        id="full",
    ),
]


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("server", "cells", "best"), SAME_BEST)
def test_both_transports_name_the_same_best(tmp_path, server, cells, best):
    """The same grid with each: the same cell, every token that the server counted, and a report that names its transport."""
    for transport in ("wire", "aiohttp"):
        document, text = grid(tmp_path, *server, *cells, "--num-warmups", 0, "--transport", transport, timeout=700)
        named = document["grid"]["best"]
        assert (named["max_concurrent"], named["batch_size"]) == best, transport
        assert document["run"]["target"]["transport"] == transport
        assert re.search(rf"\nclient     {transport}, (compiled|interpreted), reads stamped at arrival; ", text)
        assert document["accounting"]["ok"] == document["accounting"]["scheduled"]
        for plan in document["plans"]:
            assert plan["server"]["generation_tokens"] == plan["summary"]["tokens"]["completion"]


def knee(throughput):
    highest = max(throughput.values())
    return min(concurrency for concurrency, rps in throughput.items() if rps >= KNEE * highest)
