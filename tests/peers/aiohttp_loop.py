"""The yardstick: a plain closed loop on aiohttp and uvloop, with typed decoding and nothing else.

aiohttp_loop.py stream|plain URL REQUESTS CONCURRENCY [TOKENS]
"""

import asyncio
import sys
from time import perf_counter_ns

import aiohttp
import msgspec
import orjson
import uvloop


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


async def stream_one(session, url, body):
    stamps, text, rest = [], [], b""
    async with session.post(url, data=body, headers={"content-type": "application/json"}) as response:
        async for data in response.content.iter_any():
            now = perf_counter_ns()
            *events, rest = (rest + data).split(b"\n\n")
            for event in events:
                if event[6:] == b"[DONE]":
                    continue
                chunk = decode_chunk(event[6:])
                stamps.append(now)
                if chunk.choices and chunk.choices[0].delta.content:
                    text.append(chunk.choices[0].delta.content)


async def plain_one(session, url, body):
    async with session.post(url, data=body, headers={"content-type": "application/json"}) as response:
        decode_body(await response.read())


async def main(mode, url, requests, concurrency, tokens=128):
    one = stream_one if mode == "stream" else plain_one
    message = {"role": "user", "content": "hello"}
    body = orjson.dumps({"model": "m", "messages": [message], "max_tokens": tokens, "stream": mode == "stream"})
    left = iter(range(requests))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def slot():
            for _ in left:
                await one(session, url, body)

        await asyncio.gather(*(slot() for _ in range(concurrency)))


mode, url, *numbers = sys.argv[1:]
uvloop.run(main(mode, url, *map(int, numbers)))
