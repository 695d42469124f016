"""Options: each declared once, read in one way, refused in one line that names it."""

import msgspec
import pytest

from clients.errors import UsageError
from loadgen.command_line import parse
from loadgen.options import COMMANDS, TABLE, options_of, read_table
from loadgen.quantities import COUNTS, DELAY, DURATION, PERCENTILES, TIMEOUT
from loadgen.simulated import simulator_settings
from loadgen.simulator.settings import SimulatorSettings, load_profiles


def arguments(line):
    """The arguments of a command line without quoting."""
    return parse(line.split()).arguments


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("30s", 30), ("15m", 900), ("8h", 28800), ("250ms", 0.25), ("1.5m", 90), (".5", 0.5), (" 2s ", 2)],
)
def test_a_duration_has_a_unit_or_is_seconds(text, seconds):
    """DESIGN's forms: `90`, `30s`, `15m`, `8h`; milliseconds too."""
    assert DURATION.read(text) == seconds


@pytest.mark.parametrize("text", ["0", "0s", "-5", "5 minutes", "", "nan", "inf", "1e3", "5d", "m", "1e12", "999999999h", "٣s"])
def test_what_is_no_duration_is_refused(text):
    """Faults A4: zero, negative, words, other notations, and what is longer than ten years."""
    with pytest.raises(ValueError):
        DURATION.read(text)


def test_a_delay_may_be_zero_and_a_timeout_may_be_none():
    """A pause of nothing is a pause; a limit may be taken away."""
    assert (DELAY.read("0"), DELAY.read("0.0s"), DELAY.read("1.5s"), TIMEOUT.read("none"), TIMEOUT.read("10")) == (0, 0, 1.5, None, 10)


def test_lists_keep_their_order_and_drop_repetitions():
    """`4,1,4` is two values; spaces are allowed."""
    assert (COUNTS.read("4, 1,4"), PERCENTILES.read("50,99.9")) == ((4, 1), (50.0, 99.9))


