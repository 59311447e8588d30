"""HTML that is so plain that to clean it is cheap, and that only shows something.

Pure; standard library only. What a parser of HTML does with tags that are not in order takes a
time, and as many elements, as grow with the square of their number: `<font size=1><font size=2>...`
between `<p>` and `</p>` is opened again in each later paragraph, what stands between `<table>` and
its rows is moved out child by child, attributes are compared each with each, a text is copied at
each `&` in it. Some kilobytes of it were minutes and gigabytes of html5ever (nh3 0.3). So only what
this module reads to the last tag is cleaned, by far the most of what libraries write; the rest is
for a browser, in a frame.

It is a bound and no parser: it holds at least as many elements open as one does. Whether what it
lets through is harmless is markup.py's to decide.
"""

from __future__ import annotations

import re

from wasi_kernel.filters import addresses

# How tags are read here, to be sure what a parser makes of them. Anything else is not calm.
_BLANK = r"[ \t\n\f\r]"
_MARK = re.compile(
    rf"<(?=[A-Za-z/!?])(?:(/?)([A-Za-z][A-Za-z0-9:_-]*+)((?:[ \t\n\f\r/]*+[^ \t\n\f\r\"'<>/=]++"
    rf"(?:{_BLANK}*+={_BLANK}*+(?:\"[^\"]*+\"|'[^']*+'|[^ \t\n\f\r\"'=<>`]++))?+){{0,64}}+)"
    r"[ \t\n\f\r/]*+>|!--(?!-?>)[^-]*+(?:-(?!->|-!>)[^-]*+)*+-->|(?i:!doctype)[^<>]*+>"
    r"|\?[^<>]*+>)?+"
)
"""No tag has more than 64 attributes: html5ever compares each with each."""
PAIR = re.compile(
    rf"([^ \t\n\f\r\"'<>/=]++)(?:{_BLANK}*+={_BLANK}*+"
    r"(?:\"([^\"]*+)\"|'([^']*+)'|([^ \t\n\f\r\"'=<>`]++)))?+"
)
_RUNS = re.compile(r"[\x00-\x20]*+(?:java|vb)script:", re.IGNORECASE)
_HANDLER = re.compile(r"on[a-z]{3,}")
_CHECKS = frozenset(("checkbox", "radio"))

ACTIVE = frozenset((
    "script", "iframe", "frame", "frameset", "object", "embed", "applet", "form", "button",
    "select", "textarea", "canvas", "math", "svg", "template", "dialog", "portal", "fencedframe",
    "marquee", "style", "xmp", "noembed", "noframes", "noscript", "plaintext", "listing", "image",
))  # fmt: skip
"""Elements that act, or whose content another parser may read otherwise."""

VOID = frozenset((
    "area", "base", "basefont", "bgsound", "br", "col", "embed", "hr", "img", "input", "link",
    "meta", "param", "source", "track", "wbr",
))  # fmt: skip
_PAGE = frozenset(("html", "head", "body"))
_FORMATTING = frozenset((
    "a", "b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u",
))  # fmt: skip
_ROWS_OF = frozenset(("thead", "tbody", "tfoot"))
_CELLS = frozenset(("td", "th"))
_IMPLIED = frozenset(("p", "li", "dd", "dt", "rt", "rp", "tr", "colgroup")) | _ROWS_OF | _CELLS
"""Elements whose end may be left out."""
_IN_TABLES = {
    "caption": frozenset(("table",)),
    "colgroup": frozenset(("table",)),
    "col": frozenset(("table", "colgroup")),
    **dict.fromkeys(_ROWS_OF, frozenset(("table",))),
    "tr": _ROWS_OF | {"table"},
    **dict.fromkeys(_CELLS, _ROWS_OF | {"table", "tr"}),
}
"""Parts of tables, and in what they stand. Anything else there is moved out, child by child."""
_TABLES = frozenset(("table", "tr", "colgroup")) | _ROWS_OF
_BLOCKS = (
    "address", "article", "aside", "blockquote", "center", "details", "div", "dl", "fieldset",
    "figcaption", "figure", "footer", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "main",
    "nav", "ol", "p", "pre", "section", "summary", "table", "ul",
)  # fmt: skip
_CLOSES: dict[str, frozenset[str]] = {
    "li": frozenset(("li", "p")),
    "dd": frozenset(("dd", "dt", "p")),
    "dt": frozenset(("dd", "dt", "p")),
    "rt": frozenset(("rt", "rp")),
    "rp": frozenset(("rt", "rp")),
    **dict.fromkeys(_CELLS, _CELLS | {"p", "colgroup"}),
    "tr": _CELLS | {"p", "tr", "colgroup"},
    **dict.fromkeys(_ROWS_OF, _CELLS | {"p", "tr", "colgroup"} | _ROWS_OF),
    **dict.fromkeys(_BLOCKS, frozenset(("p",))),
}
"""What the beginning of an element ends."""

