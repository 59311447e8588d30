"""WebAssembly text of one function: each instruction of its body in a line, indented by blocks.

Functions, globals, types and labels are written as their index, with the name in a comment behind
it, so the text can be compiled again as it is: in a module that has the same types, wat2wasm makes
the same body of it. Text format: https://webassembly.github.io/spec/core/text/index.html.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from wasi_kernel.worker.cursor import Cursor, MalformedError
from wasi_kernel.worker.opcodes import PREFIXES, opcodes

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasi_kernel.worker.sections import Module

MAX_LOCALS = 50_000  # wasmtime's own limit
MAX_INDENT = 40  # blocks deeper than that stand below one another
EMPTY_BLOCK = 0x40
OPENS = frozenset(("block", "loop", "if", "try", "try_table"))
BACK = frozenset(("else", "catch", "catch_all"))
CATCHES = ("catch", "catch_ref", "catch_all", "catch_all_ref")
MEMORY_NAMED = 1 << 6  # in a memarg's alignment: an index of a memory follows

_NO_ID = re.compile(r"[^0-9A-Za-z!#$%&'*+\-./:<=>?@\\^_`|~]")

_EXPORT = re.compile(r"[-.:\w]{1,100}", re.ASCII)
"""Names that can stand between quotes as they are."""


class Listing(NamedTuple):
    """A function as text.

    Attributes:
        text: Its lines.
        params: The types of its parameters.
        results: Of its results.
        locals: Of its other variables, in runs: (how many, type).
        instructions: How many there are in `text`.
        calls: {index of a function that it calls: in how many places}.
        left: The bytes of code that are not in `text`, because it would be too long.
        problem: What could not be read, where the text ends; "" if all could.
    """

    text: str
    params: tuple[str, ...]
    results: tuple[str, ...]
    locals: list[tuple[int, str]]
    instructions: int
    calls: dict[int, int]
    left: int
    problem: str


def disassemble(
    module: Module, function: int, most: int, most_characters: int = 1 << 30
) -> Listing:
    """The text of a function that is not imported, of at most so many instructions, characters.

    Raises:
        MalformedError: Its locals cannot be read.
    """
    return _Disassembler(module, function).run(most, most_characters)


class _Disassembler:
    def __init__(self, module: Module, function: int) -> None:
        self._module, self._function = module, function
        self._cursor = Cursor(module.body(function))
        self._depth = 0
        self._calls: Counter[int] = Counter()
        self._follows: dict[str, Callable[[], str]] = {
            "": lambda: "",
            "block": self._block, "try_table": self._try_table, "label": self._label,
            "labels": self._labels, "function": self._call, "indirect": self._indirect,
            "type": self._type, "types": self._types, "local": self._index, "global": self._global,
            "table": self._nonzero, "tag": self._index, "memory": self._nonzero,
            "data": self._index, "element": self._index, "memarg": self._memarg,
            "memarg_lane": lambda: f"{self._memarg()} {self._cursor.byte()}",
            "memory_init": self._init, "table_init": self._init, "memories": self._pair,
            "tables": self._pair, "i32": lambda: f" {self._cursor.signed(32)}",
            "i64": lambda: f" {self._cursor.signed(64)}", "f32": self._f32, "f64": self._f64,
            "v128": self._v128, "lanes": self._lanes, "lane": lambda: f" {self._cursor.byte()}",
            "heap": lambda: f" {self._cursor.heap_type()}", "fence": self._fence,
        }  # fmt: skip

    def run(self, most: int, most_characters: int) -> Listing:
        cursor = self._cursor
        variables = self._read_locals()
        lines = self._head(variables)
        count, size, left, problem = 0, sum(map(len, lines)), 0, ""
        try:
            while cursor.at < len(cursor.data):
                if count == most or size > most_characters:
                    left = len(cursor.data) - cursor.at
                    lines.append(f"  ;; {left:,} bytes of code more")
                    break
                line = self._instruction()
                count += 1
                if line is not None:
                    lines.append(line)
                    size += 1 + len(line)
        except MalformedError as e:
            problem = f"at byte {cursor.at:,} of the function: {e}"
            left = len(cursor.data) - cursor.at
            lines.append(f"  ;; {problem}")
        found = self._module.type(self._module.type_index(self._function))
        params, results = found or ((), ())
        return Listing(
            "\n".join([*lines, ")"]), params, results, variables, count, dict(self._calls), left,
            problem,
        )  # fmt: skip

    def _read_locals(self) -> list[tuple[int, str]]:
        runs, count = [], 0
        for _ in range(self._cursor.number()):
            runs.append((self._cursor.number(), self._cursor.value_type()))
            count += runs[-1][0]
            if count > MAX_LOCALS:
                raise MalformedError(f"the function has more than {MAX_LOCALS:,} locals")
        return runs

    def _head(self, variables: list[tuple[int, str]]) -> list[str]:
        name = self._module.name(self._function)
        index = self._module.type_index(self._function)
        if name and not _NO_ID.search(name):
            shown = f"${name} (;{self._function};)"
        else:
            shown = f"(;{f'{self._function} {_comment(name)}'.strip()};)"
        kind = self._module.type(index)
        exports = [
            f'(export "{each.name}")'
            for each in self._module.exports
            if (each.kind, each.number) == ("function", self._function)
            and _EXPORT.fullmatch(each.name)
        ]
        parts = ["(func", shown, *exports, f"(type {index})", *[str(kind)] * (kind is not None)]
        lines = [" ".join(part for part in parts if part)]
        if variables:
            words = [word for count, word in variables for _ in range(count)]
            lines.append(f"  (local {' '.join(words)})")
        return lines

    def _instruction(self) -> str | None:
        """A line; None for the end of the function itself."""
        cursor = self._cursor
        code = cursor.byte()
        prefix = 0
        if code in PREFIXES:
            prefix, code = code, cursor.number()
        found = opcodes().get((prefix, code))
        if found is None:
            number = f"{prefix:#04x} {code}" if prefix else f"{code:#04x}"
            raise MalformedError(f"instruction {number} is not known here")
        name = found.name
        if name == "end":
            if self._depth == 0:
                if cursor.at < len(cursor.data):
                    raise MalformedError("code stands behind the function's end")
                return None
            self._depth -= 1
        elif name == "delegate":
            self._depth = max(0, self._depth - 1)
        self._natural = found.natural
        rest = self._follows[found.follows]()
        indent = "  " * min(1 + self._depth - (name in BACK), MAX_INDENT)
        if name in OPENS:
            self._depth += 1
            rest += f"  ;; @{self._depth}"
        elif name == "end":
            rest = f"  ;; @{self._depth + 1}"
        return f"{indent}{name}{rest}"

    # -- what follows an opcode --------------------------------------------------------------

    def _index(self) -> str:
        return f" {self._cursor.number()}"

    def _nonzero(self) -> str:
        """An index that is not written where it is 0."""
        index = self._cursor.number()
        return f" {index}" if index else ""

    def _named(self, index: int, name: str) -> str:
        return f" {index} (;{_comment(name)};)" if name else f" {index}"

    def _call(self) -> str:
        index = self._cursor.number()
        self._calls[index] += 1
        return self._named(index, self._module.name(index))

    def _global(self) -> str:
        index = self._cursor.number()
        return self._named(index, self._module.global_names.get(index, ""))

    def _type(self) -> str:
        index = self._cursor.number()
        return self._named(index, str(self._module.type(index) or ""))

    def _signature(self, index: int) -> str:
        found = self._module.type(index)
        return f" (type {index})" + (f" (;{found};)" if str(found or "") else "")

    def _indirect(self) -> str:
        index = self._cursor.number()
        table = self._cursor.number()
        return (f" {table}" if table else "") + self._signature(index)

    def _types(self) -> str:
        kinds = [self._cursor.value_type() for _ in range(self._cursor.number())]
        return f" (result {' '.join(kinds)})"

    def _block(self) -> str:
        cursor = self._cursor
        code = cursor.data[cursor.at] if cursor.at < len(cursor.data) else EMPTY_BLOCK
        if code == EMPTY_BLOCK:
            cursor.byte()
            return ""
        if code & 0xC0 == 0x40:  # a negative number of one byte: a type, or what begins one
            return f" (result {cursor.value_type()})"
        return self._signature(cursor.signed(33))

    def _at(self, label: int) -> str:
        """Which block a label means, counted from outside as their comments are."""
        place = self._depth - label
        return f" {label} (;@{place};)" if place > 0 else f" {label} (;the function;)"

    def _label(self) -> str:
        return self._at(self._cursor.number())

    def _labels(self) -> str:
        labels = [self._cursor.number() for _ in range(self._cursor.number())]
        return "".join(map(self._at, [*labels, self._cursor.number()]))

    def _try_table(self) -> str:
        rest = self._block()
        for _ in range(self._cursor.number()):
            kind = self._cursor.byte()
            if kind >= len(CATCHES):
                raise MalformedError(f"{kind:#04x} is no kind of catch")
            tag = "" if "all" in CATCHES[kind] else self._index()
            rest += f" ({CATCHES[kind]}{tag}{self._label()})"
        return rest

    def _memarg(self) -> str:
        flags = self._cursor.number()
        memory = self._index() if flags & MEMORY_NAMED else ""
        align, offset = flags & ~MEMORY_NAMED, self._cursor.number(64)
        if align > 16:
            raise MalformedError(f"an alignment of 2**{align}")
        shown = f" align={1 << align}" if align != self._natural else ""
        return memory + (f" offset={offset}" if offset else "") + shown

    def _init(self) -> str:
        """memory.init, table.init: the segment comes first in the binary, last in the text."""
        segment = self._cursor.number()
        return f"{self._nonzero()} {segment}"

    def _pair(self) -> str:
        first, second = self._cursor.number(), self._cursor.number()
        return f" {first} {second}" if first or second else ""

    def _fence(self) -> str:
        self._cursor.byte()
        return ""

    def _f32(self) -> str:
        return f" {float_text(self._cursor.take(4))}"

    def _f64(self) -> str:
        return f" {float_text(self._cursor.take(8))}"

    def _v128(self) -> str:
        words = struct.unpack("<4I", self._cursor.take(16))
        return " i32x4 " + " ".join(f"{word:#010x}" for word in words)

    def _lanes(self) -> str:
        return "".join(f" {lane}" for lane in self._cursor.take(16))


def float_text(data: bytes) -> str:
    """A float of 4 or 8 bytes: the shortest text that gives all its bits, also of a NaN."""
    form, bits, digits = ("<f", 23, 9) if len(data) == 4 else ("<d", 52, 17)
    raw = int.from_bytes(data, "little")
    value: float = struct.unpack(form, data)[0]
    if value != value:  # noqa: PLR0124 - NaN
        sign = "-" if raw >> (8 * len(data) - 1) else ""
        return f"{sign}nan:{raw & (1 << bits) - 1:#x}"
    if value in (float("inf"), float("-inf")):
        return "inf" if value > 0 else "-inf"
    if len(data) == 8:
        return repr(value)
    for count in range(1, digits + 1):
        text = f"{value:.{count}g}"
        try:
            if struct.pack(form, float(text)) == data:
                break
        except OverflowError:  # rounded to more than the largest one
            continue
    return repr(float(text))


def _comment(text: str) -> str:
    """Text that cannot end the comment that it stands in."""
    return text.replace("(;", "( ;").replace(";)", "; )").replace("\n", " ")
