# SPDX-License-Identifier: Apache-2.0
"""Code that travels by value, and the identity of the classes among it.

A class that another process cannot import (from `__main__`, a notebook, a function) gets a key when
it is first sent. Each process maps a key to one class object: the class itself where it was
defined, one rebuilt copy elsewhere. So an instance that comes back is an instance of the caller's
own class, and nothing that arrives ever changes a class that is there already. A class travels as
its key and a bundle: one pickle of the class and of every by-value class that its code reaches,
which is opened only where the key is new.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable
from io import BytesIO
from typing import Any

import cloudpickle

from pulsing._pickling import _PROTOCOL, _module_by_value, _Reducers

_KEY_BYTES = 16

# Bundles kept, so that an instance costs a copy of bytes and not a new pickle of its class.
_BUNDLES_MAX = 128
_BUNDLE_BYTES_MAX = 1 << 20

_MISSING = object()

_lock = threading.RLock()
_keys: dict[int, tuple[Any, bytes]] = {}
"""id of a class: (weak reference, key). By id, because a metaclass may define `__hash__`."""
_classes: weakref.WeakValueDictionary[bytes, type] = weakref.WeakValueDictionary()
_bundles: OrderedDict[bytes, _Bundle] = OrderedDict()
_unfinished: set[bytes] = set()
"""Keys of classes that exist as skeletons while their bundle is being opened."""


class _Bundle:
    """Pickled code, and what it was made from: stale once a class or a global has changed."""

    def __init__(self, data: bytes, cls: type) -> None:
        self.data = data
        self.cls = cls  # keeps the class while the bundle is kept
        self.classes: list[tuple[type, tuple[Any, ...]]] = []
        self.globals: list[tuple[dict[str, Any], str, Any]] = []

    def is_fresh(self) -> bool:
        for cls, values in self.classes:
            now = tuple(vars(cls).values())
            if len(now) != len(values) or any(a is not b for a, b in zip(now, values, strict=True)):
                return False
        return all(scope.get(name, _MISSING) is value for scope, name, value in self.globals)


def _register(cls: type, key: bytes) -> None:
    number = id(cls)
    _keys[number] = (weakref.ref(cls, lambda _: _keys.pop(number, None)), key)
    _classes[key] = cls


def _key_of(cls: type) -> bytes:
    entry = _keys.get(id(cls))
    if entry is not None and entry[0]() is cls:
        return entry[1]
    key = os.urandom(_KEY_BYTES)
    _register(cls, key)
    return key


def _keep_bundle(key: bytes, bundle: _Bundle) -> None:
    if len(bundle.data) > _BUNDLE_BYTES_MAX:
        return
    _bundles[key] = bundle
    _bundles.move_to_end(key)
    while len(_bundles) > _BUNDLES_MAX:
        _bundles.popitem(last=False)


# -- what the pickles call -------------------------------------------------------------------------


def load_class(key: bytes, data: bytes) -> type:
    """The class of a key; its bundle is opened only when this process has none."""
    cls = _classes.get(key)
    if cls is not None and key not in _unfinished:
        return cls
    with _lock:
        cls = _classes.get(key)
        if cls is not None:
            return cls
        try:
            made: type = pickle.loads(data)
        except BaseException:
            for unfinished in list(_unfinished):
                _classes.pop(unfinished, None)
            _unfinished.clear()
            raise
        _keep_bundle(key, _Bundle(data, made))
        return made


def build_class(key: bytes, make: Callable[..., type], args: tuple[Any, ...]) -> type:
    """Inside of a bundle: the class of a key, or its skeleton."""
    cls = _classes.get(key)
    if cls is None:
        cls = make(*args)
        _register(cls, key)
        _unfinished.add(key)
    return cls


def finish_class(cls: type, state: tuple[Callable[..., Any], Any]) -> None:
    """Inside of a bundle: fills a skeleton; a class that was there before stays as it is."""
    key = _key_of(cls)
    if key in _unfinished:
        setter, content = state
        setter(cls, content)
        _unfinished.discard(key)


# -- picklers --------------------------------------------------------------------------------------


class _CodePickler(_Reducers, cloudpickle.Pickler):  # type: ignore[misc]
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (type, types.FunctionType)):
            self.see_module(obj)
            if isinstance(obj, type):
                return self.reduce_class(obj)
            self.see_function(obj)
            return super().reducer_override(obj)
        reduced = self.common(obj)
        return super().reducer_override(obj) if reduced is NotImplemented else reduced

    def see_module(self, obj: Any) -> None:
        """cloudpickle takes what is in sys.modules for importable; the other process lacks it."""
        name: Any = getattr(obj, "__module__", None)
        if name != "__main__" and _module_by_value(name):
            module = sys.modules[name]
            if name not in cloudpickle.list_registry_pickle_by_value():
                cloudpickle.register_pickle_by_value(module)

    def see_function(self, function: types.FunctionType) -> None:
        pass

    def reduce_class(self, cls: type) -> Any:
        raise NotImplementedError


class ValuePickler(_CodePickler):
    """For messages: a by-value class is its key and its bundle."""

    def reduce_class(self, cls: type) -> Any:
        entry = _keys.get(id(cls))
        if entry is not None and entry[0]() is cls:
            with _lock:
                bundle = _bundles.get(entry[1])
                if bundle is not None and bundle.is_fresh():
                    _bundles.move_to_end(entry[1])
                    return load_class, (entry[1], bundle.data)
        reduced = cloudpickle.Pickler.reducer_override(self, cls)
        if not (isinstance(reduced, tuple) and len(reduced) == 6):
            return reduced
        with _lock:
            key = _key_of(cls)
            bundle = _BundlePickler.pack(cls, self.specials, self.dump_special)
            _keep_bundle(key, bundle)
        return load_class, (key, bundle.data)


class _BundlePickler(_CodePickler):
    """For one class and all by-value code that it reaches."""

    bundle: _Bundle

    @classmethod
    def pack(cls, subject: type, specials: tuple[type, ...], dump_special: Any) -> _Bundle:
        file = BytesIO()
        pickler = cls(file, _PROTOCOL)
        pickler.specials = specials
        pickler.dump_special = dump_special
        pickler.bundle = _Bundle(b"", subject)
        pickler.dump(subject)
        pickler.bundle.data = file.getvalue()
        return pickler.bundle

    def reduce_class(self, cls: type) -> Any:
        reduced = cloudpickle.Pickler.reducer_override(self, cls)
        if not (isinstance(reduced, tuple) and len(reduced) == 6):
            return reduced
        make, args, state, _, _, setter = reduced
        self.bundle.classes.append((cls, tuple(vars(cls).values())))
        return build_class, (_key_of(cls), make, args), (setter, state), None, None, finish_class

    def see_function(self, function: types.FunctionType) -> None:
        """Notes the globals that cloudpickle is about to pick up."""
        scope = function.__globals__
        if not _module_by_value(function.__module__) and "<locals>" not in function.__qualname__:
            return
        codes = [function.__code__]
        while codes:
            code = codes.pop()
            for name in code.co_names:
                if name in scope:
                    self.bundle.globals.append((scope, name, scope[name]))
            codes.extend(const for const in code.co_consts if isinstance(const, types.CodeType))
