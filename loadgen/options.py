"""Every option, once: name, what it takes, default, sentence, and the commands that have it.

Knows names and meanings of options; must not know argparse (`command_line.py` builds that from here) nor what commands do.
Law: a flag, its help, its alias and its key in a file (`profiles.toml`'s grid tables) all come from one line of TABLE; what
is not in it is refused with the nearest name.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import msgspec

from clients.errors import UsageError
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
    TIMEOUT,
    Reader,
    choice,
    listed,
    text_of,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

COMMANDS: dict[str, str] = {
    "grid": "search batch size and concurrency, and print the best setting for a pipeline",
    "bench": "measure one configuration",
    "models": "list the models that are known by name",
    "report": "rebuild the report of a run from its records",
    "simulate": "serve a simulated model",
    "selftest": "measure the instrument itself: what this machine can drive, and how far what it reports is from the truth",
}

METRICS = ("e2el", "ttft", "tpot", "itl")


class Option(msgspec.Struct, frozen=True):
    """One option. reader: None for a switch. default: what holds when neither the command line nor a table says otherwise.

    negatable: a switch with a `--no-` form. many: may be given several times.
    """

    name: str
    commands: tuple[str, ...]
    help: str
    reader: Reader | None = None
    default: Any = None
    aliases: tuple[str, ...] = ()
    negatable: bool = False
    many: bool = False
    group: str = "options"

    @property
    def key(self) -> str:
        """Its name as a key of a file and as an attribute."""
        return self.name.replace("-", "_")

    def read(self, text: str, *, where: str = "") -> Any:
        """The value of `text`; raises UsageError naming the option, what it got and what it takes."""
        assert self.reader is not None
        try:
            return self.reader.read(text)
        except ValueError:
            shown = text if len(text) <= 60 else text[:57] + "..."
            raise UsageError(f"{where or '--' + self.name}: got {shown!r}, takes {self.reader.takes}") from None


_LOAD = ("grid", "bench")
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
    Option("concurrencies", ("grid",), "numbers of requests in flight to try", COUNTS),
    Option("repeats", ("grid",), "runs of each of the top cells (default 3)", whole(1, 100), default=3),
    Option("batch-size", ("bench",), "requests of a batch; the next starts when the last of one ended (default: no barrier)", BARRIER),
    Option("max-concurrent", ("bench",), "requests in flight", whole(1, 50_000), aliases=("max-concurrency", "concurrency")),
    Option("num-requests", _LOAD, "requests of a measurement (of each cell)", whole(1), aliases=("num-prompts",)),
    Option("duration", _LOAD, "time of a measurement (of each cell), instead of a number of requests", DURATION),
    Option("num-warmups", _LOAD, "requests before the measurement, in no number (default: twice the concurrency)", whole(0)),
    Option("delay-between-batches", _LOAD, "pause of a lane between two batches (default 0)", DELAY, default=0.0),
    Option("processes", _LOAD, "worker processes (default auto: as the concurrency needs, at most the usable cores)", COUNT_OR_AUTO),
    Option("seed", _LOAD, "seed of prompts, pages and orders (default 0)", whole(0, 2**63 - 1), default=0),
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
        ("self-test", _SELFTEST),
        ("what is sent", _CONTENT),
        ("results", _OUTPUT),
        ("simulator", _SIMULATION),
    )
    for option in options
)


def options_of(command: str) -> list[Option]:
    """The options of one command, in the order of the help. Those of the simulator's parameters come from its own Struct."""
    own = [option for option in TABLE if command in option.commands]
    if command in _LOAD or command == "simulate":
        from loadgen.simulated import simulator_options

        own += simulator_options(command)
    return own


def read_table(table: Mapping[str, Any], command: str, where: str) -> dict[str, Any]:
    """The values of a table of a file whose keys are option names, read as if typed. Raises UsageError naming `where` and the key."""
    options = {option.key: option for option in TABLE if command in option.commands}
    values = {}
    for key, value in table.items():
        option = options.get(key)
        if option is None:
            raise UsageError(f"{where}: unknown key {key!r}{nearest(key, options)}")
        if option.reader is None:
            if not isinstance(value, bool):
                raise UsageError(f"{where}: {key}: got {value!r}, takes true or false")
            values[key] = value
        else:
            text = ",".join(str(one) for one in value) if isinstance(value, list) else str(value)
            values[key] = option.read(text, where=f"{where}: {key}")
    return values


def nearest(name: str, known: Iterable[str]) -> str:
    """` (nearest: known-name)`, or nothing when no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (nearest: {near[0]})" if near else ""
