"""What `serve-bench` is asked to do, as values: its flags become target, traffic, data set and order.

Knows the flags and which of them go together; asks the server only what it must be asked before there is an order: its model's name, and how
long a few probes are. Law: a flag that would have no effect is refused by its name; the bodies that are sent are those of vLLM's client.
"""

from __future__ import annotations

import math
import secrets
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from clients.catalogue import list_models
from clients.client import LLMClient
from clients.endpoint import Endpoint, Timeouts
from clients.errors import RequestError, UsageError
from clients.loop import private_loop
from clients.messages import Sampling
from clients.retry import RetryPolicy
from clients.secret import Secret
from loadgen.datasets.prompt_file import custom, sharegpt
from loadgen.datasets.sample import DataSet
from loadgen.datasets.synthetic import Pictures, Texts, random_requests
from loadgen.datasets.tokens import Calibration, Tokens
from loadgen.objectives import merged
from loadgen.order import Order
from loadgen.preflight import ServerUnusableError
from loadgen.prompts import Prompts
from loadgen.rundir import check_results
from loadgen.serve_bench import Ramp, Traffic
from loadgen.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadgen.command_line import Arguments
    from loadgen.datasets.sample import Sample
    from loadgen.datasets.tokens import TextSource

# vLLM's client waits six hours for an answer, and 30 s (aiohttp's default) for a connection.
_TIMEOUTS = Timeouts(connect_s=30.0, first_byte_s=21_600.0, stall_s=21_600.0, total_s=21_600.0)
_PATHS = {"chat": "/chat/completions", "completions": "/completions"}
# Flags of one data set, which has no use for those of another.
_OF = {
    "random": ("random_", "input_len", "output_len"),
    "random-mm": ("random_", "input_len", "output_len", "enable_multimodal_chat"),
    "sharegpt": ("sharegpt_", "output_len", "enable_multimodal_chat"),
    "custom": ("custom_", "output_len"),
}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A run of serve-bench. tokenizer: the one that counted, None where none did."""

    order: Order
    traffic: Traffic
    data: DataSet
    tokenizer: str | None


def read_target(arguments: Arguments) -> Target:
    """Whom to load, with no model yet where none was typed. Raises UsageError."""
    check_results(Path(arguments["results_dir"]))
    dialect = "chat" if arguments["backend"] == "openai-chat" else "completions"
    endpoint = arguments["endpoint"]
    if not endpoint.endswith(_PATHS[dialect]) or (dialect == "completions" and endpoint.endswith(_PATHS["chat"])):
        raise UsageError(f"--endpoint: got {endpoint!r}, takes a path that ends in {_PATHS[dialect]} with --backend {arguments['backend']}")
    host = arguments["host"]
    server = arguments["base_url"] or f"http://{f'[{host}]' if ':' in host else host}:{arguments['port']}"
    target = Target(
        base_url=server.rstrip("/") + endpoint.removesuffix(_PATHS[dialect]),
        model=arguments["served_model_name"] or arguments["model"] or "",
        kind="vlm" if arguments["dataset_name"] == "random-mm" else "llm",
        dialect=dialect,
        headers=dict(arguments["header"]),
        insecure=arguments["insecure"],
        transport="auto",
        timeouts=_TIMEOUTS,
    )
    return msgspec.structs.replace(target, base_url=target.endpoint(None).base_url)  # checked, and without a trailing slash


def read_asked(arguments: Arguments, target: Target) -> Asked:
    """All that is asked for. Raises UsageError for what cannot be run, ServerUnusableError for a server that must be asked and does not answer."""
    _check(arguments, target)
    traffic = _traffic(arguments, 1)  # what is wrong with the rate is said before the data are made
    key = Secret.from_env("OPENAI_API_KEY")
    if not target.model:
        target = msgspec.structs.replace(target, model=_first_model(target.endpoint(key)))
    tokens = _tokens(arguments, target)
    data = _data_set(arguments, tokens, lambda: tokens or _calibrated(target, key))
    sampling = _sampling(arguments, target)
    return Asked(
        order=_order(arguments, target, key, data, sampling),
        traffic=msgspec.structs.replace(traffic, count=len(data.samples)),
        data=data,
        tokenizer=tokens.name if tokens else None,
    )


def _check(arguments: Arguments, target: Target) -> None:
    name, typed = arguments["dataset_name"], arguments.typed
    for other, prefixes in _OF.items():
        for key in sorted(typed):
            if key.startswith(prefixes) and not key.startswith(_OF[name]):
                raise UsageError(f"--{key.replace('_', '-')}: has no use with --dataset-name {name}, but with {other}")
    mm = [key for key in sorted(typed) if key.startswith("random_mm_")]
    if mm and name != "random-mm":
        raise UsageError(f"--{mm[0].replace('_', '-')}: has a use only with --dataset-name random-mm")
    if name.startswith("random") and arguments["dataset_path"]:
        raise UsageError(f"--dataset-path: has no use with --dataset-name {name}, which reads no file")
    if not name.startswith("random") and not arguments["dataset_path"]:
        raise UsageError(f"--dataset-path: missing; --dataset-name {name} needs its file")
    if name.startswith("random") and not arguments["num_prompts"]:
        raise UsageError("--num-prompts: got 0, takes a whole number from 1 for random requests")
    if name == "random-mm" and target.dialect != "chat":
        raise UsageError("--backend: images go to /chat/completions: takes openai-chat, with --endpoint /v1/chat/completions")
    if name == "custom" and target.dialect == "completions" and not arguments["skip_chat_template"]:
        raise UsageError(
            "--skip-chat-template: missing; no chat template is applied here: takes the flag, or --backend openai-chat, where the server applies it"
        )
    if arguments["logprobs"] is not None and target.dialect == "chat":
        raise UsageError("--logprobs: has a use only with --backend openai or vllm; takes --extra-body for a chat's")
    if arguments["skip_tokenizer_init"] and arguments["tokenizer"]:
        raise UsageError("--tokenizer: got --skip-tokenizer-init as well, takes one of the two")
    merged(arguments["goodput"])  # each metric once
    if arguments["save_detailed"] and not (arguments["save_result"] or arguments["append_result"]):
        raise UsageError("--save-detailed: has a use only with --save-result or --append-result")


def _traffic(arguments: Arguments, count: int) -> Traffic:
    ramp, rate = None, arguments["request_rate"]
    ends = arguments["ramp_up_start_rps"], arguments["ramp_up_end_rps"]
    if arguments["ramp_up_strategy"]:
        if "request_rate" in arguments.typed and not math.isinf(rate):
            raise UsageError("--request-rate: got --ramp-up-strategy as well, takes one of the two")
        if None in ends:
            raise UsageError("--ramp-up-start-rps, --ramp-up-end-rps: missing; a ramp needs both")
        ramp = Ramp(strategy=arguments["ramp_up_strategy"], start_rps=ends[0], end_rps=ends[1])
    elif ends != (None, None):
        raise UsageError("--ramp-up-strategy: missing; takes linear or exponential")
    if arguments["burstiness"] != 1.0 and ramp is None and math.isinf(rate):
        raise UsageError("--burstiness: has a use only with --request-rate or --ramp-up-strategy")
    return Traffic(
        count=count,
        request_rate=rate,
        burstiness=arguments["burstiness"],
        max_concurrency=arguments["max_concurrency"],
        ramp=ramp,
        seed=arguments["seed"],
    )


def _first_model(endpoint: Endpoint) -> str:
    try:
        names = private_loop().run(partial(list_models, endpoint))
    except RequestError as error:
        raise ServerUnusableError(f"{endpoint.base_url}: --model is missing, and the server does not list its models: {error}") from None
    if not names:
        raise ServerUnusableError(f"{endpoint.base_url}: --model is missing, and the server lists no model")
    return names[0]


def _tokens(arguments: Arguments, target: Target) -> Tokens | None:
    """The tokenizer that was named; else the model's own, where it is on this machine and the data set counts tokens at all."""
    if arguments["tokenizer"]:
        return Tokens.load(arguments["tokenizer"])
    if arguments["skip_tokenizer_init"] or arguments["dataset_name"] == "custom":
        return None
    return Tokens.load(arguments["model"] or target.model, fetch=False)


