"""The simulator as a process of its own: `with Simulator(settings) as sim: sim.base_url`.

Knows how to start, ask and stop it. Must not know what it serves. Asks over `http.client`, which knows no proxies.
Law: after the `with` block, or the death of this process, no simulator is left.
"""

import contextlib
import http.client
import json
import selectors
import subprocess
import tempfile
import time
from types import TracebackType
from typing import IO, Any, Final, Self, cast

import msgspec

from loadgen.interpreter import fresh
from loadgen.simulator.settings import SimulatorSettings

READY_S: Final = 10.0  # an interpreter and its imports, on a machine that is busy
STOP_S: Final = 3.0


class SimulatorError(RuntimeError):
    """The simulator did not start, refused, or is gone; the message is one line."""


class Simulator:
    """A simulator process. Start and stop it by `with`, or by `start` and `stop`."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self.settings = settings
        self.base_url = ""
        self.port = 0
        self.pid = 0
        self.final_stats: dict[str, Any] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Simulator {self.settings.model_name} pid={self.pid} {self.base_url or 'not started'}>"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> Self:
        """Returns when it listens.

        Raises:
            SimulatorError: it did not within READY_S, with what it said.

        """
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop
        argv, environment = fresh("loadgen.simulator")
        self._process = subprocess.Popen(
            argv,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            process_group=0,  # SIGTERM to the whole group (`timeout`, a batch system) must not end the server under a run that finishes
        )
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once; what it said follows
            stdin.write(msgspec.json.encode(self.settings) + b"\n")
            stdin.flush()  # and stays open: its end is the simulator's
        with selectors.DefaultSelector() as selector:  # select() takes no descriptor above 1,023, and this may be a busy process
            selector.register(stdout, selectors.EVENT_READ)
            line = stdout.readline() if selector.select(READY_S) else b""
        ready: dict[str, Any] = json.loads(line) if line else {"ready": False, "error": "simulator: not ready in time"}
        if not ready["ready"]:
            if not line:
                self._process.kill()
            self._process.wait()
            said = self._said()
            self.stop()
            raise SimulatorError(ready["error"] if line or not said else f"simulator: {said}")
        self.base_url, self.port, self.pid = ready["base_url"], ready["port"], ready["pid"]
        return self

    def stop(self) -> None:
        """End it, and keep its last statistics as `final_stats`."""
        process, self._process = self._process, None
        if process is None or process.stdin is None or process.stdout is None:
            return
        with contextlib.suppress(BrokenPipeError):  # it has gone already
            process.stdin.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        said = self._said()
        if process.returncode == 0 and said.startswith("{"):
            self.final_stats = json.loads(said)
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None

    def stats(self) -> dict[str, Any]:
        """Counts, peaks and lateness since the start or the last reset."""
        return cast("dict[str, Any]", json.loads(self._ask("GET", "/simulator/stats")))

    def reset(self) -> None:
        """Begin a new stretch of statistics; the counters of /metrics go on."""
        self._ask("POST", "/simulator/reset")

    def set_limits(self, **changes: Any) -> dict[str, Any]:
        """Change limits while it runs (settings.CHANGEABLE); returns all settings. Raises: SimulatorError."""
        return cast("dict[str, Any]", json.loads(self._ask("POST", "/simulator/limits", json.dumps(changes))))

    def metrics(self) -> dict[str, float]:
        """The samples of /metrics: `name{labels}` -> value."""
        samples = {}
        for line in self._ask("GET", "/metrics").decode().splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                samples[name] = float(value)
        return samples

    def wait_idle(self, timeout_s: float = 5.0) -> dict[str, Any]:
        """Poll until no request is in flight; returns the statistics. Raises: SimulatorError after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while (stats := self.stats())["requests_inflight"]:
            if time.monotonic() > deadline:
                raise SimulatorError(f"simulator: still {stats['requests_inflight']} requests in flight after {timeout_s:g} s")
            time.sleep(0.01)
        return stats

    def _ask(self, method: str, path: str, body: str | None = None) -> bytes:
        host = "127.0.0.1" if self.settings.host in ("0.0.0.0", "::") else self.settings.host  # noqa: S104 - compared, not bound
        connection = http.client.HTTPConnection(host, self.port, timeout=STOP_S)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise SimulatorError(f"simulator: does not answer: {error}") from None
        finally:
            connection.close()
        if response.status != 200:
            raise SimulatorError(f"simulator: {json.loads(data)['error']['message']}")
        return data

    def _said(self) -> str:
        """The last line on its stderr."""
        if self._stderr is None:
            return ""
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""
