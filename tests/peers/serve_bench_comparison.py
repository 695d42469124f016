"""`loadgen serve-bench` beside `vllm bench serve`: the same command line, the same server, in turn; do they say the same?

    .venv/bin/python tests/peers/serve_bench_comparison.py --base-url http://127.0.0.1:8100 --model tiny --tokenizer DIR [--rounds 5] [-- more flags]

Knows one command line and the result files of both; knows nothing of what is in them beyond vLLM's keys. The prompts are a JSONL file, one for
all runs (made here unless --dataset-path names one), sent in order and to their full length. Each round runs both, the one that was second
before being first now; a first round is not counted: it fills the server's prefix cache and compiles what it compiles. Law: counts agree when they are equal in every run; a
median agrees when the two clients' medians over the rounds are no further apart than one of them is spread over its rounds (largest - smallest).

Needs LOADGEN_VLLM_PYTHON: an interpreter that has vLLM with its extra `bench` (pandas reads the JSONL). The exit status is 1 where they disagree.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from loadgen.prompts import generated_prompts

COUNTS = ("completed", "failed", "total_input_tokens", "total_output_tokens")
MEDIANS = ("median_ttft_ms", "median_tpot_ms")
PEERS = {
    "loadgen serve-bench": [sys.executable, "-m", "loadgen", "serve-bench", "--processes", "1"],
    "vllm bench serve": [os.environ.get("LOADGEN_VLLM_PYTHON", ""), "-m", "vllm.entrypoints.cli.main", "bench", "serve"],
}


class Agreement(NamedTuple):
    """One median over the rounds, of ours and of theirs."""

    name: str
    ours: float
    theirs: float
    spread: float

    @property
    def holds(self):
        return abs(self.ours - self.theirs) <= self.spread


def agreement(name, ours, theirs):
    """ours, theirs: the figure of each round."""
    return Agreement(name, float(np.median(ours)), float(np.median(theirs)), float(max(np.ptp(ours), np.ptp(theirs))))


def flags(asked, prompts):
    """What both are given. --skip-chat-template: vLLM's client would put a template around what the server templates, too."""
    return [
        *("--base-url", asked.base_url, "--model", asked.model, "--backend", asked.backend, "--endpoint", asked.endpoint),
        *("--dataset-name", "custom", "--dataset-path", str(prompts), "--skip-chat-template", "--tokenizer", asked.tokenizer),
        *("--disable-shuffle", "--ignore-eos", "--num-prompts", str(asked.num_prompts), "--custom-output-len", str(asked.output_len)),
        *("--percentile-metrics", "ttft,tpot,itl,e2el", "--temperature", "0", "--save-result", "--disable-tqdm", *asked.more),
    ]


def run(peer, words, directory):
    """One run's result."""
    place = ["--result-dir", str(directory), "--result-filename", "result.json"]
    own = ["--results-dir", str(directory)] if peer == "loadgen serve-bench" else []
    done = subprocess.run([*PEERS[peer], *words, *place, *own], capture_output=True, text=True)
    if not (directory / "result.json").exists():
        sys.exit(f"{peer} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    found = json.loads((directory / "result.json").read_text())
    if not found["completed"]:
        sys.exit(f"{peer}: no request succeeded\n{done.stdout[-2000:]}")
    return found


def measured(asked, words):
    """The results of each peer, round by round."""
    results = {peer: [] for peer in PEERS}
    for number in range(asked.rounds + 1):
        for peer in list(PEERS)[:: 1 if number % 2 else -1]:
            with tempfile.TemporaryDirectory() as directory:
                found = run(peer, words, Path(directory))
            sys.stderr.write(f"round {number}{'' if number else ' (not counted)'}: {peer}: {[round(found[key], 2) for key in MEDIANS]}\n")
            if number:
                results[peer].append(found)
    return results


def table(results):
    """Every run."""
    lines = ["| round | client | requests | failed | input tokens | output tokens | median TTFT, ms | median TPOT, ms | requests/s |"]
    lines.append("|---" * 9 + "|")
    for number, pair in enumerate(zip(*results.values(), strict=True), start=1):
        for peer, found in zip(results, pair, strict=True):
            counts = " | ".join(f"{found[key]:,}" for key in COUNTS)
            medians = " | ".join(f"{found[key]:.2f}" for key in MEDIANS)
            lines.append(f"| {number} | {peer} | {counts} | {medians} | {found['request_throughput']:.2f} |")
    return "\n".join(lines)


def judged(results):
    """What agrees: a line each, and whether all do."""
    ours, theirs = results.values()
    distinct = {tuple(found[key] for key in COUNTS) for found in (*ours, *theirs)}
    lines = [f"* requests and tokens: {'equal in every run' if len(distinct) == 1 else f'differ: {sorted(distinct)}'}"]
    medians = [agreement(key, [found[key] for found in ours], [found[key] for found in theirs]) for key in MEDIANS]
    for one in medians:
        said = "within" if one.holds else "NOT within"
        lines.append(
            f"* {one.name}: {one.ours:.2f} and {one.theirs:.2f}, {abs(one.ours - one.theirs):.2f} apart, {said} the spread over rounds of {one.spread:.2f}"
        )
    return "\n".join(lines), len(distinct) == 1 and all(one.holds for one in medians)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", required=True, help="without /v1")
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokenizer", required=True, help="vLLM's client needs one")
    parser.add_argument("--backend", default="openai")
    parser.add_argument("--endpoint", default="/v1/completions")
    parser.add_argument("--dataset-path", type=Path)
    parser.add_argument("--num-prompts", type=int, default=100)
    parser.add_argument("--output-len", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("more", nargs="*", default=["--max-concurrency", "4"], help="of both, after --")
    asked = parser.parse_args()
    if not PEERS["vllm bench serve"][0]:
        sys.exit("LOADGEN_VLLM_PYTHON names no interpreter with vLLM")
    with tempfile.TemporaryDirectory() as directory:
        prompts = asked.dataset_path or Path(directory) / "prompts.jsonl"
        if asked.dataset_path is None:
            prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in generated_prompts(asked.num_prompts, 64, 0)))
        results = measured(asked, flags(asked, prompts))
    said, agrees = judged(results)
    print(f"{table(results)}\n\n{said}")
    return 0 if agrees else 1


if __name__ == "__main__":
    sys.exit(main())
