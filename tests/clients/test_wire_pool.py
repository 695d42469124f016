"""The connections of `wire`: what becomes of one whose making is given up at each moment."""

import asyncio

import pytest
import uvloop

from clients.endpoint import Endpoint, Timeouts
from clients.wire import WireTransport


@pytest.mark.parametrize("loop_factory", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
@pytest.mark.parametrize("turns_after", [0, 1, 2])
def test_closing_does_not_wait_for_a_connection_that_was_given_up_as_it_was_made(chaos, loop_factory, turns_after):
    """A deadline may pass in the very turn in which the connection is made; uvloop then tells nobody that it was lost."""

    async def scenario():
        transport = WireTransport(Endpoint(f"http://127.0.0.1:{chaos.port}/v1"), Timeouts())
        connecting = transport.pool.connect()
        while not transport.pool._all and not connecting.done():
            await asyncio.sleep(0)
        for _ in range(turns_after):
            await asyncio.sleep(0)
        connecting.cancel()
        await asyncio.wait([connecting])
        if not connecting.cancelled():
            transport.pool.release(connecting.result())
        await asyncio.wait_for(transport.close(), 10)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(scenario())
