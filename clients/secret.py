"""A key that cannot be shown by accident.

Knows one string, when it may be used in a header and how it is taken out of what others say; knows nothing of where keys are sent.
Law: only `reveal()` gives the value. `repr`, `str`, `format` and every message here show `***`, whatever the value is.
"""

from __future__ import annotations

import hmac
import os
from typing import TYPE_CHECKING

from clients.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

MASK = "***"

# Below it no key is secret (vLLM takes any; "EMPTY" and "none" are usual), and to mask such a word would spoil the sentences it is in.
SHORTEST = 8
_CUT = 4  # characters of a key at the end of a text that was cut off: fewer say nothing, and words would be taken for them


def masked(text: str, credentials: Iterable[str]) -> str:
    """The text with *** for each of the credentials, the longest first, also for the beginning of one that the end of the text cut off."""
    for value in credentials:
        text = text.replace(value, MASK)
        words = text.rstrip("'\"")  # an excerpt is quoted
        for size in range(len(value) - 1, _CUT - 1, -1):
            if words.endswith(value[:size]):
                text = words[:-size] + MASK + text[len(words) :]
                break
    return text


class Secret:
    """An API key. `Secret("sk-1").reveal()` is the key; everything else shows `***`.

    Raises UsageError (without the value) for what cannot stand in an HTTP header: control characters, characters outside
    latin-1, or nothing at all.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        if not isinstance(value, str):
            raise UsageError(f"api_key: got {type(value).__name__}, takes a string")
        if not value.strip():
            raise UsageError("api_key: is empty, takes the key or None for no key")
        # A header's value is latin-1 without controls (RFC 9110 5.5); a newline would let a key inject a header.
        if any(ord(character) < 0x20 or ord(character) == 0x7F for character in value):
            raise UsageError("api_key: has a control character (a newline at its end?), takes one line of text")
        if any(ord(character) > 0xFF for character in value):
            raise UsageError("api_key: has a character outside latin-1, which no HTTP header can carry")
        self._value = value

    def reveal(self) -> str:
        """The key itself, for the header that needs it."""
        return self._value

    @classmethod
    def from_env(cls, name: str) -> Secret | None:
        """The key in the environment variable `name`; None where it is unset or empty."""
        value = os.environ.get(name, "")
        return cls(value) if value else None

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode("latin-1"), other._value.encode("latin-1"))

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        """Pickles with its value: a client that moves to another process must still be let in."""
        return Secret, (self._value,)
