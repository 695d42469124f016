"""Objectives as they are typed."""

import pytest

from clients.errors import UsageError
from loadgen.command_line import parse
from loadgen.objectives import Objective, merged, read_objectives, written


def test_objectives_are_read_as_vllm_writes_them():
    """Words or commas, milliseconds; kept in one order, in seconds."""
    expected = (Objective(metric="ttft", limit_s=0.5), Objective(metric="tpot", limit_s=0.05), Objective(metric="e2el", limit_s=5.0))
    assert read_objectives("e2el:5000 ttft:500, tpot:50") == expected
    assert written(expected) == "ttft:500 tpot:50 e2el:5000"


@pytest.mark.parametrize("text", ["", "ttft", "ttft:", "ttft:0", "ttft:-1", "ttft:nan", "ttft:inf", "itl:50", "TTFT:5", "ttft:1 ttft:2"])
def test_what_is_no_objective_is_refused(text):
    """ITL has no value of one request; a limit is a number above 0; a metric comes once."""
    with pytest.raises(ValueError):
        read_objectives(text)


def test_several_words_of_an_option_are_one_set():
    """`--goodput ttft:500 tpot:50`, also given twice; the next option ends it."""
    arguments = parse("bench --goodput ttft:500 tpot:50 --goodput e2el:9 --seed 1".split()).arguments
    assert written(merged(arguments["goodput"])) == "ttft:500 tpot:50 e2el:9"
    with pytest.raises(UsageError, match="--goodput: got ttft:1 and ttft:2, takes each metric once"):
        merged(parse("bench --goodput ttft:1 ttft:2".split()).arguments["goodput"])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("bench --goodput itl:5", "--goodput: got 'itl:5', takes a metric (ttft, tpot, e2el) and milliseconds, once each"),
        ("bench --goodput ttft:5 --attainment 95", "--attainment: got '95', takes a share from 0.01 to 0.9999, as in 0.95"),
        ("sweep --request-rates 1,0", "--request-rates: got '1,0', takes a list like 1,2,5,10 of requests/s"),
        ("search --min-rate 0", "--min-rate: got '0', takes requests/s from 0.001 to 1000000"),
    ],
)
def test_refusals_name_the_option_and_what_it_takes(line, said):
    """One line, before anything is sent."""
    with pytest.raises(UsageError) as refused:
        parse(line.split())
    assert said in str(refused.value)
