# SPDX-License-Identifier: Apache-2.0
"""scripts/tidy.py: a clean tree passes, and each rule fails on a sample that breaks it."""

import subprocess
import sys
from pathlib import Path

import pytest

TIDY = Path(__file__).resolve().parents[2] / "scripts" / "tidy.py"
SPDX_C = "/* SPDX-License-Identifier: Apache-2.0 */\n"
SPDX_PY = "# SPDX-License-Identifier: Apache-2.0\n"
CONTRACT = "/* Does it. Threads: any thread; never blocks. */\n"

CLEAN = {
    "base/thing.h": SPDX_C + CONTRACT + "int pls_thing_do(int a, int b);\n",
    "base/thing.c": SPDX_C
    + '#include "base/thing.h"\n\n#include <stdio.h>\n\nint pls_thing_do(int a, int b)\n{\n'
    + '    /* strcpy( in a comment, and "sprintf(" in a literal, are no calls */\n'
    + '    return puts("sprintf(atoi())") + a + b;\n}\n',
    "node/pulsing.h": SPDX_C + '#include "shm/ring.h"\n',
    "shm/ring.h": SPDX_C
    + "/* Opens. Threads: owner thread, as for every function of this header. */\n"
    + "int pls_ring_open(int a);\n\n/* Closes. */\n"
    + "int pls_ring_close(int a,\n                   int b);\nint pls_ring_drop(int a);\n",
    "python/type_ref.c": SPDX_C + '#include "node/pulsing.h"\n',
    "python/pulsing/ref.py": SPDX_PY + "x = 1\n",
    "tests/base/thing_test.c": SPDX_C + '#include "base/thing.h"\n\nint f(void)\n{\n'
    "    return fork();\n}\n",
    "README.md": "# Title\n\n----------\n",
}

# rule: path and text of a file that breaks it, and the line that must be named
BAD = {
    "layering: shm knows gossip": ("shm/a.c", SPDX_C + '#include "gossip/wire.h"\n', 2),
    "layering: base knows shm": ("base/a.c", SPDX_C + '#include "shm/ring.h"\n', 2),
    "layering: python passes pulsing.h by": ("python/a.c", SPDX_C + '#include "node/peers.h"\n', 2),
    "layering: python knows shm": ("python/a.c", SPDX_C + '#include "shm/ring.h"\n', 2),
    "layering: gossip has a clock": ("gossip/a.c", SPDX_C + "#include <time.h>\n", 2),
    "include: czmq outside its file": ("zmq_transport/a.c", SPDX_C + "#include <czmq.h>\n", 2),
    "include: not from the root": ("shm/a.c", SPDX_C + '#include "ring.h"\n', 2),
    "platform: fork in a ring": (
        "shm/ring.c",
        SPDX_C + "int f(void)\n{\n    return fork();\n}\n",
        4,
    ),
    "length: function of 71 lines": (
        "shm/a.c",
        SPDX_C + "int f(void)\n{\n" + "    f();\n" * 68 + "}\n",
        2,
    ),
    "length: .c of 601 lines": ("shm/a.c", SPDX_C + "int x;\n" * 600, 601),
    "length: .h of 251 lines": ("shm/a.h", SPDX_C + "\n" * 250, 251),
    "parameters: seven": (
        "shm/a.c",
        SPDX_C + "static int f(int a, int b, int c, int (*d)(int, int), int e, int g,\n"
        "             int h)\n{\n    return 0;\n}\n",
        2,
    ),
    "columns: 101 in C": ("shm/a.c", SPDX_C + "/* " + "x" * 95 + " */\n", 2),
    "columns: 101 in Python": ("scripts/a.py", SPDX_PY + "#" + "x" * 100 + "\n", 2),
    "contract: none": ("shm/a.h", SPDX_C + "int pls_a(void);\n", 2),
    "contract: parted by an empty line": ("shm/a.h", SPDX_C + CONTRACT + "\nint pls_a(void);\n", 4),
    "contract: no thread line": ("shm/a.h", SPDX_C + "/* Does it. */\nint pls_a(void);\n", 3),
    "contract: on two lines": ("shm/a.h", SPDX_C + "int pls_a(int a,\n          int b);\n", 2),
    "ban: strcpy": ("shm/a.c", SPDX_C + "int f(void)\n{\n    strcpy(a, b);\n}\n", 4),
    "ban: sprintf": ("tests/shm/a.c", SPDX_C + "int f(void)\n{\n    sprintf(a, b);\n}\n", 4),
    "ban: atoi": ("node/a.c", SPDX_C + "int x = atoi(y);\n", 2),
    "ban: rand": ("node/a.c", SPDX_C + "int x = rand();\n", 2),
    "ban: PyGILState": ("python/a.c", SPDX_C + "int x = PyGILState_Ensure();\n", 2),
    "ban: private API": ("python/a.c", SPDX_C + "int x = _PyLong_Sign(y);\n", 2),
    "ban: static type": ("python/a.c", SPDX_C + "static PyTypeObject ref_type = {0};\n", 2),
    "words: for later": ("python/pulsing/a.py", SPDX_PY + "x = 1  # TO" + "DO: more\n", 2),
    "words: for later in C": ("shm/a.c", SPDX_C + "/* FIX" + "ME */\n", 2),
    "words: banner": ("shm/a.c", SPDX_C + "/* " + "-" * 20 + " */\n", 2),
    "words: banner in Python": ("scripts/a.py", SPDX_PY + "# " + "=" * 20 + "\n", 2),
    "words: machine path": ("docs/a.md", "Look into /ro" + "ot/thing.\n", 1),
    "words: registry host": ("docs/a.md", "See py" + "pi.org for more.\n", 1),
    "words: author": ("docs/a.md", "@auth" + "or: somebody\n", 1),
    "licence: C": ("shm/a.c", "int x;\n", 1),
    "licence: Python": ("scripts/a.py", "#!/usr/bin/env python3\nx = 1\n", 2),
    "name: helpers": ("shm/ring_helpers.c", SPDX_C, 1),
}


def run_on(root: Path, files: dict[str, str]) -> subprocess.CompletedProcess[str]:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    command = [sys.executable, str(TIDY), str(root)]
    return subprocess.run(command, capture_output=True, text=True)


def test_clean_tree_passes(tmp_path: Path) -> None:
    done = run_on(tmp_path, CLEAN)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", BAD)
def test_bad_sample_is_named(name: str, tmp_path: Path) -> None:
    path, text, line = BAD[name]
    done = run_on(tmp_path, CLEAN | {path: text})
    assert done.returncode == 1, "nothing was found"
    found = done.stdout.splitlines()
    assert len(found) == 1, done.stdout
    assert found[0].startswith(f"{path}:{line}: ")
    assert found[0].endswith(f"({name.split(':')[0]})")


def test_zeromq_in_its_file_passes(tmp_path: Path) -> None:
    done = run_on(tmp_path, {"zmq_transport/socket.c": SPDX_C + "#include <zmq.h>\n"})
    assert done.returncode == 0, done.stdout


def test_ignored_files_are_not_read(tmp_path: Path) -> None:
    done = run_on(tmp_path, {".gitignore": "/build/\n", "build/a.c": "int x = atoi(y);\n"})
    assert done.returncode == 0, done.stdout
