"""The flags of `vllm bench serve`, once: what each takes here, its default, and where it means something else.

Knows names, values and sentences (what is refused, and why: `serve_bench_refusals.py`); must not know what a dataset or a run is. The table
of docs/serve-bench.md is written from here. Law: every flag of vLLM's is in one of the two tables with vLLM's own default, so that a command line
that worked there works here or is refused by the flag's name; a test holds them to the list that vLLM itself gave.
"""

from __future__ import annotations

import ast
import math
from typing import Any

import msgspec

from loadgen.objectives import OBJECTIVES_TAKEN, read_objectives
from loadgen.option import Option
from loadgen.quantities import COUNT_OR_AUTO, JSON_OBJECT, PAIR, Reader, choice, listed, number, text_of, whole
from loadgen.serve_bench_refusals import REFUSED

COMMAND = "serve-bench"
BACKENDS = ("vllm", "openai", "openai-chat")
DATASETS = ("random", "random-mm", "sharegpt", "custom")
METRICS = ("ttft", "tpot", "itl", "e2el", "client_queue_time", "e2el_including_client_queue")


class Flag(msgspec.Struct, frozen=True):
    """One flag. default: vLLM's, as one would type it; None where there is none, and for a switch, which is off.

    differs: what is not as in vLLM, "" where nothing is. several: takes several values after it. own: vLLM has no such flag.
    """

    name: str
    help: str
    reader: Reader | None = None
    default: str | None = None
    differs: str = ""
    several: bool = False
    own: bool = False

    def option(self, group: str) -> Option:
        """As the command line reads it."""
        default: Any = () if self.several else None
        if self.reader is None:
            default = False
        elif self.default is not None:
            default = self.reader.read(self.default)
        return Option(self.name, (COMMAND,), self.help, self.reader, default, several=self.several, group=group)


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:  # NaN is neither
        raise ValueError(text)
    return value


def _read_range(text: str) -> tuple[float, float]:
    """One ratio, or a JSON object with one for each of input and output."""
    given = msgspec.json.decode(text, type=float | dict[str, float])
    ratios = (given["input"], given["output"]) if isinstance(given, dict) and given.keys() == {"input", "output"} else (given, given)
    if any(not isinstance(ratio, float) or not 0 <= ratio < 1 for ratio in ratios):
        raise ValueError(text)
    return ratios


def _read_buckets(text: str) -> dict[tuple[int, int, int], float]:
    """`{(256, 256, 1): 0.5, …}`: height, width, frames, and how often, as vLLM writes it; keys may be quoted, as in JSON."""
    try:
        given = ast.literal_eval(text)
        buckets = {ast.literal_eval(key) if isinstance(key, str) else key: float(share) for key, share in given.items()}
        for height, width, frames in buckets:
            if not (isinstance(height, int) and isinstance(width, int) and isinstance(frames, int) and min(height, width, frames) >= 1):
                raise ValueError(text)
    except (SyntaxError, TypeError, AttributeError, MemoryError, RecursionError):
        raise ValueError(text) from None
    if not buckets or any(not 0 <= share < math.inf for share in buckets.values()) or not sum(buckets.values()):
        raise ValueError(text)
    return buckets


def _read_limits(text: str) -> dict[str, int]:
    try:
        limits = ast.literal_eval(text)  # JSON of small objects is Python, too
    except (SyntaxError, MemoryError, RecursionError):
        raise ValueError(text) from None
    if not isinstance(limits, dict) or any(k not in ("image", "video") or type(v) is not int or v < 0 for k, v in limits.items()):
        raise ValueError(text)
    return limits


def _read_header_value(text: str) -> str:
    if not text or not text.isascii() or not text.isprintable():
        raise ValueError(text)
    return text


