"""What a server says instead of an answer: refusals by status, error objects in a stream, and the wait it asks for.

Knows the error shapes of vLLM, llama-server, llama_cpp.server, transformers, LiteLLM and of the proxies before them. Knows nothing
of retries: it says what was refused, not what to do.
Invariant: every body, however broken, becomes one RequestError of one line; nothing here raises for what a server can send, and
what looks like a key is not repeated.
"""

from __future__ import annotations

import calendar
import email.utils
import html
import math
import re
from typing import TYPE_CHECKING, Any

import msgspec

from clients.errors import Outcome, RequestError, request_error

if TYPE_CHECKING:
    from collections.abc import Mapping

# What decoding a server's bytes can raise: JSON of another shape, a str of bytes that are no UTF-8, nesting too deep to read.
UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_decode_any = msgspec.json.Decoder(Any).decode

# A 404 by which a model is missing: vLLM's type, OpenAI's code, or the sentence (LiteLLM keeps only that). Others are rate limiting
# or a wrong path, which the body does not tell apart.
_MODEL_MISSING_WORDS = ("notfounderror", "model_not_found")
_MODEL_MISSING = re.compile(r"\bmodel\b.*\b(does not exist|not found)\b", re.IGNORECASE | re.DOTALL)
# Gateways repeat the key they refused (LiteLLM: "Received API Key = sk-..."; others the whole header).
_KEYS = re.compile(r"\b(sk-|hf_|Bearer\s+)[\w.~+/=*-]{4,}", re.IGNORECASE)
_TITLE = re.compile(rb"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
_EXCERPT = 200  # of a body that is no JSON: enough to recognise a gateway's page


def refusal(status: int, body: bytes, retry_after_s: float | None = None, request_id: str = "") -> RequestError:
    """The error of an answer whose status is not 2xx. The status decides its kind; the body gives the words."""
    told = _read_json(body)
    message, code = _words(told) if told is not None else (_plain_text(body), "")
    return request_error(
        _outcome_of_status(status, message, code),
        f"HTTP {status}: {message}" if message else f"HTTP {status}",
        status=status,
        code=code,
        retry_after_s=retry_after_s,
        request_id=request_id,
    )


def _outcome_of_status(status: int, message: str, code: str) -> Outcome:
    if status in (401, 403):
        return Outcome.UNAUTHORIZED
    if status == 404:
        missing = code.lower() in _MODEL_MISSING_WORDS or _MODEL_MISSING.search(message)
        return Outcome.MODEL_MISSING if missing else Outcome.NOT_FOUND
    if status == 429:
        return Outcome.RATE_LIMITED
    if status in (503, 529):  # 529: "overloaded" at gateways that follow Anthropic
        return Outcome.OVERLOADED
    if status >= 500:
        return Outcome.SERVER_FAILED
    if status >= 400:
        return Outcome.BAD_REQUEST
    if status >= 300:
        return Outcome.REDIRECTED
    return Outcome.PROTOCOL


def in_stream_error(told: Any) -> RequestError:
    """The error of an `error` value (an object or a string) in a stream or in the body of a 2xx answer.

    `status` of the result is the number that the server put into `code`, if it is one of HTTP's, since HTTP itself said 200.
    """
    message, code = _words({"error": told})
    status = _status_in(told)
    word = code.lower().replace(" ", "_")
    if status == 429 or (not status and "rate_limit" in word):
        outcome = Outcome.RATE_LIMITED
    elif status == 503 or (not status and ("unavailable" in word or "overloaded" in word)):
        outcome = Outcome.OVERLOADED
    else:
        outcome = Outcome.ERROR_IN_STREAM
    return request_error(outcome, f"error in the answer: {message or code or 'no words'}", status=status, code=code)


def _status_in(told: Any) -> int:
    code = told.get("code") if isinstance(told, dict) else None
    if isinstance(code, str) and len(code) == 3 and code.isdecimal():  # LiteLLM writes numbers as strings
        code = int(code)
    return code if isinstance(code, int) and 400 <= code <= 599 else 0


def bad_event(data: bytes, fault: Exception) -> RequestError:
    """The error of an event that is not JSON of the known shape."""
    return request_error(Outcome.BAD_EVENT, f"an event of the stream cannot be read: {_line(str(fault))}; it begins {_excerpt(data)}")


def bad_body(data: bytes, fault: Exception) -> RequestError:
    """The error of a body that is not JSON of the known shape."""
    return request_error(Outcome.BAD_CONTENT, f"the body cannot be read: {_line(str(fault))}; it begins {_excerpt(data)}")


def _read_json(body: bytes) -> Any:
    try:
        return _decode_any(body)
    except UNDECODABLE:
        return None


def _words(told: Any) -> tuple[str, str]:
    """(message, code) of an error body: `error` an object or a string, `detail` a string or a list, the fields at the top."""
    if isinstance(told, dict) and told.get("error"):
        told = told["error"]
    elif isinstance(told, dict) and told.get("detail"):  # FastAPI: 404, 405; a list of findings for 422
        return _line(_detail(told["detail"])), ""
    if not isinstance(told, dict):
        return _line(told if isinstance(told, str) else repr(told)), ""
    message = told.get("message") or told.get("detail") or told.get("error")
    code = told.get("code")
    # The word says more than the status again: vLLM's code is 404 where its type is NotFoundError.
    if not isinstance(code, str) or not code or code.isdecimal():
        code = told.get("type") or told.get("code") or ""
    return _line(message if isinstance(message, str) else repr(message) if message else ""), _line(str(code))[:64]


def _detail(detail: Any) -> str:
    if isinstance(detail, str):
        return detail
    findings = detail if isinstance(detail, list) else [detail]
    return "; ".join(
        f"{'.'.join(map(str, loc)) if isinstance(loc := finding.get('loc'), list) else loc}: {finding.get('msg')}"
        if isinstance(finding, dict)
        else repr(finding)
        for finding in findings[:8]  # a validator reports one finding for each alternative it tried
    )


def _plain_text(body: bytes) -> str:
    """The title of an HTML page, or the beginning of what is there."""
    title = _TITLE.search(body)
    text = (title.group(1) if title else body[: 4 * _EXCERPT]).decode("utf-8", "replace")
    return _line(html.unescape(text))[:_EXCERPT]


def _excerpt(data: bytes) -> str:
    return repr(_line(data[:80].decode("utf-8", "replace")))


def _line(text: str) -> str:
    return _KEYS.sub(r"\1***", " ".join(text.split()))


def parse_retry_after(headers: Mapping[str, str], now_wall_s: float) -> float | None:
    """The wait in seconds that a server asked for, None if it named none that can be read.

    headers: lower-case names, or a mapping that ignores case. now_wall_s: time.time(), for the form that is a date; a date that
    has passed is 0. Negative, infinite and unreadable values are no wait at all; the next header is looked at then.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    for name in ("retry-after", "llm_provider-retry-after"):  # the second: LiteLLM's 429 has only that
        value = headers.get(name)
        seconds = _number(value)
        if seconds is None:
            seconds = _until(value, now_wall_s)
        if seconds is not None:
            return seconds
    return None


def _number(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else math.nan
    except ValueError:
        return None
    return number if 0 <= number < math.inf else None


def _until(value: str | None, now_wall_s: float) -> float | None:
    try:
        date = email.utils.parsedate_tz(value) if value else None
        if date is None:
            return None
        return max(0.0, calendar.timegm(date[:9]) - (date[9] or 0) - now_wall_s)
    except (ValueError, OverflowError, IndexError, TypeError):  # dates such as the 99th, the year 99999
        return None
