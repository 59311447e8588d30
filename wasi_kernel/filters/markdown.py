"""Markdown that stays what it is, whoever renders it, and brings no HTML, links or images that act.

Pure; standard library only. Renderers differ, so nothing here asks where a code span begins or a
link ends: an edit is made wherever some renderer could read something active, and each edit is a
space, which changes neither code nor text much and no renderer reads over. (Rendering to HTML here
and cleaning that would be safe as well, but what is saved would not be Markdown any more.)

What renderers do with it, as looked up in JupyterLab 4.6 (rendermime's renderers.ts and latex.ts,
markedparser-extension), nbconvert 7.17 (filters/markdown_mistune.py), VS Code (the notebook side of
markdown-language-features): HTML passes as it is, links and images with any address, each without
a sanitizer where the notebook is trusted. Two things in JupyterLab alone:

- Math is taken out first and put back into the rendered HTML, with `<>&` escaped and quotes not. In
  `[a](https://x/$" onclick="..."$)` it so ends up in an attribute, and ends it.
- The language of a fenced block is written into an attribute as it is; `mermaid` draws in the page.

And nbconvert writes it all into one page: an end tag without its start tag, as one of them stands
in code or in a list, ends the page's own elements there, a start tag without its end tag dresses
what follows. So tags are kept in pairs between which nothing begins or ends for any renderer.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import TYPE_CHECKING

from wasi_kernel.filters import addresses, css, latex

if TYPE_CHECKING:
    from collections.abc import Callable

TAGS = frozenset((
    "a", "abbr", "b", "blockquote", "br", "caption", "center", "code", "dd", "del", "details",
    "div", "dl", "dt", "em", "font", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "ins",
    "kbd", "li", "mark", "ol", "p", "pre", "q", "s", "small", "span", "strike", "strong", "sub",
    "summary", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "tt", "u", "ul",
    "var", "wbr",
))  # fmt: skip
MAX_CHARACTERS = 1 << 20
"""Longer Markdown is not shown: a million takes two seconds, in which the kernel process hears
nothing else."""

_VOID = frozenset(("br", "hr", "img", "wbr"))
_INLINE = frozenset((
    "a", "abbr", "b", "code", "del", "em", "font", "i", "ins", "kbd", "mark", "q", "s", "small",
    "span", "strike", "strong", "sub", "sup", "tt", "u", "var",
))  # fmt: skip
_ATTRIBUTES = frozenset((
    "align", "alt", "bgcolor", "border", "color", "colspan", "face", "height", "href", "open",
    "rowspan", "size", "src", "start", "style", "title", "valign", "width",
))  # fmt: skip

_STYLES = frozenset((
    "background", "background-color", "border", "border-bottom", "border-collapse", "border-color",
    "border-left", "border-radius", "border-right", "border-style", "border-top", "border-width",
    "color", "display", "float", "font", "font-family", "font-size", "font-style", "font-weight",
    "height", "line-height", "max-height", "max-width", "min-width", "opacity", "overflow",
    "overflow-x", "overflow-y", "padding", "padding-bottom", "padding-left", "padding-right",
    "padding-top", "text-align", "text-decoration", "text-transform", "vertical-align",
    "white-space", "width",
))  # fmt: skip
"""Properties that keep an element in its place: no box contains it here, as in markup.py."""

_LESS = re.compile(
    r"<(?=[A-Za-z/!?])"  # what may begin a tag, in any parser of HTML
    r"(?:(/?)([A-Za-z][A-Za-z0-9]*)((?: +[a-z]+(?:=\"[^\"<>`\\$@{}\n]*\")?)*+) *(/?)>"
    r"|(?:https?://|mailto:)[^\s<>\"'`\\$=]+>|[\w.+-]+@[\w-]+(?:\.[\w-]+)+>)?"
)
_ATTRIBUTE = re.compile(r" +([a-z]+)(?:=\"([^\"]*)\")?")

# What begins or ends something in some renderer, but for whole code spans and plain links.
_MARKS = re.compile(
    r"(?<!`)`[^`\n<]*+`(?!`)|\]\([^\s()<>\"'`$\\]*+\)"
    r"|(?P<always>[`$\\]|\][(:\[]|~~~)"
    r"|(?P<block>\n[ \t]*+\n(?=    |\t|[ ]*+(?:[-+*#>|=]|\d+[.)])))"
    r"|(?P<line>\n(?=[ \t]*+\n|    |\t|[ ]*+(?:[-+*#>|=]|\d+[.)])))"
)
_FENCES = re.compile(r"^[ \t>*+\-\d.)]*+(?:`{3}|~{3})[^\n]*+", re.MULTILINE)
_DISPLAYS = re.compile(r"\$\$|\\\\[()\[\]]|\\(?:begin|end)\{")

_OPENS = re.compile(r"\](?=\()|\](?=:)")
_ADDRESS = re.compile(r"\](?:(\()|:)[\s>]*+(?:<[\s<]*+([^<>\n]*+)(>?)|([^\s\[\]]*+)([\[\]]?))")
_SPACES = re.compile(r"[\s\x00-\x20]+")
_BELOW = re.compile(rf"#[^\s\"'<>`\\:]*|(?!/){addresses.UPWARDS}[^\s\"'<>`\\:&;]*", re.IGNORECASE)
_DATA = re.compile(
    r"!\[[^\[\]\n\\`\"$<>]*\]\(data:image/(?:png|jpe?g|gif|webp);base64,[A-Za-z0-9+/=]*\)"
)
_PICTURE = re.compile(rf"{_DATA.pattern}|!(?=\[)")

_FENCE = re.compile(r"^([ \t>*+\-\d.)\[\]xX]*(?:`{3,}+(?=[^`\n]*$)|~{3,}+))([^\n]+)$", re.MULTILINE)
_NO_LANGUAGE = re.compile(r"[^\w+#.={}:, -]+")
_MERMAID = re.compile(r"\s*\{?\.?mermaid", re.IGNORECASE)

_MATH = re.compile(r"\$|\\\\[()\[\]]|\\(?:begin|end)\{|@@\d+@@")
_PARAGRAPH = re.compile(r"\n[ \t]*\n")


def disarmed(text: str, hold: Callable[[str], None]) -> str:
    """`text` with spaces where something active could begin; the same object if there is nothing.

    `hold` gets what was changed, in words.
    """
    changed = text
    if "\r" in text or "\x00" in text:  # as renderers begin with it
        changed = re.sub(r"\r\n?", "\n", text).replace("\x00", "\ufffd")
    for what, edit in (
        ("the language of a code block", _languages),  # first: it takes away what others judge
        ("quotes inside math", _quotes),  # before the tags: a tag must not lose its quotes
        ("HTML that is not plainly harmless: shown as text", _tags),
        ("an image that is not data: shown as a link", _pictures),
        ("a link to something else than the web: shown as text", _links),
        ("a TeX macro that links, styles or loads", latex.disarmed),
    ):
        edited = edit(changed)
        if edited != changed:
            hold(what)
            changed = edited
    return changed


def _tags(text: str) -> str:
    if "<" not in text:
        return text
    found = list(_LESS.finditer(text))
    kept = _kept(text, found)
    parts, at = [], 0
    for k, match in enumerate(found):
        parts.append(text[at : match.start()])
        parts.append(match[0] if k in kept else f"< {match[0][1:]}")
        at = match.end()
    return "".join(parts) + text[at:]


def _kept(text: str, found: list[re.Match[str]]) -> set[int]:
    """Which of the tags stay: harmless ones that stand alone, and pairs as the module says."""
    alone, pairs = _paired(found)
    if not pairs:
        return alone
    seams = _Seams(text)
    kept, end, whole = alone, 0, 0
    for i, j in sorted(pairs):
        opens, closes = found[i], found[j]
        if opens[2].lower() in _INLINE:
            # nbconvert writes an empty one in a heading as XML, which HTML reads as a start tag
            if opens.end() < closes.start() and seams.none(
                opens.end(), closes.start(), "always", "block", "line"
            ):
                kept |= {i, j}
        elif opens.start() < whole or seams.apart(opens, closes, end):
            kept |= {i, j}
            end = max(end, closes.end())
            if seams.none(opens.end(), closes.start(), "always", "block"):
                whole = end
    return kept


class _Seams:
    """Where something begins or ends in some renderer of a text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at: dict[str | None, list[int]] = {"always": [], "block": [], "line": []}
        for mark in _MARKS.finditer(text):
            if mark.lastgroup is not None:
                self._at[mark.lastgroup].append(mark.start())
        self._at["display"] = [m.start() for m in _DISPLAYS.finditer(text)]
        self._at["fence"] = []
        self._plain_until = len(text)  # so far fences are written as all renderers read them
        for fence in _FENCES.finditer(text):
            opened = len(self._at["fence"]) % 2 == 0
            if not re.fullmatch(r"```[\w+-]*" if opened else "```[ ]*", fence[0]):
                self._plain_until = fence.start()
                break
            self._at["fence"].append(fence.start())

    def none(self, start: int, end: int, *kinds: str) -> bool:
        """Is there no such mark between two places?"""
        places = (self._at[kind] for kind in kinds)
        return all(bisect_left(at, start) == bisect_left(at, end) for at in places)

    def apart(self, opens: re.Match[str], closes: re.Match[str], end: int) -> bool:
        """Do both tags of a block stand where every renderer reads HTML, or neither?

        `end` is where the last such block ends.
        """
        start, stop = opens.start(), closes.start()
        if not (self._after_blank(start) or (end and self._text[end:start] in ("", "\n"))):
            return False
        if self.none(start, stop, "always", "block"):
            return True
        return (
            self._after_blank(stop)
            and stop < self._plain_until
            and bisect_left(self._at["fence"], start) % 2 == 0
            and bisect_left(self._at["fence"], stop) % 2 == 0
            and self.none(start, stop, "display")
        )

    def _after_blank(self, at: int) -> bool:
        if at and self._text[at - 1] != "\n":
            return False
        return not self._text[self._text.rfind("\n", 0, max(at - 1, 0)) + 1 : at].strip(" \t\n")


