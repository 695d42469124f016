"""A key is usable and never shown."""

from __future__ import annotations

import pickle

import pytest

from clients.errors import UsageError
from clients.secret import Secret, masked

KEY = "sk-verysecret-123"


@pytest.mark.parametrize("show", [repr, str, lambda s: f"{s}", lambda s: f"{s:>9}", lambda s: repr([s]), lambda s: f"{s!r}"])
def test_no_way_of_printing_shows_the_key(show) -> None:
    """Every formatting route gives the mask."""
    shown = show(Secret(KEY))
    assert "***" in shown
    assert "sk-" not in shown


def test_reveal_gives_the_key_and_equality_is_by_value() -> None:
    """The value is there for who asks for it by name."""
    assert Secret(KEY).reveal() == KEY
    assert Secret(KEY) == Secret(KEY)
    assert Secret(KEY) != Secret(KEY + "x")
    assert Secret(KEY) != KEY
    assert len({Secret(KEY), Secret(KEY)}) == 1


def test_a_key_survives_pickling() -> None:
    """A client sent to another process is still let in."""
    assert pickle.loads(pickle.dumps(Secret(KEY))) == Secret(KEY)


@pytest.mark.parametrize(
    "value",
    [
        KEY + "\n",  # a file read with its line end
        KEY + "\r\nX-Admin: 1",  # header injection
        KEY + "\0",
        KEY + "\x7f",
        KEY + "\u20ac",  # outside latin-1
        "",
        "   ",
        7,
    ],
)
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(value) -> None:
    """The message names the field, never the value."""
    with pytest.raises(UsageError, match="api_key") as caught:
        Secret(value)
    assert "sk-" not in str(caught.value)


def test_the_environment_gives_a_key_or_none(monkeypatch) -> None:
    """Unset and empty both mean no key."""
    monkeypatch.setenv("A_KEY", KEY)
    assert Secret.from_env("A_KEY") == Secret(KEY)
    monkeypatch.setenv("A_KEY", "")
    assert Secret.from_env("A_KEY") is None
    monkeypatch.delenv("A_KEY")
    assert Secret.from_env("A_KEY") is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"Received key {KEY}.", "Received key ***."),
        (KEY * 2, "******"),
        (f"cut off by a limit: {KEY[:9]}", "cut off by a limit: ***"),
        (f"an excerpt: '{KEY[:-1]}'", "an excerpt: '***'"),
        ("ends in s", "ends in s"),  # one letter of it is no part of it
        ("", ""),
    ],
)
def test_a_key_in_what_others_say_is_masked(text, shown) -> None:
    """Whole, and where a limit cut through it."""
    assert masked(text, [KEY]) == shown