# What is typed, and what the one line of refusal must name: option, value, what is taken.
REFUSED = [
    ("bench --num-reqests 5", "unknown option --num-reqests (nearest: --num-requests)"),  # A1: the nearest name
    ("bench --nothing-like-it 5", "unknown option --nothing-like-it"),  # A1: nothing is near
    ("bench --num 5", "unknown option --num"),  # abbreviations are not options
    ("bench --batch-sizes 1,2", "--batch-sizes is an option of grid"),  # it exists, elsewhere
    ("bench --request-rate 5", "bench: --request-rate is an option of run"),  # A7: a closed loop has none, and never silently
    ("bench extra", "'extra', which belongs to no option"),
    ("bech", "takes one of " + ", ".join(COMMANDS) + " (nearest: bench)"),  # a command
    ("--model olmocr", "takes a command first"),
    ("bench --max-concurrent 0", "--max-concurrent: got '0', takes a whole number from 1 to 50000"),  # A5
    ("bench --max-concurrent 999999", "--max-concurrent: got '999999'"),  # A5
    ("bench --max-concurrent nan", "--max-concurrent: got 'nan'"),  # A3
    ("bench --max-concurrent 1e3", "--max-concurrent: got '1e3'"),
    ("bench --num-requests -3", "--num-requests"),  # A3
    ("bench --num-requests", "--num-requests"),  # no value
    ("bench --duration 5minutes", "--duration: got '5minutes', takes a time above zero: 90, 30s, 15m, 8h"),  # A4
    ("bench --duration 5 --num-requests 5", "takes one of the two"),  # two ends
    ("bench --insecure --ca-file x", "takes one of the two"),  # two truths about certificates
    ("bench --header nocolon", "--header: got 'nocolon', takes a name and a value: K=V"),
    ("bench --extra-body [1]", "--extra-body: got '[1]', takes a JSON object"),
    ('bench --extra-body {"a":NaN}', "takes a JSON object"),  # Python's, not JSON's
    ("bench --extra-body {", "takes a JSON object"),  # A2
    ("bench --cache none", "--cache: got 'none', takes one of unique, shared, pixels"),
    ("bench --transport curl", "--transport: got 'curl'"),
    ("bench --processes 0", "--processes: got '0', takes auto, or a whole number from 1 to 2147483647"),
    ("bench --seed -1", "--seed"),
    ("bench --metric-percentiles 50,100", "--metric-percentiles: got '50,100'"),
    ("bench --percentile-metrics ttft,foo", "--percentile-metrics: got 'ttft,foo', takes a list of e2el, ttft, tpot, itl"),
    ("bench --json=yes", "--json"),  # a switch takes no value
    ("grid --batch-sizes 1,,2", "--batch-sizes: got '1,,2'"),
    ("grid --batch-sizes -1", "--batch-sizes"),
    ("grid --concurrencies 1,x", "--concurrencies: got '1,x', takes a list like 1,2,4"),
    ("grid --repeats 0", "--repeats: got '0'"),
    ("grid --sim-max-num-seqs many", "--sim-max-num-seqs: got 'many', takes a whole number from 0 to 2147483647"),
    ("simulate --max-num-sequences 5", "unknown option --max-num-sequences (nearest: --max-num-seqs)"),
    ("simulate --api-key secret", "unknown option --api-key"),  # a key is never an argument
    ('bench --extra-body {"a":36893488147419103232}', "takes a JSON object"),  # more than a body can hold
    ('bench --extra-body {"a":1e999}', "takes a JSON object"),
    ("bench --num-requests 99999999999", "--num-requests: got '99999999999', takes a whole number from 1 to 2147483647"),
    ("bench --batch-size 99999999999", "--batch-size: got '99999999999'"),
    ("bench --metric-percentiles 99.9999999", "with at most six digits"),  # p100 is the largest, and not meant
    ("bench --label " + "x" * 201, "takes one line of at most 200 characters"),
    ("report", "RUN: missing; takes the directory of a run"),
    ("bench --label m\udcf6", "got 'm\\udcf6', which is no text in this system's encoding"),  # bytes that are no UTF-8
    ('bench --extra-body {"a":"\\ud800"}', "takes a JSON object"),  # B23: JSON to Python, and no UTF-8
]


@pytest.mark.parametrize(("line", "said"), REFUSED)
def test_a_wrong_option_is_one_line_that_names_it(line, said):
    """Option, value and what is accepted, in one line."""
    with pytest.raises(UsageError) as caught:
        parse(line.split())
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("bench --max_concurrent 4", "max_concurrent", 4),  # underscores
        ("bench --max_concurrency=4", "max_concurrent", 4),  # an alias, with =
        ("bench --concurrency 4", "max_concurrent", 4),
        ("bench --num-prompts 1_000", "num_requests", 1000),
        ("bench --output_len 9", "max_tokens", 9),
        ("bench --test-images-dir a_b", "images_dir", "a_b"),  # a value keeps its underscore
        ("bench --seed 0", "seed", 0),  # A8: zero is a seed
        ("bench --no-stream", "stream", False),
        ("bench --processes auto", "processes", None),
        ("bench --header A=b=c --header D=e", "header", (("A", "b=c"), ("D", "e"))),
        ("bench --timeout-stall none", "timeout_stall", None),
        ("bench --batch-size none", "batch_size", None),
        ("grid --batch-sizes 0,none,4", "batch_sizes", (None, 4)),  # no barrier, by either name
        ("grid --sim-faults reset=0.1", "sim_faults", "reset=0.1"),
        ("grid --no-sim-prefix-cache", "sim_prefix_cache", False),
        ("simulate --port 0", "port", 0),
    ],
)
def test_an_option_is_read_as_the_table_says(line, key, value):
    """Aliases, underscores, negations, lists, repetitions."""
    read = arguments(line)
    assert read[key] == value
    assert key in read.typed


