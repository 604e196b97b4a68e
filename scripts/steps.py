# SPDX-License-Identifier: Apache-2.0
"""Steps of a test run: each with a name, what it needs, and a log of its own; some at a time.

A step that has what it needs starts as soon as a lane is free, in the order of the list. One line
is printed when it ends; all of its output if it failed. A step whose need failed counts as failed.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# What compilers, Check, ctest, pytest and sanitizers begin a finding with.
FINDING = re.compile(r"^FAILED |^ERROR |^E   |\*\*\*|:[FE]:\w|error:|Sanitizer|not over after")
FINDINGS_MAX = 16
ROUNDING = 1e-6


class StepFailed(Exception):
    """The step cannot go on; what it has to say is in its log or in this."""


@dataclass(frozen=True)
class Count:
    passed: int
    failed: int
    note: str = ""


# The commands that run, each in a session of its own, which a key at the terminal does not reach.
_sessions: set[int] = set()


def end_sessions() -> None:
    """Ends all commands that run, with what they have started."""
    for session in list(_sessions):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(session, signal.SIGKILL)


class Log:
    """Where a step's commands write."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        path.write_bytes(b"")

    def write(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text)

    def text(self) -> str:
        return self.path.read_text(errors="replace")

    def run(
        self, command: Sequence[str], env: Mapping[str, str] | None = None, limit_s: float = 600
    ) -> int:
        """Exit status of the command; its output goes to the log. What outlives the limit is ended
        with the whole session that it started."""
        self.write("$ " + " ".join(command) + "\n")
        with self.path.open("ab") as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
            _sessions.add(process.pid)
            try:
                return process.wait(limit_s)
            except BaseException as error:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if isinstance(error, subprocess.TimeoutExpired):
                    raise StepFailed(f"not over after {limit_s:.0f} s") from None
                raise
            finally:
                _sessions.discard(process.pid)

    def check(
        self, command: Sequence[str], env: Mapping[str, str] | None = None, limit_s: float = 600
    ) -> None:
        status = self.run(command, env, limit_s)
        if status != 0:
            raise StepFailed(f"{command[0]} ended with status {status}")


@dataclass(frozen=True)
class Step:
    name: str
    work: Callable[[Log], Count]
    needs: tuple[str, ...] = ()
    # Whether it measures time, so that nothing may run beside it.
    alone: bool = False
    # How much of a lane it fills: less than 1 for what waits more than it works.
    share: float = 1


def chosen(steps: Sequence[Step], beginnings: Sequence[str]) -> list[Step]:
    """The steps whose name begins so, and what they need; all of them for no beginning."""
    if not beginnings:
        return list(steps)
    wanted = {s.name for s in steps if any(s.name.startswith(b) for b in beginnings)}
    while True:
        more = {need for s in steps if s.name in wanted for need in s.needs} - wanted
        if not more:
            return [s for s in steps if s.name in wanted]
        wanted |= more


class Run:
    def __init__(self, steps: Sequence[Step], lanes: int, logs: Path) -> None:
        self.waiting = list(steps)
        self.lanes = lanes
        self.logs = logs
        self.running: dict[str, Step] = {}
        self.done: dict[str, Count] = {}
        self.found: dict[str, list[str]] = {}
        self.ended: queue.Queue[tuple[Step, Count, float, Log]] = queue.Queue()

    def perform(self, step: Step) -> None:
        begin = time.monotonic()
        log = Log(self.logs / (step.name.replace(" ", "-") + ".log"))
        try:
            count = step.work(log)
        except StepFailed as error:
            count = Count(0, 1, str(error))
        except Exception as error:
            count = Count(0, 1, f"{type(error).__name__}: {error}")
        self.ended.put((step, count, time.monotonic() - begin, log))

    def start_ready(self) -> None:
        for step in list(self.waiting):
            if any(need not in self.done for need in step.needs):
                continue
            bad = [need for need in step.needs if self.done[need].failed]
            if bad:
                self.waiting.remove(step)
                self.done[step.name] = Count(0, 1)
                print(f"FAILED      -    {step.name}: not run, {bad[0]} failed", flush=True)
                return self.start_ready()
            alone = step.alone or any(other.alone for other in self.running.values())
            filled = sum(other.share for other in self.running.values())
            if self.running and (alone or filled + step.share > self.lanes + ROUNDING):
                if step.alone:
                    return None
                continue
            self.waiting.remove(step)
            self.running[step.name] = step
            threading.Thread(target=self.perform, args=(step,), daemon=True).start()
        return None

    def report(self, step: Step, count: Count, seconds: float, log: Log) -> None:
        verdict = "FAILED" if count.failed else "ok"
        tests = "" if count.passed + count.failed == 1 else f": {count.passed} passed"
        tests += f", {count.failed} failed" if tests and count.failed else ""
        note = f" ({count.note})" if count.note else ""
        print(f"{verdict:6} {seconds:7.1f} s  {step.name}{tests}{note}", flush=True)
        if count.failed:
            print(
                "".join(f"    | {line}\n" for line in log.text().splitlines()), end="", flush=True
            )

        if count.failed:
            lines = [line.strip() for line in log.text().splitlines() if FINDING.search(line)]
            self.found[step.name] = [*lines[-FINDINGS_MAX:], *([count.note] if count.note else [])]

    def findings(self) -> None:
        """Says again, in short, what failed: whole logs are long and may be cut."""
        for name, lines in self.found.items():
            print(f"failed: {name}", *lines, sep="\n    ", flush=True)

    def all(self) -> Count:
        while True:
            self.start_ready()
            if not self.running:
                break
            step, count, seconds, log = self.ended.get()
            del self.running[step.name]
            self.done[step.name] = count
            self.report(step, count, seconds, log)
        passed = sum(count.passed for count in self.done.values())
        return Count(passed, sum(count.failed for count in self.done.values()))
