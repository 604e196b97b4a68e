# SPDX-License-Identifier: Apache-2.0
"""scripts/steps.py and scripts/ci.py: what a failing step costs, and how tests are counted."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import ci
from steps import Count, Log, Run, Step, StepFailed, chosen


def passing(log: Log) -> Count:
    log.check(["true"])
    return Count(2, 0)


def failing(log: Log) -> Count:
    log.check(["sh", "-c", "echo the reason; exit 3"])
    return Count(1, 0)


def test_all_output_of_a_failing_step_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [Step("good", passing), Step("bad", failing), Step("after", passing, ("bad",))]
    total = Run(steps, 2, tmp_path).all()
    assert (total.passed, total.failed) == (2, 2)
    shown = capsys.readouterr().out
    assert "the reason" in shown and "status 3" in shown
    assert "after: not run, bad failed" in shown


def test_what_failed_is_said_again_in_short(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        "collected 3 items",
        "arena_test.c:117:F:arena:test_warm:0: 20 < 16",
        "E   assert 1 == 2",
    ]
    lines += ["FAILED tests/test_a.py::test_b - assert 1 == 2", "1 failed, 2 passed"]

    def finding(log: Log) -> Count:
        log.write("\n".join(lines))
        return Count(2, 1, "1 skipped")

    run = Run([Step("good", passing), Step("bad", finding)], 2, tmp_path)
    run.all()
    capsys.readouterr()
    run.findings()
    expected = ["failed: bad", *lines[1:4], "1 skipped"]
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == expected


def test_a_raising_step_fails_and_the_rest_runs(tmp_path: Path) -> None:
    def raising(log: Log) -> Count:
        raise OSError("broken")

    total = Run([Step("raises", raising), Step("good", passing)], 1, tmp_path).all()
    assert (total.passed, total.failed) == (2, 1)


def test_nothing_runs_beside_a_step_that_wants_to_be_alone(tmp_path: Path) -> None:
    spans = {}

    def spanning(name: str, alone: bool = False) -> Step:
        def work(log: Log) -> Count:
            begin = time.monotonic()
            time.sleep(0.05)
            spans[name] = (begin, time.monotonic())
            return Count(1, 0)

        return Step(name, work, alone=alone)

    Run([spanning("a"), spanning("b", alone=True), spanning("c")], 3, tmp_path).all()
    begin, end = spans.pop("b")
    assert all(other[1] <= begin or other[0] >= end for other in spans.values())


@pytest.mark.parametrize(("share", "most"), [(1, 2), (2 / 3, 3), (0.5, 4)])
def test_lanes_are_filled_by_the_shares_of_steps(tmp_path: Path, share: float, most: int) -> None:
    together = [0]
    seen = []
    lock = threading.Lock()

    def work(log: Log) -> Count:
        with lock:
            together[0] += 1
            seen.append(together[0])
        time.sleep(0.05)
        with lock:
            together[0] -= 1
        return Count(1, 0)

    Run([Step(f"step {i}", work, share=share) for i in range(9)], 2, tmp_path).all()
    assert max(seen) == most


def test_a_step_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    begin = time.monotonic()
    with pytest.raises(StepFailed, match="not over"):
        log.run(["sh", "-c", "sleep 60 & wait"], limit_s=0.2)
    assert time.monotonic() - begin < 10


def test_beginnings_choose_steps_and_what_they_need() -> None:
    steps = [Step("build a", passing), Step("test a", passing, ("build a",)), Step("lint", passing)]
    assert [step.name for step in chosen(steps, ["test"])] == ["build a", "test a"]


def test_check_programs_count_their_inner_tests(tmp_path: Path) -> None:
    report = tmp_path / "junit.xml"
    report.write_text(
        '<testsuite><testcase name="a" status="run"><system-out>'
        "90%: Checks: 10, Failures: 0, Errors: 0</system-out></testcase>"
        '<testcase name="b" status="fail"><system-out>'
        "90%: Checks: 10, Failures: 1, Errors: 1</system-out></testcase>"
        '<testcase name="c" status="fail"><system-out>leak</system-out></testcase>'
        '<testcase name="d" status="run"><system-out>no Check</system-out></testcase></testsuite>'
    )
    count = ci.count_ctest(report)
    assert (count.passed, count.failed) == (10 + 8 + 1, 2 + 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_command(tmp_path: Path, number: int) -> None:
    scripts = Path(ci.__file__).parent
    pids = tmp_path / "pids"
    program = f"""
import sys; sys.path.insert(0, {str(scripts)!r})
import ci
from steps import Step
def work(log):
    log.run(["sh", "-c", "sleep 60 & echo $$ $! > {pids}; wait"])
ci.all_steps = lambda: [Step("sleeps", work)]
sys.argv = ["ci.py"]
sys.exit(ci.main())
"""
    run = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    end = time.monotonic() + 20
    while not pids.exists() or len(pids.read_text().split()) < 2:
        assert time.monotonic() < end, "the command has not begun"
        time.sleep(0.01)
    os.kill(run.pid, number)
    assert run.wait(20) == 130
    for pid in pids.read_text().split():
        while (
            Path(f"/proc/{pid}/stat").exists()
            and " Z " not in Path(f"/proc/{pid}/stat").read_text()
        ):
            assert time.monotonic() < end, f"{pid} runs on"
            time.sleep(0.01)
