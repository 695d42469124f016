"""Locust's FastHttpUser as a closed loop that ends after a number of requests: a locustfile.

locust --headless --only-summary -f fast_http_user.py -H URL -u USERS -r USERS --num-requests N --tokens T [--no-stream] [--stamps FILE]

Knows locust and the wire; locust itself times a streamed request to its headers only and has neither TTFT nor ITL, so the instants
are this file's (see yardstick.py). An event is read to its blank line: locust's own `iter_lines` waits for 1,024 bytes, several
events, before it gives the first.
"""

from time import perf_counter_ns

import gevent
import gevent.event
from locust import FastHttpUser, events, task
from yardstick import HEADERS, decode_body, decode_chunk, keep, request_body

PATH = "/v1/chat/completions"


@events.init_command_line_parser.add_listener
def options(parser):
    parser.add_argument("--num-requests", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--no-stream", action="store_true")
    parser.add_argument("--stamps", default="/dev/null")


@events.test_start.add_listener
def begin(environment, **_):
    asked = environment.parsed_options
    ClosedLoop.streamed = not asked.no_stream
    ClosedLoop.body = request_body(asked.tokens, stream=ClosedLoop.streamed)
    ClosedLoop.left = iter(range(asked.num_requests))
    ClosedLoop.unfinished = asked.num_requests
    ClosedLoop.file = open(asked.stamps, "wb")  # noqa: SIM115 - open for as long as the test runs: closed by `end`


@events.test_stop.add_listener
def end(**_):
    ClosedLoop.file.close()


class ClosedLoop(FastHttpUser):
    connection_timeout = network_timeout = 600.0  # as long as loadgen waits: no client gives up before another

    @task
    def request(self):
        if next(ClosedLoop.left, None) is None:
            gevent.event.Event().wait()  # until the runner stops all users: one that ends by itself at that moment is logged as an error
        try:
            (self.streamed_one if ClosedLoop.streamed else self.plain_one)()
        finally:
            ClosedLoop.unfinished -= 1
            if not ClosedLoop.unfinished:
                gevent.spawn(self.environment.runner.quit)

    def plain_one(self):
        decode_body(self.client.post(PATH, data=ClosedLoop.body, headers=HEADERS).content)

    def streamed_one(self):
        stamps, text = [], []
        sent = perf_counter_ns()
        with self.client.post(PATH, data=ClosedLoop.body, headers=HEADERS, stream=True) as response:
            while event := response.stream.readline(b"\n\n"):
                now = perf_counter_ns()
                if event[6:-2] == b"[DONE]":
                    continue
                chunk = decode_chunk(event[6:])
                if chunk.choices and chunk.choices[0].delta.content:
                    stamps.append(now)
                    text.append(chunk.choices[0].delta.content)
        keep(ClosedLoop.file, sent, stamps)
