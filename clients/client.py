"""The client that pipelines import: prompts in, completions out.

Knows settings, loops, batches and streams, and puts them together; the wire is the transport's, the words the dialect's.
Law: each sync method is its async one run on the private loop; single calls raise the typed error, batches return it as a value; a
client holds no connection that `close`, its loop's end or its own does not close, and shows no key.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self, Unpack

from clients.batch import Batch, Prepare
from clients.catalogue import ServedModel
from clients.completion import Completion
from clients.connections import Connections
from clients.dialects import DIALECTS, Dialect
from clients.endpoint import Timeouts
from clients.errors import UsageError
from clients.exchange import Exchange, Request
from clients.lanes import Lanes
from clients.loop import private_loop
from clients.messages import Prompt, Sampling, SamplingOptions
from clients.progress import progress_bar
from clients.registry import ModelRegistry
from clients.retry import Retrying, RetryPolicy
from clients.settings import EndpointName, Settings, merged_sampling, resolve_endpoint
from clients.stream import AsyncStream, Stream

if TYPE_CHECKING:
    import os
    from types import TracebackType

    from clients.pieces import Piece
    from clients.secret import Secret
    from clients.transport import Flight, Transport

# Requests in flight where neither call, nor client, nor configuration says: enough to keep one GPU's batch filled, few for a server.
DEFAULT_CONCURRENCY = 20

DEFAULT_TIMEOUTS = Timeouts()
DEFAULT_RETRY = RetryPolicy()


class LLMClient:
    """A model behind an OpenAI-compatible server.

    base_url: None is LOADGEN_BASE_URL, else http://localhost:8000/v1. api_key: None is OPENAI_API_KEY, else no key.
    model_name: None is the server's only model. endpoint: which API generates. streaming: whether answers are streamed, without
    which there is no TTFT, no ITL and no deadline between tokens. max_concurrent, batch_size: what batches take by default.
    Every other keyword is a sampling default (`max_tokens=…`, see `Sampling`); each call's own override it.
    Raises UsageError for an unknown name, with the nearest one, and for a value that cannot be used; sends nothing.
    """

    default_concurrency = DEFAULT_CONCURRENCY

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | Secret | None = None,
        model_name: str | None = None,
        *,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        retry: RetryPolicy = DEFAULT_RETRY,
        transport: str = "aiohttp",
        headers: Mapping[str, str] | None = None,
        insecure: bool = False,
        ca_file: str | os.PathLike[str] | None = None,
        endpoint: EndpointName = "chat",
        streaming: bool = True,
        max_concurrent: int | None = None,
        batch_size: int | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> None:
        if endpoint not in ("chat", "completions"):
            raise UsageError(f"endpoint: got {endpoint!r}, takes chat or completions (embeddings: call embed)")
        concurrent = self.default_concurrency if max_concurrent is None else max_concurrent
        Lanes(max_concurrent=concurrent, batch_size=batch_size)  # raises for what no batch could run with
        self._adopt(
            Settings(
                endpoint=resolve_endpoint(base_url, api_key, headers=headers, insecure=insecure, ca_file=ca_file),
                model_name=model_name,
                timeouts=timeouts,
                retry=retry,
                transport=transport,
                dialect=endpoint,
                streaming=streaming,
                sampling=merged_sampling(Sampling(), sampling, *_constructors(type(self))),
                max_concurrent=concurrent,
                batch_size=batch_size,
            )
        )

    def _adopt(self, settings: Settings) -> None:
        self.settings = settings
        self._model = ServedModel(settings.endpoint, settings.model_name)
        self._connections = Connections(partial(_open, settings, self._model))

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """A client of its own with the settings of another."""
        client = cls.__new__(cls)
        client._adopt(settings)
        return client

    @classmethod
    def from_profile(cls, name: str, registry: ModelRegistry | None = None, **options: Any) -> Self:
        """The client of a model profile: its base URL, served name and key; `options` as in the constructor, over the profile.

        Raises UsageError for an unknown profile, or one whose key names an environment variable that is not set.
        """
        profile = (registry or ModelRegistry()).get(name)
        given = {"base_url": profile.resolved_base_url(), "model_name": profile.model, **options}
        if "api_key" not in options:
            given["api_key"] = profile.secret()
        return cls(**given)

    @classmethod
    def from_config(cls, path: str | os.PathLike[str], **options: Any) -> Self:
        """A client whose batches take `generation: {batch_size, max_concurrent}` of a pipeline's config.yaml by default."""
        from clients.config import read_generation

        generation = read_generation(path)
        return cls(**{"batch_size": generation.batch_size, "max_concurrent": generation.max_concurrent, **options})

    @property
    def base_url(self) -> str:
        return self.settings.endpoint.base_url

    @property
    def model_name(self) -> str | None:
        return self.settings.model_name

    def generate(self, messages: Prompt, **sampling: Unpack[SamplingOptions]) -> Completion:
        """The answer to one prompt: a string, a Message, or a list of messages. Raises the typed RequestError."""
        return private_loop().run(partial(self.generate_async, messages, **sampling))

    async def generate_async(self, messages: Prompt, **sampling: Unpack[SamplingOptions]) -> Completion:
        """See `generate`."""
        options = self._sampling(sampling, self.generate)
        return await self._one(self._dialect, messages, options, stream=self.settings.streaming)

    def stream(self, messages: Prompt, **sampling: Unpack[SamplingOptions]) -> Stream:
        """The answer's pieces as they arrive; the whole is `.completion` of the stream after its end. Retried before the first piece."""
        options = self._sampling(sampling, self.stream)
        return Stream(private_loop(), partial(self._open_stream, messages, options))

    def stream_async(self, messages: Prompt, **sampling: Unpack[SamplingOptions]) -> AsyncStream:
        """See `stream`: `async for piece in client.stream_async(prompt)`."""
        options = self._sampling(sampling, self.stream)
        return AsyncStream(partial(self._open_stream, messages, options))

    def generate_batch(
        self,
        batch: Iterable[Prompt],
        max_concurrent: int | None = None,
        batch_size: int | None = None,
        delay_between_batches: float = 0.0,
        progress: bool = False,
        **sampling: Unpack[SamplingOptions],
    ) -> list[Completion]:
        """One completion for each prompt, in order; a failed one has its `error` and costs its neighbours nothing.

        max_concurrent: requests in flight, 20 unless the client says otherwise. batch_size: prompts are grouped into batches that
        share those slots, each lane of slots waiting for its batch to end, then delay_between_batches seconds (DESIGN, batch_size).
        progress: a bar on stderr. Ctrl-C cancels what is in flight.
        """
        return private_loop().run(
            partial(self.generate_batch_async, batch, max_concurrent, batch_size, delay_between_batches, progress, **sampling)
        )

    async def generate_batch_async(
        self,
        batch: Iterable[Prompt],
        max_concurrent: int | None = None,
        batch_size: int | None = None,
        delay_between_batches: float = 0.0,
        progress: bool = False,
        **sampling: Unpack[SamplingOptions],
    ) -> list[Completion]:
        """See `generate_batch`. Cancelling it cancels what is in flight before it passes on."""
        prompts = checked_items(batch)
        options = self._sampling(sampling, self.generate_batch)
        lanes = self._lanes(len(prompts), max_concurrent, batch_size, delay_between_batches)
        model = await self._model.name() if prompts else ""

        def prepare(index: int) -> Request:
            return encoded(self._dialect, model, prompts[index], options, stream=self.settings.streaming)

        return await self._run(lanes, prepare, len(prompts), progress=progress)

    def embed(self, texts: str | Sequence[str], **sampling: Unpack[SamplingOptions]) -> Completion:
        """The vectors of one text or several, in order, as `.embeddings`. Raises the typed RequestError."""
        return private_loop().run(partial(self.embed_async, texts, **sampling))

    async def embed_async(self, texts: str | Sequence[str], **sampling: Unpack[SamplingOptions]) -> Completion:
        """See `embed`. Of the client's own sampling nothing is sent; `extra_body` of this call may name dimensions."""
        options = merged_sampling(Sampling(), sampling, self.embed)
        return await self._one(DIALECTS["embeddings"], texts, options, stream=False)

    def close(self) -> None:
        """Closes every connection. The client may be used again: it opens new ones."""
        self._connections.close()

    async def aclose(self) -> None:
        """Closes the connections of this loop, and has those of others closed there."""
        await self._connections.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    def __reduce__(self) -> tuple[Callable[[Settings], Self], tuple[Settings]]:
        return type(self).from_settings, (self.settings,)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.model_name or '?'} at {self.base_url}>"

    @property
    def _dialect(self) -> Dialect:
        return DIALECTS[self.settings.dialect]

    def _sampling(self, overrides: Mapping[str, Any], of: Callable[..., Any]) -> Sampling:
        return merged_sampling(self.settings.sampling, overrides, of)

    def _lanes(self, count: int, max_concurrent: int | None, batch_size: int | None, delay_s: float) -> Lanes:
        if isinstance(delay_s, bool) or not isinstance(delay_s, int | float) or not 0 <= delay_s < float("inf"):
            raise UsageError(f"delay_between_batches: got {delay_s!r}, takes seconds, 0 or more")
        size = self.settings.batch_size if batch_size is None else batch_size
        if delay_s and size is None:
            raise UsageError("delay_between_batches: has no batches to stand between, takes a batch_size beside it")
        concurrent = self.settings.max_concurrent if max_concurrent is None else max_concurrent
        return Lanes(max_concurrent=concurrent, batch_size=size, delay_ns=int(delay_s * 1e9), count=count)

    async def _run(self, lanes: Lanes, prepare: Prepare, count: int, *, progress: bool = False) -> list[Completion]:
        with progress_bar(count, shown=progress) as on_end:
            return await Batch(self._connections.transport(), lanes, prepare, count, on_end).run()

    async def _one(self, dialect: Dialect, prompt: Any, options: Sampling, *, stream: bool) -> Completion:
        """A batch of one, which raises."""
        model = await self._model.name()
        lanes = Lanes(max_concurrent=1, count=1)
        [completion] = await self._run(lanes, lambda _: encoded(dialect, model, prompt, options, stream=stream), 1)
        if completion.error is not None:
            raise completion.error
        return completion

    async def _open_stream(self, prompt: Prompt, options: Sampling, put: Callable[[Piece | Completion], None]) -> Flight:
        due_ns = time.perf_counter_ns()
        request = encoded(self._dialect, await self._model.name(), prompt, options, stream=True)
        exchange = Exchange(request, due_ns)
        exchange.answer.listener = put
        return self._connections.transport().start(request, exchange, lambda ended: put(Completion.of(ended)))


def encoded(dialect: Dialect, model: str, prompt: Any, options: Sampling, *, stream: bool) -> Request:
    """The request of one prompt. Raises the item's RequestError."""
    return Request(dialect, dialect.encode(model, prompt, options, stream=stream), stream=stream, choices=dialect.choices(prompt, options))


def checked_items(batch: Iterable[Any]) -> Sequence[Any]:
    """The items of a batch. One string is the prompt that somebody forgot to put into a list, not a batch of its letters."""
    if isinstance(batch, str | bytes | Mapping) or not isinstance(batch, Iterable):
        raise UsageError(f"batch: got {type(batch).__name__}, takes a list of prompts")
    return batch if isinstance(batch, Sequence) else list(batch)


def _constructors(kind: type[LLMClient]) -> list[Callable[..., Any]]:
    return [each.__init__ for each in kind.__mro__ if issubclass(each, LLMClient) and "__init__" in vars(each)]


def _open(settings: Settings, model: ServedModel) -> Transport:
    """A transport for the running loop. Here aiohttp is imported, and no sooner."""
    from clients.transports import open_transport

    transport = open_transport(settings.transport, settings.endpoint, settings.timeouts)
    return Retrying(transport, settings.retry, lists_model=model.listed)
