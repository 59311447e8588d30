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
"""

from __future__ import annotations

import re
from html import unescape
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
_VOID = frozenset(("br", "hr", "img", "wbr"))
_ATTRIBUTES = frozenset((
    "align", "alt", "bgcolor", "border", "color", "colspan", "face", "height", "href", "open",
    "rowspan", "size", "src", "start", "style", "title", "valign", "width",
))  # fmt: skip

_LESS = re.compile(
    r"<(?=[A-Za-z/!?])"  # what may begin a tag, in any parser of HTML
    r"(?:(/?)([A-Za-z][A-Za-z0-9]*)((?: +[a-z]+(?:=\"[^\"<>`\\$@{}\n]*\")?)*+) *(/?)>"
    r"|(?:https?://|mailto:)[^\s<>\"'`\\$=]+>|[\w.+-]+@[\w-]+(?:\.[\w-]+)+>)?"
)
_ATTRIBUTE = re.compile(r" +([a-z]+)(?:=\"([^\"]*)\")?")

_OPENS = re.compile(r"\](?=\()|\](?=:)")
_ADDRESS = re.compile(r"\][(:][\s>]*(?:<[\s<]*([^>]*)|([^\s)]*))")
_SPACES = re.compile(r"[\s\x00-\x20]+")
_HARMLESS = re.compile(
    r"(?:https?://|mailto:)[^\s\"'<>`\\]*|#[^\s\"'<>`\\:]*|(?!/)(?!.*\.\.)[^\s\"'<>`\\:&;]*",
    re.IGNORECASE,
)
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
    kept = _paired(found)
    parts, at = [], 0
    for k, match in enumerate(found):
        parts.append(text[at : match.start()])
        parts.append(match[0] if k in kept else f"< {match[0][1:]}")
        at = match.end()
    return "".join(parts) + text[at:]


def _paired(found: list[re.Match[str]]) -> set[int]:
    """Which of the tags stay: the harmless ones that stand alone or in pairs, one in the other."""
    kept: set[int] = set()
    unclosed: list[tuple[str, int]] = []
    for k, match in enumerate(found):
        closing, name, attributes, _ = match.groups()
        if name is None:
            # An address in angle brackets. Without "=": inside raw HTML it is an element, and what
            # follows a slash is an attribute.
            if len(match[0]) > 1:
                kept.add(k)
            continue
        name = name.lower()
        if name not in TAGS or (closing and attributes):
            continue
        if closing:
            depth = next((i for i, (n, _) in enumerate(reversed(unclosed)) if n == name), None)
            if depth is not None:
                kept |= {k, unclosed[-1 - depth][1]}
                del unclosed[len(unclosed) - 1 - depth :]
        elif all(_attribute(name, *pair) for pair in _ATTRIBUTE.findall(attributes)):
            if name in _VOID:
                kept.add(k)
            else:
                unclosed.append((name, k))
    return kept


def _attribute(tag: str, name: str, value: str) -> bool:
    """May a tag that is written as it is have this attribute?"""
    if name not in _ATTRIBUTES or "&" in value:
        return False
    if name == "href":
        return tag == "a" and addresses.WEB.fullmatch(value) is not None
    if name == "src":
        return tag == "img" and addresses.media(tag, name, value) is not None
    if name == "style":  # no box around it contains what is positioned
        plain = css.value(value.replace(":", " ").replace(";", " ").replace("/", " "))
        return plain is not None and re.search(r"position|margin|transform|inset", value) is None
    return True


def _pictures(text: str) -> str:
    if "![" not in text or not ("](" in text or "]:" in text):
        return text
    return _PICTURE.sub(lambda m: m[0] if len(m[0]) > 1 else "! ", text)


def _links(text: str) -> str:
    if "](" not in text and "]:" not in text:
        return text

    def parted(match: re.Match[str]) -> str:
        at = match.start()
        address = _ADDRESS.match(text, at)
        if address is not None and not _is_data(text, at):
            # what a browser makes of it: entities are read, tabs and line breaks left out
            plain = _SPACES.sub("", unescape(address[1] or address[2] or ""))
            if not _HARMLESS.fullmatch(plain):
                return match[0] + " "
        return match[0]

    return _OPENS.sub(parted, text)


def _is_data(text: str, bracket: int) -> bool:
    """Is the bracket before an address that of an image that is data?"""
    start = text.rfind("![", 0, bracket)
    match = _DATA.match(text, start) if start >= 0 else None
    return match is not None and text.find("](", start) == bracket


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
