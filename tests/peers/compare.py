"""What a client costs: CPU per token event and per request, beside others, against one C server.

    .venv/bin/python tests/peers/compare.py [--rounds 5] [--work events|requests|first-tokens] [--clients wire,aiohttp,…]

Knows how each client is called; knows nothing of what they report, nor how processes are placed and CPU is counted (`rig.py`). Each
round runs every client twice, with few and with many requests; the difference divides out start-up, so a figure is marginal:
(cpu_big - cpu_small) / (work_big - work_small). Work is what the server counted, never what the client says. Medians [smallest ..
largest] over the rounds, and each round's ratio to the first client named: a figure in microseconds from a shared machine means
little, a ratio within one round more.

Needs gcc, two cores, and for `vllm-rs` the binary out of the vllm wheel (fetched with pip, 0.5 GB, once) and a tokenizer made here.
"""

import argparse
import json
import shlex
import subprocess
import sys
import zipfile

import rig
from rig import HERE, LOADGEN, WORK, spread

VLLM = "vllm==0.33.0"

OURS = (
    f"{LOADGEN} bench --model-type llm --model-name m --base-url {{URL}}/v1 --num-requests {{N}} --input-len 16 --processes 1 --num-warmups 0 "
    f"--results-dir {WORK}/results --transport {{transport}} "
)
RS = (
    f"{WORK}/vllm-rs bench serve --backend openai-chat --base-url {{URL}} --endpoint /v1/chat/completions --model m --tokenizer {WORK}/tokenizer "
    "--dataset-name random --random-input-len 16 --num-prompts {N} --disable-tqdm "
)
LOOP = f"{sys.executable} {HERE}/aiohttp_loop.py"


class Work:
    """One kind of work: the server's options, small and big number of requests, what is counted, and each client's command."""

    def __init__(self, server, small, big, unit, commands):
        self.server, self.small, self.big, self.unit, self.commands = server, small, big, unit, commands


WORKS = {
    # One event per read: 512 streams of 128 tokens, one each 20 ms.
    "events": Work(
        "--ttft-ms 200 --itl-us 20000",
        128,
        2176,
        "events",
        {
            "vllm-rs": RS + "--random-output-len 128 --max-concurrency 512",
            "wire": OURS.replace("{transport}", "wire") + "--max-tokens 128 --max-concurrent 512",
            "aiohttp": OURS.replace("{transport}", "aiohttp") + "--max-tokens 128 --max-concurrent 512",
            "plain-loop": LOOP + " stream {URL}/v1/chat/completions {N} 512",
        },
    ),
    # Answers at once, not streamed, 64 at a time.
    "requests": Work(
        "",
        2000,
        22000,
        "requests",
        {
            "plain-loop": LOOP + " plain {URL}/v1/chat/completions {N} 64",
            "wire": OURS.replace("{transport}", "wire") + "--no-stream --max-tokens 128 --max-concurrent 64",
            "aiohttp": OURS.replace("{transport}", "aiohttp") + "--no-stream --max-tokens 128 --max-concurrent 64",
            "wrk": "wrk",
        },
    ),
    # A stream of one token, 64 at a time: what `bench serve` can do of a request alone.
    "first-tokens": Work(
        "",
        2000,
        12000,
        "requests",
        {
            "vllm-rs": RS + "--random-output-len 1 --max-concurrency 64",
            "wire": OURS.replace("{transport}", "wire") + "--max-tokens 1 --max-concurrent 64",
            "aiohttp": OURS.replace("{transport}", "aiohttp") + "--max-tokens 1 --max-concurrent 64",
        },
    ),
}


def fetch_vllm_rs():
    """vLLM's Rust client out of its wheel, without installing vLLM, and a small tokenizer for it."""
    if not (WORK / "vllm-rs").exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", WORK, VLLM]
        subprocess.run(pip, check=True)
        [wheel] = WORK.glob("vllm-*.whl")
        with zipfile.ZipFile(wheel) as archive, open(WORK / "vllm-rs", "wb") as binary:
            binary.write(archive.read("vllm/vllm-rs"))
        (WORK / "vllm-rs").chmod(0o755)
        wheel.unlink()
    tokenizer = WORK / "tokenizer"
    if not (tokenizer / "tokenizer.json").exists():
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


def wrk_script():
    script = WORK / "post.lua"
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 128})
    script.write_text(f"wrk.method = 'POST'\nwrk.body = [[{body}]]\nwrk.headers['Content-Type'] = 'application/json'\n")
    return script


def run(command, options, requests, log):
    """One client against a server of its own: what it cost and what the server saw."""
    with rig.Server(options) as server:
        if command == "wrk":  # by time: as many requests as it makes in about as long as the others take
            path = f"{server.url}/v1/chat/completions"
            words = ["wrk", "-t1", "-c64", f"-d{max(1, requests // 8000)}s", "-s", str(wrk_script()), path]
        else:
            words = shlex.split(command.replace("{URL}", server.url).replace("{N}", str(requests)))
        spent = rig.run(words, log)
        stats = server.ask("/stats")
    return {
        "cpu": spent.cpu_s,
        "status": spent.status,
        "requests": stats["stream"] + stats["nonstream"],
        "events": stats["content_events"],
        "in_flight": stats["inflight_max"],
        "rss_mb": spent.rss_mb,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", choices=WORKS, default="events")
    parser.add_argument("--clients", help="comma-separated; the first is the one that ratios are to")
    arguments = parser.parse_args()
    work = WORKS[arguments.work]
    names = arguments.clients.split(",") if arguments.clients else list(work.commands)
    if "vllm-rs" in names:
        fetch_vllm_rs()
    rows = {name: [] for name in names}
    for number in range(arguments.rounds):
        for name in names:
            with open(WORK / f"{name}.log", "wb") as log:
                small, big = (run(work.commands[name], work.server, n, log) for n in (work.small, work.big))
            cost = 1e6 * (big["cpu"] - small["cpu"]) / (big[work.unit] - small[work.unit])
            rows[name].append(cost)
            print(
                f"round {number} {name:10} {cost:8.2f} us  served {big['requests']}, in flight {big['in_flight']}, "
                f"{big['rss_mb']} MB, status {big['status']}",
                flush=True,
            )
    print(f"\n{arguments.work}: client CPU, microseconds each; ratio to {names[0]} round by round")
    for name in names:
        ratios = [ours / first for ours, first in zip(rows[name], rows[names[0]], strict=True)]
        print(f"{name:10} {spread(rows[name]):>30} {spread(ratios):>30}")


if __name__ == "__main__":
    main()
