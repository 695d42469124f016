"""The flags of `vllm bench serve` that are refused here, and why.

Knows names and reasons. Law: a flag is refused because it would not do what its name says; none is taken and ignored.
"""

from __future__ import annotations

_HUB = "data sets of the Hugging Face hub are not read here; takes --dataset-name custom with the prompts as JSONL"
_NOT_BUILT = "is of a data set that is not built here; takes --dataset-name random, random-mm, sharegpt or custom"
_EMBEDDING = "is of embeddings and rerankers; generation is what is measured here"
_REPLAY = "timed traces are not a data set here; `loadgen run --trace FILE` replays timestamps"
_PLOT = "no plots are drawn; the records of a run are kept, and `loadgen report` shows them"
_ADAPTERS = "a run has one model; name an adapter by --served-model-name"
_RUST = "is of vLLM's Rust client"

# Name, vLLM's own default as typed (None: none), reason.
REFUSED: tuple[tuple[str, str | None, str], ...] = (
    ("probe-request-rate", "0.0", "no probes go beside the load: they would be load that no plan says"),
    ("self-timed", None, _REPLAY),
    ("no-self-timed", None, _REPLAY),
    ("profile", None, "the server's profiler is not started from here; POST /start_profile and /stop_profile do"),
    ("use-beam-search", None, "vLLM's own client reads it nowhere; takes --extra-body '{\"use_beam_search\": true}' where a server has it"),
    ("lora-modules", None, _ADAPTERS),
    ("lora-assignment", "random", _ADAPTERS),
    ("chat-template-kwargs", None, "no template is applied here; takes --extra-body '{\"chat_template_kwargs\": …}' for the server's"),
    ("plot-timeline", None, _PLOT),
    ("timeline-itl-thresholds", "25,50", _PLOT),
    ("plot-dataset-stats", None, _PLOT),
    ("no-stream", None, _HUB),
    ("random-batch-size", "1", _EMBEDDING),
    ("no-reranker", None, _EMBEDDING),
    ("custom-ensure-client-side-data", None, _NOT_BUILT),
    ("spec-bench-output-len", "256", _NOT_BUILT),
    ("spec-bench-category", None, _NOT_BUILT),
    ("timed-trace-chunk-hash-size", "16", _REPLAY),
    ("timed-trace-sec-multiplier", "1", _REPLAY),
    ("timed-trace-label-timestamp", "timestamp", _REPLAY),
    ("timed-trace-label-input-length", "input_length", _REPLAY),
    ("timed-trace-label-output-length", "output_length", _REPLAY),
    ("timed-trace-label-hash-ids", "hash_ids", _REPLAY),
    ("blazedit-min-distance", "0.0", _HUB),
    ("blazedit-max-distance", "1.0", _HUB),
    ("asr-max-audio-len-sec", "inf", _HUB),
    ("asr-min-audio-len-sec", "0.0", _HUB),
    ("hf-subset", None, _HUB),
    ("hf-split", None, _HUB),
    ("hf-name", None, _HUB),
    ("hf-output-len", None, _HUB),
    ("bfcl-categories", None, _HUB),
    ("prefix-repetition-prefix-len", "256", _NOT_BUILT),
    ("prefix-repetition-suffix-len", "256", _NOT_BUILT),
    ("prefix-repetition-num-prefixes", "10", _NOT_BUILT),
    ("prefix-repetition-output-len", "128", _NOT_BUILT),
    ("speed-bench-dataset-subset", "qualitative", _NOT_BUILT),
    ("speed-bench-output-len", "4096", _NOT_BUILT),
    ("speed-bench-category", None, _NOT_BUILT),
    ("sweep-max-concurrency", None, f"{_RUST}; several points are `loadgen sweep`"),
    ("sweep-request-rate", None, f"{_RUST}; several points are `loadgen sweep`"),
    ("sweep-num-prompts-factor", None, f"{_RUST}; several points are `loadgen sweep`"),
    ("num-runs", None, f"{_RUST}; run the command again"),
    ("compare", None, f"{_RUST}; a result is plain JSON"),
    ("steady-state-threshold", None, f"{_RUST}; the steady stretch is found by the report, beside the whole"),
    ("steady-state-min-window", None, f"{_RUST}; the steady stretch is found by the report, beside the whole"),
    ("no-steady-state", None, f"{_RUST}; the figures of this result are of the whole run already"),
    ("dry-run", None, f"{_RUST}; what cannot be run is refused before anything is sent"),
    ("prompt-token-ids", None, f"{_RUST}; prompts are sent as text"),
    ("random-cache-hit-fraction", None, f"{_RUST}; takes --random-prefix-len"),
    ("random-cache-ratio", None, f"{_RUST}; takes --random-prefix-len"),
    ("reset-prefix-cache", None, f"{_RUST}; POST /reset_prefix_cache does"),
    ("multi-turn", None, f"{_RUST}; a request is one turn"),
)

REASONS = {name: why for name, _, why in REFUSED}
