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

from pulsing._pickling import PROTOCOL, Reducers, module_by_value

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
        self._classes: list[tuple[type, list[int]]] = []
        self._scopes: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
        self._kept: list[Any] = []  # so that the numbers stay theirs

    def note_class(self, cls: type) -> None:
        values = list(vars(cls).values())
        self._kept.append(values)
        self._classes.append((cls, list(map(id, values))))

    def note_global(self, scope: dict[str, Any], name: str) -> None:
        self._scopes.setdefault(id(scope), (scope, {}))[1][name] = scope[name]

    def is_fresh(self) -> bool:
        for cls, numbers in self._classes:
            if list(map(id, vars(cls).values())) != numbers:
                return False
        for scope, noted in self._scopes.values():
            for name, value in noted.items():
                if scope.get(name, _MISSING) is not value:
                    return False
        return True


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


def build_class(
    key: bytes, qualname: str, make: Callable[..., type], args: tuple[Any, ...]
) -> type:
    """Inside of a bundle: the class of a key, or its skeleton."""
    cls = _classes.get(key)
    if cls is None:
        cls = make(*args)
        type.__setattr__(cls, "__qualname__", qualname)  # which cloudpickle drops
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


class _CodePickler(Reducers, cloudpickle.Pickler):
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
        if name != "__main__" and module_by_value(name):
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
        return reduce_class(cls, self.specials, self.dump_special)


def reduce_class(cls: type, specials: tuple[type, ...], dump_special: Any) -> Any:
    """The key and the bundle of a class; NotImplemented for one that can be imported after all."""
    entry = _keys.get(id(cls))
    if entry is not None and entry[0]() is cls:
        with _lock:
            bundle = _bundles.get(entry[1])
            if bundle is not None and bundle.is_fresh():
                _bundles.move_to_end(entry[1])
                return load_class, (entry[1], bundle.data)
    with _lock:
        bundle = _BundlePickler.pack(cls, specials, dump_special)
        if not isinstance(bundle, _Bundle):
            return bundle
        key = _key_of(cls)
        _keep_bundle(key, bundle)
    return load_class, (key, bundle.data)


def _is_by_value(reduced: Any) -> bool:
    """Whether cloudpickle takes the class apart, rather than naming it in some way."""
    return isinstance(reduced, tuple) and len(reduced) == 6


class _BundlePickler(_CodePickler):
    """For one class and all by-value code that it reaches."""

    bundle: _Bundle

    @classmethod
    def pack(cls, subject: type, specials: tuple[type, ...], dump_special: Any) -> Any:
        """The bundle of a class; or, for one that does not travel by value, its reduction."""
        file = BytesIO()
        pickler = cls(file, PROTOCOL)
        pickler.specials = specials
        pickler.dump_special = dump_special
        pickler.bundle = _Bundle(b"", subject)
        pickler.see_module(subject)
        reduced = cloudpickle.Pickler.reducer_override(pickler, subject)
        if not _is_by_value(reduced):
            return reduced
        pickler.dump(subject)
        pickler.bundle.data = file.getvalue()
        return pickler.bundle

    def reduce_class(self, cls: type) -> Any:
        reduced = cloudpickle.Pickler.reducer_override(self, cls)
        if not _is_by_value(reduced):
            return reduced
        make, args, state, _, _, setter = reduced
        self.bundle.note_class(cls)
        built = (_key_of(cls), cls.__qualname__, make, args)
        return build_class, built, (setter, state), None, None, finish_class

    def see_function(self, function: types.FunctionType) -> None:
        """Notes the globals that cloudpickle is about to pick up."""
        scope = function.__globals__
        if not module_by_value(function.__module__) and "<locals>" not in function.__qualname__:
            return
        codes = [function.__code__]
        while codes:
            code = codes.pop()
            for name in code.co_names:
                if name in scope:
                    self.bundle.note_global(scope, name)
            codes.extend(const for const in code.co_consts if isinstance(const, types.CodeType))
