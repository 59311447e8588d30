"""The engine and the compiled modules: the one place that configures wasmtime.

No epochs and no fuel: in the probes that this design stands on they cost 24-35 % on Python code and
2.6x on numpy loops (wasmtime 49, one binary, side by side), and they cannot stop a blocked host
call. What must be stopped is stopped by writing CPython's signal flags (interrupts.py) or by
killing this process.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wasmtime
from wasmtime import Config, Engine, Module, WasmtimeError
from wasmtime._bindings import wasmtime_config_async_stack_size_set

from wasi_kernel import shared
from wasi_kernel.errors import InstallationError

if TYPE_CHECKING:
    from wasi_kernel.caches import Cache

_METADATA = re.compile(r"wasmtime-[0-9][^-]*\.dist-info")
FORMAT = "1"
"""Part of every key below; a new one makes all caches anew."""

COMPILE_CPU_S_PER_MIB = 0.79
"""CPU seconds per MiB of module that Cranelift took (wasmtime 49, x86-64: 79 s for 99.7 MiB)."""


@functools.cache
def wasmtime_version() -> str:
    """Version of wasmtime-py, and with it of the native library.

    Read off the name of its folder of metadata: importlib.metadata takes as long to import as all
    of wasmtime (17 ms of 60 from a worker's start to its first turn).
    """
    where = Path(wasmtime.__file__).parent.parent
    found = [name for name in os.listdir(where) if _METADATA.fullmatch(name)]
    if len(found) == 1:
        return found[0].removeprefix("wasmtime-").removesuffix(".dist-info")
    from importlib import metadata

    return metadata.version("wasmtime")


def make_engine(stack_bytes: int) -> Engine:
    """An engine whose WebAssembly stack is `stack_bytes`.

    The calling thread's own stack must be at least 2 MiB larger: with equal sizes deep recursion
    kills the process instead of trapping.
    """
    config = Config()
    config.wasm_exceptions = True
    # First: a wasm stack above the asynchronous stack (2 MiB by default) is refused.
    wasmtime_config_async_stack_size_set(config.ptr(), stack_bytes)
    config.max_wasm_stack = stack_bytes
    config.memory_may_move = False  # interrupts.py and door.py keep addresses
    return Engine(config)


def key(*parts: str) -> str:
    """Name of a cache entry that depends on `parts` and on this wasmtime."""
    h = hashlib.sha256()
    for part in (FORMAT, wasmtime_version(), *parts):
        h.update(part.encode() + b"\0")
    return h.hexdigest()[:32]


def module_path(cache: Cache, digest: str) -> Path:
    """Where the compiled form of the module with SHA-256 `digest` is kept."""
    return cache.folder("modules") / f"{key('module', digest)}.cwasm"


def load(engine: Engine, cache: Cache, path: Path) -> Module | None:
    """The compiled module at `path`, or None if there is none that may be loaded."""
    if cache.load(path) is None and not (shared.take(cache, path) and cache.load(path) is not None):
        return None
    try:
        return Module.deserialize_file(engine, str(path))
    except (WasmtimeError, OSError):
        cache.remove(path)
        return None


def compile_file(engine: Engine, cache: Cache, wasm: Path, path: Path) -> None:
    """Compiles the module `wasm` and keeps the result at `path`.

    Raises:
        InstallationError: `wasm` is no module that this wasmtime accepts.
    """
    started = time.process_time()

    def write(new: Path) -> dict[str, Any]:
        try:
            module = Module.from_file(engine, str(wasm))
        except WasmtimeError as e:
            raise InstallationError(f"{wasm} does not compile: {str(e).splitlines()[0]}") from e
        new.write_bytes(module.serialize())
        return {"wasm": str(wasm), "cpu_s": round(time.process_time() - started, 1)}

    cache.store(path, write)


def small_path(cache: Cache, text: str) -> Path:
    """Where `small_module` keeps the compiled form of a text."""
    return module_path(cache, hashlib.sha256(text.encode()).hexdigest())


def small_module(engine: Engine, cache: Cache, text: str) -> Module:
    """The module that the WebAssembly text says, compiled once and kept.

    The switchboard's two take 12 to 18 ms to compile and 1 ms to load.
    """
    path = small_path(cache, text)
    module = load(engine, cache, path)
    if module is None:
        module = Module(engine, text)
        serialized = module.serialize()

        def write(new: Path) -> dict[str, Any]:
            new.write_bytes(serialized)
            return {}

        cache.store(path, write)
    return module


def compile_cpu_s(wasm_bytes: int) -> float:
    """About how many CPU seconds compiling a module of that size takes on a usual machine."""
    return COMPILE_CPU_S_PER_MIB * wasm_bytes / (1 << 20)


def cores() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
