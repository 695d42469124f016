"""The server's own counters under vLLM's names, in Prometheus' text format.

Knows names, buckets and how to count an emission. Must not know HTTP routes or sockets.
Law: counters only grow; a sequence is counted under `request_success_total` before the last byte of its answer is written.
Times are the engine's (virtual), so they are exact; how late the server wrote is reported apart, by /simulator/stats.
"""

from bisect import bisect_left
from typing import Final

from loadgen.simulator.engine import Emission, Engine

# The bounds that vLLM 0.32.0 was seen to use.
_TTFT: Final = "0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.25 0.5 0.75 1.0 2.5 5.0 7.5 10.0 20.0 40.0 80.0 160.0 640.0 2560.0"
_ITL: Final = "0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.4 0.5 0.75 1.0 2.5 5.0 7.5 10.0 20.0 40.0 80.0"
_REQUEST: Final = "0.3 0.5 0.8 1.0 1.5 2.0 2.5 5.0 10.0 15.0 20.0 30.0 40.0 50.0 60.0 120.0 240.0 480.0 960.0 1920.0 7680.0"
_REASONS: Final = ("stop", "length", "abort", "error", "repetition")


class Histogram:
    """Counts of nanoseconds in buckets of seconds."""

    __slots__ = ("_bounds_ns", "_labels", "_sum_ns", "counts")

    def __init__(self, bounds: str) -> None:
        self._labels = bounds.split()
        self._bounds_ns = [round(float(bound) * 1e9) for bound in self._labels]
        self.counts = [0] * (len(self._labels) + 1)
        self._sum_ns = 0

    def add(self, value_ns: int) -> None:
        self.counts[bisect_left(self._bounds_ns, value_ns)] += 1  # le is inclusive
        self._sum_ns += value_ns

    def render(self, name: str, labels: str) -> list[str]:
        lines = []
        total = 0
        for bound, count in zip([*self._labels, "+Inf"], self.counts, strict=True):
            total += count
            engine, model = labels.split(",", 1)
            lines.append(f'{name}_bucket{{{engine},le="{bound}",{model}}} {total:.1f}')
        lines.append(f"{name}_count{{{labels}}} {total:.1f}")
        lines.append(f"{name}_sum{{{labels}}} {self._sum_ns / 1e9!r}")
        return lines


class Metrics:
    """What vLLM would have counted."""

    def __init__(self, model_name: str, *, started_s: float = 0.0) -> None:
        """started_s: when the server was started, in seconds since 1970."""
        self._model_name = model_name
        self._started_s = started_s
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.success = dict.fromkeys(_REASONS, 0)
        self.ttft = Histogram(_TTFT)
        self.itl = Histogram(_ITL)
        self.queue = Histogram(_REQUEST)
        self.prefill = Histogram(_REQUEST)
        self.decode = Histogram(_REQUEST)
        self.inference = Histogram(_REQUEST)
        self.e2e = Histogram(_REQUEST)

    def token(self, emission: Emission) -> None:
        """Count one token, and what its being the first or the last means."""
        sequence = emission.sequence
        end_ns = emission.end_ns
        self.generation_tokens += 1
        if emission.token:
            self.itl.add(end_ns - emission.previous_ns)
        else:
            self.prompt_tokens += sequence.prompt_tokens
            self.ttft.add(end_ns - sequence.arrived_ns)
        if emission.finished:  # as in vLLM, the phases are counted of requests that ended, the first token when it leaves
            self.queue.add(sequence.admitted_ns - sequence.arrived_ns)
            self.prefill.add(sequence.first_token_ns - sequence.admitted_ns)
            self.decode.add(end_ns - sequence.first_token_ns)
            self.inference.add(end_ns - sequence.admitted_ns)
            self.e2e.add(end_ns - sequence.arrived_ns)

    def embedded(self, emission: Emission) -> None:
        """Count an embedding: a prompt, and no generated token."""
        self.prompt_tokens += emission.sequence.prompt_tokens
        self.e2e.add(emission.end_ns - emission.sequence.arrived_ns)

    def finished(self, reason: str) -> None:
        self.success[reason] += 1

    def render(self, engine: Engine, running: int) -> bytes:
        """The text of GET /metrics. running: requests in the making, which an engine knows and a metronome has none for."""
        name = self._model_name.replace("\\", "\\\\").replace('"', '\\"')
        labels = f'engine="0",model_name="{name}"'
        totals = engine.totals
        lines: list[str] = []

        def add(kind: str, metric: str, text: str, value: float) -> None:
            lines.extend(_heading(metric, kind, text))
            lines.append(f"{metric}{{{labels}}} {float(value)!r}")

        heading = _heading("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.")
        lines.extend((*heading, f"process_start_time_seconds {self._started_s!r}"))
        add("gauge", "vllm:num_requests_running", "Number of requests in model execution batches.", running)
        add("gauge", "vllm:num_requests_waiting", "Number of requests waiting to be processed.", len(engine.waiting))
        add("gauge", "vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", engine.kv.used / engine.kv.capacity)
        add("counter", "vllm:prefix_cache_queries_total", "Prefix cache queries, in tokens.", totals.prefix_query_tokens)
        add("counter", "vllm:prefix_cache_hits_total", "Prefix cache hits, in tokens.", totals.prefix_hit_tokens)
        add("counter", "vllm:num_preemptions_total", "Cumulative number of preemption from the engine.", totals.preemptions)
        add("counter", "vllm:prompt_tokens_total", "Number of prefill tokens processed.", self.prompt_tokens)
        add("counter", "vllm:generation_tokens_total", "Number of generation tokens processed.", self.generation_tokens)
        lines.extend(_heading("vllm:request_success_total", "counter", "Count of successfully processed requests."))
        for reason, count in self.success.items():
            lines.append(f'vllm:request_success_total{{engine="0",finished_reason="{reason}",model_name="{name}"}} {count:.1f}')
        for metric, text, histogram in (
            ("vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.", self.ttft),
            ("vllm:inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", self.itl),
            ("vllm:e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", self.e2e),
            ("vllm:request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.", self.queue),
            ("vllm:request_prefill_time_seconds", "Histogram of time spent in PREFILL phase for request.", self.prefill),
            ("vllm:request_decode_time_seconds", "Histogram of time spent in DECODE phase for request.", self.decode),
            ("vllm:request_inference_time_seconds", "Histogram of time spent in RUNNING phase for request.", self.inference),
        ):
            lines.extend(_heading(metric, "histogram", text))
            lines.extend(histogram.render(metric, labels))
        return ("\n".join(lines) + "\n").encode()


def _heading(metric: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP {metric} {text}", f"# TYPE {metric} {kind}"
