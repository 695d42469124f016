"""Traces: both forms of file, replayed faster, and what is refused."""

import pytest

from clients.errors import UsageError
from loadgen.trace import read_trace, replayed


def written(tmp_path, text):
    path = tmp_path / "trace"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_trace_begins_with_its_first_arrival(tmp_path):
    """Epoch seconds as well as offsets; in order of time, whatever the order in the file."""
    assert read_trace(written(tmp_path, "12.5\n\n10\n11\n")).tolist() == [0, 1_000_000_000, 2_500_000_000]


def test_jsonl_has_its_times_under_timestamp(tmp_path):
    """Numbers and numbers as text; other fields do not matter."""
    text = '{"timestamp": 3.0, "n": 1}\n{"timestamp": "3.25"}\n'
    assert read_trace(written(tmp_path, text)).tolist() == [0, 250_000_000]


def test_speed_divides_the_gaps_and_an_end_cuts_them(tmp_path):
    """Twice as fast: half the time; a number or a duration keeps the beginning."""
    trace = read_trace(written(tmp_path, "0\n1\n2\n3\n"))
    assert replayed(trace, 2.0).tolist() == [0, 500_000_000, 1_000_000_000, 1_500_000_000]
    assert replayed(trace, 2.0, count=2).tolist() == [0, 500_000_000]
    assert replayed(trace, 2.0, duration_s=1.0).tolist() == [0, 500_000_000]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1\nx\n", "trace:2: got 'x', takes a number of seconds"),
        ("nan\n", "trace:1: got 'nan'"),
        ('{"time": 1}\n', "trace:1: got"),
        ('{"timestamp": true}\n', "trace:1: got"),
        ("0\n1e300\n", "lasts 1e+300 s, takes at most 10 years: timestamps are in seconds"),
        ("{\n", "trace:1: no JSON"),
        ("\n", "holds no timestamp"),
    ],
)
def test_what_is_no_time_is_refused_with_its_line(tmp_path, text, said):
    """A hole in a trace would be another trace."""
    with pytest.raises(UsageError) as caught:
        read_trace(written(tmp_path, text))
    assert said in str(caught.value)


def test_a_trace_has_no_more_than_it_has(tmp_path):
    """Nothing is made up after its end."""
    with pytest.raises(UsageError, match="but the trace has 1"):
        replayed(read_trace(written(tmp_path, "7\n")), 1.0, count=2)
