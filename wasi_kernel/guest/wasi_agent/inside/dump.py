"""`%wasi dump`: the bytes of an object, or at an address, and what they mean."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from wasi_agent.inside import objects
from wasi_agent.inside.objects import WORD, Memory, Section

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasi_agent.inside import WasiMagics

SHOWN, MAX_SHOWN = 256, 65_536
PER_LINE, PER_LINE_PLAIN = 8, 16
"""Bytes in a line: beside their meaning, and alone."""

_LIKE_ADDRESS = re.compile(r"(0[xX]\w*)(?:\s+(\S.*))?")
_WITH_COUNT = re.compile(r"(.*\S)\s+(\d+)")
_END = {"stack": "the C stack", "static": "static data", "zeros": "data that began as zeros",
        "top": "memory that malloc has not given out yet", "unused": "memory that is not malloc's",
        "heap": "the heap", "unknown": "the C stack or static data"}  # fmt: skip


def run(magics: WasiMagics, line: str, cell: str | None) -> Dump:
    """Show the bytes of an object, and what they mean; or those at an address.

    ``%wasi dump x`` takes any expression of yours: its head and what belongs to it, read from
    memory, with reference count, type, size, digits, characters, items. ``%wasi dump 0x1234 64``
    shows 64 bytes at an address, and what block of the heap they are in; ``(0x1234)`` is the int.
    A number behind the expression says how many bytes of it are shown at most (256).
    In code: ``d = %wasi dump x``, then ``d["refcount"]`` or all of it, ``d.to_dict()``.
    """
    del cell
    if not line:
        raise UsageError("%wasi dump wants an expression or an address: %wasi dump x, or 0x1234 64")
    memory = Memory(magics.shell.door)
    match = _LIKE_ADDRESS.fullmatch(line)
    if match is not None:
        address, count = _address(match[1]), _count(match[2])
        return _plain(memory, address, count)
    source, most = _expression(line)
    namespace = magics.shell.user_ns
    return _of_object(memory, lambda: eval(source, namespace), most)  # noqa: S307 - the user's own


def _address(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        raise UsageError(f"%wasi dump: {text} is no address; one is written like 0x1f00") from None


def _count(text: str | None) -> int:
    if text is None:
        return SHOWN // 4
    if not text.isdecimal() or not 0 < int(text) <= MAX_SHOWN:
        raise UsageError(
            f"%wasi dump: {text!r} is no number of bytes from 1 to {MAX_SHOWN:,}; an expression "
            "that begins like an address is written in parentheses"
        )
    return int(text)


def _expression(line: str) -> tuple[Any, int]:
    """(what is to be evaluated, how many bytes at most)."""
    whole, problem = _compiled(line)
    if whole is not None:
        return whole, SHOWN
    match = _WITH_COUNT.fullmatch(line)
    if match is not None:
        source, problem = _compiled(match[1])
        if source is not None:
            return source, _count(match[2])
    raise UsageError(f"%wasi dump: {line!r} is neither an expression nor an address ({problem})")


def _compiled(text: str) -> tuple[Any, str]:
    """(code of an expression, "") or (None, what is wrong with it)."""
    try:
        return compile(text, "<%wasi dump>", "eval"), ""
    except (SyntaxError, ValueError) as e:  # ValueError: it has a zero character
        return None, e.msg if isinstance(e, SyntaxError) else str(e)


def _plain(memory: Memory, address: int, count: int) -> Dump:
    data = memory.read(address, count)
    place = memory.place(address, block=True)
    title = f"{count:,} bytes at {address:#010x}, {_placed(place)}"
    section = Section(title, address, data)
    section.field(0, count, "", None)
    return Dump([section], {"address": address, "place": place})


def _of_object(memory: Memory, evaluate: Callable[[], Any], most: int) -> Dump:
    # how many references this code holds itself is seen on an object that has one
    probe = {"x": object()}
    held = _counted(memory, lambda: eval("x", probe))[1] - 1  # noqa: S307 - a constant
    value, count = _counted(memory, evaluate)
    place = memory.place(id(value))
    sections = objects.sections(memory, value, most, count - held)
    name = memory.type_name(memory.word(id(value) + WORD))
    sections[0].title = f"{name} at {id(value):#010x}, {_placed(place)}"
    about = {"address": id(value), "type": name, "place": place, "refcount": count - held}
    return Dump(sections, about)


def _counted(memory: Memory, evaluate: Callable[[], Any]) -> tuple[Any, int]:
    """(value, its reference count as it stands in memory here)."""
    value = evaluate()
    return value, memory.word(id(value))


def _placed(place: dict[str, Any]) -> str:
    where = f"in {_END.get(place['region'], 'memory')}"
    block = place["block"]
    if block is None:
        return where
    what = "in use" if block["used"] else "free"
    where += f": a block of {block['length']:,} bytes at {block['address']:#010x}, {what}"
    if block["type"]:
        where += f", with an object of type {block['type_name'] or '?'} at {block['object']:#010x}"
    return where


class Dump:
    """Bytes and what they mean: text, HTML, `to_dict`."""

    def __init__(self, sections: list[Section], about: dict[str, Any]) -> None:
        """Takes what is shown, and facts about the whole."""
        self._sections, self._about = sections, about

    def to_dict(self) -> dict[str, Any]:
        """The facts, and of each section its address, bytes (hex) and fields."""
        return {**self._about, "sections": [section.to_dict() for section in self._sections]}

    def __getitem__(self, name: str) -> Any:
        """The value of a field, by its name: ``d["refcount"]``; the first one that is called so.

        Raises:
            KeyError: There is none.
        """
        fields = [field for section in self._sections for field in section.fields]
        for field in fields:
            if field.name == name:
                return field.value
        names = ", ".join(field.name for field in fields if field.name)
        raise KeyError(f"{name!r}; there are {names or 'none'}")

    def _lines(self, bold: Callable[[str], str], plain: Callable[[str], str]) -> list[str]:
        lines: list[str] = []
        for section in self._sections:
            lines += [""] * bool(lines) + [bold(section.title)]
            width = max((len(field.name) for field in section.fields), default=0)
            each = PER_LINE if width else PER_LINE_PLAIN
            for field in section.fields:
                for at in range(0, max(field.length, 1), each):
                    start = field.offset + at
                    data = section.data[start : min(start + each, field.offset + field.length)]
                    line = (
                        f"{section.address + start:#010x}  {data.hex(' '):<{3 * each}} "
                        f"{_ascii(data):<{each}}"
                    )
                    meaning = ""
                    if at == 0 and field.name:
                        meaning = f"  {bold(f'{field.name:<{width}}')}  {plain(field.text)}"
                    lines.append((plain(line) + meaning).rstrip())
            if section.left:
                lines.append(plain(f"... {section.left}"))
        return lines

    def __repr__(self) -> str:
        return "\n".join(self._lines(str, str))

    def _repr_html_(self) -> str:
        def plain(text: str) -> str:
            return escape(text, quote=False)

        text = "\n".join(self._lines(lambda t: f"<b>{plain(t)}</b>", plain))
        return f"<pre>{text}</pre>"


def _ascii(data: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data)
