# SPDX-License-Identifier: Apache-2.0
"""The look at what a test leaves behind sees each kind of thing, and nothing where nothing is."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).parent

LEAVE = """
import mmap, os, socket, subprocess

KEPT = []


def test_nothing():
    subprocess.run(["true"])


def test_process():
    subprocess.Popen(["sleep", "60"])


def test_daemon():
    subprocess.run(["sh", "-c", "setsid sleep 60 >/dev/null 2>&1 &"])


def test_dead_child():
    KEPT.append(os.posix_spawn("/bin/true", ["true"], {}))


def test_descriptor():
    KEPT.append(os.open("/dev/zero", 0))


def test_memfd():
    KEPT.append(os.memfd_create("kept"))


def test_mapping():
    fd = os.memfd_create("mapped")
    os.truncate(fd, 4096)
    KEPT.append(mmap.mmap(fd, 4096))
    os.close(fd)


def test_abstract_socket():
    KEPT.append(socket.socket(socket.AF_UNIX))
    KEPT[-1].bind("\\0pulsing-test-file")


def test_socket_file():
    with socket.socket(socket.AF_UNIX) as it:
        it.bind("pulsing-test-file.sock")


def test_socket_file_of_its_own(tmp_path):
    with socket.socket(socket.AF_UNIX) as it:
        it.bind(str(tmp_path / "own.sock"))


def test_shm_file():
    open(os.environ["PULSING_TEST_SHM"] + "/pulsing-test-file", "w").close()
"""

SEEN = {
    "test_process": "process ",
    "test_daemon": "process ",
    "test_dead_child": "ended child",
    "test_descriptor": "1 descriptors of /dev/zero",
    "test_memfd": "1 descriptors of /memfd:kept",
    "test_mapping": "1 mappings of /memfd:mapped",
    "test_abstract_socket": "the socket @pulsing-test-",
    "test_socket_file": ".sock",
    "test_socket_file_of_its_own": "/own.sock",
    "test_shm_file": "/shm/pulsing-test-",
}


def test_what_is_left_fails_the_test_that_left_it(tmp_path):
    for name in ("conftest.py", "leftovers.py"):
        shutil.copy(HERE / name, tmp_path)
    own = f"pulsing-test-{os.getpid()}"
    (tmp_path / "shm").mkdir()
    (tmp_path / "test_it.py").write_text(LEAVE.replace("pulsing-test-file", own))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"],
            cwd=tmp_path,
            env={
                **os.environ,
                "PULSING_TEST_LEFT_S": "0.2",
                "PULSING_TEST_SHM": str(tmp_path / "shm"),
            },
            capture_output=True,
            text=True,
            timeout=90,
        )
    finally:
        (tmp_path / f"{own}.sock").unlink(missing_ok=True)
    parts = re.split(r"_ ERROR at teardown of (\w+) _+\n", done.stdout)
    reports = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert reports.keys() >= {"test_process"}, done.stdout
    for name, text in SEEN.items():
        assert text in reports.get(name, ""), (name, done.stdout)
    assert "test_nothing" not in reports
