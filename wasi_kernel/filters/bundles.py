"""Mime bundles of which nothing acts in the page that shows them.

Pure; what filters a type is imported when the first such bundle comes (a kernel's start is
counted in milliseconds, and most cells show text). A type that is not in the table is left out,
but for those that the policy adds: a front end may have a renderer for it that trusts it.

Text types hold text, JSON types whatever JSON holds; a list of texts counts as one text, as in
nbformat's files.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from wasi_kernel.filters import terminal

if TYPE_CHECKING:
    from collections.abc import Callable

    Hold = Callable[[str, str], None]

PLAIN = "text/plain"
HTML = "text/html"
SCRIPTS = ("application/javascript", "text/javascript")
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
RASTER = frozenset(("image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp"))

MORE = "%wasi frontend shows what was held back"

_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/= \n\r"
_NO_TEXT = re.compile(r"<[\w.]+ object(?: at 0x[0-9a-f]+)?>")
"""object.__repr__, as IPython's display classes show themselves in text."""

_MODEL_ID = re.compile(r"[\w-]{1,128}")


def _markdown(value: str, hold: Callable[[str], None]) -> str | None:
    from wasi_kernel.filters import markdown

    long = len(value) > markdown.MAX_CHARACTERS
    shown = None if long else markdown.disarmed(value, hold)
    if shown is None or len(shown) > markdown.MAX_CHARACTERS:
        hold(f"is longer than {markdown.MAX_CHARACTERS >> 20} million characters")
        return None
    return shown


def _latex(value: str, hold: Callable[[str], None]) -> str | None:
    from wasi_kernel.filters import latex

    disarmed = latex.disarmed(value)
    if disarmed != value:
        hold("a macro that links, styles or loads")
    return disarmed


def _svg(value: str, hold: Callable[[str], None]) -> str | None:
    from wasi_kernel.filters import svg

    return svg.sanitized(value, hold)


def _raster(value: str, hold: Callable[[str], None]) -> str | None:
    if value.isascii() and not value.encode("ascii").translate(None, _BASE64):
        return value
    hold("is not base64")
    return None


def _plotly(value: Any, hold: Callable[[str], None]) -> Any:
    from wasi_kernel.filters import charts

    return charts.plotly(value, hold)


def _geojson(value: Any, hold: Callable[[str], None]) -> Any:
    from wasi_kernel.filters import charts

    return charts.geojson(value, hold)


def _vega(value: Any, hold: Callable[[str], None]) -> Any:
    from wasi_kernel.filters import vega

    return vega.chart(value, hold)


TEXTS: dict[str, Callable[[str, Callable[[str], None]], str | None]] = {
    PLAIN: lambda value, _: terminal.show(value),
    "text/markdown": _markdown,
    "text/latex": _latex,
    "image/svg+xml": _svg,
    **dict.fromkeys(sorted(RASTER), _raster),
}
"""Types that hold text, and what gives the text to show, or None. HTML's is in `Bundles`."""

JSONS: dict[str, Callable[[Any, Callable[[str], None]], Any]] = {
    "application/json": lambda value, _: value,  # JupyterLab 4.6 and VS Code show a tree of texts
    "application/geo+json": _geojson,
    "application/vnd.plotly.v1+json": _plotly,
}
_BACKGROUND = re.compile(r"application/vnd\.vscode\.bg\.execution\.\d{1,9}(?:\.result|\.error)?")
"""VS Code's answers to itself, as JSON (see the guest's `threads.py`): no front end shows them."""
_VEGA = re.compile(r"application/vnd\.vega(?:lite)?\.v\d{1,2}\+json")


