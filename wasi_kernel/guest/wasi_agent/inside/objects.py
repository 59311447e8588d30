"""CPython's objects as they lie in memory: which bytes are what.

The layouts are CPython's own (Include/cpython/: object.h, longintrepr.h, floatobject.h,
unicodeobject.h, bytesobject.h, listobject.h, tupleobject.h, dictobject.h, and
Include/internal/pycore_dict.h), for 32-bit pointers and a build with the GIL. What a version has
changed is asked of the interpreter where it can be (`__basicsize__`, `sys.getsizeof`,
`sys.int_info`). Values are read from memory, not taken from the object.
"""

from __future__ import annotations

import struct
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from IPython.core.error import UsageError

if TYPE_CHECKING:
    from wasi_agent.door import Door

WORD = 4
IMMORTAL = 0x3FFFFFFF
"""Reference counts from here on are of objects that live for ever (3.12 and later, 32 bits)."""
TP_NAME = 3 * WORD
"""Where a type has the address of its name: behind an object's head with a size."""
NAME_BYTES = 100
STR_KINDS = {1: "1 byte each (Latin-1)", 2: "2 bytes each (UCS-2)", 4: "4 bytes each (UCS-4)"}
DICT_KINDS = {0: "any keys", 1: "keys are str", 2: "split: keys shared by instances"}
PER_DIGIT = sys.int_info.bits_per_digit


class Field(NamedTuple):
    """Some bytes of a section: what they are, and what they say."""

    offset: int
    length: int
    name: str
    value: Any
    text: str


class Section:
    """Bytes that follow one another.

    Attributes:
        title: What they are.
        address: Where they begin.
        data: The bytes.
        fields: What they mean, in order.
        left: What is not shown of it; empty if nothing.
    """

    def __init__(self, title: str, address: int, data: bytes) -> None:
        """Takes bytes of which nothing is known yet."""
        self.title, self.address, self.data = title, address, data
        self.fields: list[Field] = []
        self.left = ""

    def word(self, offset: int) -> int:
        """The unsigned word there."""
        return int(struct.unpack_from("<I", self.data, offset)[0])

    def field(self, offset: int, length: int, name: str, value: Any, text: str = "") -> None:
        """Says what some bytes are; bytes before them that have no name are shown without."""
        end = self.fields[-1].offset + self.fields[-1].length if self.fields else 0
        if offset > end:
            self.fields.append(Field(end, offset - end, "(unused)", None, "between two fields"))
        self.fields.append(Field(offset, length, name, value, text or _said(value)))

    def rest(self, name: str) -> None:
        """What follows the last field."""
        end = self.fields[-1].offset + self.fields[-1].length if self.fields else 0
        if end < len(self.data):
            self.field(end, len(self.data) - end, name, None)

    def to_dict(self) -> dict[str, Any]:
        """All of it as data; addresses as int, bytes as hex."""
        return {
            "title": self.title, "address": self.address, "bytes": self.data.hex(),
            "fields": [
                {"name": f.name, "address": self.address + f.offset, "length": f.length,
                 "value": f.value, "text": f.text}
                for f in self.fields
            ],
            "left": self.left,
        }  # fmt: skip


