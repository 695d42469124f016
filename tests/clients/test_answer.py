"""Answer: stamps, gaps, tokens of events, usage."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st
from recordings import steady

from clients.answer import GAP_LIMIT_US, Answer
from clients.chat import Chat
from clients.pieces import Piece, ToolCall, ToolPart
from clients.usage import Usage, UsageObject


def stamped(offsets_ns: list[int], first_ns: int = 10**12) -> Answer:
    answer = Answer(keep=False)
    for offset in sorted(offsets_ns):
        answer.output(first_ns + offset, True, -1)
    return answer


@steady
@given(st.lists(st.integers(0, 10**12), max_size=50))
def test_gaps_add_up_to_the_rounded_offset_of_every_event(offsets):
    """Each prefix of the gaps is its event's offset from the first, rounded to microseconds: errors do not pile up."""
    answer = stamped([0, *offsets])
    total = 0
    assert answer.events == len(offsets) + 1
    assert len(answer.gaps_us) == len(offsets)
    for gap, offset in zip(answer.gaps_us, sorted(offsets), strict=True):
        total += gap
        assert total == (offset + 500) // 1000
    assert answer.last_output_ns - answer.first_output_ns == max(offsets, default=0)


def test_events_of_one_read_have_a_gap_of_zero():
    """The same stamp twice is one arrival: a gap of 0."""
    assert stamped([0, 0, 1500]).gaps_us.tolist() == [0, 2]


def test_a_gap_that_a_record_cannot_hold_saturates():
    """A stream that slept for more than 71 minutes keeps the largest gap there is."""
    assert stamped([0, (GAP_LIMIT_US + 10) * 1000]).gaps_us.tolist() == [GAP_LIMIT_US]


def test_the_first_answer_is_the_first_output_that_is_not_reasoning():
    """Reasoning counts as output, not as answer."""
    answer = Answer()
    answer.output(5, False, -1)
    answer.output(7, True, -1)
    answer.output(9, True, -1)
    assert (answer.first_output_ns, answer.first_answer_ns, answer.last_output_ns) == (5, 7, 9)


def test_tokens_of_events_are_known_when_all_are():
    """Sizes are kept, saturated at 255; the first one exactly."""
    answer = Answer()
    for i, tokens in enumerate([300, 1, 0, 255, 256]):
        answer.output(i, True, tokens)
    assert answer.tokens_known
    assert answer.event_tokens.tolist() == [255, 1, 0, 255, 255]
    assert answer.first_event_tokens == 300


def test_one_event_of_unknown_size_makes_all_unknown():
    """Half a list of sizes would be read as a whole one."""
    for sizes in ([1, 2, -1, 3], [-1, 2, 3]):
        answer = Answer()
        for i, tokens in enumerate(sizes):
            answer.output(i, True, tokens)
        assert not answer.tokens_known
        assert not answer.event_tokens
        assert answer.first_event_tokens == 0


def test_nothing_arrived_is_all_zero():
    """An answer without output has no stamps, no tokens, no usage."""
    answer = Answer()
    assert (answer.events, answer.first_output_ns, answer.last_output_ns, answer.first_answer_ns) == (0, 0, 0, 0)
    assert (answer.tokens_known, answer.usage, answer.text(), answer.reasoning(), answer.tool_calls()) == (False, None, "", "", [])


def test_measuring_does_not_grow_with_text():
    """Without keeping, 20 MB of text in 10,000 events leave five bytes for each event."""
    chat = Chat()
    answer = Answer(keep=False)
    event = b'{"id":"a","choices":[{"index":0,"delta":{"content":"%s"}}]}' % (b"x" * 2000)
    tracemalloc.start()
    try:
        chat.decode_event(event, 1, answer)
        before, _ = tracemalloc.get_traced_memory()
        for i in range(10_000):
            chat.decode_event(event, 1000 * i + 1, answer)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.events == 10_001
    assert answer.text() == ""
    assert after - before < 60_000


def test_a_listener_hears_each_piece_after_its_stamp():
    """What is told to a caller was counted before: a retry can see that output left."""
    answer = Answer(keep=False)
    heard: list[tuple[int, Piece]] = []
    answer.listener = lambda piece: heard.append((answer.events, piece))
    Chat().decode_event(b'{"choices":[{"index":1,"delta":{"content":"hi","reasoning":"hm"}}]}', 5, answer)
    assert heard == [(1, Piece("hi", "hm", (), 1))]
    assert str(heard[0][1]) == "hi"
    assert answer.text(1) == ""


def test_tool_calls_are_put_together_by_their_place():
    """Parts of interleaved calls find their call; a part without a place opens one with a new id, else goes on with the last."""
    answer = Answer()
    answer.add(0, "", "", (ToolPart(1, "b", "clock", ""), ToolPart(0, "a", "weather", "{")))
    answer.add(0, "", "", (ToolPart(0, "", "", "}"), ToolPart(1, "", "", "[]")))
    assert answer.tool_calls() == [ToolCall("a", "weather", "{}"), ToolCall("b", "clock", "[]")]
    unplaced = Answer()
    for part in (ToolPart(None, "a", "f", "1"), ToolPart(None, "", "", "2"), ToolPart(None, "a", "", "3"), ToolPart(None, "b", "g", "4")):
        unplaced.add(0, "", "", (part,))
    assert unplaced.tool_calls() == [ToolCall("a", "f", "123"), ToolCall("b", "g", "4")]


def test_a_later_usage_chunk_replaces_the_earlier():
    """Where nothing finished between two usage chunks, they count the same thing."""
    answer = Answer()
    answer.total_usage(UsageObject(5, 1))
    answer.total_usage(UsageObject(5, 2))
    answer.finish_reasons[0] = "stop"
    answer.total_usage(UsageObject(5, 3))
    answer.total_usage(UsageObject(5, 3))
    assert answer.usage == Usage(5, 3)


def test_usage_chunks_of_one_choice_each_add_up():
    """A usage chunk speaks for the choices that finished since the last: completions add up, their prompt counts once."""
    answer = Answer()
    answer.finish_reasons[0] = "stop"
    answer.total_usage(UsageObject(5, 3))
    answer.finish_reasons[1] = "stop"
    answer.total_usage(UsageObject(5, 4))
    assert answer.usage == Usage(5, 7)


def test_a_count_that_shrinks_is_no_number_of_tokens():
    """Usage that goes backwards tells nothing of an event's size."""
    answer = Answer()
    assert answer.chunk_usage(UsageObject(5, 4), 0, output=True, finishing=False) == 4
    assert answer.chunk_usage(UsageObject(5, 3), 0, output=True, finishing=False) == -1


def test_repr_says_what_is_there():
    """The repr names id, events and ends, and no text."""
    answer = Answer()
    assert repr(answer) == "<Answer ? events=0 unfinished>"
    answer.id, answer.finish_reasons[0] = "chatcmpl-1", "stop"
    answer.add(0, "secret text")
    assert repr(answer) == "<Answer chatcmpl-1 events=0 stop>"
