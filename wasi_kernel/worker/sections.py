"""The parts of a module's file: sections, types, imports and exports, where each function lies.

Read from the WebAssembly binary (https://webassembly.github.io/spec/core/binary/modules.html) and
its custom sections (the name section: the specification's appendix; `producers` and
`target_features`: https://github.com/WebAssembly/tool-conventions). Functions are found, not read:
of 100 MB some 15 are looked at. What is kept is small; names are read again when they are wanted.
"""

from __future__ import annotations

import functools
import os
import re
from array import array
from typing import TYPE_CHECKING, NamedTuple

from wasi_kernel.worker.cursor import Cursor, MalformedError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = b"\0asm\1\0\0\0"

(CUSTOM, TYPES, IMPORTS, FUNCTIONS, TABLES, MEMORIES, GLOBALS, EXPORTS, START, ELEMENTS, CODE, DATA,
 DATA_COUNT, TAGS) = range(14)  # fmt: skip
SECTION_NAMES = ("custom", "type", "import", "function", "table", "memory", "global", "export",
                 "start", "element", "code", "data", "data count", "tag")  # fmt: skip
KINDS = ("function", "table", "memory", "global", "tag")
FUNCTION_NAMES, GLOBAL_NAMES = 1, 7  # subsections of the name section

CONSTANTS = {0x41: "i32", 0x42: "i64"}
GLOBAL_GET, REF_NULL_OP, REF_FUNC, END = 0x23, 0xD0, 0xD2, 0x0B
OPERATORS = {0x6A: "+", 0x6B: "-", 0x6C: "*", 0x7C: "+", 0x7D: "-", 0x7E: "*"}

MAX_SECTIONS = 10_000
MAX_SECTION_BYTES = 64 << 20  # of one that is read as a whole
MAX_FUNCTIONS = 2_000_000
WASM_PAGE = 65_536


class Section(NamedTuple):
    """A section: its number, its name (a custom one has its own), where its content is.

    `entries`: how many things of its kind it has, None if it does not say.
    """

    id: int
    name: str
    at: int
    bytes: int
    entries: int | None


class FuncType(NamedTuple):
    """What a function takes and gives."""

    params: tuple[str, ...]
    results: tuple[str, ...]

    def __str__(self) -> str:
        """As the text format has it."""
        parts = [("param", self.params), ("result", self.results)]
        return " ".join(f"({word} {' '.join(kinds)})" for word, kinds in parts if kinds)


class Import(NamedTuple):
    """What the module wants: of which module, under which name, what kind, and its type."""

    module: str
    name: str
    kind: str
    type: str


class Export(NamedTuple):
    """What the module gives: under which name, what kind, which of its kind."""

    name: str
    kind: str
    number: int


class Global(NamedTuple):
    """A global: its type, can it change, what it begins with (None: that is computed)."""

    type: str
    mutable: bool
    value: str | None


