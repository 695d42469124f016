"""The engine's law, by property; and what its parts do, by example. No clock: time is what the tests say it is."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.simulator.capacity import closed_loop_throughput
from loadgen.simulator.engine import Emission, Engine, Sequence
from loadgen.simulator.settings import SimulatorSettings

MS = 1_000_000
PLAIN = SimulatorSettings(
    max_num_seqs=4,
    max_num_batched_tokens=64,
    step_base_ms=10,
    step_per_seq_us=0,
    step_per_context_token_ns=0,
    prefill_per_token_us=0,
    prefix_cache=False,
)


def run_dry(engine: Engine) -> list[Emission]:
    """Advance step by step until nothing is left."""
    emissions = []
    while (end_ns := engine.next_step_end()) is not None:
        emissions += engine.advance(end_ns)
    return emissions


workloads = st.lists(
    st.tuples(
        st.integers(0, 50 * MS),  # gap to the arrival before
        st.integers(1, 60),  # prompt
        st.integers(1, 20),  # output
        st.integers(0, 8).map(lambda kind: kind if kind < 3 else None),  # a third are cancelled, after so many of their tokens
        st.integers(0, 2),  # which prefix it shares
    ),
    min_size=1,
    max_size=30,
)
shapes = st.fixed_dictionaries(
    {
        "max_num_seqs": st.integers(1, 6),
        "max_num_batched_tokens": st.integers(6, 40),
        "kv_cache_tokens": st.integers(80, 200),  # a sequence has at most 80: small enough for preemptions
        "jitter": st.sampled_from([0.0, 0.3]),
        "prefix_cache": st.booleans(),
        "step_per_seq_us": st.sampled_from([0.0, 500.0]),
    }
)


@settings(max_examples=150, deadline=None)
@given(workload=workloads, shape=shapes, late_ns=st.integers(0, 30 * MS))
def test_the_law_of_the_engine_holds_for_any_workload(workload, shape, late_ns):
    """Whatever arrives, is cancelled or preempted, and however late the caller: limits hold, order holds, and tokens are exact."""
    engine = Engine(SimulatorSettings(max_model_len=80, step_base_ms=5, **shape))
    arrivals = []
    now_ns = 0
    for gap_ns, prompt, output, cancel_after, prefix in workload:
        now_ns += gap_ns
        hashes = [prefix * 100 + block for block in range(prompt // 16)]
        arrivals.append((now_ns, Sequence(prompt, output, prefix_hashes=hashes, owner=cancel_after)))
    pending = list(arrivals)
    admitted: list[Sequence] = []
    tokens: dict[Sequence, list[int]] = {sequence: [] for _, sequence in arrivals}
    while pending or engine.next_step_end() is not None:
        end_ns = engine.next_step_end()
        if pending and (end_ns is None or pending[0][0] < end_ns):
            engine.submit(*pending.pop(0))
        else:
            caller_ns = end_ns + late_ns
            if pending:
                caller_ns = max(end_ns, min(caller_ns, pending[0][0]))  # a late caller has submitted what came before
            gone = {sequence for sequence in tokens if sequence.state == "cancelled"}
            for emission in engine.advance(caller_ns):
                sequence = emission.sequence
                assert sequence not in gone
                assert sequence.arrived_ns <= sequence.admitted_ns < emission.end_ns <= caller_ns
                assert emission.token == len(tokens[sequence])
                tokens[sequence].append(emission.end_ns)
                assert emission.finished == (emission.token + 1 == sequence.output_tokens)
                if sequence.owner is not None and emission.token >= sequence.owner and sequence.state == "running":
                    assert engine.cancel(sequence, caller_ns)
        for sequence in engine.running:
            if sequence not in admitted:
                admitted.append(sequence)
        assert len(engine.running) <= shape["max_num_seqs"]
        assert sum(sequence.chunk for sequence in engine.running) <= shape["max_num_batched_tokens"]
        held = sum(sequence.computed + sequence.chunk for sequence in engine.running)
        assert engine.kv.used == held <= shape["kv_cache_tokens"]
    order = [sequence for _, sequence in arrivals]
    assert [order.index(sequence) for sequence in admitted] == sorted(order.index(sequence) for sequence in admitted)
    assert engine.kv.used == 0
    assert not engine.running
    assert not engine.waiting
    for sequence, ends in tokens.items():
        assert ends == sorted(set(ends))  # one token per step
        assert sequence.state in ("finished", "cancelled")
        if sequence.state == "finished":
            assert len(ends) == sequence.output_tokens
    assert engine.totals.cancelled == sum(sequence.state == "cancelled" for sequence in tokens)


@settings(max_examples=50, deadline=None)
@given(workload=workloads, late_ns=st.integers(1, 100 * MS))
def test_a_late_caller_does_not_slow_virtual_time(workload, late_ns):
    """Steps follow from virtual time: who calls late gets the same tokens at the same virtual instants."""
    ends = []
    for lateness_ns in (0, late_ns):
        engine = Engine(PLAIN)
        for _, prompt, output, _, _ in workload:
            engine.submit(0, Sequence(prompt, output))
        emissions = []
        while (end_ns := engine.next_step_end()) is not None:
            emissions += engine.advance(end_ns + lateness_ns)
        ends.append([(emission.token, emission.end_ns) for emission in emissions])
    assert ends[0] == ends[1]


def test_a_step_costs_what_the_settings_say():
    """Base, sequences, context, prompt tokens and pixels add up, and time_scale multiplies the sum."""
    costs = SimulatorSettings(
        step_base_ms=1,
        step_per_seq_us=10,
        step_per_context_token_ns=100,
        prefill_per_token_us=2,
        image_per_megapixel_ms=50,
        time_scale=2,
    )
    engine = Engine(costs)
    engine.submit(0, Sequence(100, 2, image_pixels=500_000))
    first, second = run_dry(engine)
    assert first.end_ns == 2 * (1 * MS + 100 * 2_000 + 25 * MS)
    assert second.end_ns - first.end_ns == 2 * (1 * MS + 10_000 + 100 * 100)


def test_a_long_prompt_is_computed_in_chunks_beside_the_decodes_of_others():
    """A prompt above the step's token limit takes several steps, and running sequences get a token in each of them."""
    engine = Engine(PLAIN)
    short = Sequence(4, 10)
    long = Sequence(150, 1)
    engine.submit(0, short)
    engine.submit(1, long)
    emissions = run_dry(engine)
    [done] = [emission for emission in emissions if emission.sequence is long]
    assert done.end_ns == 40 * MS  # one step for the short prompt, then 63 + 63 + 24 tokens
    assert [emission.end_ns // MS for emission in emissions if emission.sequence is short][:4] == [10, 20, 30, 40]


def test_sequences_beyond_max_num_seqs_wait_their_turn():
    """With four seats, the fifth sequence is admitted when a seat is free, not before."""
    engine = Engine(PLAIN)
    sequences = [Sequence(2, 3) for _ in range(5)]
    for sequence in sequences:
        engine.submit(0, sequence)
    emissions = run_dry(engine)
    assert [sequence.admitted_ns // MS for sequence in sequences] == [0, 10, 10, 10, 30]  # the first began alone, as it came first
    assert len(emissions) == 15


def test_a_full_cache_preempts_the_newest_and_computes_it_again():
    """Two sequences that outgrow the cache: the newer is thrown out, counted, and still gets exactly its tokens."""
    engine = Engine(SimulatorSettings(kv_cache_tokens=60, max_model_len=50, prefix_cache=False))
    older, newer = Sequence(20, 30), Sequence(20, 30)
    engine.submit(0, older)
    engine.submit(0, newer)
    emissions = run_dry(engine)
    assert (older.preemptions, newer.preemptions) == (0, 1)
    assert engine.totals.preemptions == 1
    assert len(emissions) == 60
    assert older.last_token_ns < newer.last_token_ns


def test_the_preempted_is_first_in_the_queue_and_does_not_come_back_in_the_same_step():
    """What was thrown out is not overtaken by who came later, and the step that threw it out admits nobody."""
    engine = Engine(SimulatorSettings(kv_cache_tokens=60, max_model_len=50, max_num_batched_tokens=16, prefix_cache=False))
    older, newer, last = Sequence(20, 30), Sequence(20, 30), Sequence(45, 1)
    for sequence in (older, newer, last):
        engine.submit(0, sequence)
    while not newer.preemptions:
        engine.advance(engine.next_step_end())
    assert engine.running == [older]
    assert list(engine.waiting) == [newer, last]
    run_dry(engine)
    assert newer.last_token_ns < last.first_token_ns


def test_who_arrives_after_a_steps_end_is_not_in_the_next_step_however_late_the_caller():
    """The second step began at 10 ms; a sequence that came at 15 ms, before the caller woke at 17, is in the third."""
    engine = Engine(PLAIN)
    engine.submit(0, Sequence(2, 5))
    newcomer = Sequence(2, 1)
    engine.submit(15 * MS, newcomer)
    engine.advance(17 * MS)
    run_dry(engine)
    assert (newcomer.admitted_ns, newcomer.last_token_ns) == (20 * MS, 30 * MS)


def test_a_known_prefix_is_not_computed_again():
    """The second of two prompts with 32 equal tokens pays for the rest only, and the hit is counted in tokens."""
    engine = Engine(SimulatorSettings(step_base_ms=1, prefill_per_token_us=1000, step_per_seq_us=0, step_per_context_token_ns=0))
    engine.submit(0, Sequence(40, 1, prefix_hashes=[1, 2]))
    [first] = run_dry(engine)
    engine.submit(first.end_ns, Sequence(40, 1, prefix_hashes=[1, 2]))
    [second] = run_dry(engine)
    assert first.end_ns == 41 * MS
    assert second.end_ns - first.end_ns == 9 * MS
    assert (engine.totals.prefix_query_tokens, engine.totals.prefix_hit_tokens) == (80, 32)


def test_a_cancelled_sequence_frees_its_seat_for_the_next_step():
    """Cancel while running, while waiting, and twice: the seat is free at once, and only the first time counts."""
    engine = Engine(PLAIN)
    sequences = [Sequence(2, 100) for _ in range(6)]
    for sequence in sequences:
        engine.submit(0, sequence)
    engine.advance(20 * MS)
    assert engine.cancel(sequences[0], 21 * MS)
    assert engine.cancel(sequences[5], 21 * MS)
    assert not engine.cancel(sequences[0], 22 * MS)
    engine.advance(30 * MS)
    assert sequences[4].state == "running"
    assert engine.totals.cancelled == 2


def test_lowered_limits_let_running_sequences_go_on():
    """A lower max_num_seqs admits nobody new until the batch has shrunk; nobody is thrown out."""
    engine = Engine(PLAIN)
    for _ in range(8):
        engine.submit(0, Sequence(2, 5))
    engine.advance(20 * MS)
    engine.set_limits(PLAIN.changed({"max_num_seqs": 2}))
    assert len(engine.running) == 4
    emissions = run_dry(engine)
    assert max(sum(other.end_ns == emission.end_ns for other in emissions) for emission in emissions if emission.end_ns > 70 * MS) == 2


@pytest.mark.parametrize(("prompt", "output"), [(0, 1), (1, 0), (200_000, 100_000)])
def test_a_sequence_that_can_never_run_is_refused(prompt, output):
    """Nothing to compute, nothing to emit, or more than the cache holds."""
    with pytest.raises(ValueError, match="sequence: "):
        Engine(PLAIN).submit(0, Sequence(prompt, output))


def test_capacity_grows_to_the_seats_and_not_beyond():
    """Closed-loop throughput in virtual time rises with concurrency up to max_num_seqs and is flat after it."""
    model = SimulatorSettings(max_num_seqs=4, step_base_ms=10, step_per_seq_us=100, prefill_per_token_us=10, prefix_cache=False)
    rps = {n: closed_loop_throughput(model, n, 100, 64, requests=40 * n) for n in (1, 2, 3, 4, 5, 8)}
    assert rps[1] < rps[2] < rps[3] < rps[4]
    assert rps[3] < 0.8 * rps[4]
    assert rps[5] == pytest.approx(rps[4], rel=0.02)  # one step of 65: who arrives after a step's end misses the next
    assert rps[8] == pytest.approx(rps[5], rel=0.02)
    assert rps[1] == pytest.approx(1 / (0.01 + 100 * 10e-6 + 63 * (0.01 + 100e-6 + 131.5 * 20e-9)), rel=1e-3)