def _paired(found: list[re.Match[str]]) -> tuple[set[int], list[tuple[int, int]]]:
    """The harmless tags that stand alone, and those in pairs, one in the other."""
    alone: set[int] = set()
    pairs: list[tuple[int, int]] = []
    unclosed: list[tuple[str, int]] = []
    count: dict[str, int] = {}
    for k, match in enumerate(found):
        closing, name, attributes, _ = match.groups()
        if name is None:
            # An address in angle brackets. Without "=": inside raw HTML it is an element, and what
            # follows a slash is an attribute.
            if len(match[0]) > 1:
                alone.add(k)
            continue
        name = name.lower()
        if name not in TAGS or (closing and attributes):
            continue
        if closing:
            if not count.get(name):
                continue
            opened = ""
            while opened != name:
                opened, i = unclosed.pop()
                count[opened] -= 1
            pairs.append((i, k))
        elif all(_attribute(name, *pair) for pair in _ATTRIBUTE.findall(attributes)):
            if name in _VOID:
                alone.add(k)
            else:
                unclosed.append((name, k))
                count[name] = count.get(name, 0) + 1
    return alone, pairs


def _attribute(tag: str, name: str, value: str) -> bool:
    """May a tag that is written as it is have this attribute?"""
    if name not in _ATTRIBUTES or "&" in value:
        return False
    if name == "href":
        return tag == "a" and addresses.WEB.fullmatch(value) is not None
    if name == "src":
        return tag == "img" and addresses.media(tag, name, value) is not None
    if name == "style":
        pieces = [piece.partition(":") for piece in value.split(";") if piece.strip()]
        return all(
            key.strip().lower() in _STYLES and css.value(about) is not None
            for key, _, about in pieces
        )
    return True