COPIED = 5 << 30
"""Bytes that a parser may copy for the sake of `&`: 0.1 s."""

DEPTH = 200
"""How deep HTML may nest to be cleaned. Each tag looks through what is open; Chromium stops to nest
at 512."""

REOPENED = 32
"""How many of `_FORMATTING` may be open: a parser opens all of them again in each paragraph."""


def is_calm(html: str) -> bool:
    """Does this only show something, and nest plainly?

    Args:
        html: Without style elements.
    """
    nesting = _Nesting()
    harmless: set[str] = set()
    at = copied = 0
    run = 0  # where the text begins that a parser has in one piece
    for mark in _MARK.finditer(html):
        start, end = mark.span()
        if nesting.in_table and html[at:start].strip(" \t\n\f\r"):
            return False
        copied += html.count("&", at, end) * (end - run)
        at = end
        if mark[2] is None:
            if mark[0] == "<":
                return False
            continue
        name, attributes = mark[2].lower(), mark[3]
        if mark[1]:
            depth = nesting.depth
            if not nesting.ends(name):
                return False
            run = run if depth == nesting.depth else end
            continue
        if name in ACTIVE or not nesting.opens(name):
            return False
        run = run if name in _PAGE else end
        if attributes not in harmless or name in ("input", "meta"):
            if _acts(name, attributes):
                return False
            harmless.add(attributes)
    copied += html.count("&", at) * (len(html) - run)
    return copied < COPIED and not (nesting.in_table and html[at:].strip())


def _acts(tag: str, attributes: str) -> bool:
    """Would a tag of these attributes run, send or ask for something?"""
    kind = ""
    for name, double, single, bare in PAIR.findall(attributes):
        low, value = name.lower(), addresses.unescaped(double or single or bare)
        if _HANDLER.fullmatch(low) or low in ("srcdoc", "http-equiv"):
            return True
        if _RUNS.match(re.sub(r"[\t\n\r]", "", value)):
            return True
        if low == "type":
            kind = kind or value.lower()
    return tag == "input" and kind not in _CHECKS


class _Nesting:
    """What is open at one place in HTML that is plainly nested."""

    def __init__(self) -> None:
        self._open: list[str] = []
        self._count: dict[str, int] = {}
        self._reopened = 0
        self._page: set[str] = set()

    @property
    def in_table(self) -> bool:
        """Is this a place between the cells of a table?"""
        return bool(self._open) and self._open[-1] in _TABLES

    @property
    def depth(self) -> int:
        """How many elements are open."""
        return len(self._open)

    def opens(self, name: str) -> bool:
        """A start tag; is it plain here?"""
        while self._top in _CLOSES.get(name, ()):
            self._pop()
        if self._top == "title" or (self.in_table and name not in _IN_TABLES):
            return False
        if name in _IN_TABLES and self._top not in _IN_TABLES[name]:
            return False
        if name in _PAGE:  # each once: attributes of the next are added to it, one by one
            first = name not in self._page
            self._page.add(name)
            return first
        if name in VOID:
            return True
        if name in ("a", "nobr") and self._count.get(name):
            return False
        if self._top == "table" and (name == "tr" or name in _CELLS):
            self._push("tbody")
        if self._top in _ROWS_OF and name in _CELLS:
            self._push("tr")
        self._push(name)
        return len(self._open) <= DEPTH and self._reopened <= REOPENED

    def ends(self, name: str) -> bool:
        """An end tag; is it plain here?"""
        if name in _PAGE:
            return True
        if not self._count.get(name):  # of nothing
            return not self.in_table and self._top != "title"
        if name in _FORMATTING and self._top != name:
            return False
        while self._top != name:
            if self._top not in _IMPLIED:
                return False
            self._pop()
        self._pop()
        return True

    @property
    def _top(self) -> str:
        return self._open[-1] if self._open else ""

    def _push(self, name: str) -> None:
        self._open.append(name)
        self._count[name] = self._count.get(name, 0) + 1
        self._reopened += name in _FORMATTING

    def _pop(self) -> None:
        name = self._open.pop()
        self._count[name] -= 1
        self._reopened -= name in _FORMATTING
