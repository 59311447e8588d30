"""Variables: what a namespace holds, as plain data that two states can be compared by.

Nothing is pickled and no value leaves: a type, a shape, a size, and a fingerprint of the content as
far as it is made of types that are known. No code of the user's runs: what a class, an object or a
module would say of itself is taken from where the interpreter keeps it, and only methods of known
types are called. What lies deeper than BUDGET objects is not looked at.
"""

from __future__ import annotations

import binascii
import sys
import types
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

BUDGET = 20_000
"""Objects that one variable's fingerprint looks at."""

MAX_DEPTH = 100
SHOWN_BITS = 100
"""Larger numbers are told by their size."""

HIDDEN = frozenset({
    "In", "Out", "exit", "quit", "get_ipython", "open", "_dh", "_ih", "_ii", "_iii", "_i", "_oh",
    "_", "__", "___",
})  # fmt: skip
PLAIN = (int, float, complex, bool, type(None), range, slice, type(Ellipsis))
SIZED = (list, tuple, set, frozenset, dict, str, bytes, bytearray)

_name_of = type.__dict__["__name__"].__get__
_qualname_of = type.__dict__["__qualname__"].__get__
_module_of = type.__dict__["__module__"].__get__
_content_of = type.__dict__["__dict__"].__get__
_mro_of = type.__dict__["__mro__"].__get__