class Module:
    """The parts of one module.

    Attributes:
        bytes: The file's size.
        sections: All of them, in their order.
        types: By their index; None is no function's.
        imports: In their order.
        exports: In their order.
        tables: Of each the type, imported ones first; so of memories, globals and tags.
        memories: As well: the least size and perhaps the most, in pages of 64 KiB.
        globals: As well.
        tags: As well.
        imported: How many functions are imported; their indices come first.
        start: The index of the function that runs at instantiation.
    """

    def __init__(self, fd: int) -> None:
        """Reads the file behind `fd`, which stays the caller's.

        Raises:
            MalformedError: It is no module, or none that is understood here.
            OSError: It cannot be read.
        """
        self._fd = fd
        self.bytes = os.fstat(fd).st_size
        self.types: list[FuncType | None] = []
        self.imports: list[Import] = []
        self.exports: list[Export] = []
        self.tables: list[str] = []
        self.memories: list[str] = []
        self.globals: list[Global] = []
        self.tags: list[str] = []
        self.imported = 0
        self.start: int | None = None
        self._type_of = array("I")
        self._starts, self._sizes = array("Q"), array("I")
        if os.pread(fd, len(MAGIC), 0) != MAGIC:
            raise MalformedError("it does not begin as a module of version 1 does")
        self.sections = list(self._scan())
        readers = {
            TYPES: self._read_types, IMPORTS: self._read_imports, FUNCTIONS: self._read_functions,
            TABLES: self._read_tables, MEMORIES: self._read_memories, GLOBALS: self._read_globals,
            EXPORTS: self._read_exports, START: self._read_start, TAGS: self._read_tags,
        }  # fmt: skip
        for section in self.sections:
            if section.id in readers:
                readers[section.id](self._content(section))
            elif section.id == CODE:
                self._find_bodies(section)
        if len(self._type_of) - self.imported != len(self._starts):
            raise MalformedError("it declares other functions than it has")

    # -- what there is -----------------------------------------------------------------------

    @property
    def functions(self) -> int:
        """How many there are, imported ones among them."""
        return len(self._type_of)

    def type_index(self, function: int) -> int:
        """Which type a function has."""
        return self._type_of[function]

    def type(self, index: int) -> FuncType | None:
        """A type, None if it is no function's or there is none."""
        return self.types[index] if index < len(self.types) else None

    def size(self, function: int) -> int:
        """The bytes of a function's body, 0 of an imported one."""
        return self._sizes[function - self.imported] if function >= self.imported else 0

    def body(self, function: int) -> bytes:
        """A function's body: its locals and its code."""
        at = function - self.imported
        return os.pread(self._fd, self._sizes[at], self._starts[at])

    def biggest(self, count: int) -> list[int]:
        """The functions with the largest bodies."""
        sizes = self._sizes
        ranked = sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True)
        return [at + self.imported for at in ranked[:count]]

    @functools.cached_property
    def slots(self) -> dict[int, int]:
        """{index in table 0: function} as the element section fills it; C's function pointers.

        Only what active segments of function indices at a constant place say, which is all that
        compilers write for C.
        """
        found: dict[int, int] = {}
        for section in self.sections:
            if section.id == ELEMENTS:
                cursor = self._content(section)
                for _ in range(cursor.number()):
                    if cursor.number() != 0:
                        break  # another form of segment; what follows is not known
                    start = _constant(cursor)
                    members = [cursor.number() for _ in range(cursor.number())]
                    if start is not None and start.isdecimal():
                        found.update(enumerate(members, int(start)))
        return found

    def custom(self, name: str) -> bytes | None:
        """What is in the first custom section of that name, without the name."""
        for section in self.sections:
            if section.id == CUSTOM and section.name == name:
                return os.pread(self._fd, min(section.bytes, MAX_SECTION_BYTES), section.at)
        return None

    # -- names -------------------------------------------------------------------------------

    @functools.cached_property
    def _named(self) -> dict[int, tuple[int, int]]:
        """{subsection of the name section: its place and end in the file}."""
        found = {}
        for section in self.sections:
            if section.id == CUSTOM and section.name == "name":
                at, end = section.at, section.at + section.bytes
                while at < end:
                    cursor = Cursor(os.pread(self._fd, 6, at))
                    kind, length = cursor.byte(), cursor.number()
                    at += cursor.at
                    if at + length > end:
                        break
                    found[kind] = at, at + length
                    at += length
                break
        return found

    @functools.cached_property
    def _name_places(self) -> tuple[array[int], array[int]]:
        """Of each function: where its name is in the file, and its bytes (0: it has none)."""
        at, length = array("Q", bytes(8 * self.functions)), array("I", bytes(4 * self.functions))
        start, end = self._named.get(FUNCTION_NAMES, (0, 0))
        if start:
            cursor = Cursor(os.pread(self._fd, min(end - start, MAX_SECTION_BYTES), start))
            try:
                for _ in range(min(cursor.number(), MAX_FUNCTIONS)):
                    index, size = cursor.number(), cursor.number()
                    if index < self.functions:
                        at[index], length[index] = start + cursor.at, size
                    cursor.at += size
            except MalformedError:  # the names so far are names
                pass
        return at, length

    @functools.cached_property
    def _border_names(self) -> dict[int, str]:
        """{index: name} of functions that come in or go out, which always have one."""
        found = {each.number: each.name for each in self.exports if each.kind == "function"}
        imported = [each for each in self.imports if each.kind == "function"]
        return {**found, **{at: f"{i.module}.{i.name}" for at, i in enumerate(imported)}}

    def name(self, function: int) -> str:
        """A function's name; what it is imported as, or without one exported; "" if it has none."""
        places, lengths = self._name_places
        if not self.imported <= function < self.functions or not lengths[function]:
            return self._border_names.get(function, "")
        return os.pread(self._fd, lengths[function], places[function]).decode("utf-8", "replace")

    def named(self, name: str) -> list[int]:
        """The functions that have this very name; else those that are exported as it."""
        wanted = name.encode("utf-8", "replace")
        count = len(wanted)
        places, lengths = self._name_places
        start, data = self._names_data()
        found = [at for at in range(self.imported) if self._border_names[at] == name]
        found += [
            at
            for at in range(self.imported, self.functions if count else 0)
            if lengths[at] == count and data[places[at] - start :][:count] == wanted
        ]
        exported = (e.number for e in self.exports if (e.kind, e.name) == ("function", name))
        return found or list(exported)

    def _names_data(self) -> tuple[int, memoryview]:
        """(where the subsection with functions' names begins in the file, what is in it)."""
        start, end = self._named.get(FUNCTION_NAMES, (0, 0))
        return start, memoryview(os.pread(self._fd, min(end - start, MAX_SECTION_BYTES), start))

    def names(self) -> Iterator[tuple[int, str]]:
        """All functions that have a name, by index."""
        places, lengths = self._name_places
        start, data = self._names_data()
        for index, (place, length) in enumerate(zip(places, lengths, strict=True)):
            at = place - start
            if length and index >= self.imported:
                yield index, str(data[at : at + length], "utf-8", "replace")
            elif index in self._border_names:
                yield index, self._border_names[index]

    @functools.cached_property
    def named_functions(self) -> int:
        """How many functions the name section has a name for."""
        return sum(map(bool, self._name_places[1]))

    @functools.cached_property
    def global_names(self) -> dict[int, str]:
        """{index of a global: its name}."""
        start, end = self._named.get(GLOBAL_NAMES, (0, 0))
        cursor = Cursor(os.pread(self._fd, min(end - start, MAX_SECTION_BYTES), start))
        found = {}
        try:
            for _ in range(cursor.number() if start else 0):
                index = cursor.number()
                found[index] = cursor.text()
        except MalformedError:
            pass
        return found

    # -- reading -----------------------------------------------------------------------------

    def _scan(self) -> Iterator[Section]:
        at = len(MAGIC)
        for _ in range(MAX_SECTIONS):
            head = os.pread(self._fd, 16, at)
            if not head:
                return
            cursor = Cursor(head)
            kind, length = cursor.byte(), cursor.number()
            at += cursor.at
            if at + length > self.bytes:
                raise MalformedError("it ends too early")
            start = at
            name = SECTION_NAMES[kind] if kind < len(SECTION_NAMES) else f"section {kind}"
            count = None
            inner = Cursor(os.pread(self._fd, min(length, 512), at))
            if kind == CUSTOM:
                name = inner.text()
                start += inner.at
            elif kind != START and length:
                count = inner.number()
            yield Section(kind, name, start, at + length - start, count)
            at += length
        raise MalformedError(f"it has more than {MAX_SECTIONS:,} sections")

    def _content(self, section: Section) -> Cursor:
        if section.bytes > MAX_SECTION_BYTES:
            raise MalformedError(f"its {section.name} section has {section.bytes:,} bytes")
        return Cursor(os.pread(self._fd, section.bytes, section.at))

    def _read_types(self, cursor: Cursor) -> None:
        for _ in range(cursor.number()):
            if cursor.byte() != 0x60:
                return  # a type of garbage collection; what follows needs more than is known here
            params = tuple(cursor.value_type() for _ in range(cursor.number()))
            results = tuple(cursor.value_type() for _ in range(cursor.number()))
            self.types.append(FuncType(params, results))

    def _read_imports(self, cursor: Cursor) -> None:
        for _ in range(cursor.number()):
            module, name, kind = cursor.text(), cursor.text(), cursor.byte()
            if kind == 0:
                index = cursor.number()
                self._type_of.append(index)
                self.imported += 1
                described = self._described(index)
            elif kind == 1:
                described = f"{cursor.value_type()} {_limits(cursor)}"
                self.tables.append(described)
            elif kind == 2:
                described = _limits(cursor)
                self.memories.append(described)
            elif kind == 3:
                found = Global(cursor.value_type(), cursor.byte() == 1, None)
                self.globals.append(found)
                described = f"(mut {found.type})" if found.mutable else found.type
            elif kind == 4:
                cursor.byte()
                described = self._described(cursor.number())
                self.tags.append(described)
            else:
                raise MalformedError(f"an import is of kind {kind}")
            self.imports.append(Import(module, name, KINDS[kind], described))

    def _described(self, index: int) -> str:
        found = self.type(index)
        return f"type {index}" if found is None else str(found)

    def _read_functions(self, cursor: Cursor) -> None:
        count = cursor.number()
        if count > MAX_FUNCTIONS:
            raise MalformedError(f"it has {count:,} functions")
        for _ in range(count):
            self._type_of.append(cursor.number())

    def _read_tables(self, cursor: Cursor) -> None:
        for _ in range(cursor.number()):
            initial = cursor.data[cursor.at : cursor.at + 1] == b"\x40"
            cursor.at += 2 * initial
            self.tables.append(f"{cursor.value_type()} {_limits(cursor)}")
            if initial:
                _constant(cursor)

    def _read_memories(self, cursor: Cursor) -> None:
        self.memories += [_limits(cursor) for _ in range(cursor.number())]

    def _read_globals(self, cursor: Cursor) -> None:
        for _ in range(cursor.number()):
            kind, mutable = cursor.value_type(), cursor.byte() == 1
            try:
                value = _constant(cursor)
            except MalformedError:
                return  # it and what follows need more than is known here
            self.globals.append(Global(kind, mutable, value))

    def _read_exports(self, cursor: Cursor) -> None:
        for _ in range(cursor.number()):
            name, kind, index = cursor.text(), cursor.byte(), cursor.number()
            if kind >= len(KINDS):
                raise MalformedError(f"an export is of kind {kind}")
            self.exports.append(Export(name, KINDS[kind], index))

    def _read_start(self, cursor: Cursor) -> None:
        self.start = cursor.number()

    def _read_tags(self, cursor: Cursor) -> None:
        for _ in range(cursor.number()):
            cursor.byte()
            self.tags.append(self._described(cursor.number()))

    def _find_bodies(self, section: Section) -> None:
        """Goes from head to head; bodies are skipped."""
        fd, end = self._fd, section.at + section.bytes
        cursor = Cursor(os.pread(fd, 5, section.at))
        count = cursor.number()
        at = section.at + cursor.at
        for _ in range(min(count, MAX_FUNCTIONS)):
            cursor = Cursor(os.pread(fd, 5, at))
            size = cursor.number()
            at += cursor.at
            if at + size > end:
                raise MalformedError("a function reaches beyond the code section")
            self._starts.append(at)
            self._sizes.append(size)
            at += size


