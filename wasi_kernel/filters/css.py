r"""Style sheets and style attributes that dress their own output and reach nothing else.

Pure; standard library only. An allow-list over the tokens of CSS Syntax 3: what is not known is
left out, rule by rule and declaration by declaration.

- Nothing is loaded: of `url()` only images that are data (an SVG there runs no script and loads
  nothing: SVG Integration, "secure static mode"), and in SVG references to the document's own ids;
  other functions only if listed, so no `image-set("//...")`, `src()`, `attr()`, `paint()`.
- Nothing outside is dressed: every selector is put below one id, and starts with a compound, not
  with a combinator that would step out to siblings. What is said of `:root` is said of that id, and
  custom properties only.
- Names that a page shares are not defined: no `@import`, `@font-face`, `@keyframes`, `@property`.
- Escapes (`\75rl(`) are refused outside strings: what is written is what is read.
- Ids carry the prefix that the ids of the output carry (markup.py, svg.py).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "wasi-"
"""What every id in an output begins with, so that none is an id of the page or a global of its
scripts (HTML, "named access on the Window object")."""

FUNCTIONS = (
    "rgba?|hsla?|hwb|lab|lch|oklab|oklch|color|color-mix|light-dark|var|calc|min|max|clamp|round"
    "|abs|sign|mod|rem|pow|sqrt|sin|cos|tan|translate[xyz]?|translate3d|scale[xyz]?|scale3d"
    "|rotate[xyz]?|rotate3d|skew[xy]?|matrix|matrix3d|perspective"
    "|(?:repeating-)?(?:linear|radial|conic)-gradient|cubic-bezier|steps|linear|blur|brightness"
    "|contrast|drop-shadow|grayscale|hue-rotate|invert|opacity|saturate|sepia|counters?|minmax"
    "|repeat|fit-content|circle|ellipse|polygon|inset"
)
"""Functions of values that load nothing (CSS Values 4, Color 5, Transforms 2, Images 4)."""

PSEUDO_FUNCTIONS = frozenset((
    "not", "is", "where", "has", "nth-child", "nth-last-child", "nth-of-type", "nth-last-of-type",
    "lang", "dir",
))  # fmt: skip

AT_RULES = frozenset(("@media", "@supports", "@container", "@layer"))
"""Those that hold rules and define nothing."""

REFUSED = frozenset((
    "behavior", "-moz-binding", "src", "view-transition-name", "anchor-name", "app-region",
    "-webkit-app-region", "timeline-scope",
))  # fmt: skip
"""Properties that run code in old browsers, load, or speak of the page as a whole."""

MAX_CHARACTERS = 2 << 20
"""Of a sheet: a million takes a second."""

DEPTH = 4
"""Levels of at-rules."""

_STRING = (
    r'"(?:[^"\\\n<>]|\\[0-9a-fA-F]{1,6}[ ]?|\\["\'\\])*"'
    r"|'(?:[^'\\\n<>]|\\[0-9a-fA-F]{1,6}[ ]?|\\[\"'\\])*'"
)
_DATA = (
    r"data:image/(?:png|jpe?g|gif|webp|bmp|avif|svg\+xml)(?:;charset=utf-?8|;utf8)?"
    r"(?:;base64,[A-Za-z0-9+/=]*|,[A-Za-z0-9%.,;:=?&*+/_~!$@#"
)
_URL = rf"url\(\s*(?:\"{_DATA} '()-]*)\"|'{_DATA} ()-]*)'|{_DATA}-]*))\s*\)"
_TOKEN = (
    rf"(?:{_STRING}|{_URL}|(?:{FUNCTIONS})\("
    r"|[\w.%#-]++(?!\()|[\s,/*+!)\[\]]|(?<![\w-])\()"
)
_VALUE = re.compile(rf"(?:{_TOKEN})*+", re.IGNORECASE)
_FRAGMENT = re.compile(r"url\(\s*([\"']?)#([\w.:-]+)\1\s*\)", re.IGNORECASE)
_SIMPLE = re.compile(r"[\w\s#.,%+-]*+")
_PROPERTY = re.compile(r"-{0,2}[a-zA-Z][a-zA-Z0-9_-]*")

PAGE = "jp-|lm-|p-Widget|mjx-|MathJax|cm-|jupyter-"
"""How classes begin that are JupyterLab's, Lumino's, MathJax's, CodeMirror's and ipywidgets':
`jp-Dialog` covers the page."""

_PAGE_CLASS = re.compile(PAGE)

_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)|<!--|-->|<", re.DOTALL)
_SPACE = re.compile(r"\s+")
_PIECE = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'|[^"\'\\{}();]+|\\.|.', re.DOTALL)
_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|[()\[\]]', re.DOTALL)
_CLOSED_BY = {"(": ")", "[": "]"}
_OPENS_STYLE = re.compile(r"<style", re.IGNORECASE | re.ASCII)
_ENDS_STYLE = re.compile(r"</style", re.IGNORECASE | re.ASCII)
_CONDITION = re.compile(r"@[a-z]+[\w\s():,.>=/%-]*", re.IGNORECASE)
_SELECTOR_PART = re.compile(
    r"\[\s*[\w-]+\s*(?:[~|^$*]?=\s*(?:[\w-]+|\"[^\"\\\n<>]*\"|'[^'\\\n<>]*')\s*[is]?\s*)?\]"
    r"|:([\w-]+)\(|#([\w-]+)|[\w.*>+~:,)\s%-]|[^\x00-\x7f]"
)
_ROOT = re.compile(r"(?::root|:host|html|body)\Z", re.IGNORECASE)


def value(text: str, *, fragments: bool = False) -> str | None:
    """A property's value with its spaces folded, None if it could load or break out of anything.

    Args:
        text: What stands behind the colon; without comments.
        fragments: May it refer to ids of the same document (`url(#id)`)? They get the prefix.
    """
    text = _SPACE.sub(" ", text.strip())
    if _SIMPLE.fullmatch(text):
        return text
    rest = text
    if fragments:
        rest = _FRAGMENT.sub(" ", text)
        text = _FRAGMENT.sub(lambda m: f"url(#{prefixed(m[2])})", text)
    if not _VALUE.fullmatch(rest) or not _balanced(rest):
        return None
    return text


def _balanced(text: str) -> bool:
    """Do brackets close in order? One that does not takes what follows, `}` included, with it."""
    awaited: list[str] = []
    for piece in _BRACKET.finditer(text):
        sign = piece[0]
        if sign in _CLOSED_BY:
            awaited.append(_CLOSED_BY[sign])
        elif sign in ")]" and (not awaited or awaited.pop() != sign):
            return False
    return not awaited


def prefixed(name: str) -> str:
    """An id as it is written in an output."""
    return name if name.startswith(PREFIX) else PREFIX + name


def classes(names: str) -> str:
    """Class names without those by which a page dresses and finds its own parts."""
    if not _PAGE_CLASS.search(names):
        return names
    return " ".join(name for name in names.split() if not _PAGE_CLASS.match(name))


def declarations(text: str, *, fragments: bool = False, among: frozenset[str] | None = None) -> str:
    """The declarations of a style attribute or of a rule that are harmless, as `a:b;c:d`.

    Args:
        text: Of the attribute, or between the braces.
        fragments: As for `value`.
        among: Properties that may be set, beside custom ones; None for all that are not refused.
    """
    found = []
    for piece in _split(_COMMENT.sub(" ", text)):
        name, colon, raw = piece.partition(":")
        name = name.strip()
        if not colon or not _PROPERTY.fullmatch(name):
            continue
        name = name if name.startswith("--") else name.lower()
        if name in REFUSED or (among is not None and name not in among and name[:2] != "--"):
            continue
        safe = value(raw, fragments=fragments)
        if safe and not (name == "position" and safe.lower().startswith("fixed")):
            found.append(f"{name}:{safe}")
    return ";".join(found)


def _split(text: str) -> Iterator[str]:
    """The parts of `text` between the semicolons that stand in no string, bracket or block."""
    if not any(c in text for c in "\"'({\\"):
        yield from text.split(";")
        return
    part: list[str] = []
    depth = 0
    for piece in _PIECE.finditer(text):
        sign = piece[0]
        if sign == ";" and depth == 0:
            yield "".join(part)
            part.clear()
            continue
        depth += (sign in "({") - (sign in ")}")
        depth = max(depth, 0)
        part.append(sign)
    yield "".join(part)


def split_sheets(html: str) -> tuple[str, list[str]]:
    """(what is left without its style elements, the text of each)."""
    rest, sheets, at = [], [], 0
    while (
        (opens := _OPENS_STYLE.search(html, at))
        and (opened := html.find(">", opens.end())) >= 0
        and (ends := _ENDS_STYLE.search(html, opened))
        and (closed := html.find(">", ends.end())) >= 0
    ):
        rest.append(html[at : opens.start()])
        sheets.append(html[opened + 1 : ends.start()])
        at = closed + 1
    return "".join([*rest, html[at:]]), sheets


def sheet(text: str, scope: str, *, fragments: bool = False) -> str:
    """The rules of a style sheet that are harmless, each for what lies below the id `scope`.

    A sheet of more than `MAX_CHARACTERS` has none.
    """
    if len(text) > MAX_CHARACTERS:
        return ""
    return "".join(_rules(_COMMENT.sub(" ", text), scope, fragments, DEPTH))


def _rules(text: str, scope: str, fragments: bool, depth: int) -> Iterator[str]:
    for prelude, body in _blocks(text):
        if prelude.startswith("@"):
            name = prelude.split("(")[0].split()[0].lower()
            if name in AT_RULES and _CONDITION.fullmatch(prelude) and _balanced(prelude) and depth:
                inner = "".join(_rules(body, scope, fragments, depth - 1))
                if inner:
                    yield f"{prelude}{{\n{inner}}}\n"
            continue
        for root, group in _selectors(prelude, scope):
            inside = declarations(body, fragments=fragments, among=frozenset() if root else None)
            if inside:
                yield f"{group}{{{inside}}}\n"


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """(what stands before it, what stands in it) of each block at the top of `text`."""
    prelude: list[str] = []
    body: list[str] = []
    depth = parens = 0
    for piece in _PIECE.finditer(text):
        sign = piece[0]
        if depth:
            depth += (sign == "{") - (sign == "}")
            if depth:
                body.append(sign)
                continue
            yield _SPACE.sub(" ", "".join(prelude).strip()), "".join(body)
            prelude.clear()
            body.clear()
        elif sign == "{":
            depth, parens = 1, 0
        elif sign in ";}" and not parens:
            prelude.clear()
        else:
            parens = max(parens + (sign == "(") - (sign == ")"), 0)
            prelude.append(sign)


def _selectors(prelude: str, scope: str) -> list[tuple[bool, str]]:
    """(of the root?, selectors) that a rule has within `scope`; those that are not known lack."""
    roots, others = [], []
    for selector in _alternatives(prelude):
        if selector == f"#{scope}" or _ROOT.match(selector):
            roots.append(f"#{scope}")
        elif (inner := _below(selector.removeprefix(f"#{scope} "))) is not None:
            others.append(f"#{scope} {inner}")
    found = [(True, roots[0])] if roots else []
    return [*found, (False, ",".join(others))] if others else found


def _alternatives(prelude: str) -> Iterator[str]:
    """The selectors between the commas that stand in no bracket and no string."""
    part: list[str] = []
    depth = 0
    for piece in re.finditer(r'"[^"]*"|\'[^\']*\'|[^"\'()\[\],]+|.', prelude, re.DOTALL):
        sign = piece[0]
        if sign == "," and depth == 0:
            yield "".join(part).strip()
            part.clear()
            continue
        depth += (sign in "([") - (sign in ")]")
        part.append(sign)
    yield "".join(part).strip()


def _below(selector: str) -> str | None:
    """A selector with its ids prefixed, None if it is not known or would step out of its scope."""
    if not selector or selector[0] in ">+~),":
        return None
    parts, at, depth = [], 0, 0
    while at < len(selector):
        match = _SELECTOR_PART.match(selector, at)
        if match is None:
            return None
        sign, function, name = match[0], match[1], match[2]
        if function is not None and function.lower() not in PSEUDO_FUNCTIONS:
            return None
        depth += (function is not None) - (sign == ")")
        if depth < 0:
            return None
        parts.append(f"#{prefixed(name)}" if name is not None else sign)
        at = match.end()
    return "".join(parts) if depth == 0 else None
