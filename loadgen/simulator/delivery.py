"""Answers on their way to the socket: one write at a time, counted and stamped.

Knows statistics, the truth file and connections. Must not know routes, or how tokens are paced, but that a pacer can forget an answer.
Law: an answer is counted out once, before its last byte is written (or when it breaks off); a stamp is taken before its write.
"""

import time
from typing import Protocol

from loadgen.simulator import truth
from loadgen.simulator.answers import Answer
from loadgen.simulator.connection import Connection
from loadgen.simulator.replies import LAST_CHUNK, json_response
from loadgen.simulator.stats import Stats


class Forgetful(Protocol):
    """What paces tokens: the engine or the metronome."""

    def abandon(self, answer: Answer) -> None: ...


class Delivery:
    """`pacer` is set by the server before the first request."""

    pacer: Forgetful

    def __init__(self, stats: Stats, truth_writer: truth.TruthWriter | None) -> None:
        self.stats = stats
        self._truth = truth_writer

    def deliver(self, answer: Answer, due_ns: int) -> None:
        """Write what the answer has ready, in one write; end it if that was its last."""
        out = answer.out
        if answer.gone or not (out or answer.broken):
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        if answer.ended or answer.broken:
            self.stats.go_out()
        now_ns = time.perf_counter_ns()
        self._note_written(answer, now_ns, now_ns - due_ns)
        connection = answer.connection
        if answer.broken:
            self._break_off(answer, data, now_ns)
        else:
            connection.send(data)
            if answer.ended:
                self.stats.answered += 1
                answer.release()
                if self._truth is not None:
                    self._truth.add(now_ns, answer.number, answer.tokens, truth.ENDED)
                connection.finish()

    def send_middle(self, answer: Answer, data: bytes, due_ns: int) -> None:
        """The metronome's way for tokens that are neither first nor last."""
        now_ns = time.perf_counter_ns()
        self._note_written(answer, now_ns, now_ns - due_ns)
        answer.connection.send(data)

    def _note_written(self, answer: Answer, now_ns: int, late_ns: int) -> None:
        stats = self.stats
        stats.lateness.add(late_ns)
        if answer.order.stream:
            stats.tokens_written += answer.tokens - answer.tokens_sent
            if self._truth is not None:
                for token in range(answer.tokens_sent, answer.tokens):
                    self._truth.add(now_ns, answer.number, token, truth.TOKEN)
        answer.tokens_sent = answer.tokens

    def abandon(self, answer: Answer) -> None:
        """The client left: its seats are free at once."""
        answer.gone = True
        self.stats.go_out()
        self.stats.cancelled += 1
        if self._truth is not None:
            self._truth.add(time.perf_counter_ns(), answer.number, answer.tokens_sent, truth.BROKEN)
        self.pacer.abandon(answer)

    def _break_off(self, answer: Answer, data: bytes, now_ns: int) -> None:
        connection = answer.connection
        connection.on_lost = None
        self.pacer.abandon(answer)
        if self._truth is not None:
            self._truth.add(now_ns, answer.number, answer.tokens_sent, truth.BROKEN)
        answer.release()
        if answer.fault == "reset":
            connection.send(data)
            connection.reset()
        elif answer.order.stream:
            connection.send(data + LAST_CHUNK)
            connection.finish()
        else:  # half of what its head announces, then the end of the connection
            whole = json_response(200, {"id": answer.wording.request_id, "object": "chat.completion", "choices": []})
            connection.send(whole[:-16])
            connection.close()

    def send_whole(self, connection: Connection, data: bytes) -> None:
        """Write an answer that is whole already."""
        self.stats.go_out()
        connection.send(data)
        connection.finish()
