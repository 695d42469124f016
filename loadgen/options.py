"""Every option, once: name, what it takes, default, sentence, and the commands that have it.

Knows names and meanings of options; must not know argparse (`command_line.py` builds that from here) nor what commands do.
Law: a flag, its help, its alias and its key in a file (`profiles.toml`'s grid tables) all come from one line of TABLE; what
is not in it is refused with the nearest name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from clients.errors import UsageError
from loadgen.objectives import OBJECTIVES_TAKEN, read_objectives
from loadgen.option import Option, nearest
from loadgen.precision import PRECISION
from loadgen.quantities import (
    BARRIER,
    BARRIERS,
    COUNT_OR_AUTO,
    COUNTS,
    DELAY,
    DURATION,
    JSON_OBJECT,
    LABEL,
    PAIR,
    PERCENTILES,
    RATE,
    TIMEOUT,
    Reader,
    choice,
    listed,
    number,
    text_of,
    whole,
)
from loadgen.steps import RATES, SLOTS

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMANDS: dict[str, str] = {
    "grid": "search batch size and concurrency, and print the best setting for a pipeline",
    "bench": "measure one configuration",
    "run": "measure under a load of any shape: a rate or requests in flight, fixed, stepped or ramped, or a trace",
    "serve-bench": "measure as `vllm bench serve` does: its flags, its output, its result file",
    "sweep": "measure a list of loads, and draw latency over load",
    "search": "find the highest load that keeps latency objectives",
    "models": "list the models that are known by name",
    "report": "rebuild the report of a run from its records",
    "simulate": "serve a simulated model",
    "selftest": "measure the instrument itself: what this machine can drive, and how far what it reports is from the truth",
}

METRICS = ("e2el", "ttft", "tpot", "itl")


_LOAD = ("grid", "bench", "run", "sweep", "search")
_PATH = text_of("the path of a file", "FILE")
_DIRECTORY = text_of("the path of a directory", "DIR")

_TARGET: tuple[Option, ...] = (
    Option("model", (*_LOAD, "simulate"), "a model known by name (`loadgen models`)", text_of("the name of a model", "NAME")),
    Option("models-file", (*_LOAD, "models"), "YAML or TOML file of models (else $LOADGEN_MODELS, else ./models.yaml)", _PATH),
    Option("model-name", _LOAD, "the served name, where it is not the model's own", text_of("the name the server knows", "NAME")),
    Option("model-type", _LOAD, "llm sends text, vlm sends images and text", choice("llm", "vlm")),
    Option("base-url", _LOAD, "the server, as in http://localhost:8000/v1", text_of("a URL like http://localhost:8000/v1", "URL")),
    Option(
        "api-key-env",
        (*_LOAD, "simulate"),
        "environment variable that holds the key (default OPENAI_API_KEY; a key is never an argument)",
        text_of("the name of an environment variable", "VAR"),
    ),
    Option("header", _LOAD, "a header of every request; may be repeated", PAIR, default=(), many=True),
    Option("insecure", _LOAD, "do not verify the server's certificate (the report says so)", default=False),
    Option("ca-file", _LOAD, "certificates to trust, PEM", _PATH),
    Option("transport", (*_LOAD, "selftest"), "the HTTP client that sends", choice("auto", "wire", "aiohttp"), default="auto"),
    Option("timeout-connect", _LOAD, "limit of connecting (default 10s)", TIMEOUT, default=10.0),
    Option("timeout-first-byte", _LOAD, "limit until the first byte of an answer (default 10m)", TIMEOUT, default=600.0),
    Option("timeout-stall", _LOAD, "limit between two reads of an answer (default 5m)", TIMEOUT, default=300.0),
    Option("timeout-total", _LOAD, "limit of one request (default 1h)", TIMEOUT, default=3600.0),
    Option(
        "retries", _LOAD, "attempts after the first (default 0: a measurement counts what the server answers)", whole(0, 100), default=0
    ),
)
_SHAPE: tuple[Option, ...] = (
    Option("batch-sizes", ("grid",), "batch sizes to try; none is no barrier", BARRIERS),
    Option("concurrencies", ("grid", "sweep"), "numbers of requests in flight to try", COUNTS),
    Option("search", ("grid",), "leave out cells that cannot win, as far as throughput rises to a knee and not again", default=False),
    Option("repeats", ("grid",), "runs of each of the top cells (default 3)", whole(1, 100), default=3),
    Option("batch-size", ("bench",), "requests of a batch; the next starts when the last of one ended (default: no barrier)", BARRIER),
    Option(
        "max-concurrent",
        ("bench", "run", "sweep", "search"),
        "requests in flight; of a rate, the most (then what is held back is late from its due)",
        whole(1, 50_000),
        aliases=("max-concurrency", "concurrency"),
    ),
    Option("num-requests", _LOAD, "requests of a measurement (of each cell)", whole(1), aliases=("num-prompts",)),
    Option("duration", _LOAD, "time of a measurement (of each cell), instead of a number of requests", DURATION),
    Option("num-warmups", _LOAD, "requests before the measurement, in no number (default: twice the concurrency)", whole(0)),
    Option("delay-between-batches", ("grid", "bench"), "pause of a lane between two batches (default 0)", DELAY, default=0.0),
    Option("processes", _LOAD, "worker processes (default auto: as the concurrency needs, at most the usable cores)", COUNT_OR_AUTO),
    Option("seed", _LOAD, "seed of prompts, pages and orders (default 0)", whole(0, 2**63 - 1), default=0),
)
_RATED = ("run",)
_SERIES = ("sweep", "search")
_JUDGED = ("bench", "run", *_SERIES)
_RATE: tuple[Option, ...] = (
    Option("request-rate", _RATED, "requests/s that fall due whatever became of those before; inf: as --max-concurrent lets them", RATE),
    Option("arrival", (*_RATED, *_SERIES), "how they fall due (default poisson)", choice("constant", "poisson", "gamma")),
    Option(
        "burstiness",
        (*_RATED, *_SERIES),
        "of gamma arrivals: 1 is poisson, less is burstier (vLLM's)",
        number(1e-3, 1e6, "a number from 0.001 to 1000000"),
    ),
    Option("ramp-up-strategy", _RATED, "let the rate grow from the start to the end rate over the run", choice("linear", "exponential")),
    Option("ramp-up-start-rps", _RATED, "the rate at the beginning", number(0.0, 1e6, "requests/s from 0 to 1000000")),
    Option("ramp-up-end-rps", _RATED, "the rate at the end", number(0.0, 1e6, "requests/s from 0 to 1000000")),
    Option("stages", _RATED, "steps and ramps of the rate: 10x60s,20x60s,20..50x2m", RATES),
    Option("levels", _RATED, "steps and ramps of the requests in flight: 8x60s,16x60s,1..64x2m", SLOTS),
    Option("trace", _RATED, "replay timestamps: a file with seconds, one a line, or .jsonl with a timestamp in each row", _PATH),
    Option("trace-speed", _RATED, "recorded seconds that pass in one (default 1)", number(1e-6, 1e6, "a factor above 0"), default=1.0),
    Option(
        "grace", (*_RATED, *_SERIES), "time for what is in flight or held back when the duration is over (default 30s)", DELAY, default=30.0
    ),
    Option("lead", _RATED, "time at the beginning that is left out of the measurement, by due (default 0)", DELAY, default=0.0),
    Option("tail", _RATED, "time at the end that is left out, by due (default 0)", DELAY, default=0.0),
    Option("precision", _RATED, "end early when the 95 % interval of a percentile is so narrow: p99:ttft:5%", PRECISION),
)
_OBJECTIVES: tuple[Option, ...] = (
    Option(
        "goodput",
        _JUDGED,
        "what makes a request good, in ms from due (vLLM's): ttft:500 tpot:50 e2el:5000",
        Reader("METRIC:MS", OBJECTIVES_TAKEN, read_objectives),
        default=(),
        several=True,
    ),
    Option(
        "attainment",
        _JUDGED,
        "share of requests that shall be good; exit with 4 where it is missed",
        number(0.01, 0.9999, "a share from 0.01 to 0.9999, as in 0.95"),
    ),
)
_LEAST_RPS, _MOST_RPS = 1e-3, 1e6
_RATE_OF_SERIES = number(_LEAST_RPS, _MOST_RPS, "requests/s from 0.001 to 1000000")
_LOADS: tuple[Option, ...] = (
    Option("request-rates", ("sweep",), "rates to measure, requests/s", listed(_RATE_OF_SERIES, "a list like 1,2,5,10 of requests/s")),
    Option("by", ("search",), "what rises: the rate (default), or the requests in flight", choice("rate", "concurrency"), default="rate"),
    Option("min-rate", ("search",), "the lowest rate to try, requests/s", _RATE_OF_SERIES),
    Option("max-rate", ("search",), "the highest rate to try, requests/s", _RATE_OF_SERIES),
    Option("min-concurrent", ("search",), "the fewest requests in flight to try (the most: --max-concurrent)", whole(1, 50_000)),
    Option("budget", ("search",), "time of all measurements together (default 15m)", DURATION, default=900.0),
)
_SELFTEST: tuple[Option, ...] = (
    Option("quick", ("selftest",), "a few short rungs, in less than 20 s (default: less than 2 minutes)", default=False),
    Option("streams", ("selftest",), "say how many workers so many streams need", whole(1, 1_000_000)),
    Option("events-per-second", ("selftest",), "token events/s of all those streams together (default: 50 of each)", whole(1)),
    Option("processes", ("selftest",), "how many workers are all (default auto: as many as can have a metronome each)", COUNT_OR_AUTO),
)
_CONTENT: tuple[Option, ...] = (
    Option("prompts", _LOAD, "prompts to send: .txt, one a line, or .jsonl with prompt or messages in each row", _PATH),
    Option("input-len", _LOAD, "words of a generated prompt, about one token each (default 512)", whole(1, 1_000_000)),
    Option("images-dir", _LOAD, "images to send to a vlm (default: generated pages)", _DIRECTORY, aliases=("test-images-dir",)),
    Option("max-tokens", _LOAD, "longest answer (default 256)", whole(1), aliases=("output-len",)),
    Option("ignore-eos", _LOAD, "every answer goes on to --max-tokens (vLLM's extension)", default=False),
    Option("stream", _LOAD, "take answers as a stream (default) or whole", default=True, negatable=True),
    Option("extra-body", _LOAD, "fields added to every body", JSON_OBJECT),
    Option(
        "cache",
        _LOAD,
        "unique: no prompt is sent twice, a prefix cache cannot help (default); pixels: the same, and images differ in their pixels, for "
        "servers that hash those; shared: prompts as they are",
        choice("unique", "shared", "pixels"),
        default="unique",
    ),
)
_OUTPUT: tuple[Option, ...] = (
    Option("write-config", ("grid",), "merge the best setting into this pipeline config (YAML, comments kept)", _PATH),
    Option("results-dir", (*_LOAD, "selftest"), "where runs are kept (default results)", _DIRECTORY, default="results"),
    Option("label", _LOAD, "a name for this run", LABEL),
    Option("metadata", _LOAD, "a fact to keep with the run; may be repeated", PAIR, default=(), many=True),
    Option(
        "percentile-metrics",
        (*_LOAD, "report"),
        "metrics whose percentiles are shown (default all: e2el,ttft,tpot,itl)",
        listed(choice(*METRICS), "a list of " + ", ".join(METRICS), metavar="METRIC,…"),
        default=METRICS,
    ),
    Option("metric-percentiles", _LOAD, "percentiles to compute (default 50,90,95,99)", PERCENTILES, default=(50.0, 90.0, 95.0, 99.0)),
    Option("fail-on-degraded", (*_LOAD, "report"), "exit with 3 when the verdict is degraded, too", default=False),
    Option("json", (*_LOAD, "models", "report", "selftest"), "print the document on stdout, all else on stderr", default=False),
    Option("yes", ("grid",), "run a grid of more than 200 cells", default=False),
)
_SIMULATION = (Option("simulate", _LOAD, "start the built-in simulator as the server of this run", default=False),)

TABLE: tuple[Option, ...] = tuple(
    msgspec.structs.replace(option, group=group)
    for group, options in (
        ("target", _TARGET),
        ("load", _SHAPE),
        ("shape", _RATE),
        ("objectives", _OBJECTIVES),
        ("loads", _LOADS),
        ("self-test", _SELFTEST),
        ("what is sent", _CONTENT),
        ("results", _OUTPUT),
        ("simulator", _SIMULATION),
    )
    for option in options
)


def options_of(command: str) -> list[Option]:
    """The options of one command, in the order of the help. Those of the simulator's parameters come from its own Struct."""
    if command == "serve-bench":
        from loadgen.serve_bench_options import options

        return options()
    own = [option for option in TABLE if command in option.commands]
    if command in _LOAD or command == "simulate":
        from loadgen.simulated import simulator_options

        own += simulator_options(command)
    return own


