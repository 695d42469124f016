"""What a type checker makes of the public API: read by mypy in `test_typing.py`, never run.

Knows the public names alone. Law: mypy --strict has nothing to say here, and each `type: ignore` is needed: under it stands a misuse
that an editor must underline.
"""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

from clients import (
    AsyncStream,
    Choice,
    Completion,
    LLMClient,
    Message,
    ModelProfile,
    ModelRegistry,
    Piece,
    RequestError,
    RetryPolicy,
    Stream,
    Timeouts,
    Timing,
    ToolCall,
    Usage,
    VLMClient,
)


def settings() -> None:
    client = LLMClient(
        "http://localhost:8000/v1", "key", "m", timeouts=Timeouts(total_s=60.0), retry=RetryPolicy(max_retries=0), max_tokens=5
    )
    assert_type(client, LLMClient)
    assert_type(VLMClient(model_name="m", max_pixels=10**6, max_concurrent=2, temperature=0.0), VLMClient)
    assert_type(VLMClient.from_profile("olmocr", max_tokens=5), VLMClient)
    assert_type(LLMClient.from_config("config.yaml"), LLMClient)
    assert_type(ModelRegistry().get("olmocr"), ModelProfile)
    LLMClient(max_tokens="5")  # type: ignore[arg-type]  # a number
    LLMClient(max_token=5)  # type: ignore[call-arg]  # misspelt
    LLMClient(timeouts=30)  # type: ignore[arg-type]  # takes Timeouts
    VLMClient(max_tokens="5")  # type: ignore[arg-type]  # a number
    VLMClient(timeout=Timeouts())  # type: ignore[call-arg]  # misspelt


def one(client: LLMClient, seeing: VLMClient) -> None:
    completion = client.generate("Hello", max_tokens=5, stop=["a"], response_format={"type": "json_object"}, extra_body={"min_p": 0.1})
    assert_type(completion, Completion)
    assert_type(client.generate([Message(role="user", content="Hello")]), Completion)
    assert_type(client.generate([{"role": "user", "content": "Hello"}]), Completion)
    assert_type(client.generate(["a", "b"]), Completion)  # of the completions endpoint: two prompts, two choices
    assert_type(completion.text, str)
    assert_type(completion.tool_calls, list[ToolCall])
    assert_type(completion.choices, list[Choice])
    assert_type(completion.usage, Usage | None)
    assert_type(completion.error, RequestError | None)
    assert_type(completion.finish_reason, str | None)
    assert_type(completion.timing, Timing)
    assert_type(completion.timing.ttft_s, float | None)
    assert_type(completion.timing.itl_s, list[float])
    assert_type(client.embed(["a", "b"]).embeddings, list[list[float]])
    assert_type(seeing.generate_with_image("What?", Path("a.png")), Completion)
    assert_type(seeing.generate_with_image("What?", [b"", "a.png"], max_tokens=5), Completion)
    client.generate(5)  # type: ignore[arg-type]  # no prompt
    client.generate("Hello", temperatur=0.5)  # type: ignore[call-arg]  # misspelt
    client.generate("Hello", tools={})  # type: ignore[arg-type]  # a list


def many(client: LLMClient, seeing: VLMClient) -> None:
    assert_type(client.generate_batch(["a", "b"], max_concurrent=20, batch_size=5, delay_between_batches=0.5, seed=1), list[Completion])
    assert_type(client.generate_batch([[Message("user", "a")]], progress=True), list[Completion])
    assert_type(seeing.generate_batch_with_images([("What?", Path("a.png"))], max_concurrent=4), list[Completion])
    client.generate_batch(["a"], max_concurency=5)  # type: ignore[call-arg]  # misspelt
    client.generate_batch([5])  # type: ignore[list-item]  # no prompt


def pieces(client: LLMClient) -> None:
    with client.stream("Hello", max_tokens=5) as stream:
        assert_type(stream, Stream)
        for piece in stream:
            assert_type(piece, Piece)
        assert_type(stream.completion, Completion)


async def awaited(client: LLMClient, seeing: VLMClient) -> None:
    async with client:
        assert_type(await client.generate_async("Hello", max_tokens=5), Completion)
        assert_type(await client.generate_batch_async(["a"], 20), list[Completion])
        assert_type(await seeing.generate_batch_with_images_async([("What?", b"")]), list[Completion])
        stream = client.stream_async("Hello")
        assert_type(stream, AsyncStream)
        async for piece in stream:
            assert_type(piece, Piece)
