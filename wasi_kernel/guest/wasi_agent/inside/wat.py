"""`%%wat`: WebAssembly text in a cell, and the handle on the module that it becomes.

The module is in the host's worker process, outside of this guest's memory; what is here is a name
for it. Each question to the host is answered soon; while the module computes, the host is asked
again, so an interrupt is seen between two questions.
"""

from __future__ import annotations

import base64
import builtins
import contextlib
import gc
import operator
import struct
import sys
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from wasi_agent.inside import Arguments
from wasi_agent.tables import Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasi_agent.frames import Frame
    from wasi_agent.shell import ZMQInteractiveShell

PIECE_BYTES = 1 << 20
TEXT_CHARACTERS = 1 << 20


class WatError(ValueError):
    """The text is no module, or may not be one here; says what and where."""


class WasmTrap(RuntimeError):  # noqa: N818 - the field's term
    """The module did what WebAssembly does not allow; says what and where."""


class WatGoneError(ReferenceError):
    """The module of this handle is not there any more."""


def run(shell: ZMQInteractiveShell, line: str, cell: str) -> WatModule | None:
    """Compile WebAssembly text; `%%wat NAME` names the module, without NAME it is the cell's value.

    ``(import "python" "f" (func ...))`` is the notebook's function ``f``, as it is when the cell
    runs, or Python's own (``print``). Call exports as ``NAME.add(2, 3)``; ``NAME["any name"]``
    works for every name. i32 and i64 come back signed; both signs may be given.
    ``NAME.memory[0:16]`` are bytes; globals have ``.value``. ``--wasi`` gives the module WASI's
    fd_write, whose output the cell shows. ``NAME.close()`` frees it. It is lost by %undo, a
    restart, a death and in forks, which NAME says when it is shown: run the cell again.
    """
    parser = Arguments("wat")
    parser.prog = "%%wat"
    parser.add_argument("name", nargs="?", metavar="NAME")
    parser.add_argument("--wasi", action="store_true")
    said = parser.of(line)
    if said.name is not None and not said.name.isidentifier():
        raise UsageError(f"%%wat: {said.name!r} is no name for a variable")
    module = WatModule(shell.door, cell, shell.user_ns, wasi=said.wasi, name=said.name)
    if said.name is None:
        return module
    shell.user_ns[said.name] = module
    return None


