"""Modules of cells (`%%wat`): each has an engine, a store and a thread of its own.

They are interpreted (Pulley): a confined worker gets no new machine code, so compiled ones could
not run in it. Nothing can be imported but functions that the guest serves, and fd_write if asked
for, which the guest serves as well: a module reaches what its guest reaches, and no more.

The guest never waits long: each question is answered within TURN_S, at the latest with "running",
and the guest asks again. So an interrupt of the cell is seen by the guest, who then stops the
module. The two threads take turns; all that touches a store happens on the module's own thread.
"""

from __future__ import annotations

import binascii
import os
import queue
import struct
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import wasmtime
from wasmtime import (
    Config,
    Engine,
    Func,
    FuncType,
    Global,
    Instance,
    Memory,
    Module,
    Store,
    Trap,
    TrapCode,
    Val,
    WasmtimeError,
)
from wasmtime._bindings import wasmtime_config_async_stack_size_set

from wasi_kernel.worker import looks
from wasi_kernel.worker.looks import Refusal, Sight
from wasi_kernel.worker.memory import WASM_PAGE

if TYPE_CHECKING:
    from collections.abc import Callable

LIVE = 8
"""Modules at a time; each may have that part of the policy's memory limit."""
TEXT_CHARACTERS, BINARY_BYTES = 1 << 20, 1 << 20
MESSAGE_WIDTH, PREFIX, ELLIPSIS = 160, 8, "\u2026"
"""Characters of a line in a message, and of the line's number before them."""
TABLE_ELEMENTS = 100_000
STACK_BYTES = 512 << 10
THREAD_STACK_BYTES = 16 << 20
"""Room for STACK_BYTES, the compiler, and DEPTH calls back and forth."""
DEPTH = 24
"""Calls into a module from functions that it has called."""
PIECE_BYTES = 1 << 20
"""The most bytes of memory that one question reads or writes, and one fd_write takes."""
TURN_S = 0.05
"""How long a question waits: as long may an interrupt take to be seen."""
PYTHON, WASI = "python", "wasi_snapshot_preview1"
SUCCESS, EBADF, EFAULT, EINVAL = 0, 8, 21, 28
NUMBERS = ("i32", "i64", "f32", "f64")
_MAKERS = {"i32": Val.i32, "i64": Val.i64, "f32": Val.f32, "f64": Val.f64}


class _Unwind(Exception):  # noqa: N818 - of a call that is given up, not a fault
    """The call ends here: its callback has failed, or it is stopped."""


class Event(NamedTuple):
    """What a module's thread says: its kind, what belongs to it, and bytes."""

    kind: str
    content: dict[str, Any]
    data: bytes = b""

    def sight(self) -> Sight:
        """It as an answer."""
        return Sight({"event": self.kind, **self.content}, (self.data,) if self.data else ())


def to_wire(kind: str, value: Any) -> Any:
    """A number as JSON has it, exactly: integers as they are, floats as the hex of 8 bytes."""
    return int(value) if kind[0] == "i" else struct.pack("<d", value).hex()


def from_wire(kind: str, value: Any) -> Any:
    """The number that the guest means; integers of both signs, as WebAssembly has them.

    Raises:
        Refusal: It is none of that type.
    """
    if kind[0] == "i":
        bits = int(kind[1:])
        if type(value) is not int or not -(1 << bits - 1) <= value < 1 << bits:
            raise Refusal(f"that is no {kind}")
        return value - (1 << bits) if value >> bits - 1 > 0 else value
    try:
        return struct.unpack("<d", bytes.fromhex(value))[0]
    except (TypeError, ValueError, struct.error):
        raise Refusal(f"that is no {kind}") from None


