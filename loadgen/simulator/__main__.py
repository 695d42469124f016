"""`python -m loadgen.simulator`: settings as one JSON line on stdin, one JSON line on stdout once it listens.

Knows processes and signals only. The ready line is {"ready": true, "base_url": ..., "port": ..., "pid": ...}, or {"ready": false,
"error": ...} with exit status 2. The last line on stderr is the statistics.
Law: it ends when stdin ends (its parent is gone), and on SIGTERM; a parent coordinates Ctrl-C, so SIGINT is ignored here. `run` is the
same in the foreground: it ends on SIGINT or SIGTERM.
"""

import asyncio
import gc
import signal
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from loadgen.simulator.server import SimulatorServer
from loadgen.simulator.settings import SimulatorSettings

if sys.platform == "win32":  # uvloop has no Windows
    _new_loop = asyncio.new_event_loop
else:
    import uvloop

    _new_loop = uvloop.new_event_loop


def run(settings: SimulatorSettings, on_ready: Callable[[int], None]) -> dict[str, Any]:
    """Serve in the foreground until SIGINT or SIGTERM; `on_ready` gets the port. Returns the final statistics.

    Raises:
        OSError: the port, or the truth file, cannot be had.

    """
    return _run(settings, on_ready, parent_fd=None)


def _run(settings: SimulatorSettings, on_ready: Callable[[int], None], parent_fd: int | None) -> dict[str, Any]:
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(_serve(settings, on_ready, parent_fd))


async def _serve(settings: SimulatorSettings, on_ready: Callable[[int], None], parent_fd: int | None) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    server = SimulatorServer(settings, loop)
    try:
        port = await server.start()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        if parent_fd is None:
            loop.add_signal_handler(signal.SIGINT, stop.set)
        else:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            loop.add_reader(parent_fd, _on_parent, parent_fd, stop)
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 20, 20)  # a collection is a pause of all streams; answers free themselves (`Answer.release`)
        on_ready(port)
        await stop.wait()
    finally:
        if parent_fd is not None:
            loop.remove_reader(parent_fd)
        await server.close()
    return server.snapshot()


def _on_parent(parent_fd: int, stop: asyncio.Event) -> None:
    import os

    if not os.read(parent_fd, 4096):
        stop.set()


def base_url(settings: SimulatorSettings, port: int) -> str:
    """Where clients find it."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{port}/v1"


def main() -> int:
    """The process entry."""
    import os

    def say(value: dict[str, Any]) -> None:
        sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
        sys.stdout.flush()

    try:
        settings = msgspec.json.decode(sys.stdin.buffer.readline(), type=SimulatorSettings)
        stats = _run(
            settings,
            lambda port: say({"ready": True, "base_url": base_url(settings, port), "port": port, "pid": os.getpid()}),
            sys.stdin.fileno(),
        )
    except (ValueError, OSError) as error:
        say({"ready": False, "error": f"simulator: {error}"})
        return 2
    sys.stderr.write(msgspec.json.encode(stats).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
