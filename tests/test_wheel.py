"""What users install: the built wheel, without the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DEADLINE_S = 110


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    directory = tmp_path_factory.mktemp("wheel")
    words = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--wheel-dir",
        str(directory),
        str(ROOT),
    ]
    subprocess.run(words, check=True, timeout=DEADLINE_S, capture_output=True)
    [built] = directory.glob("loadgen-*.whl")
    return built


def test_the_wheel_holds_the_two_rooms_and_their_data_and_nothing_else(wheel):
    """Profiles, models and typing markers are in; tests and results are not."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    compiled = {top for top in tops if top.startswith("loadgen__mypyc.")}  # where there is a C compiler
    assert {top for top in tops if not top.endswith(".dist-info")} - compiled == {"clients", "loadgen"}
    assert {"clients/models.toml", "clients/py.typed", "loadgen/profiles.toml", "loadgen/py.typed"} <= set(names)


def test_the_installed_wheel_runs_the_main_job_without_the_checkout(wheel, tmp_path):
    """Command, workers and simulator all come from the installed package, from a directory that holds a `clients` of its own."""
    site = tmp_path / "site"
    words = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(words, check=True, timeout=DEADLINE_S, capture_output=True)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "clients").mkdir(parents=True)
    (elsewhere / "clients" / "__init__.py").write_text("raise ImportError('the wrong one')\n")
    environment = {**os.environ, "PYTHONPATH": str(site)}
    code = "import loadgen, clients, sys; sys.stdout.write(loadgen.__file__ + ' ' + clients.__file__)"
    found = subprocess.run([sys.executable, "-P", "-c", code], cwd=elsewhere, env=environment, capture_output=True, text=True, check=True)
    assert all(path.startswith(str(site)) for path in found.stdout.split())
    words = [str(site / "bin" / "loadgen"), "grid", "--model", "olmocr", "--simulate", "--sim-time-scale", "0.02", "--max-tokens", "8"]
    words += ["--concurrencies", "1,4", "--batch-sizes", "2", "--num-requests", "12", "--repeats", "1", "--processes", "2"]
    done = subprocess.run([sys.executable, *words], cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr
    assert "max_concurrent: 4" in done.stdout
    assert len(list((elsewhere / "results").iterdir())) == 1