def make_engine() -> Engine:
    """An engine that interprets, and whose code can be stopped from another thread."""
    config = Config()
    config.target = "pulley64"
    config.epoch_interruption = True
    config.parallel_compilation = False  # bounds a compilation to one core
    config.wasm_gc = config.wasm_exceptions = False  # their heap is beside the memory's limit
    config.gc_support = False
    config.wasm_threads = False  # memory.atomic.wait would wait where nothing ends it
    config.wasm_memory64 = False
    config.wasm_multi_memory = False  # the limit is one memory's
    wasmtime_config_async_stack_size_set(config.ptr(), 2 * STACK_BYTES)
    config.max_wasm_stack = STACK_BYTES
    return Engine(config)


class WatModule:
    """One module and its thread; commands come in, events go out, in turns."""

    def __init__(self, text: str, memory_bytes: int, *, wasi: bool) -> None:
        """Begins to compile `text`; the first event says what became of it."""
        self._text, self._memory_bytes, self._wasi = text, memory_bytes, wasi
        self._engine = make_engine()
        self._commands: queue.SimpleQueue[tuple[str, dict[str, Any]]] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._exports: dict[str, Any] = {}
        self._depth = 0
        self._stopping = False
        self.busy = True
        self.pending = 0
        previous = threading.stack_size(THREAD_STACK_BYTES)
        try:
            self._thread = threading.Thread(target=self._main, daemon=True)
            self._thread.start()
        finally:
            threading.stack_size(previous)

    # -- the guest's thread ------------------------------------------------------------------

    def ask(self, command: str, content: dict[str, Any]) -> Event:
        """Gives a command, and waits a moment for what comes of it.

        Raises:
            Refusal: The module is at work.
        """
        if self.busy:
            raise Refusal("the module is at work: its last call has not ended")
        if command in ("answer", "fail"):
            if not self.pending:
                raise Refusal("the module waits for no answer")
            self.pending -= 1
        elif not self.pending:
            self._stopping = False
        self.busy = True
        self._commands.put((command, content))
        return self.wait()

    def wait(self) -> Event:
        """What the module says next; "running" when it says nothing in TURN_S.

        Raises:
            Refusal: It is not at work.
        """
        if not self.busy:
            raise Refusal("the module is not at work")
        try:
            event = self._events.get(timeout=TURN_S)
        except queue.Empty:
            return Event("running", {})
        self.busy = False
        self.pending += event.kind in ("callback", "write")
        return event

    def stop(self) -> None:
        """Ends what it computes and all calls that wait; `wait` says when."""
        self._stopping = True
        self._engine.increment_epoch()
        if not self.busy and self.pending:
            self.busy = True
            self.pending -= 1
            self._commands.put(("stop", {}))

    def end(self) -> None:
        """Ends it for good; its memory is freed as soon as its thread has come to an end."""
        self.stop()
        self._commands.put(("end", {}))

    def is_over(self, timeout_s: float) -> bool:
        """Has its thread ended, at the latest in that time? A compilation ends when it ends."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # -- the module's thread -----------------------------------------------------------------

    def _main(self) -> None:
        try:
            module = Module(self._engine, self._binary())
            self._text = ""
            imports = [_import(each, wasi=self._wasi) for each in module.imports]
            exports = [_extern(each.name, each.type) for each in module.exports]
            self._events.put(Event("compiled", {"imports": imports, "exports": exports}))
        except (WasmtimeError, Refusal, MemoryError) as e:
            self._events.put(Event("invalid", {"message": _readable(str(e))}))
            return
        store = Store(self._engine)
        store.set_limits(
            memory_size=self._memory_bytes, table_elements=TABLE_ELEMENTS, instances=1, tables=4,
            memories=1,
        )  # fmt: skip
        try:
            while True:
                command, content = self._commands.get()
                if command == "end":
                    return
                store.set_epoch_deadline(1)
                # Asked after the deadline is set: a stop of before would not reach it.
                stopped = self._stopping or command == "stop"
                self._events.put(
                    Event("stopped", {}) if stopped else self._do(store, module, command, content)
                )
        finally:
            self._exports.clear()
            store.close()

    def _binary(self) -> bytes:
        binary = wasmtime.wat2wasm(self._text)
        if len(binary) > BINARY_BYTES:
            raise Refusal(f"the module has {len(binary):,} bytes, at most {BINARY_BYTES:,}")
        return bytes(binary)

    def _do(self, store: Any, module: Module, command: str, content: dict[str, Any]) -> Event:
        """One command; whatever comes of it is an event."""
        try:
            if command == "instantiate":
                return self._instantiate(store, module)
            if command == "call":
                return self._call(store, content)
            return self._touch(store, command, content)
        except Refusal as e:
            return Event("refused", {"message": str(e)})
        except _Unwind:
            return Event("stopped" if self._stopping else "raised", {})
        except Trap as e:
            if e.trap_code is TrapCode.INTERRUPT:
                return Event("stopped", {})
            return Event("trap", {"message": _explained(str(e))})
        except (WasmtimeError, MemoryError) as e:
            return Event("refused", {"message": str(e)})

    def _instantiate(self, store: Store, module: Module) -> Event:
        if self._exports:
            raise Refusal("the module has an instance already")
        given = [self._imported(store, module, each) for each in module.imports]
        found = Instance(store, module, given).exports(store)
        self._exports = dict(found.items())
        return Event("done", {"values": []})

    def _imported(self, store: Store, module: Module, what: Any) -> Func:
        kind = what.type
        if what.module == WASI:
            return Func(store, kind, self._fd_write, access_caller=True)
        params, results = ([str(t) for t in ts] for ts in (kind.params, kind.results))

        def serve(caller: Any, *values: Any) -> Any:
            args = [to_wire(t, v) for t, v in zip(params, values, strict=True)]
            said = {"module": what.module, "name": what.name, "args": args}
            back = self._served(caller, module, Event("callback", said))
            if len(back) != len(results):
                raise _Unwind
            made = [_MAKERS[t](from_wire(t, v)) for t, v in zip(results, back, strict=True)]
            return None if not made else made[0] if len(made) == 1 else made

        return Func(store, kind, serve, access_caller=True)

    def _served(self, caller: Any, module: Module | None, event: Event) -> list[Any]:
        """Has the guest serve this; meanwhile it may call, read and write here.

        Raises:
            _Unwind: It failed, or the call is stopped.
        """
        if self._stopping:
            raise _Unwind
        self._events.put(event)
        while True:
            command, content = self._commands.get()
            if command == "answer":
                values = content.get("values")
                return values if isinstance(values, list) else []
            if command in ("fail", "stop", "end"):
                if command == "end":
                    self._commands.put((command, content))
                raise _Unwind
            if module is None or command == "instantiate" or self._depth >= DEPTH:
                text = f"at most {DEPTH} calls back and forth lie in one another"
                self._events.put(Event("refused", {"message": text}))
                continue
            self._depth += 1
            try:
                self._events.put(self._do(caller, module, command, content))
            finally:
                self._depth -= 1

    def _fd_write(self, caller: Any, fd: int, iovs: int, count: int, out: int) -> int:
        """WASI's fd_write, of 1 and 2, which are the cell's; what is too long is cut."""
        memory = caller.get("memory")
        if fd not in (1, 2):
            return EBADF
        if not isinstance(memory, Memory) or not 0 <= count <= 1024:
            return EINVAL
        size, data = memory.data_len(caller), b""
        iovs, out = iovs & 0xFFFFFFFF, out & 0xFFFFFFFF
        if iovs + 8 * count > size or out + 4 > size:
            return EFAULT
        words = struct.unpack(f"<{2 * count}I", bytes(memory.read(caller, iovs, iovs + 8 * count)))
        for at, length in zip(words[::2], words[1::2], strict=True):
            if at + length > size:
                return EFAULT
            data += memory.read(caller, at, at + min(length, PIECE_BYTES - len(data)))
        self._served(caller, None, Event("write", {"fd": fd}, data or b""))
        memory.write(caller, struct.pack("<I", len(data)), out)
        return SUCCESS

    def _call(self, store: Any, content: dict[str, Any]) -> Event:
        func = self._export(content, Func)
        kind = func.type(store)
        params, results = ([str(t) for t in ts] for ts in (kind.params, kind.results))
        if unknown := sorted({*params, *results} - {*NUMBERS}):
            raise Refusal(f"{', '.join(unknown)} do not travel between Python and WebAssembly")
        given = content.get("args")
        if not isinstance(given, list) or len(given) != len(params):
            raise Refusal(f"it takes {len(params)} arguments")
        values = [_MAKERS[t](from_wire(t, v)) for t, v in zip(params, given, strict=True)]
        back = func(store, *values)
        back = [] if not results else [back] if len(results) == 1 else back
        return Event(
            "done", {"values": [to_wire(t, v) for t, v in zip(results, back, strict=True)]}
        )

    def _export(self, content: dict[str, Any], kind: type) -> Any:
        name = looks.text(content, "export", most=TEXT_CHARACTERS)
        found = self._exports.get(name)
        if not isinstance(found, kind):
            raise Refusal(f"the module exports no {kind.__name__.lower()} {name[:80]!r}")
        return found

    def _touch(self, store: Any, command: str, content: dict[str, Any]) -> Event:
        """Reads or changes a memory or a global."""
        if command in ("get", "set"):
            it = self._export(content, Global)
            kind = str(it.type(store).content)
            if kind not in NUMBERS:
                raise Refusal(f"a global of type {kind} does not travel to Python")
            if command == "set":
                it.set_value(store, _MAKERS[kind](from_wire(kind, content.get("value"))))
            return Event("done", {"values": [to_wire(kind, it.value(store))]})
        memory = self._export(content, Memory)
        size = memory.data_len(store)
        if command == "size":
            return Event("done", {"values": [size]})
        if command == "grow":
            pages = looks.number(content, "pages", most=1 << 16)
            return Event("done", {"values": [memory.grow(store, pages) * WASM_PAGE]})
        at = looks.number(content, "at", most=size)
        if command == "read":
            length = looks.number(content, "length", most=min(PIECE_BYTES, size - at))
            return Event("done", {"values": []}, bytes(memory.read(store, at, at + length)))
        try:
            data = binascii.a2b_base64(looks.text(content, "data", most=2 * PIECE_BYTES))
        except (binascii.Error, ValueError):
            raise Refusal("data is no base64") from None
        if at + len(data) > size:
            raise Refusal(f"that is outside of the memory, which has {size:,} bytes")
        memory.write(store, data, at)
        return Event("done", {"values": []})


class Modules:
    """The live modules of a guest, and the answers to what it asks about them.

    Each has a random name, so that a handle which came out of a checkpoint, or went into a fork,
    never means another one.
    """

    def __init__(self, memory_bytes: int) -> None:
        """Takes what the policy allows the guest; all modules together have as much again."""
        self._each_bytes = memory_bytes // LIVE // WASM_PAGE * WASM_PAGE
        self._live: dict[str, WatModule] = {}
        self._ending: list[WatModule] = []

    def ops(self) -> dict[str, Callable[[dict[str, Any]], Sight]]:
        """What Looks takes."""
        return {
            "wat_make": self._make, "wat_do": self._do, "wat_drop": self._drop,
            "wat_live": self._is_live,
        }  # fmt: skip

    def rest(self) -> None:
        """The guest's turn is over: what it has left at work is ended."""
        for ident, module in list(self._live.items()):
            if module.busy or module.pending:
                self._end(ident)

    def forget(self) -> None:
        """The guest goes to another state: no module goes with it."""
        for ident in list(self._live):
            self._end(ident)

    def _end(self, ident: str) -> None:
        module = self._live.pop(ident)
        module.end()
        self._ending.append(module)

    def _make(self, content: dict[str, Any]) -> Sight:
        text = looks.text(content, "text", most=TEXT_CHARACTERS)
        self._ending = [m for m in self._ending if not m.is_over(TURN_S)]
        if len(self._live) + len(self._ending) >= LIVE:
            raise Refusal(f"there are {LIVE} modules already: NAME.close() makes room, or del NAME")
        module = WatModule(text, self._each_bytes, wasi=content.get("wasi") is True)
        ident = os.urandom(16).hex()
        self._live[ident] = module
        return Sight({"ident": ident})

    def _do(self, content: dict[str, Any]) -> Sight:
        ident = looks.text(content, "ident", most=64)
        module = self._live.get(ident)
        if module is None:
            return Sight({"event": "gone"})
        command = looks.text(content, "command", most=16)
        if command == "stop":
            module.stop()
            return Sight({"event": "running" if module.busy else "stopped"})
        if command in ("wait", *_COMMANDS):
            event = module.wait() if command == "wait" else module.ask(command, content)
        else:
            raise Refusal(f"there is no {command!r} to do with a module")
        if event.kind == "invalid":
            self._end(ident)
        return event.sight()

    def _is_live(self, content: dict[str, Any]) -> Sight:
        return Sight({"live": looks.text(content, "ident", most=64) in self._live})

    def _drop(self, content: dict[str, Any]) -> Sight:
        ident = looks.text(content, "ident", most=64)
        if ident in self._live:
            self._end(ident)
        return Sight({})


