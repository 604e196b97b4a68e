# SPDX-License-Identifier: Apache-2.0
"""One folder that holds files of both distributions of our import name: refused, whichever was
installed last, with the remedy; and our scripts refuse an environment with the other one in it."""

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MARK = "_core.abi3.so"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package as it is installed."""
    spec = importlib.util.find_spec("pulsing")
    assert spec is not None and spec.submodule_search_locations
    copy = tmp_path / "site" / "pulsing"
    for folder in spec.submodule_search_locations:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(folder, copy, dirs_exist_ok=True, ignore=ignored)
    return copy


def import_error(package: Path) -> str:
    env = {**os.environ, "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-S", "-c", "import pulsing"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    return done.stderr if done.returncode else ""


def test_ours_over_theirs_is_refused(package: Path) -> None:
    (package / MARK).touch()
    error = import_error(package)
    assert "ImportError" in error and str(package) in error
    assert "pip uninstall -y pulsing pulsing-shm" in error


def test_theirs_over_ours_is_refused(package: Path) -> None:
    (package / MARK).touch()
    (package / "__init__.py").write_text("from pulsing._core import ActorId\n")
    error = import_error(package)
    assert "ImportError" in error
    assert "pip uninstall -y pulsing pulsing-shm" in error


def test_the_look_is_cheap() -> None:
    from pulsing import _stranger

    times = []
    for _ in range(100):
        begin = time.perf_counter()
        _stranger.refuse()
        times.append(time.perf_counter() - begin)
    assert min(times) < 0.0003


def test_scripts_refuse_an_environment_with_the_stranger(tmp_path: Path) -> None:
    folder = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    info = site / "pulsing-0.1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pulsing\nVersion: 0.1.2\n")
    scripts = ROOT / "scripts"
    command = [str(scripts / "python"), str(scripts / "environment.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip uninstall -y pulsing pulsing-shm" in done.stderr
