# SPDX-License-Identifier: Apache-2.0
"""`pulsing keygen`: what it writes, who may read it, and what it leaves alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from click.testing import CliRunner

from pulsing._cli import main


def keygen(path: Path) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["keygen", str(path)])
    return result.exit_code, result.output


def test_a_key_is_64_digits_that_only_the_owner_may_read(tmp_path):
    old = os.umask(0)
    try:
        assert keygen(tmp_path / "key") == (0, "")
    finally:
        os.umask(old)
    text = (tmp_path / "key").read_text()
    assert len(bytes.fromhex(text)) == 32
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_a_strict_umask_leaves_the_owner_able_to_read(tmp_path):
    old = os.umask(0o777)
    try:
        assert keygen(tmp_path / "key") == (0, "")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_two_keys_differ(tmp_path):
    keygen(tmp_path / "one")
    keygen(tmp_path / "two")
    assert (tmp_path / "one").read_text() != (tmp_path / "two").read_text()


def test_a_file_that_exists_is_not_overwritten(tmp_path):
    (tmp_path / "key").write_text("precious")
    code, output = keygen(tmp_path / "key")
    assert code == 1
    assert "exists" in output
    assert (tmp_path / "key").read_text() == "precious"


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    assert keygen(tmp_path / "key")[0] == 1
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_is_not_there_is_named(tmp_path):
    code, output = keygen(tmp_path / "no" / "key")
    assert code == 1
    assert "cannot write" in output
