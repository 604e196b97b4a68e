# SPDX-License-Identifier: Apache-2.0
"""The main job on a part of its corpus: it says what it did, a kill loses nothing, and it embeds
with a transformers checkpoint as well."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="the extra `examples` is not installed")
pytest.importorskip("rich", reason="the extra `examples` is not installed")

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "semantic_search.py"


def run(*arguments: str) -> str:
    command = [sys.executable, str(EXAMPLE), "--workers", "2", "--stdlib", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_job_says_what_it_did() -> None:
    out = run("--limit", "600", "--rounds", "1", "--singles", "20", "--query", "open a socket")
    assert "600 of 600 passages have their vector" in out
    assert "What each worker did" in out
    figures = r" +│ +[\d,]+ +│ +[\d,]+ +│ +\d+\.\d\d +│ +[\d,]+ +│ +[\d,]+ +│"
    assert re.search("256 +│ +2" + figures, out), out
    assert re.search("1 +│ +1" + figures, out), out
    answers = out[out.index("open a socket") :].splitlines()[1:4]
    likenesses = [float(line.split()[0]) for line in answers]
    assert len(likenesses) == 3 and likenesses == sorted(likenesses, reverse=True)


def test_cpu_time_is_that_of_the_processes_and_part_of_the_machines(monkeypatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    import cpu_time

    before, machine = cpu_time.of_processes([os.getpid()]), cpu_time.of_machine()
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass
    mine = cpu_time.of_processes([os.getpid()]) - before
    assert 0.25 <= mine <= 0.5
    assert cpu_time.of_machine() - machine >= mine - 0.05


def test_kill_loses_no_result() -> None:
    out = run("--batch", "128", "--kill", "--no-comparison")
    killed = re.findall(r"worker 0 \(pid (\d+)\) got SIGKILL", out)
    died = re.findall(r"sent again after: .*pid (\d+), SIGKILL", out)
    assert died and set(died) <= set(killed), out
    complete = re.search(r"([\d,]+) of ([\d,]+) passages have their vector", out)
    assert complete is not None and complete.group(1) == complete.group(2), out


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two small layers with random weights, and a vocabulary of letters."""
    why = "CPU-only torch and transformers are not installed"
    torch = pytest.importorskip("torch", reason=why)
    transformers = pytest.importorskip("transformers", reason=why)
    folder = tmp_path_factory.mktemp("checkpoint")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + c for c in letters)]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def test_checkpoint_embeds(checkpoint: Path) -> None:
    options = ("--limit", "64", "--batch", "16", "--rounds", "1", "--singles", "8")
    out = run("--model", str(checkpoint), *options)
    assert "the transformers checkpoint" in out
    assert "64 of 64 passages have their vector" in out
