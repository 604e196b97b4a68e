# SPDX-License-Identifier: Apache-2.0
"""Which context variables are the same ones in two processes.

The variables that are set where a call is made are set where it is handled. A variable has no
identity beyond its process, so it is named: by the module that has it and its name there, else,
when code of a script or a notebook takes it along, by a key that goes with it. What neither names
is known to its own process alone.
"""

from __future__ import annotations

import contextvars
import importlib
import logging
import os
import sys
from typing import Any

from . import _core
from ._errors import CodecError
from ._pickling import module_by_value

__all__ = ["context_stays"]

log = logging.getLogger("pulsing")

# Variables that are remembered. A program has a few; what makes them without end gets no more.
_VARIABLES_MAX = 4096
_HERE = "~"  # the first character of a key that only this process knows; C looks at it
_ALONG = "#"  # ... of one that has gone along with code

_keys: dict[contextvars.ContextVar, str | None] = {}
_known: dict[str, contextvars.ContextVar | None] = {}
_stay: set[contextvars.ContextVar] = set()


def context_stays(*variables: contextvars.ContextVar) -> None:
    """These context variables do not follow the calls that this process makes."""
    for variable in variables:
        if not isinstance(variable, contextvars.ContextVar):
            raise TypeError(f"context_stays() takes context variables, not {variable!r}")
    for variable in variables:
        _stay.add(variable)
        _keys[variable] = None


_own: set[contextvars.ContextVar] = set()
"""Variables that a script or a notebook has."""


def _home(variable: contextvars.ContextVar) -> tuple[str, str] | None:
    """An importable module that has the variable, and its name there."""
    for name, module in list(sys.modules.items()):
        try:
            items = vars(module)
        except TypeError:
            continue
        for attribute, value in list(items.items()):
            if value is not variable:
                continue
            if not module_by_value(name):
                return name, attribute
            _own.add(variable)
    return None


def _remember(variable: contextvars.ContextVar, key: str) -> str | None:
    if len(_keys) >= _VARIABLES_MAX:
        return None
    if variable not in _stay:
        _keys[variable] = key
    _known[key] = variable
    return key


def key_of(variable: contextvars.ContextVar) -> str | None:
    """The key of a variable that is met for the first time; None: it stays."""
    home = _home(variable)
    return _remember(variable, ":".join(home) if home else _HERE + os.urandom(8).hex())


def find(key: str) -> contextvars.ContextVar | None:
    """The variable of a key that is met for the first time, or None."""
    if key[:1] in (_HERE, _ALONG):
        return None
    module, _, attribute = key.partition(":")
    try:
        variable = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # whatever a module raises that does not fit this process
        log.warning(
            "context variables of %s do not follow calls to here, since it cannot be imported: %r",
            module,
            error,
        )
        variable = None
    if not isinstance(variable, contextvars.ContextVar):
        variable = None
    if len(_known) < _VARIABLES_MAX:
        _known[key] = variable
    return variable


def _is_library(key: str) -> bool:
    name = key.partition(":")[0]
    if name.partition(".")[0] in sys.stdlib_module_names:
        return True
    parts = (getattr(sys.modules.get(name), "__file__", None) or "").split(os.sep)
    return "site-packages" in parts or "dist-packages" in parts


def refuse(variable: contextvars.ContextVar, error: Exception) -> None:
    """The value of a variable cannot be sent. Raises, unless the variable is not the program's."""
    key = _keys.get(variable) or _HERE
    text = f"the context variable '{variable.name}' cannot follow this call: {error}"
    mine = variable in _own or key.startswith(_ALONG)
    if not mine and (key.startswith(_HERE) or _is_library(key)):
        _keys[variable] = None
        log.debug("%s; it stays from now on", text)
        return
    raise CodecError(
        f"{text}; set something that can be sent, or keep it here with "
        "pulsing.context_stays(variable)"
    ) from error


def unreadable(variable: contextvars.ContextVar, error: Exception) -> None:
    """The value of a variable that came with a call cannot be read."""
    raise CodecError(
        f"the context variable '{variable.name}' came with a value that cannot be read here: "
        f"{error}"
    ) from error


def reduce_variable(variable: contextvars.ContextVar) -> Any:
    """How a variable goes along with code, or in a message."""
    key = _keys.get(variable) or key_of(variable) or ""
    if key.startswith(_HERE) or not key:
        along = _ALONG + key[1:] if key else _ALONG + os.urandom(8).hex()
        key = _remember(variable, along) or along
    return load_variable, (key, variable.name, *_default(variable))


def _default(variable: contextvars.ContextVar) -> tuple:
    try:
        return (contextvars.Context().run(variable.get),)
    except LookupError:
        return ()


def load_variable(key: str, name: str, *default: Any) -> contextvars.ContextVar:
    """The variable of a key; made here when it is new."""
    variable = _known.get(key) or find(key)
    if variable is None:
        variable = (
            contextvars.ContextVar(name, default=default[0])
            if default
            else contextvars.ContextVar(name)
        )
        _remember(variable, key)
    return variable


_core.register_context(_keys, _known, key_of, find, refuse, unreadable)
