"""Settings: one declaration, clear refusals, and profiles that load."""

import msgspec
import pytest

from loadgen.simulator.settings import SimulatorSettings, load_profiles, load_settings


@pytest.mark.parametrize("model", ["gpt-oss-20b", "qwen2.5-coder-14b-qiskit", "olmocr"])
def test_each_profile_loads_and_says_that_it_is_uncalibrated(model):
    """The shipped timing is an estimate, and the grid of each model is complete."""
    assert load_settings(model).calibrated is False
    assert load_settings(model).names == (model,)
    assert set(load_profiles()[model]["grid"]) == {"batch_sizes", "concurrencies", "num_requests", "max_tokens", "input_len"}


def test_what_the_times_are_worth_is_named():
    """A metronome's are planned, whatever the profile; an engine's are an estimate until they were fitted to a server."""
    assert load_settings("olmocr").timing == "uncalibrated"
    assert load_settings("olmocr", calibrated=True).timing == "calibrated"
    assert load_settings("olmocr", metronome=True).timing == "planned"


def test_overrides_are_laid_over_the_profile_and_none_means_not_given():
    """A flag that was not typed leaves the profile's value."""
    settings = load_settings("olmocr", max_num_seqs=6, time_scale=None)
    assert (settings.max_num_seqs, settings.time_scale, settings.kind) == (6, 1.0, "vlm")


@pytest.mark.parametrize(
    ("model", "overrides", "message"),
    [
        ("olmcr", {}, r"no profile 'olmcr' \(nearest: olmocr\)"),
        ("olmocr", {"max_num_seq": 3}, r"unknown parameter 'max_num_seq' \(nearest: max_num_seqs\)"),
        ("olmocr", {"max_num_seqs": 0}, r"max_num_seqs: Expected `int` >= 1, got 0"),
        ("olmocr", {"time_scale": "fast"}, r"time_scale: Expected `float`, got `str`, got 'fast'"),
        ("olmocr", {"max_num_batched_tokens": 3}, r"max_num_batched_tokens: 3 is below max_num_seqs=4"),
        ("olmocr", {"kv_cache_tokens": 100}, r"kv_cache_tokens: 100 is below max_model_len=16384"),
        (None, {"faults": "meteor=0.1"}, r"faults: unknown kind 'meteor'"),
        (None, {"faults": "reset=1.5"}, r"a share is a number from 0 to 1"),
        (None, {"faults": "reset=0.6,slow=0.6"}, r"add up to 1.2, at most 1"),
        (None, {"faults": "reset=0.1,reset=0.1"}, r"'reset' is named twice"),
        (None, {"eos_mean_tokens": 0}, r"eos_mean_tokens: 0, takes an integer >= 1"),
        (None, {"model_name": " , "}, r"model_name: no name"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line_that_names_it(model, overrides, message):
    """Field, what it got, what it takes; the nearest name where one was mistyped."""
    with pytest.raises(ValueError, match=message) as caught:
        load_settings(model, **overrides)
    assert "\n" not in str(caught.value)


def test_every_parameter_can_become_a_flag():
    """The CLI needs a sentence and a plain type for each."""
    for field in msgspec.inspect.type_info(SimulatorSettings).fields:
        assert field.type.extra_json_schema["description"], field.name
        kinds = [field.type.type] if isinstance(field.type, msgspec.inspect.Metadata) else [field.type]
        kinds = list(kinds[0].types) if isinstance(kinds[0], msgspec.inspect.UnionType) else kinds
        allowed = (
            msgspec.inspect.IntType,
            msgspec.inspect.FloatType,
            msgspec.inspect.StrType,
            msgspec.inspect.BoolType,
            msgspec.inspect.NoneType,
        )
        assert all(isinstance(kind, allowed) for kind in kinds), field.name


def test_settings_cross_a_pipe_unchanged():
    """The process gets them as one JSON line."""
    settings = load_settings("gpt-oss-20b", faults="slow=0.5", api_key="secret")
    assert msgspec.json.decode(msgspec.json.encode(settings), type=SimulatorSettings) == settings
