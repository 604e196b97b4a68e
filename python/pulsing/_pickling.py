# SPDX-License-Identifier: Apache-2.0
"""What the codec does in Python: objects that only their own code can take apart and rebuild.

`dumps` tries the plain pickler first, which names classes and functions by module; cloudpickle is
imported when the code itself has to travel (`__main__`, notebooks, test functions). Buffers stay
out of the pickle.
"""

from __future__ import annotations

import contextlib
import contextvars
import io
import pickle
import re
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

PROTOCOL = 5

_RECURSION_LIMIT = 6000

_current = threading.local()
"""`.load`: turns the bytes of a special object (an actor ref) back into it, while `loads` runs."""


def codec_error(text: str) -> Exception:
    from pulsing._errors import CodecError

    return CodecError(text)


def is_codec_error(error: BaseException) -> bool:
    from pulsing._errors import CodecError

    return isinstance(error, CodecError)


def type_name(kind: type) -> str:
    module = getattr(kind, "__module__", None)
    name = getattr(kind, "__qualname__", kind.__name__)
    return name if module in (None, "builtins") else f"{module}.{name}"


_REMEDIES = (
    (
        r"lock|RLock|Condition|Semaphore|Event|_local|Thread",
        "create it where it is used, in on_start or __init__",
    ),
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
        return codec_error(f"an object of type '{own}' cannot be sent: {_remedy(own)} ({error})")
    return codec_error(
        f"an object of type '{own}' cannot be sent, because it holds a '{culprit}': "
        f"{_remedy(culprit)} ({error})"
    )


_by_value_modules: dict[str, bool] = {"__main__": True, "builtins": False}


def _find_spec(name: str) -> Any:
    """The module's spec as a fresh process would find it; sys.modules does not count."""
    parent, _, _ = name.rpartition(".")
    path = None
    if parent:
        if module_by_value(parent):
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


def module_by_value(name: Any) -> bool:
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
        by_value = found is None or (
            origin is not None and found.origin is not None and found.origin != origin
        )
        # A C module's code cannot travel at all: the other process says that it lacks the module.
        if by_value and isinstance(origin, str) and not origin.endswith((".py", ".pyc")):
            by_value = False
    _by_value_modules[name] = by_value
    return by_value


_OPEN_FILES = (io.TextIOWrapper, io.BufferedIOBase, io.RawIOBase)


def _load_special(data: bytes) -> Any:
    return _current.load(data)


def _load_memoryview(data: Any, form: Any, shape: tuple[int, ...]) -> Any:
    view = memoryview(data).toreadonly()
    if form == "B" and len(shape) == 1:
        return view
    return view.cast(form) if len(shape) == 1 else view.cast(form, shape)


def _reduce_memoryview(view: Any) -> Any:
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


def _reduce_tensor(tensor: Any) -> Any:
    import torch

    if tensor.device.type != "cpu":
        raise codec_error(
            f"a tensor on device '{tensor.device}' cannot be sent: send tensor.cpu(), "
            "and move it in the actor"
        )
    if (
        tensor.layout is not torch.strided
        or tensor.is_quantized
        or (tensor.requires_grad and not tensor.is_leaf)
    ):
        return NotImplemented
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    shape = tuple(plain.shape)
    memory = b"" if 0 in shape else pickle.PickleBuffer(plain.reshape(-1).view(torch.uint8).numpy())
    return _load_tensor, (
        memory,
        str(plain.dtype).removeprefix("torch."),
        shape,
        tensor.requires_grad,
    )


def _refuse_file(file: Any) -> Any:
    raise TypeError(f"cannot pickle '{type_name(type(file))}' object")


def _reduce_error(error: BaseException) -> Any:
    from pulsing._exceptions import reduce_exception

    return reduce_exception(error)


def _reduce_variable(variable: Any) -> Any:
    from pulsing._context import reduce_variable

    return reduce_variable(variable)


# What a type's objects are reduced by; None: by themselves. A cache, emptied when it is full.
_handlers: dict[type, Callable[[Any], Any] | None] = {}
_HANDLERS_MAX = 4096


def _find_handler(kind: type) -> Callable[[Any], Any] | None:
    handler: Callable[[Any], Any] | None = None
    if kind is memoryview:
        handler = _reduce_memoryview
    elif issubclass(kind, BaseException):
        handler = _reduce_error
    elif issubclass(kind, _OPEN_FILES) and not issubclass(kind, io.BytesIO):
        handler = _refuse_file
    elif kind is contextvars.ContextVar:
        handler = _reduce_variable
    elif kind.__module__ == "torch" and kind.__name__ == "Tensor":
        handler = _reduce_tensor
    if len(_handlers) >= _HANDLERS_MAX:
        _handlers.clear()
    _handlers[kind] = handler
    return handler


class Reducers:
    """Mixed into every pickler; `reducer_override` runs for all but objects of exact builtin types,
    classes and functions among them."""

    specials: tuple[type, ...]
    dump_special: Callable[[Any], bytes]

    def common(self, obj: Any) -> Any:
        kind = type(obj)
        try:
            handler = _handlers[kind]
        except KeyError:
            handler = _find_handler(kind)
        if handler is not None:
            return handler(obj)
        if kind in self.specials:
            return _load_special, (self.dump_special(obj),)
        return NotImplemented


class _NeedsValue(Exception):
    """The plain pickler met a function that the other side cannot import."""


class _PlainPickler(Reducers, pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        is_class = isinstance(obj, type)
        if not is_class and type(obj) is not types.FunctionType:
            return self.common(obj)
        if not module_by_value(getattr(obj, "__module__", None)) and (
            "<locals>" not in obj.__qualname__
        ):
            return NotImplemented
        if not is_class:
            raise _NeedsValue
        from pulsing._by_value import reduce_class

        return reduce_class(obj, self.specials, self.dump_special)


def _value_pickler_class() -> Any:
    from pulsing._by_value import ValuePickler

    return ValuePickler


def _run(
    kind: Any, obj: Any, buffers: list[Any] | None, specials: tuple[type, ...], dump_special: Any
) -> bytes:
    file = io.BytesIO()
    pickler = kind(file, PROTOCOL, buffer_callback=None if buffers is None else buffers.append)
    pickler.specials = specials
    pickler.dump_special = dump_special
    pickler.dump(obj)
    return file.getvalue()


def dumps_by_value(obj: Any) -> bytes:
    """One pickle with everything in it."""
    return _run(_value_pickler_class(), obj, None, (), repr)


def dumps(
    obj: Any,
    allow_pickle: bool,
    buffers: list[Any],
    specials: tuple[type, ...],
    dump_special: Callable[[Any], bytes],
) -> bytes:
    """The pickle of `obj`; its buffers are appended to `buffers`."""
    if not allow_pickle:
        raise codec_error(
            f"an object of type '{type_name(type(obj))}' can only be sent as a pickle, which "
            "nodes without a cluster key refuse: set one with "
            "SystemConfig.with_cluster_key(...), or send plain values and arrays"
        )
    try:
        return _dump(obj, buffers, specials, dump_special)
    except RecursionError as error:
        try:
            with _deeper():
                return _dump(obj, buffers, specials, dump_special)
        except RecursionError:
            raise codec_error(
                f"an object of type '{type_name(type(obj))}' cannot be sent: it is nested too "
                "deeply for pickle; send it in flatter form, as a list of its parts for one"
            ) from error


def _dump(obj: Any, buffers: list[Any], specials: tuple[type, ...], dump_special: Any) -> bytes:
    buffers.clear()
    try:
        return _run(_PlainPickler, obj, buffers, specials, dump_special)
    except RecursionError:
        raise
    except Exception as error:
        if is_codec_error(error):
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
        if is_codec_error(error):
            raise
        raise _refusal(obj, error) from error


@contextlib.contextmanager
def _deeper() -> Iterator[None]:
    """Room for structures that the ordinary limit is too small for. The C pickler's frames are
    small: this many of them fit into an 8 MiB stack several times over."""
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
        raise codec_error(
            f"an object that arrived cannot be rebuilt here: {error}; its code must be importable "
            "in every process"
        ) from error
    except Exception as error:
        if is_codec_error(error):
            raise
        raise codec_error(
            f"an object that arrived cannot be rebuilt here: {type(error).__name__}: {error}"
        ) from error
    finally:
        _current.load = outer
