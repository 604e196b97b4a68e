# SPDX-License-Identifier: Apache-2.0
"""Builds and imports the codec's test extension, `codec_harness`, for the running Python."""

from __future__ import annotations

import glob
import importlib.util
import os
import pathlib
import shlex
import subprocess
import sys
import sysconfig
import types

ROOT = pathlib.Path(__file__).resolve().parents[2]
_WARNINGS = (
    "-Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla "
    "-Wno-unused-parameter"
)
_SANITIZE = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -O1"


def sanitized_environment() -> dict[str, str]:
    """For a Python process that loads the sanitized build. Leaks are not looked for: the
    interpreter itself keeps memory to its end."""
    compiler = shlex.split(os.environ.get("CC", "gcc"))
    find = subprocess.run(
        [*compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    )
    return {
        **os.environ,
        "LD_PRELOAD": find.stdout.strip(),
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }


def sources() -> list[str]:
    here = glob.glob(str(ROOT / "python" / "codec*.c"))
    return [
        *sorted(here),
        *(str(ROOT / "base" / name) for name in ("assert.c", "rng.c")),
        str(ROOT / "tests/python/codec_harness.c"),
    ]


def build(sanitize: bool = False) -> pathlib.Path:
    """Compiles below build/, unless what is there is newer than every source."""
    folder = f"codec-{sys.implementation.cache_tag}" + ("-asan" if sanitize else "")
    directory = ROOT / "build" / folder
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / f"codec_harness{sysconfig.get_config_var('EXT_SUFFIX')}"
    inputs = sources() + glob.glob(str(ROOT / "python" / "codec*.h"))
    if target.exists() and all(os.path.getmtime(one) < target.stat().st_mtime for one in inputs):
        return target
    command = [
        *shlex.split(os.environ.get("CC", "gcc")),
        *shlex.split(
            f"-std=gnu11 -g -fPIC -shared -fno-strict-aliasing -fvisibility=hidden {_WARNINGS}"
        ),
        *shlex.split(_SANITIZE if sanitize else "-O2"),
        "-D_GNU_SOURCE",
        f"-I{ROOT}",
        "-isystem",
        sysconfig.get_path("include"),
        *sources(),
        "-o",
        f"{target}.{os.getpid()}",
    ]
    subprocess.run(command, check=True)
    os.replace(f"{target}.{os.getpid()}", target)
    return target


def pulsing_package() -> None:
    """Makes `pulsing._pickling` importable where the extension itself is not built: the codec needs
    three of the package's Python files and nothing else of it."""
    try:
        import pulsing._pickling  # noqa: F401
    except ImportError:
        package = types.ModuleType("pulsing")
        package.__path__ = [str(ROOT / "python" / "pulsing")]
        sys.modules["pulsing"] = package


def load() -> types.ModuleType:
    """The extension; with sanitizers where their runtime is preloaded."""
    pulsing_package()
    sanitize = "libasan" in os.environ.get("LD_PRELOAD", "")
    spec = importlib.util.spec_from_file_location("codec_harness", build(sanitize))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
