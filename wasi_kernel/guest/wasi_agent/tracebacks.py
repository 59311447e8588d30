"""Tracebacks in CPython's plain form, for errors that IPython's own form is not made for.

Those are groups of errors, chains that are long or end in themselves, and errors whose own code
fails when they are shown. Nothing here raises, and nothing is longer than it can be read.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

LONG_CHAIN = 100
"""Errors that led to one another; a chain with more is shown by its last error alone."""

MOST_CHARACTERS = 100_000
"""Of an error's text, and of a whole traceback, about."""

MOST_ENTRIES = 400
"""Entries of a traceback; IPython makes one for each frame, the plain form one for each line."""


_NAME = type.__dict__["__name__"].__get__


def name_of(etype: object) -> str:
    """The name of an error's class, whatever its metaclass does."""
    try:
        return str(_NAME(etype))
    except BaseException:  # noqa: BLE001 - no class at all
        return "error"


def text_of(error: object) -> str:
    """str(error), whatever its __str__ does; a giant one is cut."""
    try:
        return shortened(str(error))
    except BaseException:  # noqa: BLE001 - the error's own code
        return f"<{name_of(type(error))}: its text cannot be made>"


def shortened(text: str, most: int = MOST_CHARACTERS) -> str:
    """`text`, or its beginning and its end and how much is left out."""
    if len(text) <= most:
        return text
    half = most // 2
    left_out = len(text) - 2 * half
    return f"{text[:half]}\n[... {left_out} characters ...]\n{text[-half:]}"


def readable(entries: list[str]) -> list[str]:
    """A traceback's entries, or the first and the last of them and how many are left out."""
    if len(entries) > MOST_ENTRIES:
        half = MOST_ENTRIES // 2
        left_out = f"[... {len(entries) - 2 * half} entries ...]\n"
        entries = [*entries[:half], left_out, *entries[-half:]]
    entries = list(map(str, entries))
    if sum(map(len, entries)) <= MOST_CHARACTERS:
        return entries
    return [shortened(entry, max(1000, MOST_CHARACTERS // len(entries))) for entry in entries]


def is_plain(error: BaseException) -> bool:
    """Is this an error for the plain form: one with a group in it, or with a long chain?"""
    return isinstance(error, BaseExceptionGroup) or not _is_simple(error)


def _is_simple(error: BaseException) -> bool:
    """Are the errors that led to this one few, each once, and none of them a group?"""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        one = pending.pop()
        if one is None:
            continue
        if id(one) in seen or len(seen) >= LONG_CHAIN or isinstance(one, BaseExceptionGroup):
            return False
        seen.add(id(one))
        pending.append(one.__context__ if one.__cause__ is None else one.__cause__)
    return True


def plain(error: BaseException | None, etype: object, tb: TracebackType | None) -> list[str]:
    """The lines of a traceback; at the worst, the error's name."""
    name = name_of(etype)
    try:
        while tb is not None and _is_shells(tb):
            tb = tb.tb_next
        if error is None:
            return [name]
        if isinstance(error, BaseExceptionGroup) and _is_short(error):
            return traceback.format_exception(type(error), error, tb)
        lines = ["Traceback (most recent call last):\n", *traceback.format_tb(tb)] if tb else []
        lines.append(f"{name}: {text_of(error)}")
        if error.__cause__ is not None or error.__context__ is not None:
            lines.append("\n[errors that led to this one are not shown]")
    except BaseException:  # noqa: BLE001 - the error's own code, or no memory to show it
        return [f"{name}: {text_of(error)}"]
    return lines


def _is_short(error: BaseException) -> bool:
    """Does its chain end soon? A group may stand in it."""
    seen = 0
    one: BaseException | None = error
    while one is not None and seen < LONG_CHAIN:
        one = one.__context__ if one.__cause__ is None else one.__cause__
        seen += 1
    return one is None


def _is_shells(tb: TracebackType) -> bool:
    """Is this frame one of IPython's, which runs the cell?"""
    return str(tb.tb_frame.f_globals.get("__name__", "")).startswith("IPython.core.interactive")