class WatModule:
    """A module at work in the host; its exports are attributes and items."""

    def __init__(
        self, door: Any, text: str, functions: dict[str, Any], *, wasi: bool, name: str | None
    ) -> None:
        """Compiles and instantiates `text`; its start function runs.

        Raises:
            WatError: It is no module, or it imports what there is not.
            WasmTrap: Its start function traps.
        """
        self._door, self._name = door, name
        self._functions: dict[str, Callable[..., Any]] = {}
        if len(text) > TEXT_CHARACTERS:  # the host looks, too; so much need not travel
            raise WatError(
                f"the text of a module has at most {TEXT_CHARACTERS:,} characters, and this one "
                f"{len(text):,}; large data can be put into its memory from Python: "
                'NAME.memory[0:4] = b"data"'
            )
        self._ident = _made(door, text, wasi=wasi)
        try:
            made = self._drive("wait").content
            self._imports = {each["name"]: each for each in made["imports"]}
            for each in made["imports"]:
                if each["module"] == "python":
                    self._functions[each["name"]] = _function(functions, each["name"])
            self._exports = {each["name"]: each for each in made["exports"]}
            self._drive("instantiate")
        except BaseException:
            self.close()
            raise

    def _export(self, name: str) -> Any:
        """A new object each time: one kept here would keep this module, also after `del`."""
        about = self._exports[name]
        kinds = {"func": WatFunction, "memory": WatMemory, "global": WatGlobal}
        return kinds.get(about["kind"], WatOther)(self, about)

    def __getattr__(self, name: str) -> Any:
        exports = self.__dict__.get("_exports", {})
        if name not in exports:
            raise AttributeError(f"the module exports no {name!r}; {self._has()}")
        return self._export(name)

    def __getitem__(self, name: str) -> Any:
        if name not in self._exports:
            raise KeyError(f"the module exports no {name!r}; {self._has()}")
        return self._export(name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.__dict__.get("_exports", {})]

    def __repr__(self) -> str:
        lines = [self._title()]
        lines += [f"  import {_signature(each)}" for each in self._imports.values()]
        lines += [f"  export {self._export(name)!r}" for name in self._exports]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [("", "kind", "name", "type")]
        abouts = self._exports.values()
        rows += [("import", "func", *_parts(each)) for each in self._imports.values()]
        rows += [("export", each["kind"], *_parts(each)) for each in abouts]
        return Table(self._title(), rows, {}, head=True)._repr_html_()

    def _title(self) -> str:
        gone = "" if self._is_live() else " (gone: run its %%wat cell again)"
        return f"WebAssembly module {self._name or ''}".rstrip() + gone

    def _is_live(self) -> bool:
        look: Callable[..., Frame] = self._door.look
        return bool(look("wat_live", ident=self._ident).content["live"])

    def __reduce__(self) -> Any:
        raise TypeError("a WebAssembly module cannot be copied: run its cell again where needed")

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def to_dict(self) -> dict[str, Any]:
        """Imports and exports, as data."""
        return {
            "imports": list(self._imports.values()),
            "exports": list(self._exports.values()),
        }

    def close(self) -> None:
        """Ends the module and frees its memory."""
        self._door.look("wat_drop", ident=self._ident)

    def _has(self) -> str:
        return f"it exports {', '.join(self.__dict__.get('_exports', ())) or 'nothing'}"

    # -- the host ----------------------------------------------------------------------------

    def _drive(self, command: str, **content: Any) -> Frame:
        """Has the host do something with the module, and serves what that calls.

        An exception here, an interrupt above all, ends the module's call first.
        """
        failure: BaseException | None = None
        try:
            said = self._ask(command, **content)
            while (event := said.content["event"]) in ("running", "callback", "write"):
                if event == "running":
                    said = self._ask("wait")
                    continue
                try:
                    values = self._serve(said)
                except Exception as e:  # noqa: BLE001 - it travels through the module to its caller
                    failure, said = e, self._ask("fail")
                else:
                    said = self._ask("answer", values=values)
        except BaseException:
            if command != "wait":  # a compilation ends when it ends: its module is dropped
                self._stop()
            raise
        return self._result(said, failure)

    def _stop(self) -> None:
        """Stops the module, and waits until it has."""
        with contextlib.suppress(ValueError):
            event = self._ask("stop").content["event"]
            while event == "running":
                event = self._ask("wait").content["event"]
                if event in ("callback", "write"):
                    event = self._ask("stop").content["event"]

    def _result(self, said: Frame, failure: BaseException | None) -> Frame:
        event, message = said.content["event"], said.content.get("message", "")
        if event == "raised" and failure is not None:
            raise failure
        if event == "trap":
            raise WasmTrap(message)
        if event in ("invalid", "refused"):
            raise WatError(message)
        if event == "gone":
            raise WatGoneError(
                f"the module {self._name or ''} is gone: it was closed, or %undo, a restart or a "
                "fork left it behind; run its %%wat cell again".replace("  ", " ")
            )
        if event in ("stopped", "raised"):
            raise WasmTrap("the call was stopped")
        return said

    def _ask(self, command: str, **content: Any) -> Frame:
        look: Callable[..., Frame] = self._door.look
        return look("wat_do", ident=self._ident, command=command, **content)

    def _serve(self, said: Frame) -> list[Any]:
        content = said.content
        if content["event"] == "write":
            stream = sys.stdout if content["fd"] == 1 else sys.stderr
            stream.write(bytes(said.buffers[0]).decode("utf-8", "replace") if said.buffers else "")
            return []
        about = self._imports[content["name"]]
        args = [_from_wire(t, v) for t, v in zip(about["params"], content["args"], strict=True)]
        back, results = self._functions[content["name"]](*args), about["results"]
        if len(results) == 0 and back is not None:
            raise TypeError(f"{content['name']}() is to return None, not {back!r}")
        values = (back,) if len(results) == 1 else () if back is None else tuple(back)
        if len(values) != len(results):
            raise TypeError(f"{content['name']}() is to return {len(results)} values")
        return [_to_wire(t, v) for t, v in zip(results, values, strict=True)]