def _calibrated(target: Target, key: Secret | None) -> Calibration:
    """Lengths by what the server says of a few probes of one token each."""
    client = LLMClient(
        base_url=target.base_url,
        api_key=key,
        model_name=target.model,
        headers=target.headers,
        insecure=target.insecure,
        endpoint="chat" if target.dialect == "chat" else "completions",
        streaming=False,
        retry=RetryPolicy(max_retries=0),
        max_tokens=1,
    )

    def ask(text: str) -> int | None:
        usage = client.generate(text).usage
        return usage.prompt_tokens if usage else None

    try:
        return Calibration.measured(ask, templated=target.dialect == "chat")
    except RequestError as error:
        raise ServerUnusableError(f"{target.base_url}: a probe of a prompt's length failed: {error}") from None
    finally:
        client.close()


def _data_set(arguments: Arguments, tokens: Tokens | None, source: Callable[[], TextSource]) -> DataSet:
    """What is sent. source: gives what counts tokens; it may ask the server, and is called where there is no data set without it."""
    name, count, seed = arguments["dataset_name"], arguments["num_prompts"], arguments["seed"]
    output_len = arguments["output_len"]
    if name in ("sharegpt", "custom"):
        how: dict[str, Any] = {"shuffle": not arguments["disable_shuffle"], "oversample": not arguments["no_oversample"], "seed": seed}
        path = Path(arguments["dataset_path"])
        if name == "custom":
            return custom(path, count, tokens, output_len=output_len or arguments["custom_output_len"] or -1, **how)
        return sharegpt(path, count, source(), output_len=output_len or arguments["sharegpt_output_len"], **how)
    ratios = arguments["random_range_ratio"]
    texts = Texts(
        input_len=arguments["input_len"] or arguments["random_input_len"],
        output_len=output_len or arguments["random_output_len"],
        prefix_len=arguments["random_prefix_len"],
        input_ratio=ratios[0],
        output_ratio=ratios[1],
    )
    pictures = None
    if name == "random-mm":
        pictures = Pictures(
            count=arguments["random_mm_base_items_per_request"],
            ratio=arguments["random_mm_num_mm_items_range_ratio"],
            limit=arguments["random_mm_limit_mm_per_prompt"].get("image", 0),
            buckets=arguments["random_mm_bucket_config"],
        )
    return random_requests(texts, count, source(), seed, pictures)


