"""What grid and bench are asked to do, as values: whom to load, as whom, with what, and how it is named in the report.

Knows options, profiles and the tables of profiles.toml, and in which order one goes before another; must not start anything.
Law: what the user typed goes before a profile, a profile before a default; everything that can be refused without the server is
refused here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from clients.endpoint import Timeouts
from clients.errors import LoadgenError, UsageError
from clients.images import data_uri, image_message
from clients.messages import Sampling
from clients.registry import ModelProfile, ModelRegistry
from clients.secret import Secret
from loadgen.curve import Sought
from loadgen.objectives import STREAMED_METRICS, Objective, merged
from loadgen.options import read_table
from loadgen.pages import HEIGHT, OCR_PROMPT, WIDTH, Images, drawn_page, load_images
from loadgen.plan import Cache
from loadgen.prompts import Prompts, generated_prompts, load_prompts
from loadgen.rundir import check_results
from loadgen.simulated import simulator_settings
from loadgen.simulator.settings import SimulatorSettings, load_profiles
from loadgen.target import Target

if TYPE_CHECKING:
    from loadgen.command_line import Arguments

# Each request is made unique by its marker (workload.py); these many different texts and pages keep sizes and words varied.
_TEXTS = 1024
_TEXT_BYTES = 64 * 1024 * 1024  # of all generated texts together
_PAGES = 6

_DEFAULT_INPUT_LEN = 512
_DEFAULT_MAX_TOKENS = 256
_DEFAULT_REQUESTS = 100
# generate_batch's and generate_batch_with_images' own defaults: a bench without numbers measures what a pipeline would do.
_DEFAULT_CONCURRENCY = {"llm": 20, "vlm": 4}


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """All that is asked of a measurement but its campaign.

    target: the real server, or the simulator once it has a port. table: the profile's grid values. num_requests or duration_s: of
    each measured plan. num_warmups, processes: None for the default. percentiles: those asked for by name. arguments: as given, for
    run.json, without secrets. tokens_in_chunks: whether chunks may be asked to tell their tokens, where the server can. objectives: what
    makes a request good; attainment: the share that shall be; sought: what a search looks for.
    trace: what plans replay (`trace.py`).
    """

    command: str
    target: Target
    sampling: Sampling
    content: Prompts
    results_dir: Path
    key: Secret | None = None
    profile: ModelProfile | None = None
    simulator: SimulatorSettings | None = None
    table: dict[str, Any] = {}
    num_requests: int | None = None
    duration_s: float | None = None
    delay_between_batches_s: float = 0.0
    num_warmups: int | None = None
    processes: int | None = None
    seed: int = 0
    cache: Cache = "unique"
    percentiles: tuple[float, ...] = ()
    label: str | None = None
    metadata: dict[str, str] = {}
    arguments: dict[str, Any] = {}
    notes: list[str] = []
    tokens_in_chunks: bool = True
    objectives: tuple[Objective, ...] = ()
    attainment: float | None = None
    sought: Sought | None = None
    trace: Any = None


def read_order(arguments: Arguments, *, end: tuple[int | None, float | None] | None = None) -> Order:
    """Raises UsageError for whatever cannot be used. end: (num_requests, duration_s), where the command knows it already."""
    _check_simulator_options(arguments)
    check_results(Path(arguments["results_dir"]))
    profile = ModelRegistry(arguments["models_file"]).get(arguments["model"]) if arguments["model"] else None
    table = _grid_table(profile)
    target = _target(arguments, profile)
    max_tokens = arguments.chosen("max_tokens", table.get("max_tokens"), _DEFAULT_MAX_TOKENS)
    sampling = Sampling(max_tokens=max_tokens, ignore_eos=arguments["ignore_eos"] or None, extra_body=arguments["extra_body"])
    default = table.get("num_requests") if arguments.command == "grid" else None
    num_requests, duration_s = end or _end(arguments, default)
    content = _content(arguments, target.kind, profile, table, num_requests)
    notes = list(content.notes)
    if num_requests is not None and arguments["prompts"] and len(content.items) < num_requests:
        notes.append(f"{len(content.items)} prompts for {num_requests} requests: they are sent in turn, again and again")
    if target.insecure:
        notes.append("INSECURE: the server's certificate is not verified")
    if target.retries:
        notes.append(f"up to {target.retries} retries: latencies run from the first due, attempts stand beside")
    return Order(
        command=arguments.command,
        target=target,
        results_dir=Path(arguments["results_dir"]),
        delay_between_batches_s=arguments.values.get("delay_between_batches", 0.0),
        num_warmups=arguments["num_warmups"],
        processes=arguments["processes"],
        seed=arguments["seed"],
        cache=arguments["cache"],
        percentiles=arguments["metric_percentiles"] if "metric_percentiles" in arguments.typed else (),
        label=arguments["label"],
        metadata=dict(arguments["metadata"]),
        arguments=arguments.recorded(),
        key=None if arguments["simulate"] else _key(arguments, profile),
        profile=profile,
        simulator=_simulator(arguments, target) if arguments["simulate"] else None,
        sampling=sampling,
        content=content,
        table=table,
        num_requests=num_requests,
        duration_s=duration_s,
        objectives=_objectives(arguments, target),
        attainment=arguments.values.get("attainment"),
        notes=notes,
    )


def _objectives(arguments: Arguments, target: Target) -> tuple[Objective, ...]:
    found = merged(arguments.values.get("goodput", ()))
    if not found and arguments.values.get("attainment") is not None:
        raise UsageError("--attainment: has a use only with --goodput METRIC:MS")
    if not target.stream and (timed := [one for one in found if one.metric in STREAMED_METRICS]):
        raise UsageError(f"--goodput: got {timed[0]} with --no-stream, which has no first token; takes e2el alone")
    return found


def _end(arguments: Arguments, default: int | None) -> tuple[int | None, float | None]:
    duration_s = arguments["duration"]
    return (None if duration_s is not None else arguments.chosen("num_requests", default, _DEFAULT_REQUESTS)), duration_s


def default_concurrency(order: Order) -> int:
    """What bench takes when nothing says how many: the profile's highest recommended, else as the clients' batches do."""
    if order.profile is not None and order.profile.recommended_concurrency is not None:
        return order.profile.recommended_concurrency[1]
    return _DEFAULT_CONCURRENCY[order.target.kind]


def _check_simulator_options(arguments: Arguments) -> None:
    stray = sorted(key for key in arguments.typed if key.startswith("sim_"))
    if stray and not arguments["simulate"]:
        raise UsageError(f"--{stray[0].replace('_', '-')}: has a use only with --simulate")
    if arguments["simulate"] and "base_url" in arguments.typed:
        raise UsageError("--base-url: got one with --simulate, which starts its own server; takes one of the two")


def _grid_table(profile: ModelProfile | None) -> dict[str, Any]:
    """`[X.grid]` of profiles.toml, read as the options of `grid` are."""
    if profile is None:
        return {}
    return read_table(load_profiles().get(profile.name, {}).get("grid", {}), "grid", f"profiles.toml: {profile.name}.grid")


def _target(arguments: Arguments, profile: ModelProfile | None) -> Target:
    model = arguments["model_name"] or (profile.model if profile else None)
    base_url = arguments["base_url"] or (profile.resolved_base_url() if profile else None)
    if arguments["simulate"]:
        base_url, model = "http://127.0.0.1:1/v1", model or "simulated"  # the port is not known before it listens
    if base_url is None or model is None:
        missing = "--base-url" if base_url is None else "--model-name"
        raise UsageError(
            f"{missing}: missing; name a model by --model NAME (`loadgen models`), or give --base-url URL and --model-name NAME"
        )
    target = Target(
        base_url=base_url,
        model=model,
        kind=arguments["model_type"] or (profile.kind if profile else "llm"),
        stream=arguments["stream"],
        headers=dict(arguments["header"]),
        ca_file=arguments["ca_file"],
        insecure=arguments["insecure"],
        transport=arguments["transport"],
        timeouts=Timeouts(
            connect_s=arguments["timeout_connect"],
            first_byte_s=arguments["timeout_first_byte"],
            stall_s=arguments["timeout_stall"],
            total_s=arguments["timeout_total"],
        ),
        retries=arguments["retries"],
        profile=profile.name if profile else None,
    )
    return msgspec.structs.replace(target, base_url=target.endpoint(None).base_url)  # checked, and without a trailing slash


def _key(arguments: Arguments, profile: ModelProfile | None) -> Secret | None:
    variable = arguments["api_key_env"]
    if variable is not None:
        key = Secret.from_env(variable)
        if key is None:
            raise UsageError(f"--api-key-env: the environment variable {variable} is not set")
        return key
    return profile.secret() if profile is not None else Secret.from_env("OPENAI_API_KEY")


def _simulator(arguments: Arguments, target: Target) -> SimulatorSettings:
    return simulator_settings(arguments["model"], arguments.values, arguments.command, model_name=target.model, kind=target.kind)


def _content(arguments: Arguments, kind: str, profile: ModelProfile | None, table: dict[str, Any], num_requests: int | None) -> Prompts:
    """What is sent, from files or generated."""
    texts = load_prompts(Path(arguments["prompts"])) if arguments["prompts"] else None
    if kind == "vlm":
        return _pages(arguments, texts, profile)
    if arguments["images_dir"]:
        raise UsageError("--images-dir: has a use only for a vlm (--model-type vlm)")
    if texts is not None:
        return texts
    input_len = arguments.chosen("input_len", table.get("input_len"), _DEFAULT_INPUT_LEN)
    count = max(16, min(_TEXTS, num_requests or _TEXTS, _TEXT_BYTES // (6 * input_len)))
    seed = arguments["seed"]
    return Prompts(items=generated_prompts(count, input_len, seed), name=f"{count} generated prompts of {input_len} words (seed {seed})")


def _pages(arguments: Arguments, texts: Prompts | None, profile: ModelProfile | None) -> Prompts:
    """One message for each pair of text and image; both begin again when they end."""
    if "input_len" in arguments.typed:
        raise UsageError("--input-len: has no use for a vlm, which gets an OCR prompt; takes --prompts FILE for texts of your own")
    max_pixels = profile.max_pixels if profile else None
    seed = arguments["seed"]
    images: Images | None = load_images(Path(arguments["images_dir"])) if arguments["images_dir"] else None
    sources: list[Any] = list(images.paths) if images else [drawn_page(seed, number) for number in range(_PAGES)]
    try:
        uris = [data_uri(source, max_pixels=max_pixels) for source in sources]
    except LoadgenError as error:
        raise UsageError(f"--images-dir: {error}") from None
    named = images.name if images else f"{_PAGES} drawn pages of {WIDTH}x{HEIGHT} (seed {seed})"
    prompts = texts.items if texts else [OCR_PROMPT]
    items = []
    for number in range(max(len(uris), len(prompts))):
        prompt = prompts[number % len(prompts)]
        items.append([image_message(prompt, [uris[number % len(uris)]])] if isinstance(prompt, str) else prompt)
    return Prompts(
        items=items,
        name=f"{named} with {texts.name if texts else 'an OCR prompt'}",
        notes=[*(texts.notes if texts else []), *(images.notes if images else [])],
    )
