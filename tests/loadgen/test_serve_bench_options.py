"""The flags of `vllm bench serve`: all of them are here, with vLLM's defaults, or refused by their name."""

import json
import sys
from pathlib import Path

import pytest

from clients.errors import UsageError
from loadgen.command_line import parse
from loadgen.serve_bench_options import FLAGS, options
from loadgen.serve_bench_refusals import REASONS, REFUSED

ROOT = Path(__file__).resolve().parents[2]
VLLMS = json.loads((ROOT / "tests" / "fixtures" / "vllm-bench" / "flags.json").read_text())["flags"]
TAKEN = {flag.name: flag for flags in FLAGS.values() for flag in flags}


def test_every_flag_of_vllms_is_taken_or_refused_with_its_default():
    """The list and the defaults are those of vLLM's own parser; a switch that is off has none."""
    here = {name: flag.default for name, flag in TAKEN.items() if not flag.own} | {name: default for name, default, _ in REFUSED}
    assert {name: here.get(name, "missing") for name in VLLMS} == {
        name: None if default == "False" else default for name, default in VLLMS.items()
    }


def test_no_flag_is_taken_that_vllm_does_not_have_unless_it_is_called_our_own():
    """What looks like vLLM's is vLLM's."""
    assert {name for name, flag in TAKEN.items() if not flag.own} <= VLLMS.keys()
    assert not TAKEN.keys() & REASONS.keys()


def test_the_page_about_the_flags_is_what_the_table_says():
    """docs/serve-bench.md is written from the table; when that changes, it is written again."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from describe_serve_bench import described
    finally:
        sys.path.pop(0)
    page = (ROOT / "docs" / "serve-bench.md").read_text()
    assert page == described()
    assert all(f"| `--{name}` |" in page for name in [*TAKEN, *REASONS])


@pytest.mark.parametrize("name", REASONS)
def test_a_refused_flag_is_named_with_its_reason(name):
    """Whatever stands after it, hyphens or underscores, in one line."""
    for words in ([f"--{name}"], [f"--{name}", "1"], [f"--{name}=1"], [f"--{name.replace('-', '_')}"]):
        with pytest.raises(UsageError) as refusal:
            parse(["serve-bench", "--num-prompts", "5", *words])
        assert str(refusal.value) == f"--{name}: {REASONS[name]}"


def test_defaults_are_read_as_if_they_had_been_typed():
    """A default is text; its value is what its own reader makes of it."""
    defaults = parse(["serve-bench"]).arguments.values
    assert (defaults["request_rate"], defaults["burstiness"], defaults["random_range_ratio"]) == (float("inf"), 1.0, (0.0, 0.0))
    assert defaults["metric_percentiles"] == (99.0,)
    assert defaults["random_mm_bucket_config"] == {(256, 256, 1): 0.5, (720, 1280, 1): 0.5, (720, 1280, 16): 0.0}
    assert len(defaults) == len(options())


# What is typed, the key and its value.
READ = [
    ("--num_prompts 5", "num_prompts", 5),  # underscores
    ("--header A=b C=d", "header", (("A", "b"), ("C", "d"))),  # several after one flag
    ("--metadata a=1 --metadata b=2", "metadata", (("a", "1"), ("b", "2"))),
    ("--random-range-ratio 0.5", "random_range_ratio", (0.5, 0.5)),
    ('--random-range-ratio {"input":0.3,"output":0}', "random_range_ratio", (0.3, 0.0)),
    ("--random-mm-limit-mm-per-prompt {'image':3}", "random_mm_limit_mm_per_prompt", {"image": 3}),
    ('--random-mm-bucket-config {"(8,9,1)":1}', "random_mm_bucket_config", {(8, 9, 1): 1.0}),
    ("--burstiness inf", "burstiness", float("inf")),
    ("--metric-percentiles 0,99.9,100", "metric_percentiles", (0.0, 99.9, 100.0)),
]


@pytest.mark.parametrize(("line", "key", "value"), READ)
def test_values_are_written_as_for_vllm(line, key, value):
    """The forms that vLLM's parser takes."""
    assert parse(["serve-bench", *line.split()]).arguments[key] == value


REFUSED_VALUES = [
    "--random-range-ratio 1",
    '--random-range-ratio {"input":0.3}',
    "--random-mm-bucket-config {(8,9):1}",  # no frames
    "--random-mm-bucket-config {(8,9,1):-1}",
    "--random-mm-bucket-config {(8,9,1):0}",  # nothing is ever drawn
    "--random-mm-bucket-config __import__('os')",
    "--random-mm-limit-mm-per-prompt {'audio':1}",
    "--request-rate 0",
    "--request-rate nan",
    "--burstiness -1",
    "--metric-percentiles 101",
    "--percentile-metrics ttft,latency",
    "--goodput latency:5",
    "--backend openai-embeddings",
    "--dataset-name hf",
    "--tokenizer-mode mistral",
]


@pytest.mark.parametrize("line", REFUSED_VALUES)
def test_a_value_that_cannot_be_is_refused_by_its_flag(line):
    """In one line that says what it takes."""
    with pytest.raises(UsageError, match=f"^{line.split()[0]}: got .*takes"):
        parse(["serve-bench", *line.split()])
