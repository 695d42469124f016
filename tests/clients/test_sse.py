"""The SSE decoder: a function of the bytes, however they were cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings import load, steady, streams

from clients.errors import Outcome, RequestError
from clients.sse import EventDecoder


def by_the_standard(stream: bytes) -> list[bytes]:
    """The rules of the HTML standard, one byte at a time, and what is pending at the end: slow, and plainly right."""
    stream = stream.removeprefix(b"\xef\xbb\xbf")
    lines, line, i = [], b"", 0
    while i < len(stream):
        byte = stream[i : i + 1]
        if byte in (b"\r", b"\n"):
            lines.append(line)
            line = b""
            i += 2 if stream[i : i + 2] == b"\r\n" else 1
        else:
            line += byte
            i += 1
    if line:
        lines.append(line)
    events, data = [], []
    for line in [*lines, b""]:
        if line == b"":
            if data:
                events.append(b"\n".join(data))
            data = []
        field, colon, value = line.partition(b":")
        if field == b"data" and line:
            data.append(value[1:] if colon and value.startswith(b" ") else value)
    return events


def decode(blocks: list[bytes], limit: int = 1 << 20) -> list[bytes]:
    decoder = EventDecoder(limit)
    return [event for block in blocks for event in decoder.feed(block)] + decoder.flush()


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    marks = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[a:b] for a, b in pairwise(marks)]


text = st.binary(max_size=12).map(lambda raw: raw.translate(None, b"\r\n")) | st.sampled_from(
    ["a\u2028b\u0085c".encode(), b"\x0b\x0c\x1c\x85", "\ufeffé".encode(), b"[DONE]", b" data: x", b"{}"]
)
lines = st.one_of(
    text.map(lambda value: b"data: " + value),
    text.map(lambda value: b"data:" + value),
    text.map(lambda value: b": " + value),
    text.map(lambda value: b"event: " + value),
    text,  # any line: a field without colon, half a word, bytes that are no UTF-8
    st.sampled_from([b"data", b"", b"", b"", b"id: 7", b"retry: 10", b"dat", b"data:", b"data:  two", b"datax: 1", b"\xef\xbb\xbfdata: b"]),
)
ends = st.sampled_from([b"\n", b"\n", b"\r\n", b"\r"])
stream_bytes = st.builds(
    lambda bom, pairs, tail: bom + b"".join(line + end for line, end in pairs) + tail,
    st.sampled_from([b"", b"", b"\xef\xbb\xbf"]),
    st.lists(st.tuples(lines, ends), max_size=12),
    st.sampled_from([b"", b"data: tail", b"da", b"\r"]),
)


@steady
@given(stream_bytes, st.lists(st.integers(0, 1 << 16), max_size=6))
def test_any_stream_cut_anywhere_gives_the_events_of_the_standard(stream, places):
    """Whatever lines, ends of lines and cuts: the events are those of a byte-by-byte decoder of the whole."""
    assert decode(cut(stream, places)) == by_the_standard(stream)


@steady
@given(st.lists(text, max_size=6), ends, st.booleans(), st.lists(st.integers(0, 1 << 16), max_size=4))
def test_events_survive_every_newline_style_and_partition(events, end, space, places):
    """Events written with one style of newline, with or without the space, come back as they were."""
    lead = b"data: " if space else b"data:"
    written = [event if space else event.lstrip(b" ") for event in events]
    stream = b"".join(lead + event + end + end for event in written)
    assert decode(cut(stream, places)) == written


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data:a\n\n", [b"a"]),  # no space
        (b"data:  a\n\n", [b" a"]),  # two: one is kept
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b"data: a\n\rdata: b\r\n\n", [b"a", b"b"]),  # mixed
        (b"data: a\ndata: b\n\n", [b"a\nb"]),  # several lines
        (b"data\n\n", [b""]),  # a field without a colon
        (b"data:\n\n", [b""]),
        (b"data: \n\ndata: \n\n", [b"", b""]),
        (b": ping\n\n: ping\n\ndata: a\n\n", [b"a"]),  # comments
        (b"event: e\nid: 1\nretry: 5\ndata: a\n\n", [b"a"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),  # a BOM first
        (b"data: \xef\xbb\xbfa\n\n", [b"\xef\xbb\xbfa"]),  # and elsewhere it is text
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [b"a"]),  # or part of a field's name
        (b"data: a\n\ndata: last", [b"a", b"last"]),  # no blank line, then the end
        (b"data: a\n\ndata: last\n", [b"a", b"last"]),
        (b"\n\n\n\n", []),
        (b"", []),
    ],
)
def test_the_rules_one_by_one_at_every_split(stream, events):
    """Each rule of lines and fields holds wherever the bytes are cut, and byte by byte."""
    assert by_the_standard(stream) == events
    for i in range(len(stream) + 1):
        assert decode([stream[:i], stream[i:]]) == events
    assert decode([stream[i : i + 1] for i in range(len(stream))]) == events


def test_separators_of_unicode_do_not_end_a_line():
    """U+2028, U+0085, VT, FF and FS are text inside JSON; str.splitlines would cut there."""
    payload = '{"a":"x\u2028y\u2029z\u0085\x0b\x0c\x1c"}'.encode()
    assert decode([b"data: " + payload + b"\n\n"]) == [payload]
    assert decode([b"data: " + payload + b"\r\n\r\n"]) == [payload]


@pytest.mark.parametrize("name", [name for folder in ("vllm", "vllm-vl", "written") for name in streams(folder)])
def test_recorded_streams_decode_alike_at_every_split_point(name):
    """Each recorded stream gives the same events whole and cut in two at every byte (the long one: at its last 2,000)."""
    body = load(name).body
    events = by_the_standard(body[-4000:])
    assert events
    assert decode([body])[-len(events) + 1 :] == events[1:]
    body = body[-2000:] if len(body) > 4000 else body
    whole = decode([body])
    for i in range(len(body)):
        assert decode([body[:i], body[i:]]) == whole


def test_events_come_as_soon_as_their_blank_line():
    """A CR ends a line at once: an event is not held back for an LF that may never come."""
    decoder = EventDecoder()
    assert decoder.feed(b"data: a\r\r") == [b"a"]
    assert decoder.feed(b"\ndata: b\r\n\r") == [b"b"]
    assert decoder.feed(b"\n") == []
    assert decoder.flush() == []


def test_a_hundred_thousand_events_in_one_block():
    """One block may hold any number of events."""
    assert decode([b"data: {}\n\n" * 100_000], limit=1 << 21) == [b"{}"] * 100_000


def test_one_event_of_five_megabytes_in_small_blocks():
    """A long event is collected from its blocks and given once."""
    payload = b"x" * 5_000_000
    stream = b"data: " + payload + b"\n\n"
    blocks = [stream[i : i + 4096] for i in range(0, len(stream), 4096)]
    assert decode(blocks, limit=6_000_000) == [payload]


@pytest.mark.parametrize(
    "stream",
    [
        b"data: " + b"x" * 100 + b"\n\n",  # a line
        b": " + b"x" * 100 + b"\n\n",  # a comment too
        b"data: " + b"x" * 101,  # that never ends
        b"data: xxxxxxxxx\n" * 12,  # an event of many lines
    ],
)
def test_what_is_longer_than_the_limit_is_a_bad_event(stream):
    """Neither a line nor an event may grow without bound, in one block or byte by byte."""
    for blocks in ([stream], [stream[i : i + 1] for i in range(len(stream))]):
        with pytest.raises(RequestError, match="longer than 100 bytes") as caught:
            decode(blocks, limit=100)
        assert caught.value.outcome is Outcome.BAD_EVENT


def test_a_line_as_long_as_the_limit_passes():
    """The limit itself is allowed."""
    assert decode([b"data: " + b"x" * 94 + b"\n\n"], limit=100) == [b"x" * 94]