def test_what_the_user_typed_goes_before_a_table_and_a_table_before_a_default():
    """`chosen` is the order of precedence."""
    typed, silent = arguments("bench --max-tokens 7"), arguments("bench")
    assert (typed.chosen("max_tokens", 5, 6), silent.chosen("max_tokens", None, 6), silent.chosen("seed")) == (7, 6, 0)


def test_recorded_arguments_show_no_header_values():
    """A header may be a key: run.json has its name only."""
    recorded = arguments("bench --header Authorization=abc --seed 3").recorded()
    assert recorded == {"header": ["Authorization=***"], "seed": 3}


def test_names_and_aliases_are_unique_in_each_command():
    """No flag has two meanings."""
    for command in COMMANDS:
        names = [name for option in options_of(command) for name in (option.name, *option.aliases)]
        assert len(names) == len(set(names)), command


def test_defaults_are_what_their_own_readers_give():
    """A default could have been typed: no option has a default that it would refuse."""
    for option in TABLE:
        if option.reader is not None and not option.many and isinstance(option.default, int | float | str):
            assert option.read(str(option.default)) == option.default, option.name


def test_every_simulator_parameter_is_an_option_and_comes_back_as_a_setting():
    """The Struct declares; flags follow. Keys and the label `calibrated` are no options."""
    flags = {option.name for option in options_of("simulate")}
    wanted = {name.replace("_", "-") for name in SimulatorSettings.__struct_fields__} - {"api-key", "calibrated"}
    assert wanted <= flags
    read = arguments("grid --simulate --sim-max-num-seqs 6 --sim-time-scale 0.5 --no-sim-prefix-cache")
    settings = simulator_settings("olmocr", read.values, "grid")
    assert (settings.max_num_seqs, settings.time_scale, settings.prefix_cache) == (6, 0.5, False)
    assert settings.step_base_ms == load_profiles()["olmocr"]["simulator"]["step_base_ms"]


def test_a_simulator_parameter_out_of_bounds_is_a_usage_error():
    """The Struct's own bounds are the option's."""
    with pytest.raises(UsageError, match="max_num_seqs"):
        simulator_settings("olmocr", arguments("grid --simulate --sim-max-num-seqs 0").values, "grid")


def test_the_shipped_grid_tables_are_read_by_the_same_table():
    """Each `[X.grid]` of profiles.toml has only options of grid, with values they take."""
    profiles = load_profiles()
    assert {"olmocr", "gpt-oss-20b", "qwen2.5-coder-14b-qiskit"} <= profiles.keys()
    for model, tables in profiles.items():
        values = read_table(tables["grid"], "grid", model)
        assert values["batch_sizes"], model
        assert values["concurrencies"], model


def test_an_unknown_key_of_a_table_is_refused_with_the_nearest():
    """Faults A1 for files."""
    with pytest.raises(UsageError, match=r"x: unknown key 'concurencies' \(nearest: concurrencies\)"):
        read_table({"concurencies": [1]}, "grid", "x")
    with pytest.raises(UsageError, match="x: max_tokens: got '0', takes"):
        read_table({"max_tokens": 0}, "grid", "x")


@pytest.mark.parametrize("words", [[], ["--help"], ["grid", "--help"], ["simulate", "-h"], ["report", "--help"], ["--version"]])
def test_help_is_text_and_no_command(words):
    """Help asks for nothing else."""
    parsed = parse(words)
    assert parsed.arguments is None
    assert "loadgen" in parsed.text


def test_every_option_is_in_the_help_of_its_command():
    """What exists is shown."""
    for command in COMMANDS:
        text = parse([command, "--help"]).text
        for option in options_of(command):
            assert f"--{option.name}" in text, (command, option.name)


def test_options_are_values():
    """The table can be encoded: no option hides state."""
    assert msgspec.structs.replace(TABLE[0], help="x").name == TABLE[0].name
