"""What the two plain loops (aiohttp, locust) have in common: what they say, how they decode it, and the stamps they leave.

Knows the shape of a chunk and of a body, and one file of stamps; knows no client. Neither loop has a report of its own, so each
appends per request the instants it saw, and whoever compares makes the quantiles, outside of the process whose CPU is counted.
Law: a request in the file is [n, sent, n instants of events with content], integers of nanoseconds of one clock.
"""

import json
from array import array

import msgspec


class Delta(msgspec.Struct):
    content: str | None = None


class ChunkChoice(msgspec.Struct):
    delta: Delta


class Chunk(msgspec.Struct):
    choices: list[ChunkChoice] = []


class BodyChoice(msgspec.Struct):
    message: Delta


class Body(msgspec.Struct):
    choices: list[BodyChoice]


decode_chunk = msgspec.json.Decoder(Chunk).decode
decode_body = msgspec.json.Decoder(Body).decode

HEADERS = {"content-type": "application/json"}


def request_body(tokens, *, stream):
    message = {"role": "user", "content": "hello"}
    return json.dumps({"model": "m", "messages": [message], "max_tokens": tokens, "stream": stream}).encode()


def keep(file, sent_ns, stamps_ns):
    """Append one streamed request to a binary file."""
    array("q", [len(stamps_ns), sent_ns, *stamps_ns]).tofile(file)


def kept(path):
    """TTFT of each request that had content, and the gaps of all requests: two lists of nanoseconds."""
    numbers = array("q", path.read_bytes())
    ttfts, gaps, at = [], [], 0
    while at < len(numbers):
        count, sent_ns = numbers[at : at + 2]
        stamps = numbers[at + 2 : at + 2 + count]
        if count:
            ttfts.append(stamps[0] - sent_ns)
        gaps.extend(later - earlier for earlier, later in zip(stamps, stamps[1:], strict=False))
        at += 2 + count
    return ttfts, gaps
