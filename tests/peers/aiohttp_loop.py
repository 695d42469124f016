"""The yardstick: a plain closed loop on aiohttp and uvloop, with typed decoding and nothing else.

aiohttp_loop.py stream|plain URL REQUESTS CONCURRENCY TOKENS [STAMPS]

Knows how little an aiohttp client can do; must not know records, deadlines, retries or a report: what it saw of each stream goes to
the file STAMPS (see yardstick.py).
"""

import asyncio
import os
import sys
from time import perf_counter_ns

import aiohttp
import uvloop
from yardstick import HEADERS, decode_body, decode_chunk, keep, request_body


async def stream_one(session, url, body, file):
    stamps, text, rest = [], [], b""
    sent = perf_counter_ns()
    async with session.post(url, data=body, headers=HEADERS) as response:
        async for data in response.content.iter_any():
            now = perf_counter_ns()
            *events, rest = (rest + data).split(b"\n\n")
            for event in events:
                if event[6:] == b"[DONE]":
                    continue
                chunk = decode_chunk(event[6:])
                if chunk.choices and chunk.choices[0].delta.content:
                    stamps.append(now)
                    text.append(chunk.choices[0].delta.content)
    keep(file, sent, stamps)


async def plain_one(session, url, body, _file):
    async with session.post(url, data=body, headers=HEADERS) as response:
        decode_body(await response.read())


async def main(mode, url, requests, concurrency, tokens, stamps=os.devnull):
    one = stream_one if mode == "stream" else plain_one
    body = request_body(int(tokens), stream=mode == "stream")
    left = iter(range(int(requests)))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        with open(stamps, "wb") as file:

            async def slot():
                for _ in left:
                    await one(session, url, body, file)

            await asyncio.gather(*(slot() for _ in range(int(concurrency))))


uvloop.run(main(*sys.argv[1:]))
