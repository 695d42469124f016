"""The directory of a run: private, its own, whole files, a log without keys."""

import logging
import os
import stat
from pathlib import Path

import pytest

from clients.errors import UsageError
from clients.secret import Secret
from loadgen.rundir import RunDirectory, check_results, run_key, slugged, write_whole


def test_a_run_directory_is_private_and_named_by_time_command_and_model(tmp_path):
    """`<UTC time>-<command>-<slug>-<4 characters>`, mode 0700 whatever the umask says."""
    old = os.umask(0o277)
    try:
        with RunDirectory.create(tmp_path / "results", "grid", "gpt-oss-20b") as run:
            assert stat.S_IMODE(run.path.stat().st_mode) == 0o700
    finally:
        os.umask(old)
        (tmp_path / "results").chmod(0o700)
    stamp, command, *slug, ending = run.id.split("-")
    assert (len(stamp), stamp[8], stamp[-1], command, "-".join(slug), len(ending)) == (16, "T", "Z", "grid", "gpt-oss-20b", 4)


def test_two_runs_never_share_a_directory(tmp_path):
    """Runs started in the same second get directories of their own."""
    runs = [RunDirectory.create(tmp_path, "bench", "m") for _ in range(8)]
    assert len({run.path for run in runs}) == 8
    for run in runs:
        run.close()


def test_files_of_a_run_are_private_and_replaced_whole(tmp_path):
    """A second write replaces the first; nothing temporary is left."""
    with RunDirectory.create(tmp_path, "bench", "m") as run:
        run.write("run.json", b"1")
        path = run.write("run.json", b"22")
        assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"22", 0o600)
        assert sorted(entry.name for entry in run.path.iterdir()) == ["lock", "plans", "run.json"]


def test_a_write_that_fails_keeps_what_was_there(tmp_path, monkeypatch):
    """A full disk at the end of a run leaves the document of before and no temporary file."""
    target = tmp_path / "run.json"
    write_whole(target, b"before", mode=0o600)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("loadgen.rundir.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(target, b"after", mode=0o600)
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("run.json", b"before")]


def test_a_results_directory_that_cannot_be_written_is_a_usage_error(tmp_path):
    """Faults A10: a file in its place, below a file, or refused by the system: one line, before any load."""
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "deeper", "/proc/nothing/results"):
        with pytest.raises(UsageError, match=r"^--results-dir: .*takes a directory that can be written$"):
            RunDirectory.create(type(tmp_path)(place), "grid", "m")
    for place in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(UsageError, match=r"^--results-dir: .*takes a directory that can be written$"):
            check_results(place)


def test_the_check_of_a_results_directory_makes_none(tmp_path):
    """It looks at the nearest directory that exists."""
    check_results(tmp_path / "not" / "yet")
    assert list(tmp_path.iterdir()) == []


def test_a_current_directory_that_was_removed_is_a_usage_error(tmp_path, monkeypatch):
    """A shell stays in a directory that is gone."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UsageError, match="--results-dir: cannot write in 'results'"):
        check_results(Path("results"))


def test_the_log_never_holds_a_key(tmp_path):
    """A key in a message, in an argument or in a traceback is masked."""
    key = Secret("sk-very-secret")
    with RunDirectory.create(tmp_path, "bench", "m") as run:
        run.open_log([key])
        logging.getLogger("loadgen.fleet").info("started with %s", "Bearer sk-very-secret")
        try:
            int("refused sk-very-secret")
        except ValueError:
            logging.getLogger("clients.transport").exception("failed")
    text = (run.path / "log.txt").read_text()
    assert "sk-very-secret" not in text
    assert "started with Bearer ***" in text
    assert "ValueError" in text
    assert stat.S_IMODE((run.path / "log.txt").stat().st_mode) == 0o600
    logging.getLogger("loadgen.fleet").info("after the end")
    assert "after the end" not in (run.path / "log.txt").read_text()


def test_plan_directories_come_in_the_order_of_their_numbers(tmp_path):
    """Plans are found again by number, past 999 too; other entries are passed over."""
    with RunDirectory.create(tmp_path, "grid", "m") as run:
        for number in (1000, 2, 999):
            run.plan_directory(number, f"b4 c{number}")
        (run.path / "plans" / "notes-x").mkdir()
        assert [path.name for path in run.plan_directories()] == ["002-b4-c2", "999-b4-c999", "1000-b4-c1000"]


def test_a_running_run_is_known_by_its_lock(tmp_path):
    """`loadgen report` of a run that goes on must not write in its directory; after its end it may."""
    run = RunDirectory.create(tmp_path, "grid", "m")
    other = RunDirectory.existing(run.path)
    assert (other.is_running(), other.id, other.key) == (True, run.id, run_key(run.id))
    run.close()
    assert not other.is_running()


def test_what_is_no_run_is_refused(tmp_path):
    """A missing path, a file, and an empty directory are usage errors that say what is taken."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "missing", tmp_path / "file", tmp_path):
        with pytest.raises(UsageError, match="takes the directory of a run"):
            RunDirectory.existing(path)


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("org/Model 7B:latest", "org-model-7b-latest"),  # what stands in served names
        ("../../etc", "etc"),  # no way out of the results directory
        ("模型", "run"),  # nothing left
        ("x" * 99, "x" * 40),  # file names have a limit
    ],
)
def test_a_name_becomes_a_piece_of_a_file_name(text, slug):
    """Slugs hold only `a-z 0-9 . _ -`."""
    assert slugged(text) == slug
