"""HTML for a page that trusts it: cleaned if it only shows something, enclosed if it acts.

Pure; nh3 (ammonia, html5ever) is imported when it is first needed. JupyterLab 4.6 (rendermime's
renderHTML) sets what a running kernel displays as innerHTML and runs its scripts; ipywidgets 8's
HTML does the first, nbconvert 7.17 writes it into the page. So:

- What acts (scripts, handlers, forms, frames, drawings that refer to each other) is shown whole in
  a frame; see enclosure.py. Which of the two ways is taken decides how it looks, not whether it is
  safe: each is safe for any text.
- The rest is cleaned by nh3 with the lists below: no SVG, MathML, templates, or raw text elements,
  so that no parser reads the result differently. Images are data, links are of the web.
- What is not plainly nested goes into the frame as well: to put it in order takes a parser of HTML
  a time, and as many elements, as grow with the square of its length (nesting.py).
- Style sheets dress their own output only (css.py). Output with attributes stands in a box whose
  containment keeps everything inside, `position: fixed` and negative margins included.
- Ids get a prefix, and the classes and `data-` attributes that a page acts upon are left out:
  a click on `data-commandlinker-command` runs a command of JupyterLab (apputils, commandlinker.ts).
- Drawings become images that are data: nothing in such an image runs or loads.

The result is a fixed point: cleaned again it is the same.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from wasi_kernel.filters import addresses, css, enclosure, latex, nesting, svg

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_CHARACTERS = 16 << 20
"""Longer HTML is not shown: to read it through takes a second for each five million."""
MAX_FRAMED = 32 << 20
"""The same for HTML in its frame, where it is up to nine times as long (escaped twice)."""

MAX_CLEANED = 1 << 20
"""Longer HTML is not cleaned but framed, unless it is a plain table: a million characters of small
elements take a second and 45 MB (nh3 0.3), in which the kernel process hears nothing."""

_TAGS = (
    "a abbr acronym address article aside audio b bdi bdo big blockquote br caption center cite"
    " code col colgroup data dd del details dfn div dl dt em figcaption figure font footer h1 h2 h3"
    " h4 h5 h6 header hgroup hr i img input ins kbd label legend li main mark meter nav nobr ol p"
    " picture pre progress q rp rt ruby s samp section small source span strike strong sub summary"
    " sup table tbody td tfoot th thead time tr tt u ul var video wbr"
)
TAGS = frozenset(_TAGS.split())
DROPPED = frozenset((
    "script", "style", "title", "template", "noscript", "textarea", "svg", "math", "iframe",
    "object", "select", "xmp", "noembed", "noframes", "head",
))  # fmt: skip
"""Elements that go with what is in them."""

_ALIGNED = frozenset(("align", "valign", "width", "height", "bgcolor"))
_MEDIA = frozenset(("src", "controls", "loop", "muted", "autoplay", "width", "height", "preload"))
ATTRIBUTES: dict[str, frozenset[str]] = {
    "*": frozenset(("class", "id", "title", "lang", "dir", "style", "role", "hidden", "align")),
    "a": frozenset(("href", "target")),
    "audio": _MEDIA,
    "video": _MEDIA | {"poster"},
    "source": frozenset(("src", "type")),
    "img": frozenset(("src", "alt", "width", "height", "border")),
    "input": frozenset(("type", "checked", "disabled")),
    "label": frozenset(("for",)),
    "details": frozenset(("open",)),
    "font": frozenset(("color", "face", "size")),
    "hr": frozenset(("size", "width", "color")),
    "ol": frozenset(("start", "type", "reversed")),
    "ul": frozenset(("type",)),
    "li": frozenset(("value", "type")),
    "meter": frozenset(("min", "max", "low", "high", "value", "optimum")),
    "progress": frozenset(("max", "value")),
    "time": frozenset(("datetime",)),
    "table": _ALIGNED | {"border", "cellpadding", "cellspacing", "frame", "rules"},
    "col": _ALIGNED | {"span"},
    "colgroup": _ALIGNED | {"span"},
    "thead": _ALIGNED,
    "tbody": _ALIGNED,
    "tfoot": _ALIGNED,
    "tr": _ALIGNED,
    "td": _ALIGNED | {"colspan", "rowspan", "headers", "scope", "nowrap"},
    "th": _ALIGNED | {"colspan", "rowspan", "headers", "scope", "nowrap", "abbr"},
}
_REFERENCES = frozenset((
    "for", "headers", "aria-labelledby", "aria-describedby", "aria-controls", "aria-owns",
))  # fmt: skip
"""Attributes that hold ids."""

_SCRIPT = re.compile(r"<script\b", re.IGNORECASE)
_REMOTE = re.compile(
    r"<script\b[^<>]*?\ssrc\s*+=\s*+[\"']?+\s*+((?:https?:)?//[^\s\"'<>]+)", re.IGNORECASE
)
_FRAME = re.compile(
    r"<iframe\b((?:[\s/]+[\w-]+(?:\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s\"'<>]+))?)*+)\s*/?>",
    re.IGNORECASE,
)
_DATA_PAGE = re.compile(r"data:text/html(?:;charset=[\w-]+)?(;base64)?,(.*)", re.DOTALL)
BESIDE = 300
"""Characters of text beside a frame that is all there is to see (folium's hint to trust it)."""

_NEWLINE = re.compile(r"(<pre(?: [^<>]*)?>)\n")
_SPLIT_MACRO = re.compile(r"\\(?=[A-Za-z]*+<wbr>)")
_BOX_STYLE = "contain:content;overflow:auto"
_BOX = re.compile(
    rf'<div id="({css.PREFIX}[0-9a-f]{{16}})" style="{_BOX_STYLE}">(.*)</div>', re.DOTALL
)
_SELF = css.PREFIX + "-self-"
"""The box's id while its content is not known; then its digest: no output takes another's."""

# A table that needs no parser: these expressions read it to the last character, and everything in
# it is listed here. A hundred rows of pandas take them 0.2 ms, nh3 0.8 ms, and twice that with
# callbacks for attributes.
_DRESSED = re.compile(r"<([a-z]+) ([^<>]*)>")
_DRESS = re.compile(
    rf" *+(?:(?:class=\"(?![^\"]*(?:{css.PAGE}))[\w -]*+\"|(?:id|scope)=\"[\w-]*+\""
    r"|(?:border|colspan|rowspan)=\"\d*+\""
    r"|style=\"(?: *+(?:text-align|vertical-align|(?:min-|max-)?(?:width|height)|white-space"
    r"|(?:background-)?color|font-(?:weight|style|size)|padding|border) *+:[\w .%#,-]*+;?)*+ *+\")"
    r" *+)*+"
)
_TEXT = r"[^<&\\]*+(?:&(?:amp|lt|gt|quot|nbsp|#34|#39|#x27);[^<&\\]*+)*+"
_ROWS = rf"\s*+(?:<tr>\s*+(?:(?:<td>{_TEXT}</td>|<th>{_TEXT}</th>)\s*+)*+</tr>\s*+)*+"
_TABLE = (
    rf"\s*+<table>\s*+(?:<caption>{_TEXT}</caption>\s*+)?+(?:<thead>{_ROWS}</thead>\s*+)?+"
    rf"(?:<tbody>{_ROWS}</tbody>\s*+)*+</table>\s*+(?:<p>{_TEXT}</p>\s*+)?+"
)
_STRUCTURE = re.compile(rf"\s*+(?:<div>{_TABLE}</div>\s*+|{_TABLE})")
_ID = re.compile(rf'\bid="(?!{css.PREFIX}|")')


def sanitized(html: str, hold: Callable[[str], None], *, runs: bool = False) -> str | None:
    """HTML to be shown in place of `html`, None if it cannot be; `hold` gets what was changed.

    `runs`: do scripts in a frame run without being asked to?
    """
    frame = enclosure.read(html) if len(html) <= MAX_FRAMED else None
    if frame is not None:
        return enclosure.framed(frame._replace(runs=runs))
    if len(html) > MAX_CHARACTERS:
        hold(f"is longer than {MAX_CHARACTERS >> 20} million characters")
        return None
    if "<" not in html and "&" not in html:
        return latex.disarmed(html)
    box = _BOX.fullmatch(html)
    given, scope = (html, _SELF) if box is None else (box[2], box[1])
    if box is None and "<script" in given:  # at once: some are megabytes
        return _enclosed(html, hold, runs=runs)
    bare, styles = css.split_sheets(given)
    body: str | None = None
    if _is_plain_table(bare):
        body = _DRESSED.sub(_prefixed, bare) if 'id="' in bare else bare
    elif len(bare) <= MAX_CLEANED and nesting.is_calm(drawn := _drawn(bare, hold)):
        body = _stable(drawn, hold)
        if body is not None and len(body) > MAX_CLEANED:  # or it would be framed the next time
            body = None
    if body is None:
        return _enclosed(html, hold, runs=runs)
    rules = "".join(css.sheet(style, scope) for style in styles).replace(f"#{scope}", f"#{_SELF}")
    if box is None and not rules and '="' not in body:
        return body
    digest = hashlib.blake2b((rules + body).encode("utf-8", "replace"), digest_size=8)
    scope = css.PREFIX + digest.hexdigest()
    style = f"<style>{rules.replace(f'#{_SELF}', f'#{scope}')}</style>" if rules else ""
    return f'<div id="{scope}" style="{_BOX_STYLE}">{style}{body}</div>'


def _prefixed(tag: re.Match[str]) -> str:
    dress = _ID.sub(f'id="{css.PREFIX}', tag[2])
    return f"<{tag[1]} {dress}>"


def _is_plain_table(html: str) -> bool:
    """Is this a table of texts, and nothing that is not listed above?"""
    if "<table" not in html or not all(
        _DRESS.fullmatch(dress) for dress in {m[2] for m in _DRESSED.finditer(html)}
    ):
        return False
    return _STRUCTURE.fullmatch(_DRESSED.sub(r"<\1>", html)) is not None


def _stable(html: str, hold: Callable[[str], None]) -> str | None:
    """`html` cleaned until cleaning changes nothing more, None if that does not come to pass."""
    cleaner = _cleaner(hold)
    for _ in range(4):
        before = html
        html = _NEWLINE.sub("\\1\n\n", cleaner.clean(html))  # a parser drops one behind <pre>
        html = latex.disarmed(_SPLIT_MACRO.sub(r"\\ ", html))  # MathJax reads over <wbr>
        if html == before:
            return html
    return None


def _cleaner(hold: Callable[[str], None]) -> Any:
    import nh3

    def filtered(tag: str, name: str, value: str) -> str | None:
        safe = attribute(tag, name, value)
        if safe is None and name in ("src", "href", "poster"):
            hold(f"{tag} {name}: not of the kind that is shown ({value[:40]})")
        return safe

    return nh3.Cleaner(
        tags=set(TAGS),
        clean_content_tags=set(DROPPED),
        attributes={tag: set(names) for tag, names in ATTRIBUTES.items()},
        attribute_filter=filtered,
        generic_attribute_prefixes={"aria-"},
        set_tag_attribute_values={"input": {"type": "checkbox"}},
        url_schemes={"http", "https", "mailto", "data"},
        link_rel="noopener noreferrer",
        id_prefix=css.PREFIX,
    )


def attribute(tag: str, name: str, value: str) -> str | None:
    """The value that a listed attribute may have, None if it is to be left out."""
    if name == "class":
        return css.classes(value) or None
    if name == "style":
        return css.declarations(value) or None
    if name == "href":
        return addresses.link(value)
    if name in ("src", "poster"):
        return addresses.media(tag, name, value)
    if name == "target":
        return "_blank"
    if name in _REFERENCES:
        return " ".join(css.prefixed(i) for i in value.split())
    return value


def _drawn(html: str, hold: Callable[[str], None]) -> str:
    """`html` with its SVG drawings as images; those that refer to each other stay what they are."""
    if "<svg" not in html or "<script" in html or ("<use" in html and html.count("<svg") > 1):
        return html

    parts, at = [], 0
    while (start := html.find("<svg", at)) >= 0 and (end := html.find("</svg>", start)) >= 0:
        end += len("</svg>")
        drawing = svg.sanitized(html[start:end], hold)
        if drawing is None:
            return html
        data = base64.b64encode(drawing.encode()).decode()
        parts += [html[at:start], f'<img alt="" src="data:image/svg+xml;base64,{data}">']
        at = end
    return "".join([*parts, html[at:]])


# -- what acts -----------------------------------------------------------------------------------


def _enclosed(html: str, hold: Callable[[str], None], *, runs: bool) -> str | None:
    """`html` in its frame; a frame of which it consists is replaced by what is in it."""
    missing, height, what = "", 0, "active HTML"
    frame = _only_frame(html)
    if frame is not None:
        html, missing = _inside(frame)
        number = frame.get("height", "").strip().removesuffix("px")
        height = int(number) if number.isdecimal() and len(number) < 6 else 0
        what = "a frame"
    missing = missing or ", ".join(dict.fromkeys(_REMOTE.findall(html)))[:200]
    note = f"not loaded, as an output has no network: {missing}" if missing else ""
    hold(note or f"{what}: shown in a frame without network")
    shown = enclosure.enclosed(html, note=note, height=height, runs=runs)
    if len(shown) > MAX_FRAMED:
        hold(f"is longer than {MAX_FRAMED >> 20} million characters in its frame")
        return None
    return shown


def _only_frame(html: str) -> dict[str, str] | None:
    """The attributes of the one frame that `html` consists of, but for a line or two of text."""
    frames = _FRAME.findall(html)
    if len(frames) != 1 or _SCRIPT.search(html):
        return None
    if len(re.sub(r"<[^<>]*>", "", _FRAME.sub("", html)).strip()) > BESIDE:
        return None
    found: dict[str, str] = {}
    for name, double, single, bare in nesting.PAIR.findall(frames[0]):
        found.setdefault(name.lower(), addresses.unescaped(double or single or bare))
    return found


def _inside(frame: dict[str, str]) -> tuple[str, str]:
    """(the HTML that a frame brings with it, the address of what it does not bring)."""
    if frame.get("srcdoc"):
        return frame["srcdoc"], ""
    source = frame.get("src", "").strip()
    data = _DATA_PAGE.fullmatch(source)
    if data is not None:
        raw = unquote_to_bytes(data[2])
        try:
            return (base64.b64decode(raw) if data[1] else raw).decode("utf-8", "replace"), ""
        except ValueError:
            return "", "data that is not base64"
    return "", source[:200]
