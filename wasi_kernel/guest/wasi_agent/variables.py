"""Variables: what a namespace holds, as plain data that two states can be compared by.

Nothing is pickled and no value leaves: a type, a shape, a size, and a fingerprint of the content as
far as it is made of types that are known. What lies deeper than BUDGET objects is not looked at.
"""

from __future__ import annotations

import sys
import types
import zlib
from typing import Any

BUDGET = 20_000
"""Objects that one variable's fingerprint looks at."""

HIDDEN = frozenset({
    "In", "Out", "exit", "quit", "get_ipython", "open", "_dh", "_ih", "_ii", "_iii", "_i", "_oh",
    "_", "__", "___",
})  # fmt: skip
PLAIN = (int, float, complex, bool, type(None), range, slice, type(Ellipsis))


def describe(namespace: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """{variable: {"type", "detail", "bytes", "print"}} of what the user has made."""
    found = {}
    for name, value in list(namespace.items()):
        if name in HIDDEN or name.startswith("__") or _is_cell_name(name):
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


def _type(value: Any) -> str:
    kind = type(value)
    module = kind.__module__
    return kind.__qualname__ if module in ("builtins", "__main__") else f"{module}.{kind.__name__}"


def _of_library(value: Any) -> str:
    """The library that a value's type is from, "" for others: only known code is called."""
    module = type(value).__module__
    return module.partition(".")[0] if isinstance(module, str) else ""


def _detail(value: Any) -> str:
    library = _of_library(value)
    if library == "numpy" and hasattr(value, "dtype"):
        return f"{value.dtype} {value.shape}"
    if library == "pandas" and hasattr(value, "shape"):
        return f"{value.shape}"
    if isinstance(value, types.FunctionType):
        return ""
    if type(value) in (list, tuple, set, frozenset, dict, str, bytes, bytearray):
        return f"length {len(value)}"
    if type(value) in PLAIN:
        text = repr(value)
        return text if len(text) <= 30 else text[:29] + "…"
    return ""


def _size(value: Any) -> int:
    library = _of_library(value)
    try:
        if library == "numpy" and hasattr(value, "nbytes"):
            return int(value.nbytes)
        if library == "pandas" and hasattr(value, "memory_usage"):
            usage = value.memory_usage(index=True)
            return int(usage if isinstance(usage, int) else usage.sum())
        return 0 if type(value) in PLAIN else int(sys.getsizeof(value))
    except (TypeError, ValueError, AttributeError):
        return 0


class _Fingerprint:
    """A number that differs if the content does, for the types that are known.

    Other objects count by their type and their attributes; what cannot be looked into, by where it
    lies in memory.
    """

    def __init__(self) -> None:
        self._left = BUDGET
        self._seen: dict[int, int] = {}

    def of(self, value: Any) -> int:
        """The fingerprint of `value`."""
        return zlib.crc32(self._bytes(value, 0))

    def _bytes(self, value: Any, depth: int) -> bytes:
        self._left -= 1
        if self._left < 0 or depth > 100:
            return b"..."
        kind = type(value)
        if kind in PLAIN or kind is str:
            return f"{kind.__name__}:{value!r}".encode("utf-8", "surrogatepass")
        if kind in (bytes, bytearray):
            return b"bytes:%d" % zlib.crc32(value)
        if id(value) in self._seen:
            return b"seen:%d" % self._seen[id(value)]
        self._seen[id(value)] = len(self._seen)
        return kind.__name__.encode() + b"(" + self._inside(value, kind, depth + 1) + b")"

    def _inside(self, value: Any, kind: type, depth: int) -> bytes:
        if kind in (list, tuple):
            return b",".join(self._bytes(v, depth) for v in value)
        if kind in (set, frozenset):
            return b",".join(sorted(self._bytes(v, depth) for v in value))
        if kind is dict:
            items = list(value.items())
            return b",".join(self._bytes(k, depth) + b":" + self._bytes(v, depth) for k, v in items)
        library = _of_library(value)
        if library in ("numpy", "pandas"):
            return self._array(value, library, depth)
        if isinstance(value, (types.FunctionType, types.MethodType)):
            code = getattr(value, "__code__", None)
            return b"" if code is None else code.co_code + repr(code.co_consts).encode()
        if isinstance(value, (types.ModuleType, type)):
            return str(getattr(value, "__name__", "")).encode()
        inner = getattr(value, "__dict__", None)
        if type(inner) is dict and inner:
            return self._bytes(inner, depth)
        return b"at %d" % id(value)

    def _array(self, value: Any, library: str, depth: int) -> bytes:
        try:
            if library == "numpy":
                if value.dtype.hasobject:
                    return self._bytes(value.tolist(), depth)
                return b"%s%d" % (str(value.dtype).encode(), zlib.crc32(value.tobytes()))
            if type(value).__name__ == "DataFrame":
                columns = [value.iloc[:, k] for k in range(value.shape[1])]
                inner = [self._array(c.to_numpy(), "numpy", depth) for c in columns]
                labels = self._bytes([*map(str, value.columns)], depth)
                return labels + self._bytes(value.index.tolist(), depth) + b",".join(inner)
            return self._array(value.to_numpy(), "numpy", depth)
        except Exception:  # noqa: BLE001 - a library's own; then the object counts by its place
            return b"at %d" % id(value)
