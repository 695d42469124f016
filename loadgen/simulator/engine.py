"""Continuous batching as vLLM's scheduler does it, as a pure function of submissions and time.

Knows sequences, limits, step costs and the KV cache. Must not know a clock, a socket, text or HTTP: every time is an argument,
in nanoseconds of one clock of the caller's choice. A step is planned when it starts and takes effect when it ends.
Law: no token before the end of its step; at most max_num_seqs run; a step holds at most max_num_batched_tokens; admission is in
order of submission; the KV cache is never over its capacity; each sequence that is not cancelled gets exactly its tokens.
"""

import random
from collections import deque
from collections.abc import Sequence as Seq
from typing import NamedTuple

from loadgen.simulator.kvcache import KVCache
from loadgen.simulator.settings import SimulatorSettings


class Sequence:
    """One prompt and the answer being made of it. The engine owns all fields but `owner`, which is the caller's."""

    __slots__ = (
        "admitted_ns",
        "arrived_ns",
        "cached_tokens",
        "chunk",
        "computed",
        "emitted",
        "first_token_ns",
        "image_pixels",
        "last_token_ns",
        "output_tokens",
        "owner",
        "preemptions",
        "prefix_hashes",
        "prompt_tokens",
        "state",
    )

    def __init__(
        self, prompt_tokens: int, output_tokens: int, *, image_pixels: int = 0, prefix_hashes: Seq[int] = (), owner: object = None
    ) -> None:
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.image_pixels = image_pixels  # of all its images; encoded once, in the step that starts its prefill
        self.prefix_hashes = prefix_hashes
        self.owner = owner
        self.state = "new"  # waiting, running, finished, cancelled
        self.arrived_ns = self.admitted_ns = self.first_token_ns = self.last_token_ns = -1
        self.computed = 0  # tokens whose KV is held
        self.chunk = 0  # tokens of it in the current step
        self.emitted = 0
        self.cached_tokens = 0
        self.preemptions = 0

    def __repr__(self) -> str:
        return f"<Sequence {self.state} prompt={self.prompt_tokens} computed={self.computed} emitted={self.emitted}/{self.output_tokens}>"


class Emission(NamedTuple):
    """Token number `token` (from 0) of `sequence`, at the end of its step. `previous_ns`: its token before, -1 for the first."""

    sequence: Sequence
    token: int
    finished: bool
    end_ns: int
    previous_ns: int


class EngineTotals:
    """What happened since the start; only ever grows."""

    __slots__ = ("cancelled", "preemptions", "prefix_hit_tokens", "prefix_query_tokens", "step_ns", "steps")

    def __init__(self) -> None:
        self.steps = self.step_ns = 0
        self.preemptions = self.cancelled = 0
        self.prefix_query_tokens = self.prefix_hit_tokens = 0


