# SPDX-License-Identifier: Apache-2.0
"""What the codec does in Python: objects that only their own code can take apart and rebuild.

`dumps` tries the plain pickler first, which names classes and functions by module; cloudpickle is
imported when the code itself has to travel (`__main__`, notebooks, test functions). Buffers stay out
of the pickle. `pack_exception` and `unpack_exception` split an exception into plain values and back.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import re
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any

_PROTOCOL = 5

_RECURSION_LIMIT = 6000

# Replies keep the end of a long traceback: the place where it happened.
_TRACEBACK_CHARS_MAX = 64 * 1024

_current = threading.local()
"""`.load`: turns the bytes of a special object (an actor ref) back into it, while `loads` runs."""


def _codec_error(text: str) -> Exception:
    from pulsing._errors import CodecError

    return CodecError(text)


def _is_codec_error(error: BaseException) -> bool:
    from pulsing._errors import CodecError

    return isinstance(error, CodecError)


def type_name(kind: type) -> str:
    module = getattr(kind, "__module__", None)
    name = getattr(kind, "__qualname__", kind.__name__)
    return name if module in (None, "builtins") else f"{module}.{name}"


# -- what cannot be sent ---------------------------------------------------------------------------

_REMEDIES = (
    (r"lock|RLock|Condition|Semaphore|Event|_local|Thread", "create it where it is used, in on_start or __init__"),
    (r"Future|Task|Loop|Handle", "await it first, and send the result"),
    (r"generator|coroutine", "write the method as a generator, or send a StreamMessage, or a list"),
    (r"socket", "send the address, and connect in the actor"),
    (r"IO|Buffered|file", "send the path or the content, and open it in the actor"),
    (r"Cursor|Connection|connection", "send what it was opened with, and open it in the actor"),
    (r"frame|traceback|code", "send its text"),
)


def _remedy(name: str) -> str:
    for pattern, text in _REMEDIES:
        if re.search(pattern, name):
            return text
    return "send plain data, or give its class a __reduce__"


def _refusal(obj: Any, error: BaseException) -> Exception:
    """The CodecError for an object that no pickler takes."""
    own = type_name(type(obj))
    found = re.search(r"cannot pickle '([^']+)' object", str(error)) or re.search(
        r"cannot pickle ([\w.]+) objects?", str(error)
    )
    culprit = found.group(1) if found else own
    if culprit.rpartition(".")[2] == own.rpartition(".")[2]:
        return _codec_error(f"an object of type '{own}' cannot be sent: {_remedy(own)} ({error})")
    return _codec_error(
        f"an object of type '{own}' cannot be sent, because it holds a '{culprit}': {_remedy(culprit)} ({error})"
    )


# -- modules whose code has to travel --------------------------------------------------------------

_by_value_modules: dict[str, bool] = {"__main__": True, "builtins": False}


def _find_spec(name: str) -> Any:
    """The module's spec as a fresh process would find it; sys.modules does not count."""
    parent, _, _ = name.rpartition(".")
    path = None
    if parent:
        if _module_by_value(parent):
            return None
        path = getattr(sys.modules.get(parent), "__path__", None)
        if path is None:
            return None
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec = find(name, path, None) if find is not None else None
        if spec is not None:
            return spec
    return None


def _module_by_value(name: Any) -> bool:
    """Whether another process could not import the module that this one has."""
    if not isinstance(name, str):
        return False
    known = _by_value_modules.get(name)
    if known is not None:
        return known
    module = sys.modules.get(name)
    if module is None or name.partition(".")[0] == "pulsing":
        return False
    spec = getattr(module, "__spec__", None)
    origin = getattr(spec, "origin", None) or getattr(module, "__file__", None)
    if origin in ("built-in", "frozen"):
        by_value = False
    else:
        try:
            found = _find_spec(name)
        except Exception:
            found = None
        by_value = found is None or (origin is not None and found.origin is not None and found.origin != origin)
        # A C module's code cannot travel at all: let the other process say that it lacks the module.
        if by_value and isinstance(origin, str) and not origin.endswith((".py", ".pyc")):
            by_value = False
    _by_value_modules[name] = by_value
    return by_value


# -- reducers common to both picklers --------------------------------------------------------------

_OPEN_FILES = (io.TextIOWrapper, io.BufferedIOBase, io.RawIOBase)


def _load_special(data: bytes) -> Any:
    return _current.load(data)


def _load_memoryview(data: Any, form: str, shape: tuple[int, ...]) -> memoryview:
    view = memoryview(data).toreadonly()
    if form == "B" and len(shape) == 1:
        return view
    return view.cast(form) if len(shape) == 1 else view.cast(form, shape)


