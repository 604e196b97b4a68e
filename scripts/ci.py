#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The steps of `scripts/test`: what is checked, built and run, and in which order.

Everything that is made goes below build/: a tree per kind of C build, build/venv/ with one
environment per Python, build/ci/ with the logs. A second run finds all of it and only does what
changed.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tidy
from steps import Count, Log, Run, Step, StepFailed, chosen, end_sessions

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
LOGS = BUILD / "ci"
CPUS = len(os.sched_getaffinity(0))
LANES = min(CPUS, 4)
JOBS = str(max(2, CPUS // LANES + 1))
MAIN = "{}.{}".format(*sys.version_info[:2])
# All of libc that gossip may call: memory, and nothing that remembers or asks.
PURE_CALLS = {"free", "malloc", "calloc", "realloc", "memchr", "memcmp", "memcpy", "memmove"}
PURE_CALLS |= {"memset", "strlen"}
# ThreadSanitizer sees the threads of one process: rooms whose tests are one, and not the test of
# two processes that wait for each other, which it slows down without seeing anything.
TSAN_TESTS = r"^(base|shm|gossip|zmq_transport)\."
SIM_ONCE = r"^sim\.(mutants|shrink_trace)$"
TSAN_BLIND = r"^shm\.wake$"
PYTEST_SHARE = 2 / 3
VERSIONS = ("3.10", "3.11", "3.12", "3.13")


def files(*suffixes: str) -> list[str]:
    return [name for name in tidy.project_files(ROOT) if Path(name).suffix in suffixes]


def check_format(log: Log) -> Count:
    log.check(["clang-format-14", "--dry-run", "-Werror", *files(".c", ".h")])
    return Count(1, 0)


def check_tidy(log: Log) -> Count:
    log.check([sys.executable, "scripts/tidy.py"])
    return Count(1, 0)


def check_python(log: Log) -> Count:
    python = venv(log, "lint", MAIN, "lint", packages_only=True)
    statuses = [
        log.run([python, "-m", "ruff", "format", "--check", "--diff", "."]),
        log.run([python, "-m", "ruff", "check", "."]),
        log.run([python, "-m", "mypy"]),
    ]
    bad = sum(status != 0 for status in statuses)
    return Count(len(statuses) - bad, bad)


def check_clang_tidy(log: Log) -> Count:
    """Each C file, unless nothing that it depends on has changed since it passed."""
    stamps = LOGS / "clang-tidy"
    stamps.mkdir(parents=True, exist_ok=True)
    shared = hashlib.sha256()
    for name in [*files(".h"), ".clang-tidy"]:
        shared.update(name.encode() + (ROOT / name).read_bytes())
    database = BUILD / "clang"
    listed = (database / "compile_commands.json").read_text()

    def check(name: str) -> bool:
        value = hashlib.sha256(shared.digest() + (ROOT / name).read_bytes()).hexdigest()
        stamp = stamps / name.replace("/", "-")
        if stamp.is_file() and stamp.read_text() == value:
            return True
        tool = ["clang-tidy-14", "--quiet", "-p", str(database), name]
        done = subprocess.run(tool, cwd=ROOT, capture_output=True, text=True)
        if done.returncode == 0:
            stamp.write_text(value)
            return True
        log.write(f"{name}\n{done.stdout}")
        return False

    names = [name for name in files(".c") if f'"{ROOT / name}"' in listed]
    with ThreadPoolExecutor(LANES) as pool:
        bad = [name for name, good in zip(names, pool.map(check, names), strict=True) if not good]
    return Count(0 if bad else 1, len(bad), f"{len(names)} files")


def build(log: Log, preset: str) -> Count:
    log.check(["cmake", "--preset", preset])
    log.check(["cmake", "--build", f"build/{preset}", "--", "-j", JOBS], limit_s=900)
    return Count(1, 0)


def check_symbols(log: Log) -> Count:
    """gossip reaches no clock, descriptor, thread or log; no name has two meanings."""
    bad = 0
    owners: dict[str, set[str]] = {}
    for archive in sorted((BUILD / "release").glob("*/libpls_*.a")):
        listing = subprocess.check_output(["nm", "-P", str(archive)], text=True)
        for line in listing.splitlines():
            name, kind, *_ = line.split() + ["", ""]
            if kind in tuple("TDBRC"):
                owners.setdefault(name, set()).add(archive.parent.name)
            if archive.name != "libpls_gossip.a":
                continue
            reaches = kind == "U" and not name.startswith("pls_") and name not in PURE_CALLS
            if reaches or kind in tuple("DdBbC"):
                log.write(f"gossip: {name} ({kind}) is not pure\n")
                bad += 1
    for name, rooms in owners.items():
        if len(rooms & tidy.ROOMS.keys()) > 1:
            log.write(f"{name} is defined in {' and '.join(sorted(rooms))}\n")
            bad += 1
    return Count(0 if bad else 1, bad)


def sanitizer_env(kind: str, reports: Path) -> dict[str, str]:
    """Reports go to files: a process that nobody watches must not fail unseen."""
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    common = f"log_path={reports / 'report'}"
    if kind == "tsan":
        return {"TSAN_OPTIONS": f"{common}:second_deadlock_stack=1"}
    return {"ASAN_OPTIONS": common, "UBSAN_OPTIONS": f"{common}:print_stacktrace=1"}


def with_reports(log: Log, count: Count, reports: Path) -> Count:
    found = sorted(reports.glob("report*"))
    for report in found:
        log.write(f"{report.name}:\n{report.read_text(errors='replace')}\n")
    return Count(count.passed, count.failed + len(found), count.note)


def ctest(log: Log, name: str, preset: str, arguments: Sequence[str]) -> Count:
    junit = LOGS / f"{name}.xml"
    junit.unlink(missing_ok=True)
    tool = ["ctest", "--test-dir", f"build/{preset}", "--output-junit", str(junit)]
    tool += ["--output-on-failure", "--no-tests=error", *arguments]
    reports = LOGS / f"reports-{name}"
    env = sanitizer_env(preset, reports) if preset in ("asan", "tsan") else {}
    # Check ends a test after 4 s, which a sanitizer on a busy machine may need.
    env["CK_DEFAULT_TIMEOUT"] = "60"
    if preset == "tsan":
        # gcc 12's runtime cannot place its shadow where new kernels randomise addresses widely.
        tool = ["setarch", "-R", *tool]
    log.run(tool, env, limit_s=1200)
    if not junit.is_file():
        raise StepFailed("ctest ran no test")
    count = count_ctest(junit)
    if count.passed + count.failed == 0:
        raise StepFailed("ctest ran no test")
    return with_reports(log, count, reports)


def count_ctest(junit: Path) -> Count:
    """Check's own counts where a program prints them: a program holds many tests."""
    passed = failed = 0
    for case in ElementTree.parse(junit).getroot().iter("testcase"):
        output = case.findtext("system-out") or ""
        inner = re.findall(r"Checks: (\d+), Failures: (\d+), Errors: (\d+)", output)
        bad = sum(int(failures) + int(errors) for _, failures, errors in inner)
        good = sum(int(checks) for checks, _, _ in inner) - bad if inner else 1
        if case.get("status") != "run":
            bad = max(bad, 1)
            good = good if inner else 0
        passed += good
        failed += bad
    return Count(passed, failed)


def fuzz(log: Log) -> Count:
    """Every decoder of bytes from elsewhere, for 20 s together, from the samples found before."""
    targets = sorted(path for path in (BUILD / "fuzz" / "tests" / "fuzz").glob("fuzz_*"))
    targets = [path for path in targets if os.access(path, os.X_OK) and path.is_file()]
    if not targets:
        raise StepFailed("there is no fuzz target")
    bad = 0
    for target in targets:
        corpus = BUILD / "fuzz" / "corpus" / target.name
        corpus.mkdir(parents=True, exist_ok=True)
        seconds = max(1, 20 // len(targets))
        options = [f"-max_total_time={seconds}", "-timeout=5", f"-artifact_prefix={corpus}-"]
        committed = ROOT / "tests" / "fuzz" / "corpus" / target.name.removeprefix("fuzz_")
        folders = [str(corpus), *([str(committed)] if committed.is_dir() else [])]
        bad += log.run([str(target), *options, *folders]) != 0
    return Count(len(targets) - bad, bad)


def venv(
    log: Log, name: str, version: str, extras: str, *defines: str, packages_only: bool = False
) -> str:
    folder = BUILD / "venv" / name
    tool = [
        sys.executable,
        "scripts/environment.py",
        str(folder),
        "--python",
        interpreters()[version],
    ]
    tool += ["--extras", extras, *(f"--define={define}" for define in defines)]
    if packages_only:
        tool.append("--packages-only")
    log.check(tool, limit_s=900)
    return str(folder / "bin" / "python")


@functools.cache
def interpreters() -> dict[str, str]:
    """Each supported Python of this machine that can build an extension, by version."""
    found = {MAIN: sys.executable}
    test = "import sys, sysconfig, venv, ensurepip, os; print('%d.%d' % sys.version_info[:2]); "
    test += "sys.exit(not os.path.exists(sysconfig.get_path('include') + '/Python.h'))"
    for version in VERSIONS:
        named = shutil.which(f"python{version}")
        installed = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
        for candidate in [*([named] if named else []), *map(str, reversed(installed))]:
            done = subprocess.run([candidate, "-c", test], capture_output=True, text=True)
            if done.returncode == 0 and done.stdout.strip() == version:
                found.setdefault(version, candidate)
    return found


def install(log: Log, version: str) -> Count:
    venv(log, version, version, "tests,examples,benchmarks" if version == MAIN else "tests")
    return Count(1, 0)


def install_asan(log: Log) -> Count:
    venv(log, "asan", MAIN, "tests", "PLS_SANITIZE=address,undefined", "CMAKE_BUILD_TYPE=Debug")
    return Count(1, 0)


def pytest(
    log: Log, name: str, arguments: Sequence[str], env: Mapping[str, str] | None = None
) -> Count:
    junit = LOGS / f"pytest-{name}.xml"
    junit.unlink(missing_ok=True)
    python = str(BUILD / "venv" / name / "bin" / "python")
    # The cache is one per environment: several run at once.
    options = ["-o", f"cache_dir=build/venv/{name}/pytest", "--junitxml", str(junit)]
    # The step `pytest asan` is that test.
    options += ["--deselect", "tests/python/test_codec_sanitized.py::test_the_tests_pass_sanitized"]
    clean = {"PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1", **(env or {})}
    status = log.run([python, "-m", "pytest", *options, *arguments], clean, limit_s=2400)
    if not junit.is_file():
        raise StepFailed(f"pytest ended with status {status} and without a report")
    suite = ElementTree.parse(junit).getroot().find("testsuite")
    if suite is None:
        raise StepFailed("pytest's report holds nothing")
    total, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
    bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    if status != 0:
        bad = max(bad, 1)
    return Count(total - skipped - bad, bad, f"{skipped} skipped" if skipped else "")


def pytest_asan(log: Log) -> Count:
    reports = LOGS / "reports-pytest"
    env = sanitizer_env("asan", reports)
    # Python itself leaves memory at exit; leaks of ours are the C tests' business. Some tests look
    # at how much memory a process takes, which 256 MB of freed blocks would hide.
    env["ASAN_OPTIONS"] += ":detect_leaks=0:quarantine_size_mb=16"
    names = ("libasan.so", "libubsan.so", "libstdc++.so")
    libraries = [
        subprocess.check_output(["gcc", f"-print-file-name={n}"], text=True) for n in names
    ]
    env["LD_PRELOAD"] = ":".join(library.strip() for library in libraries)
    return with_reports(log, pytest(log, "asan", ["tests/python"], env), reports)


def all_steps() -> list[Step]:
    def c_step(what: str, kind: str, *arguments: str) -> Step:
        name = f"{what} {kind}"
        file = name.replace(" ", "-")
        work = functools.partial(ctest, name=file, preset=kind, arguments=arguments)
        return Step(name, work, (f"build {kind}",))

    steps = [
        Step("format", check_format),
        Step("tidy", check_tidy),
        Step("python lint", check_python),
    ]
    for preset in ("release", "clang", "asan", "tsan"):
        steps.append(Step(f"build {preset}", functools.partial(build, preset=preset)))
    steps += [
        c_step("ctest", "release", "-LE", "slow|sim|stress"),
        c_step("ctest", "asan", "-LE", "slow|sim|stress"),
        c_step("ctest", "tsan", "-R", TSAN_TESTS, "-E", TSAN_BLIND),
        # What is killed after every instruction is built as it is shipped, without sanitizers.
        c_step("stress", "release", "-L", "stress", "-LE", "slow"),
        c_step("simulator", "release", "-L", "sim", "-LE", "slow"),
        # Deliberate mistakes say nothing more under a sanitizer.
        c_step("simulator", "asan", "-L", "sim", "-LE", "slow", "-E", SIM_ONCE),
        Step("clang-tidy", check_clang_tidy, ("build clang",)),
        Step("build fuzz", functools.partial(build, preset="fuzz")),
        Step("fuzz", fuzz, ("build fuzz",)),
        Step("symbols", check_symbols, ("build release",)),
    ]
    for version in sorted(interpreters()):
        work = functools.partial(install, version=version)
        steps.append(Step(f"install {version}", work))
    steps.append(Step("install asan", install_asan))
    # The longest one first. Most of the time a test waits for a process to start or to end.
    for version in sorted(interpreters(), key=lambda version: (version != MAIN, version)):
        # What other versions leave out is not about Python; the pages' examples cross nodes there.
        rest = (
            ["tests/scripts", "tests/examples"] if version == MAIN else ["-m", "not between_nodes"]
        )
        work = functools.partial(pytest, name=version, arguments=["tests/python", *rest])
        steps.append(Step(f"pytest {version}", work, (f"install {version}",), share=PYTEST_SHARE))
    steps.append(Step("pytest asan", pytest_asan, ("install asan",), share=PYTEST_SHARE))
    return steps


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", help="beginnings of names of steps; all by default")
    parser.add_argument("--list", action="store_true", help="names the steps")
    options = parser.parse_args()
    os.chdir(ROOT)
    steps = chosen(all_steps(), options.names)
    if options.list or not steps:
        print("\n".join(step.name for step in steps) or "no step has such a name")
        return 0 if steps else 2
    begin = time.monotonic()
    run = Run(steps, LANES, LOGS)
    # One way to end it, from a terminal or by who waits for it no longer.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        total = run.all()
    except KeyboardInterrupt:
        end_sessions()
        print("interrupted: the steps that ran have been ended")
        return 130
    run.findings()
    minutes, seconds = divmod(int(time.monotonic() - begin), 60)
    print(f"{len(steps)} steps in {minutes} min {seconds} s, logs in build/ci")
    print(f"{total.passed} passed, {total.failed} failed")
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
