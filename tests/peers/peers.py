"""The clients that are compared: how each is made ready, called, and asked what it saw.

Knows commands and versions; knows neither the server nor how anything is measured. Everything fetched or made lies in the rig's work
directory and is fetched once; vLLM itself (6 GB with its dependencies) is never installed, only used where LOADGEN_VLLM_PYTHON names
the interpreter that has it.
Law: clients differ in nothing but themselves: one process, the same requests, concurrency and answers, progress bars off, and what
they report is on.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from functools import partial
from importlib.metadata import version
from typing import NamedTuple

import reported
from rig import HERE, LOADGEN, WORK

VLLM_RS = "0.33.0"
LOCUST = ("locust==2.47.0", "msgspec==0.22.0")  # msgspec: events are decoded as the plain aiohttp loop decodes them
PATH = "/v1/chat/completions"
_WRK_RPS = 8000  # wrk ends by time only: it runs as long as a client of this speed would


class Absent(Exception):
    """A client that cannot be had here, and why."""


class Load(NamedTuple):
    """What a client is asked for: a closed loop. url: of the server; directory: for what the client leaves of the run."""

    url: str
    directory: os.PathLike
    requests: int
    concurrency: int
    tokens: int
    stream: bool


class Client(NamedTuple):
    """ready() -> what it is, with its version, or Absent; words(load) -> its command; reports: a name of each -> of a directory."""

    ready: callable
    words: callable
    reports: dict


def bench_serve(program, load):
    """Either client of vLLM, Rust and Python: the same flags."""
    return [
        *("env", "HF_HUB_OFFLINE=1", "VLLM_NO_USAGE_STATS=1", *program, "bench", "serve", "--backend", "openai-chat", "--disable-tqdm"),
        *("--base-url", load.url, "--endpoint", PATH, "--model", "m", "--tokenizer", f"{WORK}/tokenizer", "--dataset-name", "random"),
        *("--random-input-len", "16", "--random-output-len", f"{load.tokens}", "--num-prompts", f"{load.requests}"),
        *("--max-concurrency", f"{load.concurrency}", "--percentile-metrics", "ttft,itl", "--metric-percentiles", "50,99"),
        *("--save-result", "--result-dir", f"{load.directory}", "--result-filename", "result.json"),
    ]


def ready_vllm_rs():
    """vLLM's Rust client out of its wheel (0.5 GB), without installing vLLM."""
    if not (WORK / "vllm-rs").exists():
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", WORK, f"vllm=={VLLM_RS}"], check=True)
        [wheel] = WORK.glob("vllm-*.whl")
        with zipfile.ZipFile(wheel) as archive, open(WORK / "vllm-rs", "wb") as binary:
            binary.write(archive.read("vllm/vllm-rs"))
        (WORK / "vllm-rs").chmod(0o755)
        wheel.unlink()
    make_tokenizer()
    return f"vllm-rs {VLLM_RS}"


def words_vllm_rs(load):
    return bench_serve([f"{WORK}/vllm-rs"], load)


def ready_vllm():
    python = os.environ.get("LOADGEN_VLLM_PYTHON")
    if not python:
        raise Absent("LOADGEN_VLLM_PYTHON names no interpreter with vLLM")
    asked = subprocess.run([python, "-c", "import importlib.metadata as m; print(m.version('vllm'))"], capture_output=True, text=True)
    if asked.returncode:
        raise Absent(f"LOADGEN_VLLM_PYTHON={python} has no vLLM")
    make_tokenizer()
    return f"vllm bench serve {asked.stdout.strip()} (Python)"


def words_vllm(load):
    return bench_serve([os.environ["LOADGEN_VLLM_PYTHON"], "-m", "vllm.entrypoints.cli.main"], load)