def _reduce_memoryview(view: memoryview) -> Any:
    if not view.c_contiguous:
        view = memoryview(view.tobytes()).cast(view.format, list(view.shape))
    return _load_memoryview, (pickle.PickleBuffer(view), view.format, view.shape)


def _load_tensor(data: Any, dtype: str, shape: tuple[int, ...], requires_grad: bool) -> Any:
    import torch

    kind = getattr(torch, dtype)
    if 0 in shape:
        tensor = torch.empty(shape, dtype=kind)
    else:
        tensor = torch.frombuffer(bytearray(data), dtype=kind).reshape(shape)
    return tensor.requires_grad_() if requires_grad else tensor


def _reduce_tensor(torch: Any, tensor: Any) -> Any:
    if tensor.device.type != "cpu":
        raise _codec_error(
            f"a tensor on device '{tensor.device}' cannot be sent: send tensor.cpu(), and move it in the actor"
        )
    if tensor.layout is not torch.strided or tensor.is_quantized or (tensor.requires_grad and not tensor.is_leaf):
        return NotImplemented
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    shape = tuple(plain.shape)
    memory = b"" if 0 in shape else pickle.PickleBuffer(plain.reshape(-1).view(torch.uint8).numpy())
    return _load_tensor, (memory, str(plain.dtype).removeprefix("torch."), shape, tensor.requires_grad)


class _Reducers:
    """Mixed into both picklers; `reducer_override` runs for everything but exact builtin types."""

    specials: tuple[type, ...]
    dump_special: Callable[[Any], bytes]

    def common(self, obj: Any) -> Any:
        kind = type(obj)
        if kind in self.specials:
            return _load_special, (self.dump_special(obj),)
        if kind is memoryview:
            return _reduce_memoryview(obj)
        if isinstance(obj, BaseException):
            return _reduce_exception(obj)
        if isinstance(obj, _OPEN_FILES) and kind is not io.BytesIO:
            raise TypeError(f"cannot pickle '{type_name(kind)}' object")
        torch = sys.modules.get("torch")
        if torch is not None and kind is getattr(torch, "Tensor", None):
            return _reduce_tensor(torch, obj)
        return NotImplemented


class _NeedsValue(Exception):
    """The plain pickler met code that the other side cannot import."""


class _PlainPickler(_Reducers, pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (type, types.FunctionType)):
            if _module_by_value(getattr(obj, "__module__", None)) or "<locals>" in obj.__qualname__:
                raise _NeedsValue
            return NotImplemented
        return self.common(obj)


_value_pickler: Any = None


def _value_pickler_class() -> Any:
    global _value_pickler
    if _value_pickler is None:
        from pulsing._by_value import ValuePickler

        _value_pickler = ValuePickler
    return _value_pickler


def _run(kind: Any, obj: Any, buffers: list[Any], specials: tuple[type, ...], dump_special: Any) -> bytes:
    file = io.BytesIO()
    pickler = kind(file, _PROTOCOL, buffer_callback=buffers.append)
    pickler.specials = specials
    pickler.dump_special = dump_special
    pickler.dump(obj)
    return file.getvalue()


def dumps(
    obj: Any, allow_pickle: bool, buffers: list[Any], specials: tuple[type, ...], dump_special: Callable[[Any], bytes]
) -> bytes:
    """The pickle of `obj`; its buffers are appended to `buffers`."""
    if not allow_pickle:
        raise _codec_error(
            f"an object of type '{type_name(type(obj))}' can only be sent as a pickle, which nodes without a cluster "
            "key refuse: set one with SystemConfig.with_cluster_key(...), or send plain values and arrays"
        )
    try:
        return _dump(obj, buffers, specials, dump_special)
    except RecursionError as error:
        try:
            with _deeper():
                return _dump(obj, buffers, specials, dump_special)
        except RecursionError:
            raise _codec_error(
                f"an object of type '{type_name(type(obj))}' cannot be sent: it is nested too deeply for pickle; "
                "send it in flatter form, as a list of its parts for one"
            ) from error


def _dump(obj: Any, buffers: list[Any], specials: tuple[type, ...], dump_special: Any) -> bytes:
    buffers.clear()
    if not _module_by_value(getattr(type(obj), "__module__", None)):
        try:
            return _run(_PlainPickler, obj, buffers, specials, dump_special)
        except RecursionError:
            raise
        except Exception as error:
            if _is_codec_error(error):
                raise
        buffers.clear()
    # Code that has to travel, or what cloudpickle alone knows how to pickle.
    try:
        return _run(_value_pickler_class(), obj, buffers, specials, dump_special)
    except RecursionError:
        raise
    except Exception as error:
        # cloudpickle dresses up a RecursionError as a PicklingError.
        if isinstance(error.__cause__, RecursionError):
            raise error.__cause__ from None
        if _is_codec_error(error):
            raise
        raise _refusal(obj, error) from error


