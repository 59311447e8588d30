"""Text as terminals and front ends show it: colours pass, whatever else acts is made visible.

Pure; standard library only. What passes: SGR sequences (ECMA-48 8.3.117) but for concealment,
line feeds, tabs, CR and BS (progress bars write over themselves). Every other control character,
escape sequence and character that hides or reorders its neighbours is shown as a picture or as
the escape that a string literal would have: a title, a clipboard write (OSC 52), a link (OSC 8) or
a cursor movement that is to be seen does nothing.

JupyterLab 4.6 (rendermime's renderers.ts, ansiSpan) knows SGR only and shows the rest as it is; a
terminal that runs `jupyter console` obeys everything. VS Code (extensions/notebook-renderers:
linkify.ts, stackTraceHelper.ts) makes links of a traceback's places and writes links as HTML.
Bidirectional controls: as in Unicode's UTS 55 and CVE-2021-42574, of which the marks are kept in
text that has a right-to-left letter.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PLAIN = bytes([8, 9, 10, 13, *range(0x20, 0x7F)])
"""ASCII that passes: measured with 3.11, deleting it from a megabyte takes 1 ms, a regular
expression that looks for the rest 8 ms."""

_INVISIBLE = (
    "\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Characters without a width of their own (Unicode 16: Cf, and variation selectors), but for
those that join or number visible signs of one script."""

_ACTS = re.compile(
    "\x1b\\[[0-9;:]{0,60}m"
    "|\U0001f3f4[\U000e0030-\U000e007a]{2,6}\U000e007f"  # a flag: its tags are its spelling
    f"|[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f{_INVISIBLE}]"
)
_HIDDEN = re.compile(f"[{_INVISIBLE}]")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u061b\u061d-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_SGR = r"(?:\x1b\[[0-9;:]*m)"
_COLOURS = re.compile(_SGR)
_LINK = re.compile(rf"<(?={_SGR}*[aA]{_SGR}*(?:\s|\Z))")
_TAG = re.compile(rf"<(?={_SGR}*[A-Za-z/!?])")
_PLACE = re.compile(r"File\s|Cell|Input")
_BROKEN_OFF = re.compile("\x1b(?:\\[[0-9;:]{0,60})?\\Z")
"""What may be the first half of an SGR sequence."""


@lru_cache(maxsize=512)
def _conceals(sequence: str) -> bool:
    """Does this SGR sequence hide text (8)? Numbers that belong to a colour are none of its own."""
    numbers = iter(sequence[2:-1].split(";"))
    for number in numbers:
        if number.lstrip("0") in ("38", "48", "58"):
            for _ in range({"5": 1, "2": 3}.get(next(numbers, "").lstrip("0"), 0)):
                next(numbers, "")
        elif number.split(":")[0].lstrip("0") == "8":
            return True
    return False


def _visible(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _belongs(character: str, before: str, is_right_to_left: Callable[[], bool]) -> bool:
    """Does this invisible character change how a visible one before it looks, as it is meant to?"""
    if character in "\u200e\u200f\u061c":
        return is_right_to_left()
    if not before or (_HIDDEN.match(before) and (before, character) != ("\ufe0f", "\u200d")):
        return False
    if character in "\u200c\u200d":  # between letters of a script that joins, or pictures
        return before > "\x7f"
    if "\ufe00" <= character <= "\ufe0f":
        return before > "\x7f" or before in "0123456789#*"
    return "\U000e0100" <= character <= "\U000e01ef" and before > "\u3400"  # of ideographs


def show(text: str, *, colours: bool = True, before: str = "") -> str:
    """`text` with what acts made visible; the same object if there is nothing.

    Args:
        text: Without lone surrogates.
        colours: Do SGR sequences pass?
        before: The character before it, if it goes on with an earlier text.
    """
    if text.isascii():
        if not text.encode("ascii").translate(None, _PLAIN):
            return text
    elif _ACTS.search(text) is None:
        return text

    @cache
    def is_right_to_left() -> bool:
        return _RIGHT_TO_LEFT.search(text) is not None

    def replace(match: re.Match[str]) -> str:
        found = match[0]
        if len(found) > 1:
            if found[0] != "\x1b" or (colours and not _conceals(found)):
                return found
            return "\u241b" + found[1:]
        start = match.start()
        previous = text[start - 1] if start else before
        if _HIDDEN.match(found) and _belongs(found, previous, is_right_to_left):
            return found
        return _visible(found)

    return _ACTS.sub(replace, text)


def line(text: str) -> str:
    """`text` as one line without colours."""
    return (
        show(text, colours=False)
        .replace("\n", "\u240a")
        .replace("\r", "\u240d")
        .replace("\b", "\u2408")
    )


def trace(text: str) -> str:
    """A piece of a traceback as `show` gives it, in which VS Code finds no HTML.

    It writes `<a href=...>...</a>` as HTML, of the text or made of a place's path; so a link's `<`
    gets a space behind it, and so has any tag's in the line of a place that may end that path.
    """
    text = show(text)
    if "<" not in text:
        return text
    text = _LINK.sub("< ", text)
    return (
        "\n".join(map(_placed, text.split("\n"))) if _PLACE.search(_COLOURS.sub("", text)) else text
    )


def _placed(text: str) -> str:
    plain = _COLOURS.sub("", text)
    if ("'" in plain or plain.startswith("<")) and _PLACE.search(plain):
        return _TAG.sub("< ", text)
    return text


class Streams:
    """The two text streams of one cell after the other, each a text that arrives in pieces.

    A sequence may be torn by the end of a piece: its first half waits for the next piece, so that
    neither an escape is put together by the reader nor a colour lost.
    """

    def __init__(self) -> None:
        self._cell = 0
        self._torn: dict[str, str] = {}
        self._before: dict[str, str] = {}

    def show(self, name: str, text: str, cell: int) -> str:
        """What is to be shown of the next piece of a stream; see `show`."""
        if cell != self._cell:
            self._cell = cell
            self._torn.clear()
            self._before.clear()
        if not text:
            return text
        text = self._torn.pop(name, "") + text
        torn = _BROKEN_OFF.search(text, max(0, len(text) - 64))
        if torn is not None:
            self._torn[name] = torn[0]
            text = text[: torn.start()]
        shown = show(text, before=self._before.get(name, ""))
        if text:
            self._before[name] = text[-1]
        return shown
