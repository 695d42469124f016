"""The simulator behind HTTP: routes, keys, which request fails, and who paces the rest.

Knows which path does what. Must not know how tokens are paced (the pacer: engine or metronome), how answers are written (delivery)
nor what their bytes look like (replies).
Law: a request for generation is counted in when its last byte was read, and is then either refused, failed or handed to the pacer.
"""

import asyncio
import hmac
import time
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec

from loadgen.simulator import dialect, truth
from loadgen.simulator.answers import Answer
from loadgen.simulator.batching import BatchingPacer
from loadgen.simulator.connection import Connection, HttpRequest
from loadgen.simulator.delivery import Delivery
from loadgen.simulator.engine import Engine
from loadgen.simulator.faults import KINDS, fault_of, parse_fault_shares, tokens_before_fault
from loadgen.simulator.metrics import Metrics
from loadgen.simulator.metronome import MetronomePacer
from loadgen.simulator.replies import DONE, LAST_CHUNK, STREAM_HEAD, event, json_response, text_response
from loadgen.simulator.settings import SimulatorSettings
from loadgen.simulator.stats import Stats

_BUSY: Final = {
    "message": "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance.",
    "type": "Service Unavailable",
    "param": None,
    "code": 503,
}
_RATE_LIMITED: Final = {"message": "Rate limit reached for requests", "type": "rate_limit_error", "param": None, "code": 429}
_PROXY_404: Final = (
    b"<html>\r\n<head><title>404 Not Found</title></head>\r\n<body>\r\n<center><h1>404 Not Found</h1></center>\r\n</body>\r\n</html>\r\n"
)
_TRUTH_FLUSH_S: Final = 1.0

_ORDERS: Final[dict[str, Callable[[bytes, SimulatorSettings], dialect.Order]]] = {
    "/v1/chat/completions": dialect.read_chat,
    "/v1/completions": dialect.read_completion,
    "/v1/embeddings": dialect.read_embedding,
}