def _read_percentile(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 100:
        raise ValueError(text)
    return value


_LENGTH = whole(1, 10_000_000)
_RATE = Reader("RPS", "a number of requests/s above 0, or inf", _positive)
_RAMP_RATE = whole(0, 1_000_000)
_SHAPE = Reader("X", "a number above 0 (1: Poisson), or inf for equal gaps", _positive)
_BUCKETS = Reader("DICT", "heights, widths and frames with how often, as in {(256, 256, 1): 0.5, (720, 1280, 1): 0.5}", _read_buckets)
_LIMITS = Reader("DICT", 'the most of each kind in a request, as in {"image": 3, "video": 0}', _read_limits)
_RANGE = Reader("RATIO", 'a ratio from 0 to below 1, or {"input": 0.3, "output": 0.5}', _read_range)
_PERCENTS = listed(Reader("P", "", _read_percentile), "a list like 25,50,99.9 of numbers from 0 to 100")
_OBJECTIVE = Reader("METRIC:MS", OBJECTIVES_TAKEN, read_objectives)
_MODE = Reader("auto|hf", "auto or hf: tokenizer.json is the one format that is read", choice("auto", "hf").read)
_BACKEND = Reader("|".join(BACKENDS), f"one of {', '.join(BACKENDS)}: generation is what is measured here", choice(*BACKENDS).read)
_DATASET = Reader("|".join(DATASETS), f"one of {', '.join(DATASETS)}: vLLM's others are not built", choice(*DATASETS).read)
_PATH = text_of("the path of a file", "FILE")
_DIRECTORY = text_of("the path of a directory", "DIR")
_NAME = text_of("a name", "NAME")
_HEADER_VALUE = Reader("TEXT", "printable ASCII", _read_header_value)
_X = number()

_NO_TOKENIZER = "without one: lengths are calibrated by what the server's usage.prompt_tokens says of a few probes"

FLAGS: dict[str, tuple[Flag, ...]] = {
    "target": (
        Flag("backend", "vllm, openai: /completions; openai-chat: /chat/completions", _BACKEND, "openai"),
        Flag("base-url", "the server, without /v1", text_of("a URL like http://localhost:8000", "URL")),
        Flag("host", "the server, where there is no --base-url", _NAME, "127.0.0.1"),
        Flag("port", "its port", whole(1, 65535), "8000"),
        Flag("endpoint", "the path below the base URL", text_of("a path like /v1/completions", "PATH"), "/v1/completions"),
        Flag("model", "the model's name", _NAME, differs="when absent, the first that /models lists; its `root` is not asked for"),
        Flag("served-model-name", "its name in the API, where that is another", _NAME),
        Flag("header", "headers of every request", PAIR, several=True),
        Flag("insecure", "do not verify the server's certificate"),
        Flag(
            "ready-check-timeout-sec",
            "wait so long for the server",
            whole(0),
            "0",
            differs="asks /models each second, not the first prompt each 5 s; one request of one token goes before every run, also with 0",
        ),
    ),
    "load": (
        Flag("num-prompts", "requests", whole(0), "1000", differs="0 (the whole file) is for sharegpt and custom"),
        Flag(
            "request-rate",
            "requests/s; inf: all at once",
            _RATE,
            "inf",
            differs="arrivals are a true Poisson (gamma) process: vLLM stretches the gaps so that the last request is due at N / rate",
        ),
        Flag("burstiness", "shape of the gamma distributed gaps; 1: Poisson", _SHAPE, "1.0", differs="refused where there is no rate"),
        Flag("max-concurrency", "requests in flight; with an infinite rate a closed loop", whole(1, 50_000)),
        Flag(
            "ramp-up-strategy",
            "how the rate rises",
            choice("linear", "exponential"),
            differs="the rate rises with time, as its name says; vLLM's with the number of the request. What is left after the ramp goes on at its end",
        ),
        Flag("ramp-up-start-rps", "the rate it begins with", _RAMP_RATE),
        Flag("ramp-up-end-rps", "the rate it ends with", _RAMP_RATE),
        Flag("num-warmups", "requests before the run, all of them the first prompt", whole(0), "0"),
        Flag("seed", "seed of dataset and arrivals", whole(0, 2**63 - 1), "0"),
    ),
    "data": (
        Flag("dataset-name", "what is sent", _DATASET, "random"),
        Flag("dataset-path", "its file", _PATH),
        Flag("disable-shuffle", "keep the order of the file"),
        Flag("no-oversample", "a file that is too short is not sent again"),
        Flag(
            "skip-chat-template",
            "send the prompts of custom as they are",
            differs="they always are: with openai-chat the server applies its template (vLLM's client applies one, too); without, custom asks for this flag",
        ),
        Flag("enable-multimodal-chat", "the body is the same"),
        Flag("input-len", "the same as --random-input-len", _LENGTH),
        Flag("output-len", "output tokens of any dataset", _LENGTH),
        Flag("random-input-len", "tokens of a prompt", _LENGTH, "1024"),
        Flag("random-output-len", "output tokens", _LENGTH, "128"),
        Flag("random-range-ratio", "how far lengths lie around that", _RANGE, "0.0"),
        Flag("random-prefix-len", "tokens that all prompts begin with", whole(0, 10_000_000), "0"),
        Flag("random-mm-base-items-per-request", "images of a request", whole(0, 10_000), "1"),
        Flag("random-mm-num-mm-items-range-ratio", "how far their number lies around that", number(0, 1, "a ratio from 0 to 1"), "0.0"),
        Flag("random-mm-limit-mm-per-prompt", "the most of each kind", _LIMITS, "{'image': 255, 'video': 1}"),
        Flag(
            "random-mm-bucket-config",
            "sizes and how often",
            _BUCKETS,
            "{(256, 256, 1): 0.5, (720, 1280, 1): 0.5, (720, 1280, 16): 0.0}",
            differs="images only: a video's share must be 0",
        ),
        Flag("sharegpt-output-len", "output tokens, in place of the answer's length", _LENGTH),
        Flag(
            "custom-output-len",
            "output tokens; -1: each row's output_tokens",
            whole(-1, 10_000_000),
            "256",
            differs="holds with --skip-tokenizer-init, too (vLLM then asks for 1 token)",
        ),
        Flag(
            "tokenizer",
            "tokenizer.json, its directory, or a name on the Hugging Face hub",
            text_of("a file, a directory or a name", "NAME"),
            differs=f"needs the extra `loadgen[tokenizers]`; when absent, --model's where it is on this machine; {_NO_TOKENIZER}",
        ),
        Flag("tokenizer-mode", "how it is read", _MODE, "auto", differs="auto and hf; others are refused"),
        Flag("skip-tokenizer-init", "use none", differs=f"tokens are counted all the same, by the server; {_NO_TOKENIZER}"),
        Flag("trust-remote-code", "nothing to do: no code of a model is run here"),
    ),
    "request": (
        Flag("ignore-eos", "every answer goes on to its length; random and random-mm imply it"),
        Flag("temperature", "sampling", _X),
        Flag("top-p", "sampling", _X),
        Flag("top-k", "sampling", whole(-1)),
        Flag("min-p", "sampling", _X),
        Flag("frequency-penalty", "sampling", _X),
        Flag("presence-penalty", "sampling", _X),
        Flag("repetition-penalty", "sampling", _X),
        Flag(
            "logprobs",
            "log probabilities of each token",
            whole(0, 1000),
            differs="refused with openai-chat, where vLLM's client leaves it out",
        ),
        Flag("request-id-prefix", "what the x-request-id of each request begins with", _HEADER_VALUE, "bench-<8 hexadecimal digits>-"),
        Flag("extra-body", "fields added to every body", JSON_OBJECT),
    ),
    "output": (
        Flag(
            "percentile-metrics",
            "what the percentiles are of",
            listed(choice(*METRICS), "a list of " + ", ".join(METRICS), metavar="METRIC,…"),
            differs="a name that is none is refused; when absent ttft,tpot,itl",
        ),
        Flag("metric-percentiles", "percentiles", _PERCENTS, "99"),
        Flag("goodput", "what a good request keeps, in milliseconds", _OBJECTIVE, several=True),
        Flag("save-result", "write the result as JSON"),
        Flag("save-detailed", "with the values of every request", differs="generated_texts are null: measuring keeps no text"),
        Flag("append-result", "add the result to the file"),
        Flag("result-dir", "where it is written", _DIRECTORY),
        Flag("result-filename", "its name", _PATH),
        Flag("label", "a name for this run", _NAME),
        Flag("metadata", "facts to keep with the result", PAIR, several=True),
        Flag("disable-tqdm", "show no progress"),
    ),
    "loadgen's own": (
        Flag("processes", "worker processes", COUNT_OR_AUTO, "auto", own=True),
        Flag("results-dir", "where the records of runs are kept", _DIRECTORY, "results", own=True),
        Flag("fail-on-degraded", "exit with 3 when the verdict is degraded, too", own=True),
    ),
}


def options() -> list[Option]:
    """What the command line takes."""
    return [flag.option(group) for group, flags in FLAGS.items() for flag in flags]


def table() -> str:
    """All flags as the Markdown table of docs/serve-bench.md."""
    rows = ["| flag | default | | |", "|---|---|---|---|"]
    for flags in FLAGS.values():
        for flag in flags:
            kind = "own" if flag.own else "different" if flag.differs else "supported"
            said = f"{flag.help}: {flag.differs}" if flag.differs else flag.help
            rows.append(_row(flag.name, flag.default, kind, said))
    rows += [_row(name, default, "refused", why) for name, default, why in REFUSED]
    return "\n".join(rows) + "\n"


def _row(name: str, default: str | None, kind: str, said: str) -> str:
    shown = "" if default is None else f"`{default}`"
    return f"| `--{name}` | {shown} | {kind} | {said} |".replace("METRIC|", "METRIC\\|")