def describe(namespace: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """{variable: {"type", "detail", "bytes", "print"}} of what the user has made."""
    found = {}
    for name, value in list(namespace.items()):
        if type(name) is not str or name in HIDDEN or name.startswith("__") or _is_cell_name(name):
            continue
        found[name] = {
            "type": _type(value),
            "detail": _detail(value),
            "bytes": _size(value),
            "print": _Fingerprint().of(value),
        }
    return found


def compare(before: dict[str, Any], now: dict[str, Any]) -> list[dict[str, str]]:
    """What differs, by name: {"change": added, removed or changed; "name", "before", "now"}."""
    found = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        change = "added" if old is None else "removed" if new is None else "changed"
        found.append({"change": change, "name": name, "before": _text(old), "now": _text(new)})
    return found


def _is_cell_name(name: str) -> bool:
    """Is it a name of IPython's for what a cell said or gave (_3, _i3)?"""
    return name[:1] == "_" and name[1:].removeprefix("i").isdecimal()


def _text(said: dict[str, Any] | None) -> str:
    if said is None:
        return ""
    parts = [said["type"], said["detail"], f"{said['bytes']:,} bytes" if said["bytes"] else ""]
    return ", ".join(part for part in parts if part)


def _one_of(kind: type, kinds: Iterable[Any]) -> bool:
    """Is it one of these types? Without comparing them: a metaclass may have __eq__."""
    return any(kind is each for each in kinds)


def _module(kind: type) -> str:
    module = _module_of(kind)
    return module if type(module) is str else ""


def _type(value: Any) -> str:
    kind = type(value)
    module = _module(kind)
    if module in ("builtins", "__main__", ""):
        return str.__str__(_qualname_of(kind))
    return f"{module}.{str.__str__(_name_of(kind))}"


def _of_library(value: Any) -> str:
    """Which of numpy and pandas a value is of, if it really is: only known code is called."""
    kind = type(value)
    module = _module(kind)
    library = module.partition(".")[0]
    if library not in ("numpy", "pandas"):
        return ""
    home = sys.modules.get(module)
    if library == "pandas" and _name_of(kind) not in ("DataFrame", "Series", "Index"):
        return ""
    known = type(home) is types.ModuleType and vars(home).get(str.__str__(_name_of(kind))) is kind
    return library if known else ""


def _detail(value: Any) -> str:
    library, kind = _of_library(value), type(value)
    try:
        if library == "numpy" and hasattr(value, "dtype"):
            return f"{value.dtype} {value.shape}"
        if library == "pandas" and hasattr(value, "shape"):
            return f"{value.shape}"
    except Exception:  # noqa: BLE001 - a library's own, on an odd object: no detail is shown
        return ""
    if _one_of(kind, SIZED):
        return f"length {len(value)}"
    return _plain(value) if _one_of(kind, PLAIN) else ""


def _plain(value: Any) -> str:
    """A plain value's text, if it is short."""
    kind = type(value)
    if kind is range or kind is slice:
        parts = (value.start, value.stop, value.step)
        if not all(_one_of(type(p), (int, type(None))) for p in parts):
            return ""
        if any(type(p) is int and p.bit_length() > SHOWN_BITS for p in parts):
            return ""
    if kind is int and value.bit_length() > 10 * SHOWN_BITS:
        return f"{value.bit_length():,} bits"
    text = repr(value)
    return text if len(text) <= 30 else text[:29] + "…"


def _size(value: Any) -> int:
    library, kind = _of_library(value), type(value)
    try:
        if library == "numpy" and hasattr(value, "nbytes"):
            return int(value.nbytes)
        if library == "pandas" and hasattr(value, "memory_usage"):
            usage = value.memory_usage(index=True)
            return int(usage if isinstance(usage, int) else usage.sum())
    except Exception:  # noqa: BLE001 - as above: no size is shown
        return 0
    if _one_of(kind, PLAIN):
        return 0
    for each in _mro_of(kind):
        sizeof = _content_of(each).get("__sizeof__")
        if type(sizeof) is types.MethodDescriptorType:
            return int(sizeof(value))
        if sizeof is not None:
            break
    return 0


def _attributes(value: Any) -> Any:
    """The dict of its attributes, the interpreter's own; None if there is none."""
    for kind in _mro_of(type(value)):
        found = _content_of(kind).get("__dict__")
        if type(found) is types.GetSetDescriptorType:
            inner = found.__get__(value)
            return inner if type(inner) is dict else None
        if found is not None:
            return None
    return None


class _Fingerprint:
    """A number that differs if the content does, for the types that are known.

    Other objects count by their type and their attributes; what cannot be looked into, by where it
    lies in memory.
    """

    def __init__(self) -> None:
        self._left = BUDGET
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []  # what was made here: its id must not be given again

    def of(self, value: Any) -> int:
        """The fingerprint of `value`."""
        return binascii.crc32(self._bytes(value, 0))

    def _bytes(self, value: Any, depth: int) -> bytes:
        self._left -= 1
        if self._left < 0 or depth > MAX_DEPTH:
            return b"..."
        kind = type(value)
        if kind is int:
            number: int = value
            return b"int:" + number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
        if kind is range or kind is slice:
            return self._made([value.start, value.stop, value.step], depth)
        if kind is str:
            return b"str:%d" % binascii.crc32(value.encode("utf-8", "surrogatepass"))
        if _one_of(kind, PLAIN):
            return f"{kind.__name__}:{value!r}".encode()
        if kind is bytes or kind is bytearray:
            return b"bytes:%d" % binascii.crc32(value)
        if id(value) in self._seen:
            return b"seen:%d" % self._seen[id(value)]
        self._seen[id(value)] = len(self._seen)
        name = str.__str__(_name_of(kind)).encode("utf-8", "surrogatepass")
        return name + b"(" + self._inside(value, kind, depth + 1) + b")"

    def _made(self, value: list[Any], depth: int) -> bytes:
        """Of a list that was made here."""
        self._kept.append(value)
        return self._bytes(value, depth)

    def _all(self, values: Iterable[Any], depth: int) -> bytes:
        parts: list[bytes] = []
        for value in values:
            if self._left <= 0:
                break
            parts.append(self._bytes(value, depth))
        return b",".join(parts)

    def _inside(self, value: Any, kind: type, depth: int) -> bytes:
        mro, library = _mro_of(kind), _of_library(value)
        if library:
            return self._array(value, library, depth)
        found = self._container(value, kind, mro, depth)
        if found is None:
            found = self._code(value, kind, mro, depth)
        if found is None:
            found = self._rest(value, depth) or b"at %d" % id(value)
        return found

    def _container(self, value: Any, kind: type, mro: Any, depth: int) -> bytes | None:
        if _one_of(list, mro) or _one_of(tuple, mro) or kind is deque:
            base: Any = deque if kind is deque else list if _one_of(list, mro) else tuple
            head = b"%d:" % base.__len__(value)
            return head + self._all(base.__iter__(value), depth) + self._rest(value, depth)
        if _one_of(set, mro) or _one_of(frozenset, mro):
            base = set if _one_of(set, mro) else frozenset
            count = base.__len__(value)
            if count > self._left:  # in what order they come is not known
                return b"%d" % count
            parts = sorted(self._bytes(v, depth) for v in base.__iter__(value))
            return b",".join(parts) + self._rest(value, depth)
        if _one_of(dict, mro):
            head = b"%d:" % dict.__len__(value)
            flat = (each for item in dict.items(value) for each in item)
            return head + self._all(flat, depth) + self._rest(value, depth)
        return None

    def _code(self, value: Any, kind: type, mro: Any, depth: int) -> bytes | None:
        if kind is types.FunctionType:
            parts = [value.__code__, value.__defaults__, value.__kwdefaults__]
            return self._all(parts, depth) + self._rest(value, depth)
        if kind is types.MethodType:
            return self._all([value.__func__, value.__self__], depth)
        if kind is types.CodeType:
            return self._all([value.co_code, value.co_consts, value.co_names], depth)
        if _one_of(type, mro) and _module(value) == "__main__":
            content = [x for item in _content_of(value).items() for x in item]
            return self._made(content, depth)
        if _one_of(type, mro) or _one_of(types.ModuleType, mro):
            return b"at %d" % id(value)
        return None

    def _rest(self, value: Any, depth: int) -> bytes:
        """Of the attributes."""
        inner = _attributes(value)
        found = self._bytes(inner, depth) if inner else b""
        for kind in _mro_of(type(value)):
            if _module(kind) in ("builtins", ""):
                continue
            for slot in _content_of(kind).values():
                if type(slot) is types.MemberDescriptorType:
                    try:
                        found += b"|" + self._bytes(slot.__get__(value, kind), depth)
                    except AttributeError:  # nothing in it
                        found += b"|"
        return found

    def _array(self, value: Any, library: str, depth: int) -> bytes:
        try:
            if library == "numpy":
                if value.dtype.hasobject:
                    listed = value.tolist()
                    return self._made([listed], depth)
                return b"%s%d" % (str(value.dtype).encode(), binascii.crc32(value.tobytes()))
            if type(value).__name__ == "DataFrame":
                columns = [value.iloc[:, k] for k in range(value.shape[1])]
                inner = [self._array(c.to_numpy(), "numpy", depth) for c in columns]
                labels = self._made([*value.columns], depth)
                return labels + self._made(value.index.tolist(), depth) + b",".join(inner)
            if type(value).__name__ == "Series":
                index = self._made(value.index.tolist(), depth)
                return index + self._array(value.to_numpy(), "numpy", depth)
            return self._array(value.to_numpy(), "numpy", depth)
        except Exception:  # noqa: BLE001 - as above: the object counts by its place
            return b"at %d" % id(value)