class SimulatorServer:
    """One listening simulator. `start`, then `close`; `snapshot` is what GET /simulator/stats answers."""

    def __init__(self, settings: SimulatorSettings, loop: asyncio.AbstractEventLoop) -> None:
        self.settings = settings
        self.keep_alive_s = settings.keep_alive_s
        self.connections: set[Connection] = set()
        self._loop = loop
        self._fault_shares = parse_fault_shares(settings.faults)
        self._number = 0
        self._run_id = time.time_ns() & 0xFFFFFFFF  # tells the ids of two simulators apart
        self._stats = Stats()
        self._metrics = Metrics(settings.names[0], started_s=time.time())
        self._truth = truth.TruthWriter(settings.truth) if settings.truth else None
        self._delivery = Delivery(self._stats, self._truth)
        self._pacer: BatchingPacer | MetronomePacer
        if settings.metronome:
            self._pacer = MetronomePacer(settings, loop, self._metrics, self._delivery.deliver, self._delivery.send_middle)
            self._engine = Engine(settings)  # idle: the gauges of /metrics
        else:
            self._pacer = BatchingPacer(settings, loop, self._metrics, self._stats, self._delivery.deliver)
            self._engine = self._pacer.engine
        self._delivery.pacer = self._pacer
        self._listener: asyncio.Server | None = None
        self._flush_timer: asyncio.TimerHandle | None = None
        self._routes: dict[tuple[str, str], Callable[[Connection, HttpRequest], None]] = {
            ("GET", "/health"): self._health,
            ("GET", "/version"): self._version,
            ("GET", "/metrics"): self._metrics_text,
            ("GET", "/v1/models"): self._models,
            ("GET", "/simulator/stats"): self._stats_json,
            ("POST", "/simulator/reset"): self._reset,
            ("POST", "/simulator/limits"): self._limits,
            **{("POST", path): self._generate for path in _ORDERS},
        }

    async def start(self) -> int:
        """Listen; returns the port. Raises: OSError."""
        self._listener = await self._loop.create_server(
            partial(Connection, self, self._loop),
            self.settings.host,
            self.settings.port,
            backlog=4096,  # a burst of clients must not meet SYN retries; the kernel caps it at somaxconn
        )
        self._flush_truth()
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Stop listening, drop the connections, write what is buffered."""
        if self._listener is not None:
            self._listener.close()
        for connection in list(self.connections):
            connection.drop()
        await asyncio.sleep(0)  # connection_lost of the dropped ones
        self._pacer.close()
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        if self._truth is not None:
            self._truth.close()

    def handle(self, connection: Connection, request: HttpRequest) -> None:
        """Route one whole request (`connection.Handler`)."""
        route = self._routes.get((request.method, request.path))
        if request.path.startswith("/v1/") and not self._authorised(request):
            _answer(connection, json_response(401, {"error": "Unauthorized"}))
        elif route is not None:
            route(connection, request)
        else:
            allowed = [method for method, path in self._routes if path == request.path]
            if allowed:
                body = json_response(405, {"detail": "Method Not Allowed"}, [b"allow: " + ", ".join(allowed).encode()])
                _answer(connection, body)
            else:
                _answer(connection, json_response(404, {"detail": "Not Found"}))

    def snapshot(self) -> dict[str, Any]:
        """Counts since the start or the last reset; `timing` says what the step times are worth."""
        return {"timing": self.settings.timing, "connections": len(self.connections), **self._stats.snapshot(), **self._pacer.snapshot()}

    # generation

    def _generate(self, connection: Connection, request: HttpRequest) -> None:
        self._stats.come_in()
        number, self._number = self._number, self._number + 1
        forced = request.headers.get(b"x-simulator-fault", b"").decode("latin-1")
        if forced and forced not in KINDS:
            self._refuse(connection, dialect.Refusal(400, f"x-simulator-fault: unknown kind {forced!r}; takes {', '.join(KINDS)}"))
            return
        fault = forced or fault_of(self._fault_shares, self.settings.seed, number)
        if fault is not None:
            self._stats.faults[fault] = self._stats.faults.get(fault, 0) + 1
            if self._fail_at_once(connection, fault):
                return
        try:
            order = _ORDERS[request.path](request.body, self.settings)
        except dialect.Refusal as refusal:
            self._refuse(connection, refusal)
            return
        if fault == "stream-error":
            self._stream_error(connection, stream=order.stream)
            return
        answer = self._accept(connection, request, order, number)
        answer.fault = fault
        if fault in ("reset", "truncate"):
            answer.break_after = tokens_before_fault(self.settings.seed, number, sum(s.output_tokens for s in answer.sequences))
        if order.stream:
            connection.send(STREAM_HEAD)  # vLLM's head goes out while the request is queued
        if fault == "slow":
            self._loop.call_later(self.settings.fault_slow_ms / 1e3 * self.settings.time_scale, self._begin, answer)
        else:
            self._pacer.begin(answer)

    def _refuse(self, connection: Connection, refusal: dialect.Refusal) -> None:
        self._stats.refused += 1
        self._delivery.send_whole(connection, json_response(refusal.status, {"error": refusal.error}))

    def _accept(self, connection: Connection, request: HttpRequest, order: dialect.Order, number: int) -> Answer:
        given = request.headers.get(b"x-request-id", b"").decode("latin-1")
        kind = "chatcmpl" if order.chat else "embd" if order.embeddings else "cmpl"
        request_id = f"{kind}-{given or f'{self._run_id:08x}{number:08x}'}"
        answer = Answer(
            connection,
            order,
            self.settings,
            number=number,
            request_id=request_id,
            arrived_ns=request.arrived_ns,
            created=int(time.time()),
        )
        connection.on_lost = partial(self._delivery.abandon, answer)
        if self._truth is not None:
            self._truth.add(request.arrived_ns, number, zlib.crc32(request_id.encode()), truth.ARRIVED)
        return answer

    def _begin(self, answer: Answer) -> None:
        if not answer.gone:
            self._pacer.begin(answer)

    # faults

    def _fail_at_once(self, connection: Connection, fault: str) -> bool:
        """Act out a fault that needs no body; False: it comes later."""
        if fault == "reset-early":
            self._stats.go_out()
            connection.reset()
            return True
        if fault == "rate-limit-429":
            data = json_response(429, {"error": _RATE_LIMITED})
        elif fault == "rate-limit-429-retry-after":
            data = json_response(429, {"error": _RATE_LIMITED}, [b"retry-after: %d" % self.settings.fault_retry_after_s])
        elif fault == "rate-limit-404":
            data = text_response(404, _PROXY_404, b"text/html")
        elif fault == "model-missing-404":
            message = f"The model `{self.settings.names[0]}` does not exist."
            data = json_response(404, {"error": {"message": message, "type": "NotFoundError", "param": "model", "code": 404}})
        elif fault == "unavailable-503":
            data = json_response(503, {"error": _BUSY})
        else:
            return False
        self._delivery.send_whole(connection, data)
        return True

    def _stream_error(self, connection: Connection, *, stream: bool) -> None:
        error = event(msgspec.json.encode({"error": _BUSY}))
        data = STREAM_HEAD + error + DONE + LAST_CHUNK if stream else json_response(503, {"error": _BUSY})
        self._delivery.send_whole(connection, data)

    # the other routes

    def _authorised(self, request: HttpRequest) -> bool:
        if self.settings.api_key is None:
            return True
        return hmac.compare_digest(request.headers.get(b"authorization", b""), b"Bearer " + self.settings.api_key.encode())

    def _health(self, connection: Connection, _request: HttpRequest) -> None:
        _answer(connection, text_response(200, b"", b""))

    def _version(self, connection: Connection, _request: HttpRequest) -> None:
        _answer(connection, json_response(200, {"version": "simulator"}))

    def _metrics_text(self, connection: Connection, _request: HttpRequest) -> None:
        running = self._stats.inflight if self.settings.metronome else len(self._engine.running)
        _answer(connection, text_response(200, self._metrics.render(self._engine, running), b"text/plain; version=1.0.0; charset=utf-8"))

    def _models(self, connection: Connection, _request: HttpRequest) -> None:
        now = int(time.time())
        models: list[dict[str, Any]] = [
            {
                "id": name,
                "object": "model",
                "created": now,
                "owned_by": "loadgen-simulator",
                "root": self.settings.names[0],
                "parent": None,
                "max_model_len": self.settings.max_model_len,
                "permission": [],
            }
            for name in self.settings.names
        ]
        _answer(connection, json_response(200, {"object": "list", "data": models}))

    def _stats_json(self, connection: Connection, _request: HttpRequest) -> None:
        _answer(connection, json_response(200, self.snapshot()))

    def _reset(self, connection: Connection, _request: HttpRequest) -> None:
        self._stats.reset()
        self._pacer.reset()
        if self._truth is not None:
            self._truth.flush()
        _answer(connection, json_response(200, self.snapshot()))

    def _limits(self, connection: Connection, request: HttpRequest) -> None:
        try:
            settings = self.settings.changed(msgspec.json.decode(request.body, type=dict[str, Any]))
        except ValueError as error:  # msgspec's errors are ValueErrors too
            _answer(connection, json_response(400, {"error": {"message": str(error), "type": "BadRequestError", "code": 400}}))
            return
        self.settings = settings
        self._fault_shares = parse_fault_shares(settings.faults)
        self._pacer.set_limits(settings)
        _answer(connection, json_response(200, {key: getattr(settings, key) for key in settings.__struct_fields__ if key != "api_key"}))

    def _flush_truth(self) -> None:
        if self._truth is not None:
            self._truth.flush()
            self._flush_timer = self._loop.call_later(_TRUTH_FLUSH_S, self._flush_truth)


def _answer(connection: Connection, data: bytes) -> None:
    connection.send(data)
    connection.finish()
