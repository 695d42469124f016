"""One connection of `wire`, without a loop: reads that need no parser, stamps before parsing, sends in one row, what an answer means."""

from __future__ import annotations

import asyncio
import itertools
import socket
from time import perf_counter_ns

import pytest
from carriers import Carrier, ask
from hypothesis import given
from hypothesis import strategies as st
from recordings import steady
from servers.chaos import EVENT, GOOD, STREAM_HEAD, answer, chunked

from clients import wire_connection
from clients.errors import Outcome, RequestError
from clients.exchange import Exchange
from clients.wire_arrivals import Arrivals
from clients.wire_chunks import WHOLE_CHUNKS
from clients.wire_connection import HEADERS_LIMIT, UPLOAD_PIECE, Connection

WIRE = Carrier("wire", "uvloop", "arrival")


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    WIRE.prepare(monkeypatch)


class Turn:
    """A loop of which only the end of the turn is needed, and who asked for something later."""

    def __init__(self) -> None:
        self.soon: list = []
        self.later: list = []
        self.logged: list[Exception] = []

    def call_soon(self, callback, *arguments) -> None:
        self.soon.append((callback, arguments))

    def call_later(self, delay_s: float, callback, *arguments) -> object:
        self.later.append((callback, arguments))
        return callback

    def call_exception_handler(self, context: dict) -> None:
        self.logged.append(context["exception"])

    def end(self) -> None:
        while self.soon:
            callback, arguments = self.soon.pop(0)
            callback(*arguments)


class Bench:
    """A connection, and everything around it that it tells anything: its pool, its socket and its flight."""

    def __init__(self) -> None:
        self.turn = Turn()
        self.arrivals = Arrivals(self.turn)
        self.written: list[bytes] = []
        self.kept = 0
        self.aborted = False
        self.ends: list[tuple[int, RequestError | None]] = []
        self.resent = 0
        self.got: dict[int, bytes] = {}  # by stamp
        self.read_ns = 0
        self.high_water = 1 << 30
        self.connection = Connection(self)
        self.connection.connection_made(self)

    # the pool
    def opened(self, connection: Connection) -> None: ...

    def release(self, connection: Connection) -> None:
        self.kept += 1

    def lost(self, connection: Connection) -> None: ...
    def limit_idle(self, limit_s: float) -> None: ...

    # the socket
    def write(self, data: bytes) -> None:
        self.written.append(bytes(data))
        if len(b"".join(self.written)) >= self.high_water:
            self.connection.pause_writing()

    def abort(self) -> None:
        self.aborted = True

    def get_extra_info(self, name: str) -> object:
        """Of TLS: so that `write` sees all that is written."""
        return object()

    # the flight
    def end(self, now_ns: int, error: RequestError | None) -> None:
        self.ends.append((now_ns, error))

    def resend(self, error: RequestError) -> None:
        self.resent += 1

    def send(self, *, stream: bool = True, body: bytes = b"{}", kept: bool = False) -> Exchange:
        self.exchange = Exchange(ask(stream=stream), 0)
        data = self.exchange.data

        def note(now_ns: int, block: bytes) -> bool:
            self.got[now_ns] = self.got.get(now_ns, b"") + block
            return data(now_ns, block)

        self.connection.send(self, b"HEAD ", body, kept=kept)
        self.connection._take = note
        if self.exchange.sent_ns:
            self.exchange.sent_ns = 1  # the tests' stamps are small numbers
        return self.exchange

    def read(self, *blocks: bytes, at_once: int = 1) -> None:
        """Each block is a read, stamped by its place from 1 on; so many of them come in one turn of the loop."""
        for now_ns, block in enumerate(blocks, start=1):
            if self.aborted:  # a socket gives nothing more
                break
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(wire_connection, "perf_counter_ns", lambda: now_ns)  # noqa: B023  called here
                self.connection.data_received(block)
            if now_ns % at_once == 0:
                self.arrivals.parse()
        self.arrivals.parse()

    def told(self) -> tuple:
        return self.got, [(now_ns, error and (error.outcome, str(error))) for now_ns, error in self.ends], self.kept, self.aborted


