"""SVG that draws and does nothing else.

Pure; standard library only. A strict allow-list over a hardened parse: expat reads the document
(entities and internal subsets refused; size and depth bounded), every element and attribute that is
known to draw is written again, everything else is left out with its content. No scripts, handlers,
animations (they rewrite `href`), foreign content, or references that leave the document, but for
images that are data.

Why not an `<img src="data:image/svg+xml...">` in its place? JupyterLab 4.6 (rendermime's
renderSVG) and nbconvert 7.17 (templates/lab) already show this type so; VS Code's notebook renderer
puts it into the page (extensions/notebook-renderers, renderHTML), and what saves, converts or
copies a figure looks for the type itself. So the type stays, and what it holds is harmless inline.

The output survives being read as HTML: only elements that HTML's parser keeps in foreign content,
and text alone inside `title` and `desc`, which are its way out of it.
"""

from __future__ import annotations

import hashlib
import re
from html import escape
from typing import TYPE_CHECKING
from xml.parsers import expat

from wasi_kernel.filters import css

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_CHARACTERS = 6 << 20
"""A million takes 0.7 s, in which the kernel process hears nothing else."""
DEPTH = 200

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
XML = "http://www.w3.org/XML/1998/namespace"

_ELEMENTS = (
    "svg g defs symbol use title desc style a switch image path rect circle ellipse line polyline"
    " polygon text tspan textPath marker pattern mask clipPath linearGradient radialGradient stop"
    " filter feBlend feColorMatrix feComponentTransfer feComposite feConvolveMatrix"
    " feDiffuseLighting feDisplacementMap feDistantLight feDropShadow feFlood feFuncA feFuncB"
    " feFuncG feFuncR feGaussianBlur feMerge feMergeNode feMorphology feOffset fePointLight"
    " feSpecularLighting feSpotLight feTile feTurbulence"
)
ELEMENTS = frozenset(_ELEMENTS.split())
"""SVG 2 and Filter Effects 1, without scripts, animations, foreignObject and feImage."""

_ATTRIBUTES = (
    "alignment-baseline baseline-shift clip-path clip-rule color color-interpolation"
    " color-interpolation-filters cursor direction display dominant-baseline fill fill-opacity"
    " fill-rule filter flood-color flood-opacity font-family font-size font-size-adjust"
    " font-stretch font-style font-variant font-weight image-rendering letter-spacing"
    " lighting-color marker-end marker-mid marker-start mask mask-type opacity overflow"
    " paint-order pointer-events shape-rendering stop-color stop-opacity stroke stroke-dasharray"
    " stroke-dashoffset stroke-linecap stroke-linejoin stroke-miterlimit stroke-opacity"
    " stroke-width text-anchor text-decoration text-rendering transform transform-origin"
    " unicode-bidi vector-effect visibility word-spacing writing-mode"
    " amplitude azimuth baseFrequency bias class clipPathUnits cx cy d diffuseConstant divisor dx"
    " dy edgeMode elevation exponent filterUnits fr fx fy gradientTransform gradientUnits height"
    " id in in2 intercept k1 k2 k3 k4 kernelMatrix kernelUnitLength lang lengthAdjust"
    " limitingConeAngle markerHeight markerUnits markerWidth maskContentUnits maskUnits method mode"
    " numOctaves offset operator order orient pathLength patternContentUnits patternTransform"
    " patternUnits points pointsAtX pointsAtY pointsAtZ preserveAlpha preserveAspectRatio"
    " primitiveUnits r radius refX refY result role rotate rx ry scale seed slope spacing"
    " specularConstant specularExponent spreadMethod startOffset stdDeviation stitchTiles style"
    " surfaceScale tableValues targetX targetY textLength type values version viewBox width x x1 x2"
    " xChannelSelector y y1 y2 yChannelSelector z"
)
ATTRIBUTES = frozenset(_ATTRIBUTES.split())
"""Attributes that place and paint; those that hold a `url()` are checked by css.py."""

