"""Reads what a module's file consists of: numbers, names and types, one after another in bytes.

From the specification's binary format
(https://webassembly.github.io/spec/core/binary/values.html, types.html).
"""

from __future__ import annotations

VALUES = {
    0x7F: "i32", 0x7E: "i64", 0x7D: "f32", 0x7C: "f64", 0x7B: "v128", 0x70: "funcref",
    0x6F: "externref", 0x69: "exnref", 0x6E: "anyref", 0x6D: "eqref", 0x6C: "i31ref",
    0x6B: "structref", 0x6A: "arrayref", 0x71: "nullref", 0x72: "nullexternref",
    0x73: "nullfuncref", 0x74: "nullexnref",
}  # fmt: skip
HEAPS = {
    0x70: "func", 0x6F: "extern", 0x69: "exn", 0x6E: "any", 0x6D: "eq", 0x6C: "i31",
    0x6B: "struct", 0x6A: "array", 0x71: "none", 0x72: "noextern", 0x73: "nofunc", 0x74: "noexn",
}  # fmt: skip
REF, REF_NULL = 0x64, 0x63


class MalformedError(ValueError):
    """The file is not what the specification says; says where it is not understood."""


class Cursor:
    """Reads what follows one another in bytes."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        """Starts at index `at`."""
        self.data, self.at = data, at

    def byte(self) -> int:
        """One byte.

        Raises:
            MalformedError: There is none.
        """
        try:
            value = self.data[self.at]
        except IndexError:
            raise MalformedError("it ends too early") from None
        self.at += 1
        return value

    def take(self, count: int) -> bytes:
        """So many bytes.

        Raises:
            MalformedError: There are fewer.
        """
        found = self.data[self.at : self.at + count]
        if len(found) < count:
            raise MalformedError("it ends too early")
        self.at += count
        return found

    def number(self, bits: int = 32) -> int:
        """An unsigned LEB128.

        Raises:
            MalformedError: It has more bits.
        """
        value = shift = 0
        while shift < bits:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
        raise MalformedError(f"a number has more than {bits} bits")

    def signed(self, bits: int) -> int:
        """A signed LEB128.

        Raises:
            MalformedError: It has more bits.
        """
        start = self.at
        value = self.number(bits)
        shift = 7 * (self.at - start)
        return value - (1 << shift) if value >> (shift - 1) & 1 else value

    def text(self) -> str:
        """A name."""
        return self.take(self.number()).decode("utf-8", "replace")

    def value_type(self) -> str:
        """The type of a value, as the text format has it.

        Raises:
            MalformedError: There is no such type.
        """
        code = self.byte()
        if code in (REF, REF_NULL):
            return f"(ref {'null ' if code == REF_NULL else ''}{self.heap_type()})"
        if code not in VALUES:
            raise MalformedError(f"{code:#04x} is no type of a value")
        return VALUES[code]

    def heap_type(self) -> str:
        """What a reference refers to, as the text format has it."""
        code = self.data[self.at] if self.at < len(self.data) else 0
        if code in HEAPS:
            self.at += 1
            return HEAPS[code]
        return str(self.signed(33))
