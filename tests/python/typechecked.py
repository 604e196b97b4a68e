# SPDX-License-Identifier: Apache-2.0
"""Programs for type checkers whose comments state what a checker must find in them.

`# -> TYPE` stands behind a `reveal_type`, `# !! TEXT` where an error with that text belongs. Every
error and every revealed type has to be stated, and everything stated has to be found.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

_FOUND = re.compile(r"^(\S+?):(\d+): (error|note): (.*?)(?:  \[([\w-]+)\])?$", re.MULTILINE)


def mypy(folder: pathlib.Path, *names: str, plugin: bool = False, strict: bool = False) -> str:
    """What mypy prints about files of a folder; its cache is one for all tests of a session."""
    settings = folder / "mypy.ini"
    lines = ["[mypy]", "check_untyped_defs = True", "show_error_context = False"]
    lines += ["plugins = pulsing.mypy"] if plugin else []
    lines += ["strict = True"] if strict else []
    settings.write_text("\n".join(lines) + "\n")
    kind = f"mypy-{plugin}-{strict}"
    command = [sys.executable, "-m", "mypy", "--config-file", str(settings)]
    command += ["--cache-dir", str(folder.parent / kind), "--no-error-summary", *names]
    environment = {**os.environ, "MYPYPATH": ""}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=110
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def unmet(folder: pathlib.Path, name: str, output: str) -> list[str]:
    """What the comments of a file state and the checker did not say, and the other way round."""
    said: dict[int, list[str]] = {}
    for file, line, kind, text, _ in _FOUND.findall(output):
        revealed = re.match(r'Revealed type is "(.*)"$', text)
        if pathlib.Path(file).name == name and (kind == "error" or revealed):
            said.setdefault(int(line), []).append(revealed[1] if revealed else text)
    wrong = []
    for number, line in enumerate((folder / name).read_text().splitlines(), 1):
        stated = re.findall(r"#(?: ->| !!) (.*)$", line)
        found = said.get(number, [])
        exact = "# ->" in line
        fits = len(stated) == len(found) and all(
            f == s if exact else s in f for s, f in zip(stated, found, strict=True)
        )
        if not fits:
            wrong.append(f"{name}:{number}: stated {stated}, found {found}")
    return wrong
