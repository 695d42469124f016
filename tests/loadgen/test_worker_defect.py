"""A worker in which something raised what it must not: it ends, and says how."""

import subprocess
import sys

import pytest

RAISING = """
import asyncio, errno
from loadgen.worker import Worker
loop = asyncio.new_event_loop()
loop.set_exception_handler(object.__new__(Worker)._raised)
def raising():
    raise {fault}
loop.call_soon(raising)
loop.call_soon(loop.call_soon, loop.stop)
loop.run_forever()
loop.close()
"""


@pytest.mark.parametrize(("fault", "status"), [("KeyError('a turn')", 4), ("OSError(errno.ETIMEDOUT, 'timed out')", 0)])
def test_a_defect_ends_the_worker_and_the_networks_errors_do_not(fault, status):
    """By a status of its own, so that the parent counts it as lost; either is in the log."""
    ended = subprocess.run([sys.executable, "-c", RAISING.format(fault=fault)], capture_output=True, text=True, timeout=30)
    assert ended.returncode == status, ended.stderr
    assert fault.split("(")[0] in ended.stderr or "TimeoutError" in ended.stderr