@contextlib.contextmanager
def _deeper() -> Iterator[None]:
    """Room for structures that the ordinary limit is too small for; the C pickler's frames are small, and
    this many of them fit into an 8 MiB stack several times over."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, _RECURSION_LIMIT))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def loads(data: Any, buffers: list[Any], load_special: Callable[[bytes], Any]) -> Any:
    """The inverse of `dumps`."""
    outer = getattr(_current, "load", None)
    _current.load = load_special
    try:
        return pickle.loads(data, buffers=buffers)
    except (ModuleNotFoundError, AttributeError) as error:
        raise _codec_error(
            f"an object that arrived cannot be rebuilt here: {error}; its code must be importable in every process"
        ) from error
    except Exception as error:
        if _is_codec_error(error):
            raise
        raise _codec_error(
            f"an object that arrived cannot be rebuilt here: {type(error).__name__}: {error}"
        ) from error
    finally:
        _current.load = outer


# -- exceptions ------------------------------------------------------------------------------------


# Raising these at the caller would end its program, cancel its task or exhaust its generator.
_NOT_RAISED = (StopIteration, StopAsyncIteration)

# Modules whose exceptions are named by text, so that they need no pickle.
_NAMED_MODULES = ("builtins", "pulsing._errors")


def _builtin_base(kind: type) -> type:
    return next(base for base in kind.__mro__ if base.__module__ == "builtins")


def _exception_state(error: BaseException) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments for the builtin base, and every attribute set beside them."""
    reduced = _builtin_base(type(error)).__reduce__(error)
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


def _rebuild_exception(kind: type, args: tuple[Any, ...], error_args: Any, state: dict[str, Any]) -> BaseException:
    """An instance without running a Python `__init__`, whose signature need not fit `args`."""
    base: Any = _builtin_base(kind)
    error = base.__new__(kind, *args)
    if base.__init__ is not object.__init__:
        base.__init__(error, *args)
    error.args = error_args
    for name, value in state.items():
        setattr(error, name, value)
    return error


def _custom_reduction(kind: type) -> bool:
    """Whether the class says itself how to be rebuilt."""
    for name in ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__"):
        for base in kind.__mro__:
            if name in base.__dict__:
                if base.__module__ != "builtins":
                    return True
                break
    return False


def _same_exception(left: BaseException, right: BaseException) -> bool:
    return type(left) is type(right) and str(left) == str(right) and len(left.args) == len(right.args)


def _reduce_exception(error: BaseException) -> Any:
    """For an exception inside of a pickled object."""
    kind = type(error)
    if _custom_reduction(kind):
        return NotImplemented
    args, state = _exception_state(error)
    if not _same_exception(_rebuild_exception(kind, args, error.args, state), error):
        return NotImplemented
    return _rebuild_exception, (kind, args, error.args, state)


def _pack_parts(error: BaseException) -> Any:
    kind = type(error)
    if not isinstance(error, Exception) or isinstance(error, _NOT_RAISED):
        return None
    if _custom_reduction(kind):
        copy = pickle.loads(_run(_value_pickler_class(), error, [], (), repr))
        return (error,) if _same_exception(copy, error) else None
    args, state = _exception_state(error)
    if not _same_exception(_rebuild_exception(kind, args, error.args, state), error):
        return None
    named = kind.__module__ in _NAMED_MODULES and getattr(sys.modules[kind.__module__], kind.__name__, None) is kind
    name: Any = f"{kind.__module__}:{kind.__name__}" if named else kind
    return (name, args, None if args == error.args else error.args, state)


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:
        return f"<str() of it raised {type(broken).__name__}>"


def _traceback_of(error: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except Exception as broken:
        text = f"{type_name(type(error))}: the traceback cannot be shown ({type(broken).__name__})\n"
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
    if not (isinstance(kind, type) and issubclass(kind, Exception)) or issubclass(kind, _NOT_RAISED):
        return None
    return _rebuild_exception(kind, args, args if error_args is None else error_args, state)


def unpack_exception(head: Any, parts: Any) -> BaseException:
    """The exception of `pack_exception`, with the remote traceback as its cause."""
    if type(head) is not tuple or len(head) != 4 or type(head[3]) is not list:
        raise _codec_error("the bytes are not an exception")
    name, text, trace, notes = head
    if not all(type(one) is str for one in (name, text, trace, *notes)):
        raise _codec_error("the bytes are not an exception")
    try:
        error = _unpack_parts(parts)
    except Exception:
        error = None
    if error is None:
        from pulsing._errors import ActorError

        error = ActorError(f"{name}: {text}" if text else name)
        if notes:
            error.__notes__ = notes  # type: ignore[attr-defined]
    from pulsing._errors import RemoteTraceback

    error.__cause__ = RemoteTraceback(trace)
    return error