class _Export:
    def __init__(self, module: WatModule, about: dict[str, Any]) -> None:
        self._module, self.about = module, about

    def _do(self, command: str, **content: Any) -> Frame:
        # Not public: every public name of a module hides an export.
        drive = self._module._drive  # noqa: SLF001
        return drive(command, export=self.about["name"], **content)


class WatFunction(_Export):
    """A function that the module exports."""

    def __repr__(self) -> str:
        return f"func {_signature(self.about)}"

    def __call__(self, *args: Any) -> Any:
        """Calls it: a number for each parameter; gives None, a number, or a tuple of them."""
        params, results = self.about["params"], self.about["results"]
        if len(args) != len(params):
            shown = f"{_signature(self.about)} takes {len(params)} arguments"
            raise TypeError(f"{shown}, not {len(args)}")
        given = [_to_wire(t, v) for t, v in zip(params, args, strict=True)]
        values = self._do("call", args=given).content["values"]
        back = tuple(_from_wire(t, v) for t, v in zip(results, values, strict=True))
        return None if not back else back[0] if len(back) == 1 else back


class WatGlobal(_Export):
    """A global that the module exports."""

    def __repr__(self) -> str:
        return f"global {self.about['name']}: {'mut ' * self.about['mutable']}{self.about['type']}"

    @property
    def value(self) -> Any:
        """Its value; those that are mutable can be set."""
        return _from_wire(self.about["type"], self._do("get").content["values"][0])

    @value.setter
    def value(self, value: Any) -> None:
        if not self.about["mutable"]:
            raise AttributeError(f"the global {self.about['name']} is not mutable")
        self._do("set", value=_to_wire(self.about["type"], value))


class WatMemory(_Export):
    """A memory that the module exports: bytes that both sides read and write."""

    def __repr__(self) -> str:
        return f"memory {self.about['name']}"

    def __len__(self) -> int:
        return int(self._do("size").content["values"][0])

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            start, stop, step = at.indices(len(self))
            if step != 1:
                return self.read(0, len(self))[at]
            return self.read(start, max(0, stop - start))
        return self.read(self._at(at), 1)[0]

    def __setitem__(self, at: Any, value: Any) -> None:
        if not isinstance(at, slice):
            self.write(self._at(at), bytes([operator.index(value)]))
            return
        start, stop, step = at.indices(len(self))
        data = bytes(memoryview(value).cast("B"))
        if step != 1 or len(data) != max(0, stop - start):
            raise ValueError("a memory cannot change its size: give as many bytes as the slice has")
        self.write(start, data)

    def _at(self, at: Any) -> int:
        size = len(self)
        where = operator.index(at)
        where += size * (where < 0)
        if not 0 <= where < size:
            raise IndexError(f"outside of the memory, which has {size:,} bytes")
        return where

    def _check(self, at: int, length: int) -> None:
        size = len(self)
        if at < 0 or length < 0 or at + length > size:
            raise IndexError(f"outside of the memory, which has {size:,} bytes")

    def read(self, at: int, length: int) -> bytes:
        """A copy of `length` bytes at `at`."""
        self._check(at, length)
        pieces = []
        for start in range(at, at + length, PIECE_BYTES):
            count = min(PIECE_BYTES, at + length - start)
            pieces.append(bytes(self._do("read", at=start, length=count).buffers[0]))
        return b"".join(pieces)

    def write(self, at: int, data: Any) -> None:
        """Puts bytes at `at`."""
        data = bytes(memoryview(data).cast("B"))
        self._check(at, len(data))
        for start in range(0, len(data), PIECE_BYTES):
            piece = data[start : start + PIECE_BYTES]
            self._do("write", at=at + start, data=base64.b64encode(piece).decode())

    def unpack(self, form: str, at: int = 0) -> tuple[Any, ...]:
        """What `struct.unpack` reads at `at`; WebAssembly is little-endian: begin with "<"."""
        return struct.unpack(form, self.read(at, struct.calcsize(form)))

    def pack(self, form: str, at: int, *values: Any) -> None:
        """Writes what `struct.pack` makes of the values at `at`."""
        self.write(at, struct.pack(form, *values))

    def grow(self, pages: int) -> int:
        """Adds that many pages of 64 KiB; the size before, in bytes."""
        return int(self._do("grow", pages=pages).content["values"][0])


