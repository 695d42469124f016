"""What a request body asks for, checked as vLLM checks it.

Knows the three endpoints' bodies, and the wording of vLLM's refusals.
Must not know sockets, the engine or time.
Law: a body becomes an `Order`, or a `Refusal` with the status and the words of vLLM; nothing else is raised.
"""

import re
from typing import Any, Final

import msgspec

from loadgen.simulator.images import ImageError, pixel_size
from loadgen.simulator.prompts import CHAT_TOKENS, MESSAGE_TOKENS, Chain, Prompt, image_tokens, text_tokens
from loadgen.simulator.settings import SimulatorSettings


class Refusal(Exception):  # noqa: N818 - it is an answer, the control flow of this file only
    """An error answer: HTTP status, and vLLM's `error` object."""

    def __init__(self, status: int, message: str, kind: str = "BadRequestError", param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"message": message, "type": kind, "param": param, "code": status}


class Order:
    """What one request asks for. `max_tokens` None: as long as the answer is."""

    __slots__ = (
        "base64",
        "chat",
        "continuous_usage",
        "embeddings",
        "ignore_eos",
        "include_usage",
        "max_tokens",
        "model",
        "n",
        "prompts",
        "stream",
    )

    def __init__(self, model: str, prompts: list[Prompt]) -> None:
        self.model = model
        self.prompts = prompts
        self.n = 1
        self.max_tokens: int | None = None
        self.stream = self.include_usage = self.continuous_usage = self.ignore_eos = False
        self.chat = self.embeddings = self.base64 = False


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class _ImageUrl(msgspec.Struct):
    url: str


class _Part(msgspec.Struct):
    type: str
    text: str | None = None
    image_url: _ImageUrl | None = None


