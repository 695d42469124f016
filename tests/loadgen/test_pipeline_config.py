"""A pipeline's config.yaml: two keys merged, everything else as it was."""

import os
import stat

import pytest

from clients.config import read_generation
from clients.errors import UsageError
from loadgen.pipeline_config import check_config, pipeline_yaml, write_config

KEPT = """\
# The pipeline of the team
model: "olmocr"     # quoted on purpose
paths: {in: ./a, out: './b'}

generation:
  temperature: 0.10  # a float with its zero
  batch_size: 20          # From benchmark results
  stop: ["\\n", 'x']

stages:
  - ocr
  - clean   # last
big: 1_000
"""


def test_only_the_two_keys_change(tmp_path):
    """Comments, order, quotes, blank lines and number formats stay; the key that was missing is added to its section."""
    path = tmp_path / "config.yaml"
    path.write_text(KEPT)
    write_config(path, 32, 64)
    expected = KEPT.replace("batch_size: 20 ", "batch_size: 32 ").splitlines()
    got = path.read_text().splitlines()
    assert [line for line in got if "max_concurrent" not in line] == expected
    assert "  max_concurrent: 64" in got
    assert read_generation(path).max_concurrent == 64


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "generation:\n  batch_size: 4\n  max_concurrent: 8\n"),  # no file yet
        ("", "generation:\n  batch_size: 4\n  max_concurrent: 8\n"),  # an empty one
        ("# mine\n", "# mine\n\ngeneration:\n  batch_size: 4\n  max_concurrent: 8\n"),  # comments only
        ("a: 1\n", "a: 1\ngeneration:\n  batch_size: 4\n  max_concurrent: 8\n"),  # no section
        ("generation:\n", "generation:\n  batch_size: 4\n  max_concurrent: 8\n"),  # an empty section
        ("generation: {batch_size: 1}\n", "generation: {batch_size: 4, max_concurrent: 8}\n"),  # in flow style
        ("---\na: 1\n", "---\na: 1\ngeneration:\n  batch_size: 4\n  max_concurrent: 8\n"),  # with its mark
        ("a:\n    - 1\n", "a:\n    - 1\ngeneration:\n  batch_size: 4\n  max_concurrent: 8\n"),  # indented lists
        ("a: 1\r\n", "a: 1\r\ngeneration:\r\n  batch_size: 4\r\n  max_concurrent: 8\r\n"),  # Windows' line ends
        ("\ufeffa: 1\n", "\ufeffa: 1\ngeneration:\n  batch_size: 4\n  max_concurrent: 8\n"),  # a byte order mark
    ],
)
def test_each_kind_of_file_is_merged_into(tmp_path, before, after):
    """From no file at all to a file in another style."""
    path = tmp_path / "config.yaml"
    if before is not None:
        path.write_bytes(before.encode())
    check_config(path)
    write_config(path, 4, 8)
    assert path.read_bytes().decode() == after


def test_no_barrier_is_null_and_the_clients_read_it_so(tmp_path):
    """`batch_size: null` is what the clients take for no batches."""
    path = tmp_path / "config.yaml"
    write_config(path, None, 8)
    assert path.read_text() == pipeline_yaml(None, 8)
    generation = read_generation(path)
    assert (generation.batch_size, generation.max_concurrent) == (None, 8)


def test_mode_and_link_stay(tmp_path):
    """A config that is a link to a private file stays both."""
    real = tmp_path / "real.yaml"
    real.write_text("a: 1\n")
    real.chmod(0o640)
    link = tmp_path / "config.yaml"
    link.symlink_to(real)
    write_config(link, 4, 8)
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert "max_concurrent: 8" in real.read_text()
    assert sorted(os.listdir(tmp_path)) == ["config.yaml", "real.yaml"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"- 1\n- 2\n", "holds a list; takes a mapping"),
        (b"just text\n", "takes a mapping"),
        (b"a: [1\nb: 2\n", "config.yaml:2:"),  # a syntax error has its place
        (b"generation: 5\n", "'generation' in"),  # the section is something else
        (b"a: \xff\n", "is no UTF-8 text (byte 3)"),
        (b"a: 1\na: 2\n", "config.yaml:2:1"),  # a duplicate key: which one is meant?
    ],
)
def test_a_file_that_cannot_be_merged_into_is_refused_before_any_load(tmp_path, content, said):
    """check_config says it in one line, and the file is untouched."""
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        check_config(path)
    assert str(caught.value).startswith("--write-config: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


def test_a_directory_and_a_missing_parent_are_refused(tmp_path):
    """Found before the load, not after hours of it."""
    for path in (tmp_path, tmp_path / "none" / "config.yaml"):
        with pytest.raises(UsageError, match="^--write-config: "):
            check_config(path)