class WatOther(_Export):
    """An export that Python has no use for: a table or a tag."""

    def __repr__(self) -> str:
        return f"{self.about['kind']} {self.about['name']} (not usable from Python)"


def _made(door: Any, text: str, *, wasi: bool) -> str:
    """The host's name for a new module."""
    look: Callable[..., Frame] = door.look
    try:
        said = look("wat_make", text=text, wasi=wasi)
    except ValueError:  # there may be too many that nobody has, but the frames of a traceback
        gc.collect()
        said = _looked(door, "wat_make", text=text, wasi=wasi)
    return str(said.content["ident"])


def _looked(door: Any, op: str, **content: Any) -> Frame:
    look: Callable[..., Frame] = door.look
    try:
        return look(op, **content)
    except ValueError as e:
        raise WatError(str(e)) from None


def _function(functions: dict[str, Any], name: str) -> Callable[..., Any]:
    """The notebook's function of that name, or Python's own."""
    if name not in functions and not hasattr(builtins, name):
        raise WatError(f'(import "python" "{name}"): the notebook has no function {name!r}')
    found: Any = functions[name] if name in functions else getattr(builtins, name)
    if not callable(found):
        kind = type(found).__name__
        raise WatError(f'(import "python" "{name}"): {name!r} is no function but of type {kind}')
    served: Callable[..., Any] = found
    return served


def _signature(about: dict[str, Any]) -> str:
    return f"{about['name']}{_function_type(about)}"


def _function_type(about: dict[str, Any]) -> str:
    results = about["results"]
    shown = results[0] if len(results) == 1 else f"({', '.join(results)})" if results else "None"
    return f"({', '.join(about['params'])}) -> {shown}"


def _parts(about: dict[str, Any]) -> tuple[str, str]:
    """Name and type of an import or export, for a table."""
    if about["kind"] == "func":
        return about["name"], _function_type(about)
    if about["kind"] == "global":
        return about["name"], f"{'mut ' * about['mutable']}{about['type']}"
    return about["name"], ""


def _to_wire(kind: str, value: Any) -> Any:
    """A number for the host: integers as they are, floats as the hex of 8 bytes."""
    if kind in ("f32", "f64"):
        try:
            return struct.pack("<d", value).hex()
        except struct.error:
            raise TypeError(f"{value!r} is no number, and {kind} is wanted") from None
    if kind not in ("i32", "i64"):
        raise TypeError(f"{kind} does not travel between Python and WebAssembly")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{value!r} is no integer, and {kind} is wanted") from None
    bits = int(kind[1:])
    if not -(1 << (bits - 1)) <= number < 1 << bits:
        raise OverflowError(f"{number} does not fit in {kind}")
    return number


def _from_wire(kind: str, value: Any) -> Any:
    return value if kind[0] == "i" else struct.unpack("<d", bytes.fromhex(value))[0]
