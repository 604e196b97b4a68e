# SPDX-License-Identifier: Apache-2.0
"""The file that describes a node to `pulsing node --config FILE`: TOML, a key for each flag."""

from __future__ import annotations

import os
import sys
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TEXT, _NUMBER, _TEXTS = "a text", "a whole number", "a list of texts"
_KEYS = {
    "addr": _TEXT,
    "advertise": _TEXT,
    "cluster_key": _TEXT,
    "memory": _NUMBER,
    "name": _TEXT,
    "seeds": _TEXTS,
    "workers": _NUMBER,
}


def _is(kind: str, value: Any) -> bool:
    if kind == _TEXTS:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    return isinstance(value, str) if kind == _TEXT else type(value) is int


def read(path: str) -> dict[str, Any]:
    """What the file says, by flag. ValueError that names the file and the wrong key."""
    try:
        with open(path, "rb") as file:
            said = tomllib.load(file)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:  # no TOML, or no text at all
        raise ValueError(f"{path}: {error}") from None
    wrong = sorted(set(said) - set(_KEYS))
    if wrong:
        raise ValueError(
            f"{path}: unknown key {', '.join(map(repr, wrong))}; a node has {', '.join(_KEYS)}"
        )
    for key, value in said.items():
        if not _is(_KEYS[key], value):
            raise ValueError(f"{path}: {key} is {_KEYS[key]}, got {value!r}")
    if "cluster_key" in said:
        said["cluster_key"] = os.path.join(os.path.dirname(path), said["cluster_key"])
    return said