class _ChatMessage(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None


class _Body(msgspec.Struct):
    model: str | None = None
    n: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    ignore_eos: bool | None = None


class _ChatBody(_Body, kw_only=True):
    messages: list[_ChatMessage]
    max_completion_tokens: int | None = None


class _CompletionBody(_Body, kw_only=True):
    prompt: Any  # a text, a list of texts, of token ids, or of lists of them


class _EmbeddingBody(msgspec.Struct, kw_only=True):
    input: Any  # a text, a list of texts, of token ids, or of lists of them
    model: str | None = None
    encoding_format: str = "float"


_CHAT: Final = msgspec.json.Decoder(_ChatBody)
_COMPLETION: Final = msgspec.json.Decoder(_CompletionBody)
_EMBEDDING: Final = msgspec.json.Decoder(_EmbeddingBody)


def read_chat(body: bytes, settings: SimulatorSettings) -> Order:
    """The order in the body of /v1/chat/completions. Raises: Refusal."""
    decoded: _ChatBody = _decode(_CHAT, body)
    model = _served(decoded.model, settings)
    order = Order(model, [])
    order.chat = True
    max_tokens = decoded.max_tokens if decoded.max_completion_tokens is None else decoded.max_completion_tokens
    _read_options(order, decoded, max_tokens, settings)
    prompt = _chat_prompt(decoded.messages, settings)
    order.prompts.append(prompt)
    _check_length(order, settings)
    return order


def read_completion(body: bytes, settings: SimulatorSettings) -> Order:
    """The order in the body of /v1/completions. Raises: Refusal."""
    decoded: _CompletionBody = _decode(_COMPLETION, body)
    order = Order(_served(decoded.model, settings), _text_prompts(decoded.prompt, "prompt", settings))
    max_tokens = 16 if decoded.max_tokens is None else decoded.max_tokens  # the API's default for completions
    _read_options(order, decoded, max_tokens, settings)
    _check_length(order, settings)
    return order


def read_embedding(body: bytes, settings: SimulatorSettings) -> Order:
    """The order in the body of /v1/embeddings. Raises: Refusal."""
    decoded: _EmbeddingBody = _decode(_EMBEDDING, body)
    order = Order(_served(decoded.model, settings), _text_prompts(decoded.input, "input", settings))
    order.embeddings = True
    order.base64 = decoded.encoding_format == "base64"
    order.max_tokens = 1
    _check_length(order, settings)
    return order


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    if not body:
        raise _invalid("missing", "body", "Field required")
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        text, _, where = str(error).partition(" - at `")
        location = "body" + where.rstrip("`")[1:].replace("[", ".").replace("]", "")
        missing = re.search(r"missing required field `(\w+)`", text)
        if missing is not None:
            raise _invalid("missing", f"{location}.{missing.group(1)}", "Field required") from None
        raise _invalid("type_error", location, text) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        byte = re.search(r"\(byte (\d+)\)", str(error))
        raise _invalid("json_invalid", f"body.{byte.group(1) if byte else 0}", "JSON decode error") from None


def _invalid(kind: str, location: str, message: str) -> Refusal:
    text = f"1 validation error:\n  {{'type': '{kind}', 'loc': '{location}', 'msg': '{message}'}}"
    return Refusal(400, text, "Bad Request", location)


def _served(model: str | None, settings: SimulatorSettings) -> str:
    names = settings.names
    if model is None or model == "":
        return names[0]  # vLLM answers with its first name
    if model not in names:
        text = f"The model `{model}` does not exist. Valid aliases: {', '.join(names)}."
        raise Refusal(404, text, "NotFoundError", "model")
    return model


def _read_options(order: Order, body: _Body, max_tokens: int | None, settings: SimulatorSettings) -> None:
    order.stream = bool(body.stream)
    if body.stream_options is not None:
        if not order.stream:
            raise Refusal(400, "Stream options can only be defined when `stream=True`. (parameter=stream_options)", param="stream_options")
        order.include_usage = bool(body.stream_options.include_usage)
        order.continuous_usage = order.include_usage and bool(body.stream_options.continuous_usage_stats)
    order.ignore_eos = bool(body.ignore_eos)
    order.n = 1 if body.n is None else body.n
    order.max_tokens = max_tokens
    if order.n < 1:
        raise Refusal(400, f"n must be at least 1, got {order.n}. (parameter=n, value={order.n})", param="n")
    if body.temperature is not None and body.temperature < 0:
        text = f"temperature must be non-negative, got {body.temperature}. (parameter=temperature, value={body.temperature})"
        raise Refusal(400, text, param="temperature")
    if max_tokens is not None and max_tokens < 1:
        text = f"max_tokens must be at least 1, got {max_tokens}. (parameter=max_tokens, value={max_tokens})"
        raise Refusal(400, text, param="max_tokens")
    if max_tokens is not None and max_tokens > settings.max_model_len:
        text = (
            f"max_tokens={max_tokens} cannot be greater than max_model_len={settings.max_model_len}. "
            f"Please request fewer output tokens. (parameter=max_tokens, value={max_tokens})"
        )
        raise Refusal(400, text, param="max_tokens")


def _check_length(order: Order, settings: SimulatorSettings) -> None:
    limit = settings.max_model_len
    for prompt in order.prompts:
        if prompt.tokens >= limit:
            text = (
                f"This model's maximum context length is {limit} tokens. However, your prompt contains at least {prompt.tokens} input "
                "tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input prompt. "
                f"(parameter=input_tokens, value={prompt.tokens})"
            )
            raise Refusal(400, text, param="input_tokens")


def _chat_prompt(messages: list[_ChatMessage], settings: SimulatorSettings) -> Prompt:
    prompt = Prompt()
    prompt.tokens = CHAT_TOKENS
    chain = Chain(prompt, wanted=settings.prefix_cache)
    images = 0
    for message in messages:
        prompt.tokens += MESSAGE_TOKENS
        chain.text(f"<{message.role}>")
        parts = message.content if isinstance(message.content, list) else [_Part("text", message.content or "")]
        for part in parts:
            if part.type == "image_url" and part.image_url is not None:
                images += 1
                _add_image(prompt, chain, part.image_url.url, settings)
            elif part.text is not None:
                prompt.tokens += text_tokens(part.text)
                chain.text(part.text)
    if images > settings.max_images:
        raise Refusal(400, f"At most {settings.max_images} image(s) may be provided in one prompt. (parameter=image)", param="image")
    return prompt


def _add_image(prompt: Prompt, chain: "Chain", url: str, settings: SimulatorSettings) -> None:
    if settings.kind != "vlm":
        raise Refusal(400, f"{settings.names[0]} is not a multimodal model")
    if url.startswith(("http://", "https://")):
        raise Refusal(500, "Cannot connect to host: the simulator fetches nothing", "InternalServerError")
    if url.startswith("file:"):
        raise Refusal(500, "Cannot load local files without `--allowed-local-media-path`.", "InternalServerError")
    try:
        width, height = pixel_size(url)
    except ImageError as error:
        raise Refusal(400, str(error)) from None
    tokens, pixels = image_tokens(width, height, settings)
    prompt.tokens += tokens
    prompt.pixels += pixels
    chain.image(url, tokens)


def _text_prompts(value: Any, field: str, settings: SimulatorSettings) -> list[Prompt]:
    """One prompt per text, or per list of token ids."""
    if isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], int)):
        value = [value]
    if not isinstance(value, list) or not value:
        raise _invalid("type_error", f"body.{field}", "Input should be a valid string or a non-empty list")
    prompts = []
    for item in value:
        prompt = Prompt()
        if isinstance(item, str):
            prompt.tokens = max(1, text_tokens(item))
            Chain(prompt, wanted=settings.prefix_cache).text(item)
        elif isinstance(item, list) and item and all(isinstance(token, int) for token in item):
            prompt.tokens = len(item)
            Chain(prompt, wanted=settings.prefix_cache).text(" ".join(map(str, item)))
        else:
            raise _invalid("type_error", f"body.{field}", "Input should be a valid string or a list of token ids")
        prompts.append(prompt)
    return prompts
