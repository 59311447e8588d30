"""What a module's file says of its memory: where the stack begins, and what data it brings.

Read from the WebAssembly binary (https://webassembly.github.io/spec/core/binary/modules.html), of
which only the heads of sections are read, never functions. How linkers lay out memory is said in
https://github.com/WebAssembly/tool-conventions/blob/main/Linking.md; the names of globals are in
the name section (subsection 7, the extended name section). Written by the author of the runtime,
whom the policy names: what cannot be read is None, no error.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

CUSTOM, GLOBALS, DATA = 0, 6, 11  # ids of sections
GLOBAL_NAMES = 7
I32, MUTABLE, I32_CONST, END = 0x7F, 1, 0x41, 0x0B
MAX_SEGMENTS = 200_000
MAX_SECTIONS = 10_000
STACK_POINTER = "__stack_pointer"


class Binary(NamedTuple):
    """What is known.

    Attributes:
        stack_top: The value that the stack pointer begins with; the stack grows down from there.
        stack_named: Is the global that holds it called __stack_pointer? If not, it is the only
            mutable one.
        data: The lowest address and the end of what the module's data segments fill.
    """

    stack_top: int | None
    stack_named: bool
    data: tuple[int, int] | None


NOTHING = Binary(None, stack_named=False, data=None)


@functools.cache
def opened(wasm: Path) -> int | None:
    """The file itself, opened once: before the process is confined, for later it cannot be."""
    try:
        return os.open(wasm, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


@functools.cache
def look(fd: int | None) -> Binary:
    """What the module in this file says."""
    if fd is None:
        return NOTHING
    try:
        return _look(_Reader(fd))
    except (OSError, IndexError, ValueError):
        return NOTHING


class _Reader:
    """Bytes of a file from a place on."""

    def __init__(self, fd: int, at: int = 0) -> None:
        self._fd, self.at = fd, at
        self._from, self._data = 0, b""

    def byte(self) -> int:
        """One byte; IndexError at the end."""
        if not 0 <= self.at - self._from < len(self._data):
            self._from, self._data = self.at, os.pread(self._fd, 256, self.at)
        self.at += 1
        return self._data[self.at - 1 - self._from]

    def number(self) -> int:
        """An unsigned LEB128 of at most 32 bits."""
        value = shift = 0
        while shift < 35:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
        raise ValueError("a number is too long")

    def signed(self) -> int:
        """A signed LEB128 of at most 32 bits, as an address."""
        start = self.at
        value = self.number()
        shift = 7 * (self.at - start)
        if shift < 32 and value >> (shift - 1) & 1:
            value -= 1 << shift
        return value & 0xFFFFFFFF

    def text(self) -> str:
        """A name."""
        length = self.number()
        if length > 1 << 16:
            raise ValueError("a name is too long")
        return bytes(self.byte() for _ in range(length)).decode("utf-8", "replace")


def _look(reader: _Reader) -> Binary:
    if bytes(reader.byte() for _ in range(8)) != b"\0asm\1\0\0\0":
        return NOTHING
    mutable: dict[int, int] = {}
    data: tuple[int, int] | None = None
    named: int | None = None
    for _ in range(MAX_SECTIONS):
        try:
            section = reader.byte()
        except IndexError:
            break
        length = reader.number()
        end = reader.at + length
        if section == GLOBALS:
            mutable = _globals(reader)
        elif section == DATA:
            data = _data(reader)
        elif section == CUSTOM and reader.text() == "name":
            named = _named(reader, end)
        reader.at = end
    if named is not None and named in mutable:
        return Binary(mutable[named], stack_named=True, data=data)
    if len(mutable) == 1:
        return Binary(next(iter(mutable.values())), stack_named=False, data=data)
    return Binary(None, stack_named=False, data=data)


def _globals(reader: _Reader) -> dict[int, int]:
    """{index: value} of the mutable i32 globals that begin with a constant."""
    found = {}
    for index in range(reader.number()):
        kind, mutable = reader.byte(), reader.byte()
        if kind != I32 or reader.byte() != I32_CONST:
            break  # what follows would have to be understood; what is wanted comes first
        value = reader.signed()
        if reader.byte() != END:
            break
        if mutable == MUTABLE:
            found[index] = value
    return found


def _data(reader: _Reader) -> tuple[int, int] | None:
    """The lowest address and the end of all active segments."""
    lowest, highest = 1 << 32, 0
    for _ in range(min(reader.number(), MAX_SEGMENTS)):
        kind = reader.number()
        if kind == 0:
            if reader.byte() != I32_CONST:
                return None
            start = reader.signed()
            if reader.byte() != END:
                return None
        length = reader.number()
        reader.at += length
        if kind == 0 and length:
            lowest, highest = min(lowest, start), max(highest, start + length)
        elif kind > 1:
            return None
    return (lowest, highest) if highest else None


def _named(reader: _Reader, end: int) -> int | None:
    """The index of the global that is called __stack_pointer."""
    while reader.at < end:
        kind = reader.byte()
        length = reader.number()
        after = reader.at + length
        if kind == GLOBAL_NAMES:
            for _ in range(reader.number()):
                index = reader.number()
                if reader.text() == STACK_POINTER:
                    return index
        reader.at = after
    return None