def refusals_of(command: str) -> dict[str, str]:
    """Flags that belong to another program's command of this kind, with the reason why they are not taken."""
    if command != "serve-bench":
        return {}
    from loadgen.serve_bench_refusals import REASONS

    return REASONS


def read_table(table: Mapping[str, Any], command: str, where: str) -> dict[str, Any]:
    """The values of a table of a file whose keys are option names, read as if typed. Raises UsageError naming `where` and the key."""
    options = {option.key: option for option in options_of(command)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        option = options.get(key)
        if option is None:
            raise UsageError(f"{where}: unknown key {key!r}{nearest(key, options)}")
        if option.reader is None:
            if not isinstance(value, bool):
                raise UsageError(f"{where}: {key}: got {value!r}, takes true or false")
            values[key] = value
        elif option.many or option.several:
            pieces = (
                [f"{name}={one}" for name, one in value.items()]
                if isinstance(value, dict)
                else value
                if isinstance(value, list)
                else [value]
            )
            if option.several and not pieces:
                raise UsageError(f"{where}: {key}: missing; takes {option.reader.takes}")
            values[key] = tuple(option.read(str(one), where=f"{where}: {key}") for one in pieces)
        else:
            text = ",".join(map(str, value)) if isinstance(value, list) else _json(value) if isinstance(value, dict) else str(value)
            values[key] = option.read(text, where=f"{where}: {key}")
    return values


def _json(value: dict[Any, Any]) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError):  # YAML can hold itself
        return str(value)  # which its option refuses