def _pictures(text: str) -> str:
    if "![" not in text or not ("](" in text or "]:" in text):
        return text
    return _PICTURE.sub(lambda m: m[0] if len(m[0]) > 1 else "! ", text)


def _links(text: str) -> str:
    if "](" not in text and "]:" not in text:
        return text

    data = {m.start() + m[0].index("](") for m in _DATA.finditer(text)}

    def parted(match: re.Match[str]) -> str:
        if match.start() in data or _leads_on(_ADDRESS.match(text, match.start())):
            return match[0]
        return match[0] + " "

    return _OPENS.sub(parted, text)


def _leads_on(found: re.Match[str] | None) -> bool:
    """Is what follows a bracket an address that may be followed, for every renderer?"""
    if found is None:
        return False
    inline, angled, closed, address, bracket = found.groups()
    if address is None:
        address, bracket = angled, not closed
    elif inline:
        address = _to_bracket(address)
    # what a browser makes of it: references are read, tabs and line breaks left out
    plain = _SPACES.sub("", addresses.unescaped(address))
    if addresses.WEB.fullmatch(plain):
        return True
    return not bracket and _BELOW.fullmatch(plain) is not None


def _to_bracket(address: str) -> str:
    """An address up to the bracket that ends its link: those inside of it are in pairs."""
    depth = 0
    for at, sign in enumerate(address):
        depth += (sign == "(") - (sign == ")")
        if depth < 0:
            return address[:at]
    return address


def _languages(text: str) -> str:
    if "```" not in text and "~~~" not in text:
        return text

    def plain(match: re.Match[str]) -> str:
        language = _NO_LANGUAGE.sub("", match[2])
        return match[1] + ("text" if _MERMAID.match(language) else language)

    return _FENCE.sub(plain, text)


def _quotes(text: str) -> str:
    """Quotes between the marks of math become typographic ones: see the module's first lines."""
    if '"' not in text:
        return text
    parts, at = [], 0
    for end in [*(m.start() for m in _PARAGRAPH.finditer(text)), len(text)]:
        paragraph = text[at:end]
        marks = [m.start() for m in _MATH.finditer(paragraph)]
        if len(marks) > 1:
            first, last = marks[0], marks[-1]
            inside = paragraph[first:last].replace('"', "\u201d")
            paragraph = paragraph[:first] + inside + paragraph[last:]
        parts.append(paragraph)
        at = end
    return "".join(parts)