def _said(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if type(value) is int else str(value)


class Memory:
    """The linear memory around this interpreter, read through the host."""

    def __init__(self, door: Door) -> None:
        """Takes the guest's end of the door."""
        self._door = door
        self._names: dict[int, str] = {}

    def read(self, at: int, length: int) -> bytes:
        """So many bytes.

        Raises:
            UsageError: They are not all inside of memory.
        """
        if at > 0xFFFFFFFF:
            raise UsageError(f"{at:#x} is no address: addresses here have 32 bits")
        try:
            return bytes(self._door.look("peek", at=at, length=length).buffers[0])
        except ValueError as e:
            raise UsageError(str(e)) from None

    def word(self, at: int) -> int:
        """The unsigned word at an address."""
        return int.from_bytes(self.read(at, WORD), "little")

    def place(self, at: int, *, block: bool = False) -> dict[str, Any]:
        """In which region an address lies, and with `block` in which block of the heap."""
        said = self._door.look("place", at=at, type=id(type), block=block).content
        return {"region": said["region"], "block": said["block"]}

    def type_name(self, at: int) -> str:
        """The name of the type at an address, as memory has it; "?" if there is none."""
        if at not in self._names:
            try:
                text = self.text(self.word(at + TP_NAME))
            except UsageError:
                text = ""
            self._names[at] = text if text.isprintable() and text else "?"
        return self._names[at]

    def text(self, at: int) -> str:
        """The C string at an address, or its beginning."""
        data = b""
        while len(data) < NAME_BYTES and b"\0" not in data:
            data += self.read(at + len(data), 20)
        return data.split(b"\0")[0].decode("utf-8", "replace")


def sections(memory: Memory, value: Any, most: int, refcount: int) -> list[Section]:
    """What belongs to an object; of long data `most` bytes.

    `refcount`: as the object's owner sees it; what stands in memory counts this code as well.
    """
    if struct.calcsize("P") != WORD or object.__basicsize__ != 2 * WORD:
        raise UsageError(
            "the layout of objects is not known for this build: it has "
            f"{struct.calcsize('P')}-byte pointers and heads of {object.__basicsize__} bytes"
        )
    layout = next((f for kind, f in _LAYOUTS if isinstance(value, kind)), _other)
    return layout(_Head(memory, id(value), most, refcount), value)


class _Head:
    """An object's address, and the beginning of each layout."""

    def __init__(self, memory: Memory, address: int, most: int, refcount: int) -> None:
        self.memory, self.address, self.most, self._refcount = memory, address, most, refcount

    def section(self, length: int) -> Section:
        """So many bytes, of which the head is explained."""
        found = Section("", self.address, self.memory.read(self.address, length))
        count = found.word(0)
        immortal = count >= IMMORTAL and sys.version_info >= (3, 12)
        own = count - self._refcount
        text = f"{count:,} (immortal)" if immortal else f"{self._refcount:,}"
        if own and not immortal:
            text += f" ({own} more by this dump)"
        found.field(0, WORD, "refcount", count if immortal else self._refcount, text)
        kind = found.word(WORD)
        found.field(WORD, WORD, "type", kind, f"{kind:#010x} {self.memory.type_name(kind)}")
        return found

    def pointers(self, found: Section, offset: int, values: Any, length: int) -> None:
        """Items from `offset` on, as many as `found` has; `length` of them in all."""
        shown = (len(found.data) - offset) // WORD
        for k in range(min(shown, length)):
            at = found.word(offset + k * WORD)
            text = f"{at:#010x}"
            if at:
                text += f" {self.memory.type_name(self.memory.word(at + WORD))}"
                text += _value(values[k]) if k < len(values) and id(values[k]) == at else ""
            found.field(offset + k * WORD, WORD, f"[{k}]", at, text)
        if length > shown:
            found.left = f"and {length - shown:,} more"


def _value(item: Any) -> str:
    """The value of an item whose repr runs no code of the user's."""
    if type(item) in (int, float, str, bytes, bool, type(None)):
        if type(item) is int and item.bit_length() > 200:
            return f" of {item.bit_length():,} bits"
        text = repr(item[:30] if isinstance(item, (str, bytes)) else item)
        return f" {text}" + ("..." if isinstance(item, (str, bytes)) and len(item) > 30 else "")
    return ""


def _int(head: _Head, value: int) -> list[Section]:
    start = int.__basicsize__
    tag = head.memory.word(head.address + 2 * WORD)
    if sys.version_info >= (3, 12):
        count, sign = tag >> 3, (1, 0, -1, 0)[tag & 3]
        words = {1: "positive", 0: "zero", -1: "negative"}
        name, text = "lv_tag", f"{tag:#x}: {count} digit{'s' * (count != 1)}, {words[sign]}"
    else:
        signed = tag - (1 << 32) * (tag >> 31)
        count, sign = abs(signed), (signed > 0) - (signed < 0)
        name, text = "ob_size", f"{signed}: that many digits, and the sign"
    size = sys.int_info.sizeof_digit
    shown = min(count, max(1, head.most // size))
    found = head.section(start + size * max(shown, 1))
    found.field(2 * WORD, WORD, name, tag, text)
    for k in range(shown):
        at = start + k * size
        digit = int.from_bytes(found.data[at : at + size], "little")
        times = f" * 2**{k * PER_DIGIT}" * (k > 0)
        found.field(at, size, f"digit {k}", digit, f"{digit:,}{times}")
    found.rest("(digit)")
    if count > shown:
        found.left = f"and {count - shown:,} more digits"
    elif value.bit_length() <= 200:
        digits = (f.value << (PER_DIGIT * k) for k, f in enumerate(
            f for f in found.fields if f.name.startswith("digit")))  # fmt: skip
        found.left = f"together: {sign * sum(digits):,}"
    return [found]


def _float(head: _Head, value: float) -> list[Section]:
    del value
    found = head.section(float.__basicsize__)
    number = struct.unpack_from("<d", found.data, 2 * WORD)[0]
    bits = int.from_bytes(found.data[2 * WORD :], "little")
    sign, exponent, fraction = bits >> 63, bits >> 52 & 0x7FF, bits & ((1 << 52) - 1)
    text = f"{number!r}: sign {sign}, exponent {exponent} - 1023, fraction {fraction:#x}"
    found.field(2 * WORD, 8, "ob_fval", number, text)
    return [found]


def _bytes(head: _Head, value: bytes) -> list[Section]:
    del value
    start = bytes.__basicsize__ - 1
    size = head.memory.word(head.address + 2 * WORD)
    shown = min(size + 1, head.most)
    found = head.section(start + shown)
    found.field(2 * WORD, WORD, "ob_size", size)
    _hash(found, 3 * WORD, "ob_shash")
    found.field(start, min(size, shown), "data", None, f"{min(size, shown):,} bytes")
    if shown > size:
        found.field(start + size, 1, "end", 0, "a zero, for C")
    else:
        found.left = f"and {size - shown:,} more bytes"
    return [found]


def _hash(found: Section, offset: int, name: str) -> None:
    number = found.word(offset)
    number -= (1 << 32) * (number >> 31)
    found.field(offset, WORD, name, number, "-1: not computed yet" if number == -1 else f"{number}")


def _str(head: _Head, value: str) -> list[Section]:
    del value
    ascii_size = sys.getsizeof("") - 1
    full = str.__basicsize__
    length = head.memory.word(head.address + 2 * WORD)
    state = head.memory.word(head.address + 4 * WORD)
    kind, compact, is_ascii = state >> 2 & 7, state >> 5 & 1, state >> 6 & 1
    compact_size = full - WORD
    start = (ascii_size if is_ascii else compact_size) if compact else full
    shown = min((length + 1) * kind, head.most // kind * kind) if compact else 0
    found = head.section(start + shown)
    found.field(2 * WORD, WORD, "length", length)
    _hash(found, 3 * WORD, "hash")
    interned = ("not interned", "interned", "interned, immortal", "interned, static")[state & 3]
    what = f"{'ASCII' if is_ascii else STR_KINDS.get(kind, '?')}, {interned}"
    text = f"{state:#x}: kind {kind}, {what}" + ("" if compact else ", data elsewhere")
    found.field(4 * WORD, ascii_size - 4 * WORD, "state", state, text)
    if not (compact and is_ascii):
        utf8_bytes, utf8 = found.word(ascii_size), found.word(ascii_size + WORD)
        found.field(ascii_size, WORD, "utf8_length", utf8_bytes)
        found.field(ascii_size + WORD, WORD, "utf8", utf8,
                    f"{utf8:#010x}" if utf8 else "0: not encoded yet")  # fmt: skip
    codec = {1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}.get(kind, "latin-1")
    if not compact:
        at = found.word(full - WORD)
        found.field(full - WORD, WORD, "data", at, f"{at:#010x}")
        data = Section("characters", at, head.memory.read(at, min(length * kind, head.most)))
        _characters(data, 0, len(data.data), codec, length - len(data.data) // kind)
        return [found, data]
    _characters(found, start, min(shown, length * kind), codec, length - shown // kind)
    if shown > length * kind:
        found.field(start + length * kind, kind, "end", 0, "a zero, for C")
    return [found]


def _characters(found: Section, start: int, size: int, codec: str, left: int) -> None:
    text = found.data[start : start + size].decode(codec, "surrogatepass")
    found.field(start, size, "data", text, repr(text))
    if left > 0:
        found.left = f"and {left:,} more characters"


def _list(head: _Head, value: list[Any]) -> list[Section]:
    found = head.section(list.__basicsize__)
    size, items, allocated = (found.word(k * WORD) for k in (2, 3, 4))
    found.field(2 * WORD, WORD, "ob_size", size)
    found.field(3 * WORD, WORD, "ob_item", items, f"{items:#010x}" if items else "0: no items")
    found.field(4 * WORD, WORD, "allocated", allocated, f"{allocated:,}: room for so many")
    found.rest("(more)")
    if not items:
        return [found]
    shown = min(allocated, max(1, head.most // WORD))
    room = Section(f"items at {items:#010x}", items, head.memory.read(items, shown * WORD))
    head.pointers(room, 0, value, size)
    room.rest("(room)")
    return [found, room]


def _tuple(head: _Head, value: tuple[Any, ...]) -> list[Section]:
    start = tuple.__basicsize__
    size = head.memory.word(head.address + 2 * WORD)
    found = head.section(start + min(size * WORD, head.most // WORD * WORD))
    found.field(2 * WORD, WORD, "ob_size", size)
    if start == 4 * WORD:  # 3.14 and later
        _hash(found, 3 * WORD, "ob_hash")
    head.pointers(found, start, value, size)
    return [found]


def _dict(head: _Head, value: dict[Any, Any]) -> list[Section]:
    del value
    found = head.section(dict.__basicsize__)
    found.field(2 * WORD, WORD, "ma_used", found.word(2 * WORD))
    if dict.__basicsize__ != 8 * WORD:
        found.rest("(more)")
        return [found]
    tag = "_ma_watcher_tag" if sys.version_info >= (3, 14) else "ma_version_tag"
    found.field(4 * WORD, 8, tag, int.from_bytes(found.data[16:24], "little"))
    keys, values = found.word(6 * WORD), found.word(7 * WORD)
    found.field(6 * WORD, WORD, "ma_keys", keys, f"{keys:#010x}")
    found.field(7 * WORD, WORD, "ma_values", values,
                f"{values:#010x}" if values else "0: they are with the keys")  # fmt: skip
    return [found, _keys(head, keys)]


def _keys(head: _Head, at: int) -> Section:
    """A dict's table of keys: a head, indices by hash, entries in order."""
    memory = head.memory
    log2_size, log2_index, kind = memory.read(at + WORD, 3)
    start = 5 * WORD
    entries = start + (1 << log2_index)
    each = 3 * WORD if kind == 0 else 2 * WORD
    count = memory.word(at + 4 * WORD)
    known = log2_size < 32 and log2_index < 32 and kind in DICT_KINDS and kind != 2
    wanted = entries + count * each if known else start
    length = min(wanted, start + head.most)
    found = Section(f"keys at {at:#010x}", at, memory.read(at, length))
    refcount = found.word(0)
    found.field(0, WORD, "dk_refcnt", refcount, f"{refcount:,}")
    found.field(WORD, 1, "dk_log2_size", log2_size, f"{log2_size}: {1 << log2_size:,} slots")
    found.field(WORD + 1, 1, "dk_log2_index_bytes", log2_index, f"{log2_index}")
    found.field(WORD + 2, 1, "dk_kind", kind, f"{kind}: {DICT_KINDS.get(kind, '?')}")
    found.field(2 * WORD, WORD, "dk_version", found.word(2 * WORD))
    found.field(3 * WORD, WORD, "dk_usable", found.word(3 * WORD),
                f"{found.word(3 * WORD):,} more entries fit")  # fmt: skip
    found.field(4 * WORD, WORD, "dk_nentries", count)
    if not known:
        return found
    found.field(start, min(length, entries) - start, "dk_indices", None, "slot -> entry")
    shown = max(0, length - entries) // each
    for k in range(min(shown, count)):
        place = entries + k * each
        if kind == 0:
            _hash(found, place, f"hash {k}")
            place += WORD
        for name, pointer in (("key", place), ("value", place + WORD)):
            target = found.word(pointer)
            text = f"{target:#010x}"
            text += f" {memory.type_name(memory.word(target + WORD))}" if target else ": no entry"
            found.field(pointer, WORD, f"{name} {k}", target, text)
    if count > shown:
        found.left = f"and {count - shown:,} more entries"
    return found


def _other(head: _Head, value: Any) -> list[Section]:
    kind = type(value)
    found = head.section(max(2 * WORD, kind.__basicsize__))
    if isinstance(value, type):
        at = found.word(TP_NAME)
        found.field(2 * WORD, WORD, "ob_size", found.word(2 * WORD))
        found.field(TP_NAME, WORD, "tp_name", at, f"{at:#010x} {head.memory.text(at)!r}")
    if len(found.data) > head.most:
        found.left = f"and {len(found.data) - head.most:,} more bytes"
        found.data = found.data[: head.most]
    found.rest("(its own)")
    return [found]


_LAYOUTS: tuple[tuple[type, Any], ...] = (
    (int, _int), (float, _float), (str, _str), (bytes, _bytes), (list, _list), (tuple, _tuple),
    (dict, _dict),
)  # fmt: skip
