"""The directory of one run: where its files are, who may read them, and that it is the only run in it.

Knows names, modes and how a file is replaced; must not know what is in the files. Layout:

    results/<UTC time>-<command>-<slug>-<4 random characters>/
        run.json, log.txt, lock, workload.bin
        plans/<NNN>-<label>/{plan.json, server.json, server-series.jsonl, worker-<i>.records}

Law: a directory belongs to one run, found private (0700) from its first moment; a document in it is whole or is the one
before, whatever dies while it is written.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import re
import secrets
import time
from typing import TYPE_CHECKING, Self

from clients.errors import UsageError
from clients.secret import MASK, Secret

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType

# Without letters that are mistaken for others when an id is read aloud or typed.
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_SLUG_LIMIT = 40
_LOGGED_ROOMS = ("loadgen", "clients")


def check_results(results_dir: Path) -> None:
    """Raise UsageError unless a run directory can be made in `results_dir`, as far as can be told without making one."""
    try:
        place = results_dir.absolute()
    except OSError as error:  # the current directory was removed
        raise UsageError(unwritable(results_dir, error)) from None
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise UsageError(unwritable(results_dir, NotADirectoryError()))
    if not os.access(place, os.W_OK | os.X_OK):
        raise UsageError(unwritable(results_dir, OSError(errno.EACCES, os.strerror(errno.EACCES))))


class RunDirectory:
    """One run's directory. `create` makes a new one and locks it; `existing` opens one that a run left, without a lock.

    id: its name, unique. key: the 16 bytes that mark the run's record files.
    """

    def __init__(self, path: Path, lock: int | None) -> None:
        self.path = path
        self.id = path.name
        self._lock = lock
        self._log: logging.Handler | None = None

    @classmethod
    def create(cls, results_dir: Path, command: str, slug: str) -> RunDirectory:
        """A new, private, locked directory in `results_dir` (made if missing).

        Raises UsageError when nothing can be made there: this is called before any load.
        """
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        try:
            results_dir.mkdir(parents=True, exist_ok=True)
            while True:
                ending = "".join(secrets.choice(_ALPHABET) for _ in range(4))
                path = results_dir / f"{stamp}-{command}-{slugged(slug)}-{ending}"
                try:
                    path.mkdir(mode=0o700)
                except FileExistsError:
                    continue
                break
            path.chmod(0o700)  # mkdir's mode is cut by the umask; this one is not
            (path / "plans").mkdir(mode=0o700)
            lock = _locked(path)
        except OSError as error:
            raise UsageError(unwritable(results_dir, error)) from None
        if lock is None:  # cannot be: the name was free a moment ago
            raise UsageError(f"--results-dir: {path} is in use by another run")
        return cls(path, lock)

    @classmethod
    def existing(cls, path: Path) -> RunDirectory:
        """The directory that a run left; raises UsageError when `path` is none."""
        if not path.is_dir():
            raise UsageError(f"RUN: got {str(path)!r}, which is no directory; takes the directory of a run (results/<id>)")
        if not (path / "run.json").is_file() and not (path / "plans").is_dir():
            raise UsageError(f"RUN: {str(path)!r} has neither run.json nor plans/; takes the directory of a run (results/<id>)")
        return cls(path.resolve(), None)

    @property
    def key(self) -> bytes:
        """What record files carry to show which run they belong to (16 bytes)."""
        return run_key(self.id)

    @property
    def document_path(self) -> Path:
        return self.path / "run.json"

    @property
    def workload_path(self) -> Path:
        return self.path / "workload.bin"

    def plan_directory(self, number: int, label: str) -> Path:
        """Make and return the directory of one plan, `plans/007-b4-c8`. Raises OSError, too when the run's own was removed."""
        path = self.path / "plans" / f"{number:03d}-{slugged(label)}"
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def plan_directories(self) -> list[Path]:
        """Those that are there, in the order of their numbers."""
        found = [path for path in (self.path / "plans").glob("*-*") if path.is_dir() and path.name.split("-")[0].isdigit()]
        return sorted(found, key=lambda path: (int(path.name.split("-")[0]), path.name))

    def write(self, name: str, content: bytes) -> Path:
        """Write a file of the run whole: a reader sees all of `content`, or what was there before. Raises OSError."""
        path = self.path / name
        write_whole(path, content, mode=0o600)
        return path

    def open_log(self, keys: Iterable[Secret]) -> None:
        """Send the log of this project's rooms to log.txt; none of `keys` ever appears there."""
        if self._log is not None:
            return
        descriptor = os.open(self.path / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        handler = logging.StreamHandler(os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace"))
        handler.setFormatter(_Redacting([key.reveal() for key in keys]))
        for room in _LOGGED_ROOMS:
            logger = logging.getLogger(room)
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
        self._log = handler

    def is_running(self) -> bool:
        """Whether another process holds this directory: its run has not ended."""
        if self._lock is not None or not (self.path / "lock").exists():
            return False
        try:
            descriptor = _locked(self.path)
        except OSError:  # a run kept on a read-only disk is not running
            return False
        if descriptor is None:
            return True
        os.close(descriptor)
        return False

    def close(self) -> None:
        """Close the log and give the lock back."""
        if self._log is not None:
            for room in _LOGGED_ROOMS:
                logging.getLogger(room).removeHandler(self._log)
            assert isinstance(self._log, logging.StreamHandler)
            self._log.stream.close()
            self._log = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<RunDirectory {self.id}{'' if self._lock is None else ' locked'}>"


def run_key(run_id: str) -> bytes:
    """The 16 bytes that stand for a run's id in its record files."""
    return hashlib.blake2b(run_id.encode(), digest_size=16).digest()


def slugged(text: str) -> str:
    """`text` as a piece of a file name: lower case, `a-z 0-9 . _ -`, at most 40 characters; `run` when nothing is left."""
    slug = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-.")
    return slug[:_SLUG_LIMIT].rstrip("-.") or "run"


def write_whole(path: Path, content: bytes, *, mode: int) -> None:
    """Replace `path` by `content` in one step: temporary file beside it, fsync, rename, fsync of the directory."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class _Redacting(logging.Formatter):
    """One line per event in UTC; the text is searched after formatting, so keys in tracebacks are found as well."""

    converter = staticmethod(time.gmtime)

    def __init__(self, keys: list[str]) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")
        self._keys = sorted(keys, key=len, reverse=True)  # a key that is part of another must not break it up

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        for key in self._keys:
            text = text.replace(key, MASK)
        return text


def _locked(path: Path) -> int | None:
    """A descriptor that holds the directory's lock, or None when another has it. The kernel gives it back at any death."""
    descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in {errno.EAGAIN, errno.EACCES}:
            return None
        raise
    return descriptor


def unwritable(results_dir: Path, error: OSError) -> str:
    """What to say of a results directory that refused."""
    if isinstance(error, (NotADirectoryError, FileExistsError)):
        return f"--results-dir: {str(results_dir)!r} is a file or below one; takes a directory that can be written"
    return f"--results-dir: cannot write in {str(results_dir)!r} ({error.strerror}); takes a directory that can be written"