class Engine:
    """One GPU. `submit` and `cancel` at any time; `advance` when `next_step_end` has come."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self.kv = KVCache(settings.kv_cache_tokens, prefix=settings.prefix_cache)
        self.totals = EngineTotals()
        self.running: list[Sequence] = []  # oldest admission first
        self.waiting: deque[Sequence] = deque()
        self._scheduled: list[Sequence] = []  # of the step under way
        self._step_end: int | None = None
        self.step_ns = 0  # length of the step under way
        self._random = random.Random(settings.seed)
        self._preempted_now = False
        self.set_limits(settings)

    def __repr__(self) -> str:
        return f"<Engine running={len(self.running)} waiting={len(self.waiting)} kv={self.kv.used}/{self.kv.capacity}>"

    def set_limits(self, settings: SimulatorSettings) -> None:
        """Take limits and costs from `settings`, from the next step on; running sequences above a lowered limit run on."""
        self.max_num_seqs = settings.max_num_seqs
        self.max_num_batched_tokens = settings.max_num_batched_tokens
        scale = settings.time_scale
        self._base_ns = settings.step_base_ms * 1e6 * scale
        self._per_seq_ns = settings.step_per_seq_us * 1e3 * scale
        self._per_context_ns = settings.step_per_context_token_ns * scale
        self._per_prefill_ns = settings.prefill_per_token_us * 1e3 * scale
        self._per_pixel_ns = settings.image_per_megapixel_ms * scale  # ms per 1e6 pixels is ns per pixel
        self._jitter = settings.jitter

    def submit(self, now_ns: int, sequence: Sequence) -> None:
        """Queue `sequence`; an idle engine starts its step at once.

        Raises:
            ValueError: it could never fit the KV cache, or asks for no token at all.

        """
        if sequence.prompt_tokens < 1 or sequence.output_tokens < 1:
            raise ValueError(f"sequence: prompt_tokens={sequence.prompt_tokens}, output_tokens={sequence.output_tokens}, each takes >= 1")
        if sequence.prompt_tokens + sequence.output_tokens > self.kv.capacity:
            raise ValueError(f"sequence: {sequence.prompt_tokens}+{sequence.output_tokens} tokens, the KV cache holds {self.kv.capacity}")
        sequence.arrived_ns = now_ns
        sequence.state = "waiting"
        self.waiting.append(sequence)
        if self._step_end is None:
            self._start_step(now_ns)

    def cancel(self, sequence: Sequence, now_ns: int) -> bool:
        """Free what `sequence` holds at once; its token of the step under way is never emitted. False: it was over already."""
        if sequence.state == "waiting":
            self.waiting.remove(sequence)
        elif sequence.state == "running":
            self.running.remove(sequence)
            self.kv.give_back(sequence.computed + sequence.chunk)
        else:
            return False
        sequence.state = "cancelled"
        sequence.last_token_ns = now_ns
        self.totals.cancelled += 1
        return True

    def next_step_end(self) -> int | None:
        """When `advance` is next due, or None while there is nothing to do."""
        return self._step_end

    def advance(self, now_ns: int) -> list[Emission]:
        """End every step that is over at `now_ns`, each followed at once by the next: a late caller does not slow the engine."""
        emissions: list[Emission] = []
        while self._step_end is not None and self._step_end <= now_ns:
            end_ns = self._step_end
            self._finish_step(end_ns, emissions)
            self._start_step(end_ns)
        return emissions

    def _finish_step(self, end_ns: int, emissions: list[Emission]) -> None:
        finished_any = False
        for sequence in self._scheduled:
            if sequence.state != "running":  # cancelled meanwhile
                continue
            sequence.computed += sequence.chunk
            sequence.chunk = 0
            if sequence.computed < sequence.prompt_tokens + sequence.emitted:
                continue  # prefill goes on
            index = sequence.emitted
            previous_ns = sequence.last_token_ns
            sequence.emitted = index + 1
            sequence.last_token_ns = end_ns
            finished = index + 1 == sequence.output_tokens
            if index == 0:
                sequence.first_token_ns = end_ns
                self.kv.remember(sequence.prefix_hashes)
            if finished:
                sequence.state = "finished"
                self.kv.give_back(sequence.computed)
                finished_any = True
            emissions.append(Emission(sequence, index, finished, end_ns, previous_ns))
        if finished_any:
            self.running = [sequence for sequence in self.running if sequence.state == "running"]

    def _start_step(self, start_ns: int) -> None:
        if not self.running and self.waiting and self.waiting[0].arrived_ns > start_ns:
            start_ns = self.waiting[0].arrived_ns  # the caller was late: the engine had been idle until then
        self._scheduled = []
        self._preempted_now = False
        decoding, context = self._schedule_decodes()
        budget = self.max_num_batched_tokens - decoding
        budget -= self._schedule_prefills(budget)
        pixels = 0
        if not self._preempted_now:  # what was just thrown out must not be overtaken, nor come back in the same step (vLLM: the same)
            taken, pixels = self._admit(start_ns, budget)
            budget -= taken
        if not self._scheduled:
            self._step_end = None
            assert not self.running, "a running sequence cannot go on"
            return
        prefill = self.max_num_batched_tokens - budget - decoding
        cost = self._base_ns + decoding * self._per_seq_ns + context * self._per_context_ns
        cost += prefill * self._per_prefill_ns + pixels * self._per_pixel_ns
        if self._jitter:
            cost *= 1 + self._jitter * self._random.uniform(-1, 1)
        self.step_ns = max(1, round(cost))
        self._step_end = start_ns + self.step_ns
        self.totals.steps += 1
        self.totals.step_ns += self.step_ns

    def _schedule_decodes(self) -> tuple[int, int]:
        """One token for each sequence that decodes, oldest first; the newest are preempted where the KV cache is full."""
        kv, scheduled = self.kv, self._scheduled
        budget = self.max_num_batched_tokens
        context = 0
        position = 0
        while position < len(self.running) and len(scheduled) < budget:
            sequence = self.running[position]
            if not sequence.emitted or sequence.prompt_tokens + sequence.emitted - sequence.computed != 1:
                position += 1
                continue
            while kv.used >= kv.capacity and sequence.state == "running":
                self._preempt_newest()
            if sequence.state != "running":
                break  # it was itself the newest
            kv.used += 1
            sequence.chunk = 1
            context += sequence.computed
            scheduled.append(sequence)
            position += 1
        return len(scheduled), context

    def _schedule_prefills(self, budget: int) -> int:
        """Next chunks of prompts under way. They take what is free and preempt nobody.

        Only the last admitted prompt can be under way (an earlier one left no tokens for it), and a sequence alone always fits: there is
        always something to schedule while any sequence runs.
        """
        taken = 0
        for sequence in self.running:
            remaining = sequence.prompt_tokens + sequence.emitted - sequence.computed
            if sequence.chunk or sequence.state != "running" or (sequence.emitted and remaining == 1):
                continue
            taken += self._schedule_chunk(sequence, min(remaining, budget - taken, self.kv.free))
        return taken

    def _admit(self, start_ns: int, budget: int) -> tuple[int, int]:
        """Move sequences from the head of the queue into the batch while seats, tokens and KV allow. (tokens, pixels) they take."""
        taken = pixels = 0
        while self.waiting and len(self.running) < self.max_num_seqs and taken < budget:
            sequence = self.waiting[0]
            if sequence.arrived_ns > start_ns:
                break
            cached = self.kv.hit_tokens(sequence.prefix_hashes, sequence.prompt_tokens)
            chunk = min(sequence.prompt_tokens + sequence.emitted - cached, budget - taken)
            if cached + chunk > self.kv.free:
                break
            self.waiting.popleft()
            self.running.append(sequence)
            sequence.state = "running"
            sequence.computed = cached
            self.kv.take(cached)
            if sequence.admitted_ns < 0:
                sequence.admitted_ns = start_ns
                sequence.cached_tokens = cached
                pixels += sequence.image_pixels
                if self.kv.prefix:
                    self.totals.prefix_query_tokens += sequence.prompt_tokens
                    self.totals.prefix_hit_tokens += cached
            taken += self._schedule_chunk(sequence, chunk)
        return taken, pixels

    def _schedule_chunk(self, sequence: Sequence, chunk: int) -> int:
        if chunk > 0:
            self.kv.take(chunk)
            sequence.chunk = chunk
            self._scheduled.append(sequence)
        return max(chunk, 0)

    def _preempt_newest(self) -> None:
        """Throw out the newest admission: its KV is dropped and computed again later (vLLM's preemption by recompute)."""
        sequence = self.running.pop()
        self.kv.give_back(sequence.computed)
        assert not sequence.chunk, "preempted after it was scheduled"
        sequence.computed = 0
        sequence.state = "waiting"
        sequence.preemptions += 1
        self.waiting.appendleft(sequence)
        self.totals.preemptions += 1
        self._preempted_now = True