_OVER_ITS_EDGE = frozenset(("overflow", "transform", "transform-origin", "filter"))
_ROOT_STYLES = frozenset((
    *_ATTRIBUTES.partition(" amplitude ")[0].split(), "width", "height", "max-width", "max-height",
    "min-width", "min-height", "background", "background-color", "font", "isolation",
)) - _OVER_ITS_EDGE  # fmt: skip
"""What the outermost element may say of itself: nothing that puts or paints it where it does not
stand, as VS Code and the classic notebook have it in their page."""

_SELF = css.PREFIX + "-self-"
"""The drawing's id while its sheets are not known; then their digest."""

_IMAGE = re.compile(r"data:image/(?:png|jpe?g|gif|webp);base64,[A-Za-z0-9+/=\s]*+", re.IGNORECASE)
_LINK = re.compile(r"https?://[^\s\"'<>`\\]+", re.IGNORECASE)
_LOCAL = re.compile(r"#[\w.:-]+")
_FIRST_TAG = re.compile(r"<svg(?=[\s/>])[^>]*")


class _RefusedError(ValueError):
    """Not a document that this module writes again."""


class _Writer:
    """Expat's handlers: what they are told of and know is written again, in order."""

    def __init__(self, scope: str) -> None:
        self._parts: list[str] = []
        self._open: list[str] = []
        self._scope = scope
        self._sheets: list[int] = []  # which of the parts are style sheets
        self._skipped = 0  # levels of elements that are left out
        self._style: list[str] | None = None
        self._pending = False  # is the last start tag still without its ">"?
        self.left_out: set[str] = set()

    def start(self, name: str, attributes: list[str]) -> None:
        if len(self._open) + self._skipped >= DEPTH:
            raise _RefusedError("nests too deep")
        space, _, local = name.rpartition(" ")
        if not self._parts and (space, local) != (SVG, "svg"):
            raise _RefusedError("no svg element at its root")
        inside_text = self._open and self._open[-1] in ("title", "desc", "style")
        if self._skipped or space != SVG or local not in ELEMENTS or inside_text:
            if not self._skipped and space == SVG and local != "metadata":
                self.left_out.add(local)
            self._skipped += 1
            return
        self._close_tag()
        self._parts.append(f"<{local}")
        self._pending = True
        if not self._open:
            self._parts.append(f' xmlns="{SVG}" xmlns:xlink="{XLINK}"')
        self._attributes(local, attributes)
        self._open.append(local)
        if local == "style":
            self._style = []

    def _attributes(self, local: str, attributes: list[str]) -> None:
        if not self._open and self._scope:
            self._parts.append(f' id="{_SELF}"')
        for name, raw in zip(attributes[::2], attributes[1::2], strict=True):
            space, _, key = name.rpartition(" ")
            found = self._attribute(local, space, key, raw)
            if found is None:
                if key.startswith("on") or key == "href":
                    self.left_out.add(f"{local} {key}")
                continue
            self._parts.append(f' {found[0]}="{escape(found[1])}"')

    def _attribute(self, local: str, space: str, key: str, raw: str) -> tuple[str, str] | None:
        """The attribute as it is written again, None if it is not."""
        if key == "href" and space in ("", XLINK):
            safe = _href(local, raw)
            return None if safe is None else ("xlink:href", safe)
        if space == XML:
            return (f"xml:{key}", raw) if key in ("space", "lang") else None
        root = not self._open
        if space or key not in ATTRIBUTES or (root and key in _OVER_ITS_EDGE):
            return None
        if key == "id":
            return None if root and self._scope else (key, css.prefixed(raw))
        if key == "class":
            return key, css.classes(raw)
        if key == "style":
            return key, css.declarations(raw, fragments=True, among=_ROOT_STYLES if root else None)
        if "(" not in raw or key == "d":
            return key, raw
        safe = css.value(raw, fragments=True)
        return None if safe is None else (key, safe)

    def end(self, name: str) -> None:
        if self._skipped:
            self._skipped -= 1
            return
        local = name.rpartition(" ")[2]
        if self._style is not None:
            text, self._style = "".join(self._style), None
            rules = css.sheet(text, self._scope, fragments=True)
            if rules:
                self._write(rules.replace(f"#{self._scope}", f"#{_SELF}"))
                self._sheets.append(len(self._parts) - 1)
        self._open.pop()
        if self._pending:
            self._parts.append("/>")
            self._pending = False
        else:
            self._parts.append(f"</{local}>")

    def text(self, data: str) -> None:
        if self._skipped or not self._open:
            return
        if self._style is not None:
            self._style.append(data)
        else:
            self._write(data)

    def _write(self, text: str) -> None:
        if text:
            self._close_tag()
            self._parts.append(escape(text, quote=False))

    def _close_tag(self) -> None:
        if self._pending:
            self._parts.append(">")
            self._pending = False

    def refuse(self, *_: object) -> None:
        raise _RefusedError("declares entities")

    def doctype(self, name: str, system: str | None, public: str | None, internal: int) -> None:
        del name, system, public  # nothing is fetched: matplotlib and graphviz name W3C's
        if internal:
            raise _RefusedError("has an internal subset")

    @property
    def written(self) -> str:
        """The document."""
        if not self._scope:
            return "".join(self._parts)
        sheets = "".join(self._parts[i] for i in self._sheets)
        digest = hashlib.blake2b(sheets.encode("utf-8", "replace"), digest_size=8).hexdigest()
        named = {
            i: self._parts[i].replace(f"#{_SELF}", f"#{css.PREFIX}{digest}") for i in self._sheets
        }
        head = self._parts.index(f' id="{_SELF}"')
        named[head] = f' id="{css.PREFIX}{digest}"'
        return "".join(named.get(i, part) for i, part in enumerate(self._parts))


