"""`ModelBenchmark`: what `loadgen bench` and `loadgen grid` do, from Python, for the model that a client talks to.

Knows clients' settings and how they become an order; what is measured and how is the same as for the commands. It works from an
unguarded script, a REPL and inside a running event loop: workers are fresh interpreters and the caller's script is not imported.
Invariant: a result is a value made of the run's files; the client itself sends nothing here.
"""

from __future__ import annotations

import contextlib
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clients.catalogue import ServedModel
from clients.errors import RequestError, UsageError
from clients.loop import private_loop
from clients.messages import as_messages
from clients.vlm import image_prompt
from loadgen.bench import Bench
from loadgen.cell import Cell
from loadgen.conclusion import GridReport
from loadgen.grid import Grid
from loadgen.measurement import measure
from loadgen.order import Order
from loadgen.progress import Silent, progress
from loadgen.prompts import Prompts
from loadgen.results import BenchmarkResult, GridResults, InterruptedRun, result_of
from loadgen.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clients.client import LLMClient
    from clients.images import ImageSource
    from clients.messages import Prompt
    from loadgen.bench import Load
    from loadgen.campaign import Campaign, Listener
    from loadgen.cell import Standing
    from loadgen.document import Document
    from loadgen.plan import Cache


class ModelBenchmark:
    """Benchmarks of a client's model, at its server, with its sampling parameters and timeouts.

    processes: workers at most, None for as many as the concurrency needs. num_warmups: requests before the first setting, None for
    twice its concurrency. transport: `auto` is wire where it can, else aiohttp, whatever the client uses. retries: 0, since a retry hides what a server did. cache: see DESIGN, "Cells are comparable".
    Raises UsageError for what cannot be run, and ServerUnusableError where the server cannot be used, before any load.
    """

    def __init__(
        self,
        client: LLMClient,
        *,
        processes: int | None = None,
        results_dir: str | Path = "results",
        num_warmups: int | None = None,
        retries: int = 0,
        seed: int = 0,
        cache: Cache = "unique",
        transport: str = "auto",
        label: str | None = None,
        progress: bool = True,
    ) -> None:
        self.client = client
        self._processes = processes
        self._results_dir = Path(results_dir)
        self._num_warmups = num_warmups
        self._retries = retries
        self._seed = seed
        self._cache: Cache = cache
        self._transport = transport
        self._label = label
        self._progress = progress

    def __repr__(self) -> str:
        return f"<ModelBenchmark of {self.client!r}>"

    def benchmark_llm(
        self,
        prompts: Sequence[Prompt],
        batch_size: int | None = None,
        max_concurrent: int | None = None,
        delay_between_batches: float = 0.0,
    ) -> BenchmarkResult:
        """Send each prompt once. batch_size None: no barriers. max_concurrent None: the client's own default."""
        return self._bench("llm", _texts(prompts), batch_size, max_concurrent, delay_between_batches)

    def benchmark_vlm(
        self,
        items: Sequence[tuple[str, ImageSource | Sequence[ImageSource]]],
        batch_size: int | None = None,
        max_concurrent: int | None = None,
        delay_between_batches: float = 0.0,
    ) -> BenchmarkResult:
        """`benchmark_llm` for pairs of text and image, or text and list of images, as `generate_batch_with_images` takes them."""
        return self._bench("vlm", self._images(items), batch_size, max_concurrent, delay_between_batches)

    def grid_search_llm(
        self,
        prompts: Sequence[Prompt],
        batch_sizes: Sequence[int | None] = (None,),
        concurrencies: Sequence[int] = (1, 2, 4, 8, 16),
        repeats: int = 3,
    ) -> GridResults:
        """Every pairing of batch size and concurrency, each with all prompts; those that may win `repeats` times."""
        return self._grid("llm", _texts(prompts), batch_sizes, concurrencies, repeats)

    def grid_search_vlm(
        self,
        items: Sequence[tuple[str, ImageSource | Sequence[ImageSource]]],
        batch_sizes: Sequence[int | None] = (None,),
        concurrencies: Sequence[int] = (1, 2, 4, 8),
        repeats: int = 3,
    ) -> GridResults:
        """`grid_search_llm` for pairs of text and image."""
        return self._grid("vlm", self._images(items), batch_sizes, concurrencies, repeats)

    def _bench(
        self, kind: str, items: list[Any], batch_size: int | None, max_concurrent: int | None, delay_between_batches: float
    ) -> BenchmarkResult:
        settings = self.client.settings
        concurrent = settings.max_concurrent if max_concurrent is None else max_concurrent
        size = settings.batch_size if batch_size is None else batch_size
        order = self._order("bench", kind, items, delay_between_batches_s=delay_between_batches)
        document = self._measure(order, concurrent, lambda load: Bench(load, max_concurrent=concurrent, batch_size=size))
        directory = self._results_dir / document.run.id
        results = [result_of(cell, directory) for cell in Cell.gathered(document.measured)]
        if not results or (document.ended is not None and document.ended.interrupted):
            raise InterruptedRun(results[0] if results else None, directory)
        return results[0]

    def _grid(
        self, kind: str, items: list[Any], batch_sizes: Sequence[int | None], concurrencies: Sequence[int], repeats: int
    ) -> GridResults:
        order = self._order("grid", kind, items)
        document = self._measure(
            order,
            max(concurrencies, default=1),
            lambda load: Grid(load, batch_sizes=batch_sizes, concurrencies=concurrencies, repeats=repeats),
        )
        directory = self._results_dir / document.run.id
        cells = {(cell.max_concurrent, cell.batch_size): cell for cell in Cell.gathered(document.measured)}
        grid = document.grid or GridReport(results=[], best=None, why="nothing was measured", pipeline="")

        def result(standing: Standing) -> BenchmarkResult:
            return result_of(cells[standing.max_concurrent, standing.batch_size], directory, standing)

        results = GridResults(map(result, grid.results), result(grid.best) if grid.best else None, grid.why)
        if document.ended is not None and document.ended.interrupted:
            raise InterruptedRun(results, directory)
        return results

    def _measure(self, order: Order, largest: int, campaign_of: Callable[[Load], Campaign]) -> Document:
        with contextlib.ExitStack() as stack:
            listener: Listener = stack.enter_context(progress(sys.stderr)) if self._progress else Silent()
            return measure(order, largest=largest, campaign_of=campaign_of, option="max_concurrent", listener=listener)

    def _order(self, command: str, kind: str, items: list[Any], *, delay_between_batches_s: float = 0.0) -> Order:
        if not items:
            raise UsageError("prompts: got none, takes one or more")
        settings = self.client.settings
        endpoint = settings.endpoint
        model = settings.model_name or private_loop().run(ServedModel(endpoint, None).name)
        return Order(
            command=command,
            target=Target(
                base_url=endpoint.base_url,
                model=model,
                kind="vlm" if kind == "vlm" else "llm",
                dialect=settings.dialect,
                stream=settings.streaming,
                headers=dict(endpoint.headers),
                ca_file=endpoint.ca_file,
                insecure=endpoint.insecure,
                transport=self._transport,
                timeouts=settings.timeouts,
                retries=self._retries,
            ),
            key=endpoint.api_key,
            sampling=settings.sampling,
            content=Prompts(items=items, name=f"{len(items)} prompts given in Python"),
            results_dir=self._results_dir,
            num_requests=len(items),
            num_warmups=self._num_warmups,
            delay_between_batches_s=delay_between_batches_s,
            processes=self._processes,
            seed=self._seed,
            cache=self._cache,
            label=self._label,
        )

    def _images(self, items: Sequence[object]) -> list[Any]:
        max_pixels = self.client.settings.max_pixels
        return [[_checked(number, partial(image_prompt, item, max_pixels))] for number, item in enumerate(items)]


def _texts(prompts: Sequence[Prompt]) -> list[Any]:
    if isinstance(prompts, str):
        raise UsageError("prompts: got a string, takes a list of prompts")
    return [_checked(number, partial(as_messages, prompt)) for number, prompt in enumerate(prompts)]


def _checked(number: int, encode: Callable[[], Any]) -> Any:
    """In a benchmark every item counts: one that cannot be sent is a misuse."""
    try:
        return encode()
    except RequestError as error:
        raise UsageError(f"prompts: number {number}: {error}") from None