def _sampling(arguments: Arguments, target: Target) -> Sampling:
    """What all requests share. vLLM's client sets a repetition penalty of 1 for completions, so that a model's own does not hold."""
    more = {name: arguments[name] for name in ("min_p", "repetition_penalty") if arguments[name] is not None}
    if target.dialect == "completions":
        more = {"repetition_penalty": 1.0, **more}
    names = ("temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty", "logprobs")
    implied = arguments["dataset_name"].startswith("random")
    return Sampling(
        **{name: arguments[name] for name in names},
        ignore_eos=arguments["ignore_eos"] or implied or None,
        extra_body={**more, **(arguments["extra_body"] or {})},
    )


def _of(sample: Sample, target: Target, sampling: Sampling) -> tuple[Any, Sampling]:
    """The body of one request as vLLM's client makes it: text first, then images; a chat's length is max_completion_tokens."""
    if target.dialect == "completions":
        return sample.prompt, msgspec.structs.replace(sampling, max_tokens=sample.output_len)
    parts: list[dict[str, Any]] = [{"type": "text", "text": sample.prompt}]
    parts += [{"type": "image_url", "image_url": {"url": uri}} for uri in sample.images]
    body = {"max_completion_tokens": sample.output_len, **(sampling.extra_body or {})}
    return [{"role": "user", "content": parts}], msgspec.structs.replace(sampling, extra_body=body)


def _order(arguments: Arguments, target: Target, key: Secret | None, data: DataSet, sampling: Sampling) -> Order:
    # The warm-up sends the first prompt again and again, as vLLM's does: its items come after those that are measured.
    items = [_of(sample, target, sampling) for sample in [*data.samples, *data.samples[:1] * arguments["num_warmups"]]]
    notes = list(data.notes)
    if arguments["temperature"] is None:
        notes.append("no --temperature: the server's own default holds")
    return Order(
        command="serve-bench",
        target=target,
        sampling=sampling,
        content=Prompts(
            items=[prompt for prompt, _ in items], samplings=[one for _, one in items], name=data.name, id_prefix=_id_prefix(arguments)
        ),
        results_dir=Path(arguments["results_dir"]),
        key=key,
        num_requests=len(data.samples),
        num_warmups=arguments["num_warmups"],
        processes=arguments["processes"],
        seed=arguments["seed"],
        cache="shared",  # prompts go as the data set has them
        percentiles=_judged(arguments),
        label=arguments["label"],
        metadata=dict(arguments["metadata"]),
        arguments={
            key: value if isinstance(value, str | int | tuple | list) else str(value) for key, value in arguments.recorded().items()
        },
        tokens_in_chunks=False,
        notes=notes,
    )


def _judged(arguments: Arguments) -> tuple[float, ...]:
    """The percentiles that a verdict must go by: those that were typed and that have samples on both sides."""
    if "metric_percentiles" not in arguments.typed:
        return ()
    return tuple(percent for percent in arguments["metric_percentiles"] if 0 < percent < 100)


def _id_prefix(arguments: Arguments) -> str:
    """Of the x-request-ids: the one that was typed, else one of this run's own."""
    return arguments["request_id_prefix"] if "request_id_prefix" in arguments.typed else f"bench-{secrets.token_hex(4)}-"