def _limits(cursor: Cursor) -> str:
    """How large something is at least, and at most where that is said; shared, 64 bits."""
    flags = cursor.byte()
    parts = ["i64"] * bool(flags & 4) + [str(cursor.number(64))]
    if flags & 1:
        parts.append(str(cursor.number(64)))
    return " ".join(parts + ["shared"] * bool(flags & 2))


def _constant(cursor: Cursor) -> str | None:
    """What an expression of constants gives: a number's text, None if it is more than one."""
    parts: list[str] = []
    while (code := cursor.byte()) != END:
        if code in CONSTANTS:
            parts.append(str(cursor.signed(32 if code == 0x41 else 64)))
        elif code in (0x43, 0x44):
            cursor.take(4 if code == 0x43 else 8)
            parts.append("")
        elif code in (GLOBAL_GET, REF_FUNC):
            cursor.number()
            parts.append("")
        elif code == REF_NULL_OP:
            parts.append(f"null {cursor.heap_type()}")
        elif code in OPERATORS:
            parts.append("")
        elif code == 0xFD and cursor.number() == 12:
            cursor.take(16)
            parts.append("")
        else:
            raise MalformedError(f"{code:#04x} is no constant")
    return parts[0] or None if len(parts) == 1 else None


_FEATURE = re.compile(r"[+=-]")


def producers(module: Module) -> dict[str, list[str]]:
    """What the `producers` section says: {language, processed-by or sdk: [name and version]}."""
    cursor = Cursor(module.custom("producers") or b"\0")
    found: dict[str, list[str]] = {}
    try:
        for _ in range(cursor.number()):
            field = cursor.text()
            values = [f"{cursor.text()} {cursor.text()}".strip() for _ in range(cursor.number())]
            found[field] = values
    except MalformedError:
        pass
    return found


def features(module: Module) -> list[str]:
    """What the `target_features` section says that the module uses."""
    cursor = Cursor(module.custom("target_features") or b"\0")
    found = []
    try:
        for _ in range(cursor.number()):
            sign, name = chr(cursor.byte()), cursor.text()
            found.append(name if sign == "+" else sign + name)
    except MalformedError:
        pass
    return found
