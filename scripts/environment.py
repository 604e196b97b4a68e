#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A virtual environment that holds this tree: made once, brought up to date when something changed.

    scripts/environment.py FOLDER [--python PYTHON] [--extras a,b] [--define NAME=VALUE] [--quiet]

Prints the environment's interpreter. Two stamps in the environment say what it holds: the packages
(by pyproject.toml's lists) and the tree's own files; where both match, nothing is done.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What ends up in the wheel, or decides how it is built.
WHEEL_SOURCES = ["base", "shm", "gossip", "zmq_transport", "node", "python", "cmake"]
WHEEL_FILES = ["CMakeLists.txt", "pyproject.toml"]
STRANGER = "import importlib.metadata as m; m.version('pulsing')"


class Refusal(Exception):
    """Something that the user has to put right."""


def digest(parts: list[bytes]) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little") + part)
    return total.hexdigest()


def source_stamp(defines: list[str]) -> str:
    command = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "-z", "--"]
    names = subprocess.run(
        command + WHEEL_SOURCES + WHEEL_FILES, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    parts = [define.encode() for define in defines]
    for name in sorted(set(names)):
        path = ROOT / name
        if name and path.is_file():
            parts += [name.encode(), path.read_bytes()]
    return digest(parts)


def requirements(extras: list[str]) -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = list(project["build-system"]["requires"]) + ["ninja"]
    wanted += project["project"]["dependencies"]
    for extra in extras:
        wanted += project["project"]["optional-dependencies"][extra]
    return sorted(set(wanted))


class Environment:
    def __init__(self, folder: Path, base: str, say: bool) -> None:
        self.folder = folder.absolute()
        self.base = base
        self.say = say
        self.python = self.folder / "bin" / "python"

    def step(self, what: str, command: list[str]) -> None:
        begin = time.monotonic()
        if self.say:
            print(f"{what} ...", end=" ", file=sys.stderr, flush=True)
        done = subprocess.run(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if self.say:
            print(f"{time.monotonic() - begin:.1f} s", file=sys.stderr)
        if done.returncode != 0:
            raise Refusal(f"{what}: {' '.join(command)} failed\n{done.stdout}")

    def stamp(self, name: str) -> Path:
        return self.folder / f".pulsing-{name}"

    def holds(self, name: str, value: str) -> bool:
        path = self.stamp(name)
        return path.is_file() and path.read_text() == value

    def make(self) -> None:
        works = self.python.exists() and self.answers("pass")
        if works and self.answers(STRANGER):
            raise Refusal(
                f'{self.folder} holds the unrelated distribution "pulsing", which uses our import '
                f"name.\nRemove it: {self.python} -m pip uninstall -y pulsing pulsing-shm"
            )
        if not works:
            command = [self.base, "-m", "venv", "--clear", str(self.folder)]
            self.step(f"making {self.folder.name} for {self.base}", command)

    def answers(self, program: str) -> bool:
        return (
            subprocess.run([str(self.python), "-I", "-c", program], capture_output=True).returncode
            == 0
        )

    def pip(self, what: str, *arguments: str) -> None:
        command = [str(self.python), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
        self.step(what, command + list(arguments))

    def install_packages(self, extras: list[str]) -> None:
        wanted = requirements(extras)
        value = digest([line.encode() for line in wanted])
        name = "packages-" + "-".join(sorted(extras))
        if not self.holds(name, value):
            self.pip(f"installing packages for {', '.join(extras) or 'building'}", *wanted)
            self.stamp(name).write_text(value)

    def install_tree(self, defines: list[str]) -> None:
        value = source_stamp(defines)
        if self.holds("tree", value):
            return
        self.stamp("tree").unlink(missing_ok=True)
        settings = [f"--config-settings=cmake.define.{define}" for define in defines]
        if defines:
            build = ROOT / "build" / "wheel" / self.folder.name
            settings.append(f"--config-settings=build-dir={build}")
        options = ["--no-build-isolation", "--no-deps", "--force-reinstall", *settings]
        self.pip("building and installing pulsing-shm", *options, str(ROOT))
        self.stamp("tree").write_text(value)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--extras", default="")
    parser.add_argument("--define", action="append", default=[])
    parser.add_argument("--packages-only", action="store_true")
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args()
    environment = Environment(options.folder, options.python, not options.quiet)
    try:
        environment.make()
        environment.install_packages([extra for extra in options.extras.split(",") if extra])
        if not options.packages_only:
            environment.install_tree(options.define)
    except Refusal as refusal:
        print(f"environment: {refusal}", file=sys.stderr)
        return 1
    print(environment.python)
    return 0


if __name__ == "__main__":
    sys.exit(main())
