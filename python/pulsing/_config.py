# SPDX-License-Identifier: Apache-2.0
"""`SystemConfig`: what a system is made of. Every `with_...` gives a new one."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["SystemConfig"]

SEEDS_MAX = 64


class _OnClassOrInstance:
    """A method that makes a fresh object when called on the class: `Config.with_addr(...)`."""

    def __init__(self, function):
        self._function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance, owner):
        return self._function.__get__(owner() if instance is None else instance, owner)


def _address(field: str, value: Any) -> str:
    if not isinstance(value, str) or ":" not in value:
        raise ValueError(f"{field}: expected 'host:port', got {value!r}")
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(
            f"{field}: expected 'host:port' with a port from 0 to 65535, got {value!r}"
        )
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"{field}: an IPv6 address stands in brackets, '[::1]:80'; got {value!r}")
    return value


def _cluster_key(value: Any) -> Any:
    """The key as 64 hexadecimal digits, or the path of a file that holds it so."""
    if value is None:
        return None
    if isinstance(value, (bytes, bytearray)):
        text = bytes(value).hex() if len(value) == 32 else bytes(value).decode("ascii", "replace")
        if not _is_key(text):
            raise ValueError(
                f"cluster_key: expected 32 bytes, 64 hexadecimal digits or a path, got {len(value)}"
                " bytes"
            )
        return text.strip()
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ValueError(
            f"cluster_key: expected 32 bytes or a path, got {type(value).__name__}; "
            "`pulsing keygen FILE` makes a key"
        )
    return value.strip() if isinstance(value, str) and _is_key(value) else os.fspath(value)


def _is_key(text: str) -> bool:
    digits = text.strip()
    return len(digits) == 64 and all(c in "0123456789abcdefABCDEF" for c in digits)


def listen_address(config: SystemConfig) -> str | None:
    """Where a node listens; one with seeds alone is reached by them at any port."""
    if config.addr is not None or not config.seeds:
        return config.addr
    hosts = {seed.rpartition(":")[0] for seed in config.seeds}
    near = all(host in ("localhost", "[::1]") or host.startswith("127.") for host in hosts)
    return "127.0.0.1:0" if near else "0.0.0.0:0"


def key_arguments(key: str | None) -> tuple[str | None, str | None]:
    """What a node is given: (the key, the file that holds it)."""
    if key is None or _is_key(key):
        return key, None
    return None, os.path.abspath(key)


def _seconds(field: str, value: Any, zero: bool = False) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise ValueError(f"{field}: expected seconds, got {value!r}")
    if value < 0 or (value == 0 and not zero):
        raise ValueError(f"{field}: expected more than 0 seconds, got {value!r}")
    return float(value)


def _count(field: str, value: Any, low: int, high: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{field}: expected a whole number from {low} to {high}, got {value!r}")
    return value


def _by_index(field: str, source: Any, count: int) -> None:
    """ValueError unless `source` says something for each of `count` workers."""
    if source is None or callable(source) or (field == "env" and isinstance(source, dict)):
        return
    if not isinstance(source, (list, tuple)):
        raise ValueError(
            f"{field}: expected a list by worker index, or a function of it, got {source!r}"
        )
    if len(source) < count:
        raise ValueError(f"{field}: has {len(source)} entries for {count} workers")


def env_of(source: Any, index: int) -> dict[str, str | None]:
    """What `env=` sets for one worker; None removes a variable."""
    entry = source if isinstance(source, dict) else _entry(source, index)
    if not isinstance(entry, dict):
        raise ValueError(f"env: expected a dict for worker {index}, got {entry!r}")
    for name, value in entry.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ValueError(f"env: {name!r} is no name of a variable (worker {index})")
        if value is not None and (not isinstance(value, (str, int)) or "\0" in str(value)):
            raise ValueError(f"env: {name} of worker {index} is no text: {value!r}")
    return {name: None if value is None else str(value) for name, value in entry.items()}


def cpus_of(source: Any, index: int) -> list[int] | None:
    """The CPUs that `cpus=` gives one worker; None: all that there are."""
    entry = _entry(source, index)
    if entry is None:
        return None
    usable = os.sched_getaffinity(0)
    cpus = list(entry) if isinstance(entry, (list, tuple, set, frozenset, range)) else [entry]
    for cpu in cpus:
        if isinstance(cpu, bool) or not isinstance(cpu, int) or cpu not in usable:
            raise ValueError(
                f"cpus: {cpu!r} (worker {index}) is not among the usable CPUs {sorted(usable)}"
            )
    if not cpus:
        raise ValueError(f"cpus: worker {index} has none; None gives it all")
    return sorted(set(cpus))


def _entry(source: Any, index: int) -> Any:
    return source(index) if callable(source) else source[index]


def _preload(value: Any) -> None:
    names = [value] if isinstance(value, str) else value
    if value is None or callable(value):
        return
    if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) and n for n in names):
        raise ValueError(f"preload: expected a function or names of modules, got {value!r}")


def usable_cpus() -> int:
    """CPUs that this process may use: affinity, and the cgroup's `cpu.max`."""
    count = len(os.sched_getaffinity(0))
    try:
        with open("/sys/fs/cgroup/cpu.max") as f:
            quota, period = f.read().split()[:2]
        if quota != "max":
            count = min(count, max(1, -(-int(quota) // int(period))))
    except (OSError, ValueError):
        pass
    return max(1, count)


@dataclasses.dataclass(frozen=True)
class SystemConfig:
    """What `create_actor_system` builds.

    Every field is also the environment variable `PULSING_<FIELD>` (`PULSING_WORKERS=4`), used
    where the program gives none. A bad value is a `ValueError` that names the field.
    """

    addr: str | None = None
    advertise: str | None = None
    seeds: tuple[str, ...] = ()
    workers: int | None = None
    worker_env: Any = None
    worker_cpus: Any = None
    worker_setup: Callable[[], Any] | None = None
    worker_preload: Any = None
    worker_start: str = "fork"
    worker_memory: int | None = None
    worker_recycle: int | None = None
    worker_warm: bool = False
    cluster_key: Any = dataclasses.field(default=None, repr=False)
    name: str | None = None
    ask_timeout: float | None = None
    stop_timeout: float = 10.0
    slow_ask: float | None = 30.0
    memory_bytes: int | None = None
    attach_to: str | None = None

    def __post_init__(self):
        put = object.__setattr__
        for field in ("addr", "advertise", "name", "cluster_key"):
            if field != "name" and self.attach_to is not None:
                continue  # the node that is attached to has its own
            if getattr(self, field) is None and os.environ.get(f"PULSING_{field.upper()}"):
                put(self, field, os.environ[f"PULSING_{field.upper()}"])
        if not self.seeds and self.attach_to is None and os.environ.get("PULSING_SEEDS"):
            put(self, "seeds", tuple(os.environ["PULSING_SEEDS"].split(",")))
        if self.workers is None and os.environ.get("PULSING_WORKERS"):
            text = os.environ["PULSING_WORKERS"]
            put(self, "workers", int(text) if text.isdigit() else text)
        if self.addr is not None:
            _address("addr", self.addr)
        if self.advertise is not None:
            _address("advertise", self.advertise)
        if isinstance(self.seeds, str):
            raise ValueError(
                f"seeds: expected a list of 'host:port', got the string {self.seeds!r}"
            )
        put(self, "seeds", tuple(_address("seeds", seed) for seed in self.seeds))
        if len(self.seeds) > SEEDS_MAX:
            raise ValueError(f"seeds: at most {SEEDS_MAX}, got {len(self.seeds)}; a few are enough")
        put(self, "cluster_key", _cluster_key(self.cluster_key))
        self._check_cluster()
        _count("workers", self.workers, 0, 254)
        _count("memory_bytes", self.memory_bytes, 1 << 20, 1 << 50)
        _seconds("ask_timeout", self.ask_timeout)
        _seconds("slow_ask", self.slow_ask)
        put(self, "stop_timeout", _seconds("stop_timeout", self.stop_timeout, zero=True))
        if self.name is not None and (
            not isinstance(self.name, str) or not 0 < len(self.name.encode()) <= 255
        ):
            raise ValueError(f"name: expected 1 to 255 bytes of text, got {self.name!r}")
        self._check_workers()

    def _check_cluster(self) -> None:
        given = [f for f in ("addr", "advertise", "seeds", "cluster_key") if getattr(self, f)]
        if self.attach_to is not None and given:
            raise ValueError(
                f"{given[0]}: belongs to the node that is attached to, and was given where that "
                "was started"
            )

    def _check_workers(self) -> None:
        if self.worker_setup is not None and not callable(self.worker_setup):
            raise ValueError(f"setup: expected a function, got {self.worker_setup!r}")
        _preload(self.worker_preload)
        if self.worker_start not in ("fork", "exec"):
            raise ValueError(f"start: expected 'fork' or 'exec', got {self.worker_start!r}")
        _count("memory", self.worker_memory, 1 << 20, 1 << 50)
        _count("recycle", self.worker_recycle, 1, 1 << 50)
        if not isinstance(self.worker_warm, bool):
            raise ValueError(f"warm: expected True or False, got {self.worker_warm!r}")
        if self.worker_env is not None or self.worker_cpus is not None:
            count = self.workers if self.workers is not None else usable_cpus()
            _by_index("env", self.worker_env, count)
            _by_index("cpus", self.worker_cpus, count)
        given = {f.name: getattr(self, f.name) != f.default for f in dataclasses.fields(self)}
        alien = [name for name, set_here in given.items() if set_here and name[:7] == "worker_"]
        if self.attach_to is not None and alien:
            raise ValueError(
                f"{alien[0].replace('worker_', '')}: workers belong to the node that is attached "
                "to, and were described where it was started"
            )

    @classmethod
    def standalone(cls) -> SystemConfig:
        """An embedded node of this program alone: no network listener, nothing to start by hand."""
        return cls()

    @classmethod
    def attach(cls, name_or_socket_path: str) -> SystemConfig:
        """Attach to a node that runs on this host already (`pulsing node`, or a launcher)."""
        if not isinstance(name_or_socket_path, str) or not name_or_socket_path:
            raise ValueError(
                f"attach: expected a node's name or socket path, got {name_or_socket_path!r}"
            )
        return cls(attach_to=name_or_socket_path)

    def _with(self, **changes: Any) -> SystemConfig:
        return dataclasses.replace(self, **changes)

    @_OnClassOrInstance
    def with_addr(self, addr: str) -> SystemConfig:
        """Listen on `host:port`; port 0 asks the system for one."""
        return self._with(addr=_address("addr", addr))

    @_OnClassOrInstance
    def with_advertise(self, addr: str) -> SystemConfig:
        """The address that other nodes are told."""
        return self._with(advertise=addr)

    @_OnClassOrInstance
    def with_seeds(self, seeds: Sequence[str]) -> SystemConfig:
        """Nodes to join: `["host:port", ...]`."""
        return self._with(seeds=seeds if isinstance(seeds, str) else tuple(seeds))

    @_OnClassOrInstance
    def with_workers(
        self,
        n: int,
        env: Any = None,
        cpus: Any = None,
        setup: Any = None,
        *,
        preload: Any = None,
        start: str = "fork",
        memory: int | None = None,
        recycle: int | None = None,
        warm: bool = False,
    ) -> SystemConfig:
        """Up to `n` worker processes, started when needed; 0 keeps everything in this process.

        `env` and `cpus` are a list by worker index, or a function of it; one dict of `env` is for
        every worker. `setup` is called once in every worker before its first actor. `preload`, a
        function or names of modules, is for the process that workers are forked from: what it
        loads they share. `start="exec"` gives each worker a fresh interpreter. `memory` is how
        many bytes a worker may have resident before it is killed. `recycle` is after how many
        messages a worker is replaced by a fresh one. `warm` starts all of them with the system.
        """
        if n is None:
            raise ValueError("workers: expected a whole number from 0 to 254, got None")
        return self._with(
            workers=n,
            worker_env=env,
            worker_cpus=cpus,
            worker_setup=setup,
            worker_preload=preload,
            worker_start=start,
            worker_memory=memory,
            worker_recycle=recycle,
            worker_warm=warm,
        )

    @_OnClassOrInstance
    def with_cluster_key(self, key: Any) -> SystemConfig:
        """The 32-byte secret of the cluster, or the path of the file that holds it."""
        return self._with(cluster_key=key)

    @_OnClassOrInstance
    def with_name(self, name: str) -> SystemConfig:
        """The node's name; `SystemConfig.attach(name)` finds it by that."""
        return self._with(name=name)

    @_OnClassOrInstance
    def with_ask_timeout(self, seconds: float | None) -> SystemConfig:
        """The deadline of an ask that gives none itself."""
        return self._with(ask_timeout=seconds)

    @_OnClassOrInstance
    def with_slow_ask(self, seconds: float | None) -> SystemConfig:
        """After how long a call that waits is logged, once, with whom it waits for; None: never."""
        return self._with(slow_ask=seconds)

    @_OnClassOrInstance
    def with_stop_timeout(self, seconds: float) -> SystemConfig:
        """How long stopping may drain mailboxes and run `on_stop`."""
        return self._with(stop_timeout=seconds)

    @_OnClassOrInstance
    def with_memory(self, bytes_max: int) -> SystemConfig:
        """The budget of each process for large payloads in flight."""
        return self._with(memory_bytes=bytes_max)
