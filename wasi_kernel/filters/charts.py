"""Descriptions that a front end draws, plotly's figures and GeoJSON, without what would be loaded.

Pure; standard library only. These types are data, but what draws them is a program: plotly.js
fetches what a figure names, and JupyterLab's GeoJSON extension writes properties into the HTML of
a popup. What is known to be harmless passes, addresses are left out, and a chart that is nothing
without them is refused: the bundle's image or text stays. For vega see vega.py.

What a button of a figure sets (`args`) is read as what is set: `["images[0].source", "/x"]`.

Sources: plotly.js 3's attributes that are addresses, its list of map styles, and its labels, whose
links may lead to paths of the page's own server and into its own window (lib/svg_text_utils.js);
CVE-2023-46308, of attribute paths that reach a prototype; jupyterlab-geojson's onEachFeature.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Hold = Callable[[str], None]

_IMAGE = re.compile(r"data:image/(?:png|jpe?g|gif|webp);base64,[A-Za-z0-9+/=\s]*+", re.IGNORECASE)
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_WEB = "(?:https?://|mailto:)[^\\s\"'<>%{}]*"
_LABEL = re.compile(
    r"<(?:/?(?:b|i|u|s|em|strong|sub|sup|br|extra)\s*/?>"
    r"|span(?:\s+style=(?:\"[\w\s:;#.,%-]*\"|'[\w\s:;#.,%-]*'))?\s*>|/(?:a|span)\s*>"
    rf"|a\s+href=(?:\"{_WEB}\"|'{_WEB}')(?:\s+target=[\"']_blank[\"'])?\s*>)",
    re.IGNORECASE,
)
"""Tags of plotly's labels that dress their text, or lead to the web in a window of their own."""

_OPENS = re.compile(r"<(?=[A-Za-z/%]|\Z)")
"""Where a tag may begin, or be made of this text and what a template puts behind it."""

_NUMBERS = frozenset((int, float, bool, type(None)))

_CONFIG = frozenset((
    "displayModeBar", "displaylogo", "doubleClick", "edits", "editable", "locale", "responsive",
    "scrollZoom", "showAxisDragHandles", "showTips", "staticPlot", "toImageButtonOptions",
))  # fmt: skip
"""plotly's settings without a server, a token or the address of a topology."""

_ADDRESSES = frozenset(("source", "url", "tiles", "geojson", "glyphs", "sprite", "href", "src"))
_PROTOTYPES = re.compile(r"(?:^|[.\[])['\"]?(?:__proto__|constructor|prototype)(?!\w)")
_LAST = re.compile(r"(\w+)[\]'\"\d\[]*\Z")
"""The attribute that a path such as `images[0].source` ends with."""

_LOADED = frozenset(("scattergeo", "choropleth"))
"""Traces upon a world that plotly.js fetches."""

_TILES = re.compile(r"(?:scatter|choropleth|density)(map(?:box)?)")
"""Traces upon tiles that it fetches, but for one style."""

_MAP = re.compile(r"map(?:box)?\d*")
_NO_TILES: dict[str, Any] = {
    "version": 8,
    "sources": {},
    "layers": [{"id": "paper", "type": "background", "paint": {"background-color": "#ffffff"}}],
}
"""A style of such maps that loads nothing. Of plotly's own even `white-bg` fetches the glyphs of
texts, by the name of a font that the figure gives."""


