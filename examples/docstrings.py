# SPDX-License-Identifier: Apache-2.0
"""The corpus of semantic_search.py: every docstring of this Python's standard library and of the
packages installed beside it, read from their sources without importing anything."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import sys
import sysconfig
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Passage(NamedTuple):
    name: str
    text: str

    def document(self) -> str:
        """What is embedded: the words of the name, then the text."""
        words = re.sub(r"([a-z])([A-Z])", r"\1 \2", re.sub(r"[._]+", " ", self.name))
        return f"{words}\n{self.text}"

    def headline(self) -> str:
        return self.text.strip().splitlines()[0]


def source_files(packages_too: bool) -> list[tuple[Path, str]]:
    """Python files of the standard library and of site-packages, with the name of each module."""
    found = {}
    library = Path(sysconfig.get_path("stdlib"))
    folders = ("purelib", "platlib") if packages_too else ()
    packages = [Path(sysconfig.get_path(name)) for name in folders]
    for root in [*dict.fromkeys(packages), library]:
        for path in root.rglob("*.py"):
            if root == library and {"site-packages", "dist-packages"} & set(path.parts):
                continue
            parts = path.relative_to(root).with_suffix("").parts
            if parts[-1] == "__init__" and len(parts) > 1:
                parts = parts[:-1]
            # Pulsing's own would make a new corpus, and a new model, with every build of the tree.
            if parts[0] != "pulsing":
                found.setdefault(path, ".".join(parts))
    return sorted(found.items())


def passages_of(path: Path, module: str) -> list[Passage]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        # The standard library's own tests hold files that are no Python on purpose.
        return []
    found = []

    def visit(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, DOCUMENTED):
                inner = f"{name}.{child.name}"
                add(child, inner)
                visit(child, inner)
            elif not isinstance(child, ast.expr):
                visit(child, name)

    def add(node: ast.AST, name: str) -> None:
        text = ast.get_docstring(node)
        if text:
            found.append(Passage(name, text.encode(errors="replace").decode()))

    add(tree, module)
    visit(tree, module)
    return found


def passages_of_many(files: list[tuple[Path, str]]) -> list[Passage]:
    return [passage for path, module in files for passage in passages_of(path, module)]


def collect(files: list[tuple[Path, str]]) -> list[Passage]:
    shares = [files[start : start + 100] for start in range(0, len(files), 100)]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return [passage for share in pool.map(passages_of_many, shares) for passage in share]


def fingerprint(files: list[tuple[Path, str]]) -> str:
    """Changes with the interpreter and with the files that would be read."""
    total = hashlib.sha256(sys.version.encode())
    for path, module in files:
        total.update(f"{module} {path.stat().st_size}\n".encode())
    return total.hexdigest()[:16]


class Corpus(NamedTuple):
    passages: list[Passage]
    fingerprint: str
    cached: bool


def load(cache: Path, packages_too: bool = True) -> Corpus:
    files = source_files(packages_too)
    print_of_files = fingerprint(files)
    path = cache / f"docstrings-{print_of_files}.json"
    if path.is_file():
        passages = [Passage(*pair) for pair in json.loads(path.read_text())]
        return Corpus(passages, print_of_files, True)
    passages = collect(files)
    cache.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(passages))
    partial.replace(path)
    return Corpus(passages, print_of_files, False)
