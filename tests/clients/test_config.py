"""A pipeline's config.yaml: two keys of one section."""

from __future__ import annotations

import pytest

from clients.config import Generation, read_generation
from clients.errors import UsageError


def config(tmp_path, text: str):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("generation:\n  batch_size: 20  # From benchmark results\n  max_concurrent: 50\n", Generation(20, 50)),
        ("generation: {max_concurrent: 8}\n", Generation(None, 8)),
        ("generation:\n  batch_size: null\n  num_samples: 1000\nother: [1, 2]\n", Generation()),  # the pipeline's own keys
        ("generation:\n", Generation()),
        ("", Generation()),
    ],
)
def test_what_the_section_says_is_read_and_the_rest_left(tmp_path, text, found) -> None:
    """Values, comments, absent keys and other sections."""
    assert read_generation(config(tmp_path, text)) == found


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("generation:\n  batch_size: 0\n", "generation.batch_size: got 0"),
        ("generation:\n  batch_size: many\n", "generation.batch_size: got 'many'"),
        ("generation:\n  max_concurrent: 2.5\n", "generation.max_concurrent: got 2.5"),
        ("generation:\n  max_concurrent: true\n", "generation.max_concurrent: got True"),
        ("generation: 5\n", "generation: is int"),
        ("- a\n", "is list"),
        ("a: [1\nb: 2\n", ":2:"),  # the place of the error
        ("a: 1\na: 2\n", ":2:1: not YAML"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_file(tmp_path, text, named) -> None:
    """File, key, what it got; or file, line, column."""
    path = config(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        read_generation(path)
    assert str(path) in str(caught.value)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path) -> None:
    """Not a traceback of open()."""
    with pytest.raises(UsageError, match=r"none\.yaml: cannot be read: No such file"):
        read_generation(tmp_path / "none.yaml")
