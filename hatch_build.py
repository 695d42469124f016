"""Compiles the path of a request, with mypyc, when the project is installed.

Knows mypyc and where its results must lie; the modules are named in pyproject.toml. Law: the same sources are compiled or interpreted, and
mean the same: the tests run both ways. A machine without a C compiler gets the interpreted ones and a warning, never a failed installation,
and every report says which of the two measured (`compiled`). LOADGEN_COMPILE=0 asks for the interpreted ones.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Not our settings of mypy: in the isolated environment of a build most libraries are missing, and their types do not matter here.
_MYPY = ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent"]


class CompiledPath(BuildHookInterface):  # type: ignore[type-arg]  # hatchling's configuration type is its own business
    """What hatchling calls before it builds, and after."""

    _scratch: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile into the wheel, or beside the sources of an editable installation."""
        root = Path(self.root)
        editable = version == "editable"
        if editable:
            _remove(root)
        if os.environ.get("LOADGEN_COMPILE") == "0":
            return
        self._scratch = tempfile.TemporaryDirectory()  # until the wheel is written
        try:
            built = _compile(root, self.config["modules"], Path(self._scratch.name))
        except Exception as fault:
            self.app.display_warning(f"not compiled, the request path will be interpreted and cost about twice as much: {fault}")
            return
        for path, relative in built.items():
            if editable:
                shutil.copyfile(path, root / relative)
            else:
                build_data["force_include"][str(path)] = str(relative)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002  hatchling's signature
        """Leave nothing behind."""
        if self._scratch is not None:
            self._scratch.cleanup()


def _compile(root: Path, modules: list[str], scratch: Path) -> dict[Path, Path]:
    """The libraries made of the modules: where each is, and where it belongs."""
    from mypyc.build import mypycify
    from setuptools import Distribution

    with contextlib.chdir(root), contextlib.redirect_stdout(sys.stderr):
        try:
            extensions = mypycify([*_MYPY, *modules], opt_level="2", debug_level="0", target_dir=str(scratch), group_name="loadgen")
        except SystemExit as fault:  # mypyc's way to say that it found an error
            raise RuntimeError(f"mypyc: {fault}") from None
        command = Distribution({"name": "loadgen", "ext_modules": extensions}).get_command_obj("build_ext")
        command.build_lib, command.build_temp = str(scratch / "lib"), str(scratch / "temp")
        command.ensure_finalized()
        command.run()
    return {path: path.relative_to(scratch / "lib") for path in (scratch / "lib").rglob("*") if path.is_file()}


def _remove(root: Path) -> None:
    """What an earlier installation compiled: it would be imported instead of newer sources."""
    for place in (root, root / "clients", root / "loadgen"):
        for pattern in ("*.so", "*.pyd"):
            for path in place.glob(pattern):
                path.unlink()
