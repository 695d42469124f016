"""Which request fails is a pure function; shares come out as asked."""

from loadgen.simulator.faults import KINDS, fault_of, parse_fault_shares, tokens_before_fault


def test_the_fault_of_a_request_depends_on_seed_and_number_alone():
    """Asked again, in any order, it is the same; another seed gives another pattern."""
    shares = parse_fault_shares("rate-limit-429=0.2,reset=0.1")
    forwards = [fault_of(shares, 7, n) for n in range(500)]
    backwards = [fault_of(shares, 7, n) for n in reversed(range(500))]
    assert forwards == backwards[::-1]
    assert forwards != [fault_of(shares, 8, n) for n in range(500)]


def test_shares_come_out_as_asked():
    """20,000 draws at a share of 0.2 and 0.1; five standard deviations, seeded: a fixed outcome, not a gamble."""
    shares = parse_fault_shares(" rate-limit-429=0.2 , reset=0.1 ")
    kinds = [fault_of(shares, 0, n) for n in range(20_000)]
    assert abs(kinds.count("rate-limit-429") - 4_000) < 5 * (20_000 * 0.2 * 0.8) ** 0.5
    assert abs(kinds.count("reset") - 2_000) < 5 * (20_000 * 0.1 * 0.9) ** 0.5
    assert set(kinds) == {"rate-limit-429", "reset", None}


def test_a_kind_without_a_share_hits_every_request():
    """`reset` alone is `reset=1`; no faults is no fault."""
    assert {fault_of(parse_fault_shares("reset"), 1, n) for n in range(100)} == {"reset"}
    assert {fault_of(parse_fault_shares(""), 1, n) for n in range(100)} == {None}
    assert len(KINDS) == 10


def test_an_answer_breaks_off_after_its_first_token_and_before_its_last():
    """Between 1 and output - 1 tokens; both ends occur."""
    broken = [tokens_before_fault(3, n, 5) for n in range(200)]
    assert set(broken) == {1, 2, 3, 4}
    assert tokens_before_fault(3, 0, 1) == 1