SIZES = st.one_of(st.integers(1, 40), st.sampled_from([9, 10, 15, 16, 17, 255, 256, 257, 4095, 4096, 5000, 70_000]))
# How a chunk's size may be written: in either case, with zeros before it, with an extension, or as no size at all.
SIZE = st.sampled_from(["{:x}", "{:X}", "{:x}", "0{:x}", "{:x};a=b", "{:x} ", "0x{:x}", "{:x}g", "+{:x}"])
CHUNK = st.tuples(SIZE, SIZES, st.sampled_from([b"\r\n"] * 6 + [b"\n", b"", b"\r\n\r\n"]))
END = st.sampled_from([b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\nx: y\r\n\r\n", b"", b"0\r\n\r\nmore", b"zz\r\n"])


@steady
@given(
    chunks=st.lists(CHUNK, max_size=8),
    end=END,
    at_chunks=st.lists(st.booleans(), min_size=10, max_size=10),
    cuts=st.lists(st.integers(0, 1 << 20), max_size=6),
    at_once=st.integers(1, 5),
)
def test_chunks_say_the_same_with_and_without_the_parser(chunks, end, at_chunks, cuts, at_once) -> None:
    """However chunks are written and reads are cut: the same bytes with the same stamps, the same end, the same fate of the connection."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    whole, places = head, [len(head)]
    for (written, size, after), cut in zip(chunks, at_chunks, strict=False):
        whole += written.format(size).encode() + b"\r\n" + bytes(itertools.islice(itertools.cycle(b"data: 0f\r\n"), size)) + after
        places += [len(whole)] * cut
    whole += end
    places += [cut % (len(whole) + 1) for cut in cuts]
    edges = sorted({0, *places, len(whole)})
    blocks = [whole[a:b] for a, b in itertools.pairwise(edges)]
    assert read_with(WHOLE_CHUNKS, blocks, at_once) == read_with(_Never(), blocks, 1)


LIKE = b"5\r\nhello\r\n"
# What a read that looks like a chunk may follow without being one.
UNLIKE = [
    (b"3\r\nabc\r\n1", LIKE, b"x" * 14 + b"\r\n0\r\n\r\n"),  # half of a size
    (b"3\r\nabc\r\n15;a=", LIKE, b"x" * 18 + b"\r\n0\r\n\r\n"),  # half of an extension
    (b"3\r\nabc\r\na\r\n", LIKE, b"\r\n0\r\n\r\n"),  # a size alone
    (b"3\r\nabc\r\nc\r\n..", LIKE, b"\r\n0\r\n\r\n"),  # half of a chunk
    (b"3\r\nabc\r\nc\r\n\r\n", LIKE, b"\r\n0\r\n\r\n"),  # half of a chunk, ended like a whole one
    (b"3\r\nabc", LIKE, b""),  # a chunk without its CRLF
    (b"3\r\nabc\r", b"\n", LIKE + b"0\r\n\r\n"),  # half of its CRLF
    (b"3\r\nabc\r\n0\r\nx: y\r\n", LIKE, b"\r\n"),  # a trailer
    (b"3\r\nabc\r\n0\r\n\r\n", LIKE, b""),  # the end
    (b"", LIKE, b"0\r\n\r\n"),  # a head: nothing but a chunk
]


@pytest.mark.parametrize("blocks", UNLIKE)
def test_a_read_that_looks_like_a_chunk_is_one_only_between_chunks(blocks: tuple[bytes, ...]) -> None:
    """After everything that it may follow."""
    blocks = (STREAM_HEAD + blocks[0], *blocks[1:])
    for at_once in (1, 2, 3):
        assert read_with(WHOLE_CHUNKS, blocks, at_once) == read_with(_Never(), blocks, 1)


def read_with(table: dict, blocks, at_once: int) -> tuple:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire_connection, "WHOLE_CHUNKS", table)
        bench = Bench()
        bench.send()
        bench.read(*blocks, at_once=at_once)
        return bench.told()


class _Never(dict):
    """No read is known to be a whole chunk."""

    def __missing__(self, length: int) -> tuple[bytes, int]:
        return b"", -1


@pytest.mark.parametrize("written", ["%x\r\n", "%X\r\n"])
def test_a_read_that_is_one_chunk_needs_no_parser(written: str) -> None:
    """In either case of hex, and only between chunks."""

    class Watched:
        fed = 0

        def __init__(self, parser) -> None:
            self.parser = parser

        def feed_data(self, data: bytes) -> None:
            Watched.fed += 1
            self.parser.feed_data(data)

        def __getattr__(self, name: str):
            return getattr(self.parser, name)

    def chunk(size: int) -> bytes:
        return (written % size).encode() + b"y" * size + b"\r\n"

    bench = Bench()
    bench.send()
    bench.read(STREAM_HEAD + chunk(3))
    bench.connection._parser = Watched(bench.connection._parser)
    sizes = (15, 1, 16, 171, 255, 256, 4000, 65_535)
    bench.read(*map(chunk, sizes))
    assert Watched.fed == 0
    assert [len(bench.got[now_ns]) for now_ns in range(1, 9)] == [15 + 3, *sizes[1:]]  # the first read had the head and three bytes
    bench.read(chunk(20)[:9], chunk(20)[9:])
    assert Watched.fed == 2


def test_a_reads_length_leaves_one_chunk_size() -> None:
    """Where the table names a beginning, beginning, data and CRLF have that length; where it names none, no size would."""
    for length in (*range(6, 4_200), *range(65_530, 65_543)):
        begin, size = WHOLE_CHUNKS[length]
        fitting = [n for n in range(max(1, length - 12), length) if len(b"%x\r\n" % n) + n + 2 == length]
        assert ([size] if size > 0 else []) == fitting
        assert begin == (b"%x\r\n" % size if size > 0 else b"")


def test_all_reads_of_a_turn_are_stamped_before_any_is_parsed() -> None:
    """Two connections readable in one turn: neither's parsing is in the other's stamp."""
    first, second = Bench(), Bench()
    second.connection._arrivals = first.arrivals
    for bench in (first, second):
        bench.send()
        bench.connection.data_received(GOOD)
    assert (first.ends, second.ends, len(first.turn.soon)) == ([], [], 1)
    parsing_ns = perf_counter_ns()
    first.turn.end()
    assert all(bench.ends[0][0] < parsing_ns and bench.ends[0][1] is None for bench in (first, second))


def test_what_answers_let_go_is_sent_in_one_row_when_their_turn_is_parsed() -> None:
    """The first one's next request waits for the second's parsing, is stamped when it goes, and only that is sent at once which no turn holds."""
    order: list[str] = []

    class Closed(Bench):
        """A slot of a closed loop: the end of an answer sends the next request, once."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def end(self, now_ns: int, error: RequestError | None) -> None:
            order.append(f"{self.name} ended")
            super().end(now_ns, error)
            self.send()
            assert not self.exchange.sent_ns

        def write(self, data: bytes) -> None:
            order.append(f"{self.name} sent")
            super().write(data)

    first, second = Closed("first"), Closed("second")
    second.connection._arrivals = first.arrivals
    for bench in (first, second):
        bench.send()
        bench.connection.data_received(GOOD)
    parsing_ns = perf_counter_ns()
    first.turn.end()
    assert order == ["first sent", "second sent", "first ended", "second ended", "first sent", "second sent"]
    assert min(first.exchange.sent_ns, second.exchange.sent_ns) > parsing_ns


def test_a_request_that_ends_while_it_waits_for_its_turn_is_not_sent() -> None:
    """Cancelled by who was told of another answer's end, before a byte of it went out."""

    class Cancelled(Bench):
        def end(self, now_ns: int, error: RequestError | None) -> None:
            super().end(now_ns, error)
            self.send()
            self.arrivals.parse()  # as a flight does that is stopped
            self.connection.drop()

    bench = Cancelled()
    bench.send()
    bench.connection.data_received(GOOD)
    bench.turn.end()
    assert (bench.written, bench.aborted, len(bench.ends)) == ([b"HEAD {}"], True, 1)


def test_what_a_full_socket_does_not_take_follows_in_order() -> None:
    """A body below the size of uploads: its beginning by the system call, the rest when there is room; until then the connection is not free."""
    body = bytes(range(256)) * 250

    async def work() -> tuple[bytes, bool]:
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        bench = Bench()
        bench.connection = Connection(bench)
        with theirs:
            theirs.setblocking(False)
            ours.setblocking(False)
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_connection(lambda: bench.connection, sock=ours)
            bench.send(body=body)
            waits = transport.get_write_buffer_size() > 0
            received = b""
            while len(received) < len(body) + 5:
                received += await loop.sock_recv(theirs, 1 << 16)
            transport.abort()
            await asyncio.sleep(0)
        return received, waits

    assert WIRE.run(work()) == (b"HEAD " + body, True)


def test_many_bytes_are_parsed_at_once() -> None:
    """What waits for the end of a turn is bounded, in one read or in many."""
    for reads in (1, 10):
        bench = Bench()
        bench.send(stream=False)
        whole = answer(b" " * 300_000)
        for at in range(0, len(whole), len(whole) // reads):
            bench.connection.data_received(whole[at : at + len(whole) // reads])
        assert bench.exchange.body_bytes > 200_000
        bench.turn.end()
        assert len(bench.ends) == 1


def test_what_was_read_before_a_request_was_sent_is_not_its_answer() -> None:
    """An answer and a stray one in the same turn: the request that took the connection between them is sent anew elsewhere."""
    bench = Bench()
    bench.send()
    bench.connection.read(5, GOOD)
    assert bench.kept == 1
    bench.send(kept=True).sent_ns = 10
    bench.read_ns = 0
    bench.connection.read(6, GOOD)
    assert (len(bench.ends), bench.resent, bench.aborted) == (1, 1, True)


def test_blocks_that_may_wait_wait_for_more_or_for_a_timer() -> None:
    """Whole chunks of a stream: parsed when 32 are there, when a timer fires, or with the next read that is something else."""
    bench = Bench()
    bench.send()
    bench.read(STREAM_HEAD + chunked(EVENT, end=False))
    bench.turn.end()
    whole = chunked(EVENT, end=False)
    for waiting, parsed in ((31, 1), (1, 33)):
        for _ in range(waiting):
            bench.connection.data_received(whole)
        bench.turn.end()
        assert len(bench.got) == parsed
    assert len(bench.turn.later) == 1
    bench.connection.data_received(whole)
    bench.turn.end()
    assert len(bench.got) == 33
    callback, _ = bench.turn.later.pop()
    callback()
    assert len(bench.got) == 34
    bench.connection.data_received(whole)
    bench.connection.data_received(b"0\r\n\r\n")
    assert len(bench.turn.later) == 1
    bench.turn.end()
    assert (len(bench.got), len(bench.ends), bench.kept) == (35, 1, 1)


def test_who_listens_is_told_at_the_end_of_the_turn() -> None:
    """A caller that waits for each token does not wait for others'."""
    bench = Bench()
    bench.send().answer.listener = lambda _: None
    bench.read(STREAM_HEAD + chunked(EVENT, end=False))
    bench.connection.data_received(chunked(EVENT, end=False))
    bench.turn.end()
    assert len(bench.got) == 2


def test_what_is_over_its_limit_ends_and_what_waited_behind_it_is_not_read() -> None:
    """`data` says no in the middle of what waits: the answer ends there."""
    bench = Bench()
    bench.send()
    bench.read(STREAM_HEAD + chunked(EVENT, end=False))
    taken: list[int] = []

    def no(now_ns: int, _: bytes) -> bool:
        taken.append(now_ns)
        return False

    bench.connection._take = no
    for _ in range(3):
        bench.connection.data_received(chunked(EVENT, end=False))
    bench.arrivals.parse()
    assert bench.ends == [(taken[0], None)]
    assert (len(taken), bench.aborted) == (1, True)


def test_a_fault_reaches_no_other_connection() -> None:
    """What raises where nothing may: its own answer fails, the loop hears of it, and the other reads of the turn are parsed."""
    first, second = Bench(), Bench()
    second.connection._arrivals = first.arrivals
    first.send()
    first.connection._take = lambda *_: {}["fault"]
    second.send()
    first.connection.data_received(GOOD)
    second.connection.data_received(GOOD)
    first.turn.end()
    assert len(first.turn.logged) == 1
    assert [bench.ends[0][1] and bench.ends[0][1].outcome for bench in (first, second)] == [Outcome.PROTOCOL, None]
    assert (first.aborted, second.kept) == (True, 1)


def test_a_large_body_is_written_as_the_connection_takes_it() -> None:
    """Pieces until it pauses, the rest when it resumes; an answer that comes before the end of it costs the connection."""
    body = bytes(5 * UPLOAD_PIECE + 3)
    bench = Bench()
    bench.high_water = 2 * UPLOAD_PIECE
    bench.send(body=body)
    assert len(bench.written) == 3
    bench.high_water = 1 << 30
    bench.connection.resume_writing()
    assert b"".join(bench.written) == b"HEAD " + body
    bench = Bench()
    bench.high_water = 2 * UPLOAD_PIECE
    bench.send(body=body)
    bench.read(GOOD)
    bench.connection.resume_writing()
    assert (len(bench.ends), bench.kept, bench.aborted, len(bench.written)) == (1, 0, True, 3)


CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
# An answer, whether it is one, and whether its connection is kept.
ANSWERS = [
    (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", None, True),
    (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}", None, False),
    (b"HTTP/1.1 200 OK\r\nkeep-alive: timeout=5, max=0\r\ncontent-length: 2\r\n\r\n{}", None, False),
    (b"HTTP/1.1 200 OK\r\nkeep-alive: timeout=5, max=100\r\ncontent-length: 2\r\n\r\n{}", None, True),
    (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}", None, False),
    (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\n{}", None, True),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", None, False),  # a second answer
    (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}junk", None, False),
    (b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"2\r\n{}\r\n0\r\nx-checksum: 1\r\n\r\n", None, True),  # trailers say nothing to us
    (b"HTTP/1.1 100 Continue\r\n\r\n" * 5 + b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", None, True),
    (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n", Outcome.PROTOCOL, False),
    (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * (HEADERS_LIMIT + 1) + b"content-length: 2\r\n\r\n{}", Outcome.PROTOCOL, False),
    (b"HTTP/1.1 200 OK\r\na: " + b"b" * 70_000 + b"\r\ncontent-length: 2\r\n\r\n{}", Outcome.PROTOCOL, False),
    (b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 2\r\n\r\n{}", Outcome.BAD_CONTENT, False),
    (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", Outcome.BAD_CONTENT, False),
    (b"HTTP/1.1 200 OK\r\ncontent-encoding: identity\r\ncontent-length: 2\r\n\r\n{}", None, True),
    (b"HTTP/1.1 500 X\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}", None, True),  # the status says enough
    (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", Outcome.PROTOCOL, False),
    (b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"2\n{}\n0\n\n", Outcome.PROTOCOL, False),
]


@pytest.mark.parametrize(("whole", "outcome", "kept"), ANSWERS)
def test_what_an_answer_means_for_its_connection(whole: bytes, outcome: Outcome | None, kept: bool) -> None:
    """In one read and byte by byte: the same end, and kept only where HTTP says so and nothing followed."""
    bench = Bench()
    bench.send(stream=False)
    bench.read(whole)
    assert [error and error.outcome for _, error in bench.ends] == [outcome]
    assert (bench.kept == 1, bench.aborted) == (kept, not kept)
    if b"junk" not in whole and whole.count(b"HTTP/1.1 200") < 2:  # there, the rest would come to an idle connection
        bench = Bench()
        bench.send(stream=False)
        bench.read(*(whole[i : i + 1] for i in range(len(whole))))
        assert [error and error.outcome for _, error in bench.ends] == [outcome]


# Each has no end: 1xx answers, a trailer, a chunk's extension, a header.
ENDLESS = [
    (b"", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"),
    (b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"2\r\n{}\r\n0\r\n", b"x-more: y\r\n"),
    (b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"2;x=", b"y" * 100),
    (b"HTTP/1.1 200 OK\r\nx: ", b"y" * 100),
]


@pytest.mark.parametrize(("begin", "more"), ENDLESS)
def test_framing_without_end_is_left(begin: bytes, more: bytes) -> None:
    """After 64 KiB that brought no byte of a body."""
    bench = Bench()
    bench.send(stream=False)
    bench.read(begin, *[more] * 8_000)
    assert [error and error.outcome for _, error in bench.ends] == [Outcome.PROTOCOL]
    assert bench.ends[0][0] * len(more) < 100_000