class Bundles:
    """What may be shown of bundles, by policy.

    Args:
        inert: Further types that pass as they are.
        text_only: Do only plain text and raster images pass?
        runs: Do scripts in frames run without being asked to?
        refused: Why a widget's model was refused, "" if it was not; gets its id.
    """

    def __init__(
        self, *, inert: frozenset[str], text_only: bool, runs: bool,
        refused: Callable[[str], str],
    ) -> None:  # fmt: skip
        self._inert = inert
        self._text_only = text_only
        self._runs = runs
        self._refused = refused

    def data(self, data: dict[str, Any], hold: Hold) -> dict[str, Any]:
        """A bundle's data of which nothing acts; a line of plain text if that would be nothing.

        `hold` gets (type, what was changed or why it is not shown).
        """
        found: dict[str, Any] = {}
        held = ""

        for mime, value in data.items():
            reasons: list[str] = []
            try:
                shown = self._one(mime, value, reasons.append)
            except Exception:  # a filter's own fault: nothing of it passes
                logging.getLogger(__name__).exception("%s could not be filtered", mime[:80])
                reasons.append("could not be filtered; please report what it was")
                shown = None
            for reason in reasons:
                hold(mime, reason)
            if shown is not None:
                found[mime] = shown
            elif mime not in SCRIPTS:
                held = held or f"{mime[:80]} {reasons[0] if reasons else 'is not shown'}"
        held = self._script(data, found, hold) or held
        if held and (not found or (len(found) == 1 and _NO_TEXT.fullmatch(str(found.get(PLAIN))))):
            found[PLAIN] = terminal.line(f"[wasi-kernel] not shown: {held[:200]} ({MORE})")
        return found

    def _one(self, mime: str, value: Any, hold: Callable[[str], None]) -> Any:
        if self._text_only and mime != PLAIN and mime not in RASTER:
            hold("text and images alone are shown, by policy")
            return None
        text = self._html if mime == HTML else TEXTS.get(mime)
        if text is not None:
            if isinstance(value, list) and all(isinstance(v, str) for v in value):
                value = "".join(value)
            if isinstance(value, str):
                return text(value, hold)
            hold("is not text")
            return None
        if mime in self._inert or _BACKGROUND.fullmatch(mime):
            return value
        if mime == WIDGET_VIEW:
            return self._view(value, hold)
        if mime in SCRIPTS:
            return None
        filter_ = _vega if _VEGA.fullmatch(mime) else JSONS.get(mime)
        if filter_ is None:
            hold("is not a type that is known to be harmless")
            return None
        return filter_(value, hold)

    def _html(self, value: str, hold: Callable[[str], None]) -> str | None:
        from wasi_kernel.filters import markup

        return markup.sanitized(value, hold, runs=self._runs)

    def _view(self, value: Any, hold: Callable[[str], None]) -> Any:
        model_id = value.get("model_id") if isinstance(value, dict) else None
        if not isinstance(model_id, str) or not _MODEL_ID.fullmatch(model_id):
            hold("is not a widget's view")
            return None
        if reason := self._refused(model_id):
            hold(reason)
            return None
        versions = {
            key: value[key]
            for key in ("version_major", "version_minor")
            if type(value.get(key)) is int
        }
        return {**versions, "model_id": model_id}

    def _script(self, data: dict[str, Any], found: dict[str, Any], hold: Hold) -> str:
        """Shows a bundle's JavaScript in a frame, if nothing else is to be shown; else why not."""
        scripts = [data[mime] for mime in SCRIPTS if mime in data]
        if not scripts:
            return ""
        source = scripts[0]
        if self._text_only:
            return "JavaScript"
        if HTML in found or not isinstance(source, str):
            hold(SCRIPTS[0], "JavaScript beside HTML: left out")
            return "JavaScript"
        from wasi_kernel.filters import enclosure, markup

        if len(source) > markup.MAX_FRAMED // 9:
            hold(SCRIPTS[0], "is too long")
            return "JavaScript"
        hold(SCRIPTS[0], "JavaScript: in a frame, it cannot reach the page")
        found[HTML] = enclosure.script(source, runs=self._runs)
        return ""


def metadata(given: dict[str, Any]) -> dict[str, Any]:
    """A bundle's metadata, reduced to what says how large and upon what an image is shown."""
    found: dict[str, Any] = _sizes(given)
    for mime, about in given.items():
        if "/" in mime and isinstance(about, dict):
            known = _sizes(about)
            if mime == "application/json":
                known = {k: v for k, v in about.items() if k == "expanded" and isinstance(v, bool)}
            if known:
                found[mime] = known
    return found


def _sizes(about: dict[str, Any]) -> dict[str, Any]:
    """Sizes, as numbers: nbconvert 7.17 writes them into a tag without quotes.

    No `isolated`, which JupyterLab obeys with a frame of the page's own origin.
    """
    found: dict[str, Any] = {
        key: about[key] for key in ("width", "height") if type(about.get(key)) in (int, float)
    }
    if about.get("needs_background") in ("light", "dark"):
        found["needs_background"] = about["needs_background"]
    if about.get("unconfined") is True:
        found["unconfined"] = True
    return found