_COMMANDS = (
    "instantiate", "call", "answer", "fail", "get", "set", "size", "grow", "read", "write",
)  # fmt: skip


def _import(what: Any, *, wasi: bool) -> dict[str, Any]:
    """What is imported, if it may be.

    Raises:
        Refusal: It may not.
    """
    shown = f'(import "{what.module}" "{what.name}")'
    if not isinstance(what.type, FuncType):
        raise Refusal(f"{shown}: only functions can be imported")
    said = _extern(what.name, what.type)
    if what.module == WASI:
        if what.name != "fd_write" or (said["params"], said["results"]) != (["i32"] * 4, ["i32"]):
            raise Refusal(f"{shown}: of WASI there is fd_write, with four i32 and an i32 result")
        if not wasi:
            raise Refusal(f"{shown}: %%wat --wasi gives the module fd_write")
    elif what.module != PYTHON:
        raise Refusal(f'{shown}: functions come from "{PYTHON}", fd_write from "{WASI}"')
    if unknown := sorted({*said["params"], *said["results"]} - {*NUMBERS}):
        raise Refusal(f"{shown}: {', '.join(unknown)} do not travel between Python and WebAssembly")
    return {"module": what.module, **said}


def _extern(name: str, kind: Any) -> dict[str, Any]:
    if isinstance(kind, FuncType):
        params, results = ([str(t) for t in ts] for ts in (kind.params, kind.results))
        return {"kind": "func", "name": name, "params": params, "results": results}
    if isinstance(kind, wasmtime.MemoryType):
        return {"kind": "memory", "name": name}
    if isinstance(kind, wasmtime.GlobalType):
        return {
            "kind": "global", "name": name, "type": str(kind.content), "mutable": kind.mutable,
        }  # fmt: skip
    return {"kind": "table" if isinstance(kind, wasmtime.TableType) else "tag", "name": name}


def _readable(text: str) -> str:
    """A message about a place in a text, whose line may be as long as the text: what is near it."""
    lines = text.splitlines()
    if max(map(len, lines), default=0) <= MESSAGE_WIDTH:
        return text
    caret = next((line.index("^") for line in lines if line.strip(" |") == "^"), 0)
    start = max(PREFIX, caret - MESSAGE_WIDTH // 2)
    for k, line in enumerate(lines):
        if len(line) > MESSAGE_WIDTH or (line.strip(" |") == "^" and start > PREFIX):
            shown = line[start : start + MESSAGE_WIDTH]
            lines[k] = line[:PREFIX] + shown + ELLIPSIS * (len(line) > start + MESSAGE_WIDTH)
    return "\n".join(lines)


def _explained(text: str) -> str:
    """A trap's cause first, then where."""
    where, _, why = text.partition("\n\nCaused by:\n")
    lines = [line for line in where.splitlines()[1:] if line.strip()]
    cause = why.strip().removeprefix("wasm trap: ") or where.splitlines()[0]
    return "\n".join([cause, "wasm backtrace:", *lines[:24]])