def make_tokenizer():
    """A byte-level tokenizer of 95 characters: `bench serve` makes its prompts with one and must not fetch it."""
    tokenizer = WORK / "tokenizer"
    if (tokenizer / "tokenizer_config.json").exists():
        return
    tokenizer.mkdir(exist_ok=True)
    characters = {chr(code): code - 33 for code in range(33, 127)}
    vocabulary = {**characters, "Ġ": len(characters)}
    model = {"type": "BPE", "vocab": vocabulary, "merges": [], "unk_token": None}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    document = {"version": "1.0", "added_tokens": [], "pre_tokenizer": byte_level, "decoder": byte_level, "model": model}
    (tokenizer / "tokenizer.json").write_text(json.dumps(document))
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 131072, "chat_template": template}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(config))


def ready_ours(transport):
    return f"loadgen {version('loadgen')}, {transport}"


def words_ours(transport, load):
    """`loadgen bench` itself: driver, records, live view, report."""
    return [
        *(f"{LOADGEN}", "bench", "--model-type", "llm", "--model-name", "m", "--base-url", f"{load.url}/v1", "--transport", transport),
        *("--processes", "1", "--num-warmups", "0", "--input-len", "16", "--max-tokens", f"{load.tokens}"),
        *("--num-requests", f"{load.requests}", "--max-concurrent", f"{load.concurrency}", "--results-dir", f"{load.directory}"),
        *([] if load.stream else ["--no-stream"]),
    ]


def ready_plain_loop():
    return f"plain loop, aiohttp {version('aiohttp')} + uvloop"


def words_plain_loop(load):
    mode = "stream" if load.stream else "plain"
    numbers = [f"{load.requests}", f"{load.concurrency}", f"{load.tokens}"]
    return [sys.executable, f"{HERE}/aiohttp_loop.py", mode, load.url + PATH, *numbers, f"{load.directory}/stamps"]


def ready_locust():
    """Locust in a venv of its own: it replaces what the whole interpreter waits with."""
    if not (WORK / "locust" / "bin" / "locust").exists():
        subprocess.run([sys.executable, "-m", "venv", WORK / "locust"], check=True)
        subprocess.run([WORK / "locust" / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *LOCUST], check=True)
    return f"locust {LOCUST[0].partition('==')[2]}, FastHttpUser"


def words_locust(load):
    """One user for each request in flight."""
    users = f"{load.concurrency}"
    return [
        *(f"{WORK}/locust/bin/locust", "--headless", "--only-summary", "-f", f"{HERE}/fast_http_user.py", "-H", load.url),
        *("-u", users, "-r", users, "--num-requests", f"{load.requests}", "--tokens", f"{load.tokens}"),
        *(["--stamps", f"{load.directory}/stamps"] if load.stream else ["--no-stream"]),
    ]


def ready_wrk():
    if shutil.which("wrk") is None:
        raise Absent("wrk is not installed")
    return "wrk (parses nothing: the floor)"


def words_wrk(load):
    script = load.directory / "post.lua"
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": load.tokens})
    script.write_text(f"wrk.method = 'POST'\nwrk.body = [[{body}]]\nwrk.headers['Content-Type'] = 'application/json'\n")
    seconds = max(1, load.requests // _WRK_RPS)
    return ["wrk", "-t1", f"-c{load.concurrency}", f"-d{seconds}s", "-s", f"{script}", load.url + PATH]


LOADGEN_REPORTS = {
    "from sent": partial(reported.by_loadgen, ttft="ttft_from_sent"),
    "from due": partial(reported.by_loadgen, ttft="ttft"),
}
CLIENTS = {
    "vllm-rs": Client(ready_vllm_rs, words_vllm_rs, {"": reported.by_vllm}),
    "vllm": Client(ready_vllm, words_vllm, {"": reported.by_vllm}),
    "wire": Client(partial(ready_ours, "wire"), partial(words_ours, "wire"), LOADGEN_REPORTS),
    "aiohttp": Client(partial(ready_ours, "aiohttp"), partial(words_ours, "aiohttp"), LOADGEN_REPORTS),
    "plain-loop": Client(ready_plain_loop, words_plain_loop, {"": reported.by_stamps}),
    "locust": Client(ready_locust, words_locust, {"": reported.by_stamps}),
    "wrk": Client(ready_wrk, words_wrk, {}),
}
