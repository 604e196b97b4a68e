# SPDX-License-Identifier: Apache-2.0
"""Exceptions on their way to another process.

`pack_exception` splits one into text, which always arrives, and parts from which an instance of its
own class is made there. The parts are checked here by making such an instance. Builtin exceptions
and our own are named by text, so that they need no pickle.
"""

from __future__ import annotations

import pickle
import sys
import traceback
from typing import Any

from pulsing._pickling import codec_error, dumps_by_value, type_name

# Replies keep the end of a long traceback: the place where it happened.
_TRACEBACK_CHARS_MAX = 64 * 1024

# Raising these at the caller would end its program, cancel its task or exhaust its generator.
_NOT_RAISED = (StopIteration, StopAsyncIteration)

# Modules whose exceptions are named by text, so that they need no pickle.
_NAMED_MODULES = ("builtins", "pulsing._errors")


def _builtin_base(kind: type) -> type:
    return next(base for base in kind.__mro__ if base.__module__ == "builtins")


def _exception_state(error: BaseException) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments for the builtin base, and every attribute set beside them."""
    base: Any = _builtin_base(type(error))
    reduced = base.__reduce__(error)
    state = dict(error.__dict__)
    if len(reduced) > 2 and isinstance(reduced[2], dict):
        state.update(reduced[2])
    for base in type(error).__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            if name not in ("__dict__", "__weakref__") and hasattr(error, name):
                state[name] = getattr(error, name)
    if isinstance(error, (AttributeError, NameError)):
        state.pop("obj", None)  # the object that lacked the attribute may be anything, of any size
        if error.name is not None:
            state["name"] = error.name
    return reduced[1], state


def _rebuild_exception(
    kind: type, args: tuple[Any, ...], error_args: Any, state: dict[str, Any]
) -> BaseException:
    """An instance without running a Python `__init__`, whose signature need not fit `args`."""
    base: Any = _builtin_base(kind)
    error: BaseException = base.__new__(kind, *args)
    if base.__init__ is not object.__init__:
        base.__init__(error, *args)
    error.args = error_args
    for name, value in state.items():
        setattr(error, name, value)
    return error


def _custom_reduction(kind: type) -> bool:
    """Whether the class says itself how to be rebuilt."""
    for name in (
        "__reduce__",
        "__reduce_ex__",
        "__getstate__",
        "__setstate__",
        "__getnewargs__",
        "__getnewargs_ex__",
    ):
        for base in kind.__mro__:
            if name in base.__dict__:
                if base.__module__ != "builtins":
                    return True
                break
    return False


def _same_exception(left: BaseException, right: BaseException) -> bool:
    return (
        type(left) is type(right) and str(left) == str(right) and len(left.args) == len(right.args)
    )


def reduce_exception(error: BaseException) -> Any:
    """For an exception inside of a pickled object."""
    kind = type(error)
    if _custom_reduction(kind):
        return NotImplemented
    args, state = _exception_state(error)
    if not _same_exception(_rebuild_exception(kind, args, error.args, state), error):
        return NotImplemented
    return _rebuild_exception, (kind, args, error.args, state)


def _name_of(kind: type) -> str | None:
    module = kind.__module__
    if module in _NAMED_MODULES and getattr(sys.modules[module], kind.__name__, None) is kind:
        return f"{module}:{kind.__name__}"
    return None


def _pack_parts(error: BaseException) -> Any:
    kind = type(error)
    if not isinstance(error, Exception) or isinstance(error, _NOT_RAISED):
        return None
    name = _name_of(kind)
    custom = _custom_reduction(kind)
    if custom and name is None:
        copy = pickle.loads(dumps_by_value(error))
        return (error,) if _same_exception(copy, error) else None
    args, state = _exception_state(error)
    own_args = error.args
    if custom:
        # One of ours, which says what its text is for another process.
        reduced: Any = error.__reduce__()
        args = own_args = reduced[1]
        state = reduced[2] if len(reduced) > 2 else {}
    if not _same_exception(_rebuild_exception(kind, args, own_args, state), error):
        return None
    return (name or kind, args, None if args == own_args else own_args, state)


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:
        return f"<str() of it raised {type(broken).__name__}>"


def _traceback_of(error: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except Exception as broken:
        text = (
            f"{type_name(type(error))}: the traceback cannot be shown ({type(broken).__name__})\n"
        )
    if len(text) > _TRACEBACK_CHARS_MAX:
        text = "[...]\n" + text[-_TRACEBACK_CHARS_MAX:]
    return text.encode("utf-8", "backslashreplace").decode()


def pack_exception(error: BaseException) -> tuple[Any, Any]:
    """(what always can be sent, what may turn out not to be)."""
    notes = getattr(error, "__notes__", None)
    notes = [str(note) for note in notes] if isinstance(notes, (list, tuple)) else []
    head = (type_name(type(error)), _text_of(error), _traceback_of(error), notes)
    try:
        parts = _pack_parts(error)
    except Exception:
        parts = None
    return head, parts


def _unpack_parts(parts: Any) -> BaseException | None:
    if not isinstance(parts, tuple):
        return None
    if len(parts) == 1:
        return parts[0] if isinstance(parts[0], Exception) else None
    kind, args, error_args, state = parts
    if isinstance(kind, str):
        module, _, name = kind.partition(":")
        if module not in _NAMED_MODULES:
            return None
        kind = getattr(sys.modules.get(module) or __import__(module, fromlist=[name]), name, None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)) or issubclass(
        kind, _NOT_RAISED
    ):
        return None
    return _rebuild_exception(kind, args, args if error_args is None else error_args, state)


def unpack_exception(head: Any, parts: Any) -> BaseException:
    """The exception of `pack_exception`, with the remote traceback as its cause."""
    if type(head) is not tuple or len(head) != 4 or type(head[3]) is not list:
        raise codec_error("the bytes are not an exception")
    name, text, trace, notes = head
    if not all(type(one) is str for one in (name, text, trace, *notes)):
        raise codec_error("the bytes are not an exception")
    try:
        error = _unpack_parts(parts)
    except Exception:
        error = None
    if error is None:
        from pulsing._errors import ActorError

        error = ActorError(f"{name}: {text}" if text else name)
        if notes:
            error.__notes__ = notes
    from pulsing._errors import RemoteTraceback

    error.__cause__ = RemoteTraceback(trace)
    return error