def _href(local: str, raw: str) -> str | None:
    raw = raw.strip()
    if _LOCAL.fullmatch(raw):
        return "#" + css.prefixed(raw[1:])
    if local == "image" and _IMAGE.fullmatch(raw):
        return raw
    return raw if local == "a" and _LINK.fullmatch(raw) else None


def _declared(text: str) -> str:
    """`text` with the namespaces that fragments of HTML leave out (and JupyterLab adds)."""
    first = _FIRST_TAG.search(text)
    if first is None:
        return text
    missing = ""
    if "xmlns=" not in first[0]:
        missing = f' xmlns="{SVG}"'
    if "xlink:" in text and "xmlns:xlink" not in text:
        missing += f' xmlns:xlink="{XLINK}"'
    at = first.start() + len("<svg")
    return text[:at] + missing + text[at:]


def _scope(text: str) -> str:
    """What the sheets of a drawing have their selectors below, "" for one without sheets.

    It is of the sheets alone: matplotlib writes its date beside them.
    """
    if "<style" not in text:
        return ""
    first = _FIRST_TAG.search(text)
    own = re.search(rf'\sid="({css.PREFIX}[\w-]+)"', first[0]) if first else None
    return own[1] if own is not None else _SELF


def sanitized(text: str, hold: Callable[[str], None]) -> str | None:
    """The drawing with nothing in it but what draws, None if it is not one; `hold` gets reasons."""
    if len(text) > MAX_CHARACTERS:
        hold(f"is larger than {MAX_CHARACTERS >> 20} million characters")
        return None
    text = text.strip()
    writer = _Writer(_scope(text))
    parser = expat.ParserCreate("utf-8", " ")
    parser.ordered_attributes = True
    parser.buffer_text = True
    parser.StartElementHandler = writer.start
    parser.EndElementHandler = writer.end
    parser.CharacterDataHandler = writer.text
    parser.StartDoctypeDeclHandler = writer.doctype
    parser.EntityDeclHandler = writer.refuse
    parser.SkippedEntityHandler = writer.refuse
    try:
        parser.Parse(_declared(text), True)
    except (expat.ExpatError, _RefusedError, UnicodeEncodeError) as e:
        hold(f"cannot be read as SVG ({e})")
        return None
    if writer.left_out:
        hold(f"had {', '.join(sorted(writer.left_out)[:5])}: left out")
    return writer.written
