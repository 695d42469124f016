"""The parameters of the simulator: each declared once, here, with its type, default, bound, unit and sentence.

Knows the file `loadgen/profiles.toml` (timing and limits per model) and how overrides are laid over it. Must not know the engine
or the server. The CLI generates its flags from this Struct, so fields are plain int, float, str and bool, or those and None.
Law: a `SimulatorSettings` that exists is valid; whatever is wrong is refused here, in one line that names the field.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta

from loadgen.simulator.faults import parse_fault_shares

PROFILES_PATH = Path(__file__).parent.parent / "profiles.toml"

# What `POST /simulator/limits` may change while the server runs; the rest shapes connections or was sent already.
CHANGEABLE = (
    "max_num_seqs",
    "max_num_batched_tokens",
    "time_scale",
    "faults",
    "fault_retry_after_s",
    "fault_slow_ms",
    "eos_mean_tokens",
    "answer_mean_tokens",
)


class SimulatorSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """One simulated server. Times are those of the simulated GPU, before `time_scale`."""

    model_name: Annotated[str, Meta(min_length=1, description="names the server answers to, comma-separated; answers carry the first")] = (
        "simulated"
    )
    kind: Annotated[str, Meta(pattern="^(llm|vlm)$", description="llm refuses images as vLLM does for a text model; vlm takes them")] = (
        "llm"
    )
    host: Annotated[str, Meta(min_length=1, description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="port to listen on; 0 lets the system choose")] = 0
    api_key: Annotated[str | None, Meta(description="key that requests must carry as a bearer token; none: open")] = None
    keep_alive_s: Annotated[float, Meta(gt=0, description="an idle connection is closed after this many seconds (vLLM: 5)")] = 5.0

    max_num_seqs: Annotated[int, Meta(ge=1, description="sequences that run at once; the rest queue")] = 16
    max_num_batched_tokens: Annotated[int, Meta(ge=1, description="tokens of one engine step, decode and prefill together")] = 8192
    max_model_len: Annotated[int, Meta(ge=2, description="prompt and answer of one sequence, tokens")] = 32_768
    kv_cache_tokens: Annotated[int, Meta(ge=2, description="capacity of the KV cache, tokens; when it is full the newest is preempted")] = (
        262_144
    )
    prefix_cache: Annotated[bool, Meta(description="blocks of a prompt seen before are not computed again")] = True

    step_base_ms: Annotated[float, Meta(ge=0, description="cost of any engine step: weights read, kernels launched; ms")] = 8.0
    step_per_seq_us: Annotated[float, Meta(ge=0, description="cost of each decoding sequence in a step; microseconds")] = 50.0
    step_per_context_token_ns: Annotated[float, Meta(ge=0, description="cost of each KV token that a decoding sequence reads; ns")] = 20.0
    prefill_per_token_us: Annotated[float, Meta(ge=0, description="cost of each prompt token computed; microseconds")] = 60.0
    image_per_megapixel_ms: Annotated[float, Meta(ge=0, description="cost of the vision encoder for 1,000,000 pixels; ms")] = 50.0
    image_token_pixels: Annotated[int, Meta(ge=1, description="side of the square of pixels that is one prompt token (Qwen2.5-VL: 28)")] = (
        28
    )
    image_max_pixels: Annotated[int, Meta(ge=784, description="larger images count as scaled down to this many pixels")] = 12_845_056
    max_images: Annotated[int, Meta(ge=1, description="images that one prompt may carry")] = 16
    time_scale: Annotated[float, Meta(gt=0, description="multiplies all times; 0.1 makes the simulator ten times as fast")] = 1.0
    jitter: Annotated[float, Meta(ge=0, lt=1, description="share by which a step's time varies, uniformly, either way")] = 0.0
    seed: Annotated[int, Meta(ge=0, description="seed of jitter, answer lengths and faults")] = 0

    answer_mean_tokens: Annotated[int, Meta(ge=1, description="mean length of an answer without max_tokens; tokens")] = 256
    eos_mean_tokens: Annotated[
        int | None, Meta(description="mean length at which answers stop by themselves; none: they go up to max_tokens")
    ] = None
    embedding_dim: Annotated[int, Meta(ge=1, description="numbers in an embedding")] = 64

    faults: Annotated[str, Meta(description="failures and their share of requests, as in rate-limit-429=0.1,reset=0.05")] = ""
    fault_retry_after_s: Annotated[int, Meta(ge=0, description="Retry-After of rate-limit-429-retry-after; seconds, never scaled")] = 1
    fault_slow_ms: Annotated[float, Meta(ge=0, description="delay that the fault slow adds before the request is queued; ms")] = 1000.0

    truth: Annotated[str | None, Meta(description="file that receives when each request arrived and each token left")] = None

    metronome: Annotated[bool, Meta(description="no engine: every answer follows the planned times, to measure clients")] = False
    metronome_ttft_ms: Annotated[float, Meta(ge=0, description="planned time from a request's arrival to its first token; ms")] = 200.0
    metronome_itl_us: Annotated[int, Meta(ge=1, description="planned gap between two tokens; microseconds")] = 20_000
    metronome_lockstep: Annotated[bool, Meta(description="all streams emit at common ticks, as a batching server does")] = False

    calibrated: Annotated[bool, Meta(description="timing was fitted to a measured server; false: a written estimate")] = False

    def __post_init__(self) -> None:
        """Check what spans fields.

        Raises:
            ValueError: one line naming the fields, what they are, and what is taken.

        """
        if not self.names:
            raise ValueError(f"model_name: no name in {self.model_name!r}")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens: {self.max_num_batched_tokens} is below max_num_seqs={self.max_num_seqs}; "
                "a step must hold one token of each running sequence (vLLM refuses this too)"
            )
        if self.kv_cache_tokens < self.max_model_len:
            raise ValueError(
                f"kv_cache_tokens: {self.kv_cache_tokens} is below max_model_len={self.max_model_len}; the longest sequence must fit"
            )
        if self.eos_mean_tokens is not None and self.eos_mean_tokens < 1:
            raise ValueError(f"eos_mean_tokens: {self.eos_mean_tokens}, takes an integer >= 1")
        parse_fault_shares(self.faults)

    @property
    def names(self) -> tuple[str, ...]:
        """The served names; the first is canonical."""
        return tuple(name.strip() for name in self.model_name.split(",") if name.strip())

    @property
    def timing(self) -> str:
        """What the times are worth: `planned` by a metronome, `calibrated` to a measured server, or `uncalibrated`."""
        return "planned" if self.metronome else "calibrated" if self.calibrated else "uncalibrated"

    def changed(self, changes: Mapping[str, Any]) -> "SimulatorSettings":
        """A copy with `changes` of the CHANGEABLE fields.

        Raises:
            ValueError: a field that cannot change while running, or a value out of bounds.

        """
        for key in changes:
            if key not in CHANGEABLE:
                raise ValueError(f"{key}: cannot be changed while the simulator runs; takes {', '.join(CHANGEABLE)}")
        return _convert({**msgspec.to_builtins(self), **changes}, "limits")


def load_settings(model: str | None = None, **overrides: Any) -> SimulatorSettings:
    """The settings of `model`'s table in profiles.toml (None: the defaults), with `overrides` that are not None laid over.

    Raises:
        ValueError: unknown model or field (with the nearest name), or a value out of bounds.

    """
    values: dict[str, Any] = {}
    if model is not None:
        profiles = load_profiles()
        if model not in profiles:
            raise ValueError(f"simulator: no profile {model!r}{_nearest(model, profiles)}; loadgen/profiles.toml has {', '.join(profiles)}")
        values.update(profiles[model].get("simulator", {}))
    values.update({key: value for key, value in overrides.items() if value is not None})
    return _convert(values, f"simulator settings of {model}" if model else "simulator settings")


def load_profiles(path: Path = PROFILES_PATH) -> dict[str, dict[str, dict[str, Any]]]:
    """The tables of profiles.toml: model -> {"grid": ..., "simulator": ...}."""
    with path.open("rb") as file:
        return cast("dict[str, dict[str, dict[str, Any]]]", tomllib.load(file))


def _convert(values: Mapping[str, Any], what: str) -> SimulatorSettings:
    known = SimulatorSettings.__struct_fields__
    for key in values:
        if key not in known:
            raise ValueError(f"{what}: unknown parameter {key!r}{_nearest(key, known)}")
    try:
        return msgspec.convert(values, SimulatorSettings)
    except msgspec.ValidationError as error:
        field = re.search(r" - at `\$\.(\w+)`$", str(error))
        if field is None:  # from __post_init__, which names its fields itself
            raise ValueError(f"{what}: {error}") from None
        name = field.group(1)
        raise ValueError(f"{what}: {name}: {str(error)[: field.start()]}, got {values[name]!r}") from None


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f" (nearest: {near[0]})" if near else ""