def plotly(figure: Any, hold: Hold) -> Any:
    """A figure (application/vnd.plotly.v1+json) that loads nothing; None if it is not one."""
    if not isinstance(figure, dict) or not isinstance(figure.get("data", []), list):
        hold("is not a figure")
        return None
    kept = {
        key: _inner(figure[key], key, hold) for key in ("data", "layout", "frames") if key in figure
    }
    layout = kept.get("layout")
    kept["layout"] = layout = layout if isinstance(layout, dict) else {}
    for trace in _traces(kept):
        kind = str(trace.get("type"))
        if kind in _LOADED:
            hold("is drawn upon a map of the world, which would be loaded")
            return None
        if tiled := _TILES.fullmatch(kind):
            for subplot in (tiled[1], str(trace.get("subplot"))):  # a wrong name means the first
                if _MAP.fullmatch(subplot):
                    map_ = layout.get(subplot)
                    old = map_ if isinstance(map_, dict) else {}
                    layout[subplot] = {**old, "style": _NO_TILES}
    config = figure.get("config")
    if isinstance(config, dict):
        kept["config"] = {key: v for key, v in config.items() if key in _CONFIG}
    return kept


def _traces(figure: dict[str, Any]) -> Iterator[dict[str, Any]]:
    frames = figure.get("frames")
    for part in (figure, *(frames if isinstance(frames, list) else ())):
        traces = part.get("data") if isinstance(part, dict) else None
        for trace in traces if isinstance(traces, list) else ():
            if isinstance(trace, dict):
                yield trace


def _inner(value: Any, key: str, hold: Hold, *, button: bool = False) -> Any:
    """A part of a figure, under its attribute's name or path, without addresses.

    Args:
        value: The part.
        key: Its name, or the path that a button names.
        hold: Gets what was left out.
        button: Is it what a button sets?
    """
    if isinstance(value, dict):
        found = {}
        for name, inside in value.items():
            if _PROTOTYPES.search(name):
                hold("an attribute that reaches a prototype: left out")
            else:
                found[name] = _inner(inside, name, hold, button=button)
        if _MAP.fullmatch(key) and "style" in found:
            found["style"] = _NO_TILES
        return found
    if isinstance(value, list):
        if _NUMBERS.issuperset(map(type, value)):  # the bulk of a figure
            return value
        if key not in ("args", "args2"):
            return [_inner(v, key, hold, button=button) for v in value]
        paths = [key, *(v if isinstance(v, str) else key for v in value)]
        return [_inner(v, path, hold, button=True) for v, path in zip(value, paths, strict=False)]
    return _string(value, key, hold, button=button) if isinstance(value, str) else value


def _string(value: str, key: str, hold: Hold, *, button: bool) -> Any:
    last = _LAST.search(key[-100:])
    name = last[1] if last is not None else ""
    if name == "style" and "map" in key:
        return _NO_TILES
    if name == "geojson":  # plotly.js fetches any text, and the page itself for an empty one
        hold(f"an address: left out ({value[:60]})")
        return {"type": "FeatureCollection", "features": []}
    if name in _ADDRESSES and value and not _IMAGE.fullmatch(value):
        hold(f"an address: left out ({value[:60]})")
        return ""
    if button and (_PROTOTYPES.search(value) or value in _LOADED or _TILES.fullmatch(value)):
        hold(f"a button that would load something, or reach a prototype: left out ({value[:60]})")
        return ""
    return _label(value) if "<" in value else value


def _label(text: str) -> str:
    """A label of which no tag is left that plotly.js makes a link of within the page."""
    parts, at = [], 0
    for tag in _LABEL.finditer(text):
        parts += [_OPENS.sub("< ", text[at : tag.start()]), tag[0]]
        at = tag.end()
    return "".join([*parts, _OPENS.sub("< ", text[at:])])


def geojson(value: Any, hold: Hold) -> Any:
    """GeoJSON whose texts are no HTML; None if it is none."""
    if not isinstance(value, dict):
        hold("is not GeoJSON")
        return None
    return _texts(value)


def _texts(value: Any) -> Any:
    if isinstance(value, str):
        return _TAG.sub("< ", value) if "<" in value else value
    if isinstance(value, dict):
        return {_texts(key): _texts(inside) for key, inside in value.items()}
    if isinstance(value, list) and not _NUMBERS.issuperset(map(type, value)):
        return [_texts(inside) for inside in value]
    return value
