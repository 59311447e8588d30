"""The drawing of `%wasi memory`: two maps, growth over cells, objects by type.

SVG as the default policy for outputs lets it through unchanged: shapes and text, no styles or
scripts. It has a light ground of its own, so it reads the same in dark themes.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from wasi_agent.inside.memory import COLUMNS, KIND_TEXTS, KINDS, SINCE_TEXTS
from wasi_agent.tables import mib

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wasi_agent.inside.memory import MemoryMap

COLOURS = {
    "unknown": "#737373", "stack": "#7a5195", "static": "#3b7dbd", "objects": "#3f9c55",
    "blocks": "#ef8a2b", "free": "#cfd8c8", "unused": "#ececec",
}  # fmt: skip
SINCE_COLOURS = ("#e3e3e3", "#8fbfe0", "#f0a030", "#d62728")
INK, DIM, GROUND, EDGE = "#222222", "#666666", "#fcfcfc", "#c8c8c8"
SQUARE, MARGIN, GAP, LINE = 4, 14, 36, 16
MAP_WIDTH = COLUMNS * SQUARE
WIDTH = 2 * MARGIN + 2 * MAP_WIDTH + GAP
CHART = 90


def draw(shown: MemoryMap) -> str:
    """The drawing as SVG."""
    facts, kinds, since, title = shown.drawn
    rows = -(-len(kinds) // COLUMNS)
    map_top = MARGIN + 3 * LINE
    below = map_top + rows * SQUARE + LINE
    left, right = MARGIN, MARGIN + MAP_WIDTH + GAP
    step = facts["pages_per_piece"]
    each = f"a square: {step:,} pages" if step > 1 else "a square: a page"
    parts = [
        _text(left, MARGIN + 10, title, size=14, weight="bold"),
        _text(left, map_top - 8, f"what lies where ({each})"),
        _text(right, map_top - 8, "pages written, and by whom"),
        *_squares(left, map_top, [COLOURS[KINDS[k]] for k in kinds]),
        *_squares(right, map_top, [SINCE_COLOURS[k] for k in since]),
    ]
    legends = [
        _legend(left, below, _kinds_legend(facts, kinds)),
        _legend(right, below, _since_legend(facts)),
    ]
    bottom = below + LINE * max(len(legend) // 2 for legend in legends) + LINE
    parts += legends[0] + legends[1]
    parts += _growth(left, bottom, facts["growth"])
    parts += _types(right, bottom, facts["heap"])
    height = bottom + CHART + 3 * LINE
    head = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="11">'
    )
    ground = (
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6" fill="{GROUND}" '
        f'stroke="{EDGE}"/>'
    )
    return "".join([head, ground, *parts, "</svg>"])


def _text(
    x: float, y: float, text: str, *, size: int = 11, weight: str = "normal", fill: str = INK,
    anchor: str = "start",
) -> str:  # fmt: skip
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-weight="{weight}" fill="{fill}" '
        f'text-anchor="{anchor}">{escape(text, quote=False)}</text>'
    )


def _rect(x: float, y: float, width: float, height: float, fill: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}"/>'


def _squares(x: int, y: int, colours: list[str]) -> Iterator[str]:
    """One rectangle for neighbours of one colour."""
    for at in range(0, len(colours), COLUMNS):
        row = colours[at : at + COLUMNS]
        start = 0
        for k in range(1, len(row) + 1):
            if k == len(row) or row[k] != row[start]:
                top = y + at // COLUMNS * SQUARE
                yield _rect(x + start * SQUARE, top, (k - start) * SQUARE, SQUARE - 0.5, row[start])
                start = k


def _legend(x: int, y: int, entries: list[tuple[str, str]]) -> list[str]:
    """Two parts for each entry: its colour, and what it is."""
    parts = []
    for k, (colour, text) in enumerate(entries):
        parts += [_rect(x, y + k * LINE - 9, 10, 10, colour), _text(x + 16, y + k * LINE, text)]
    return parts


def _kinds_legend(facts: dict[str, Any], kinds: bytes) -> list[tuple[str, str]]:
    sizes = dict.fromkeys(KINDS, 0)
    for region in facts["regions"]:
        name = {"zeros": "static", "top": "unused"}.get(region["name"], region["name"])
        if name in sizes:
            sizes[name] += region["bytes"]
    counts = {}
    heap = facts["heap"]
    if heap:
        for key in ("objects", "blocks", "free"):
            sizes[key], counts[key] = heap[key]["bytes"], heap[key]["count"]
        sizes["unknown"] += heap["top"] - heap["known_to"]
    entries = []
    for name in KINDS:
        if not sizes[name] and KINDS.index(name) not in kinds:
            continue
        text = f"{KIND_TEXTS[name][1]}: {mib(sizes[name])}"
        if name in counts:
            text += f" in {counts[name]:,} blocks"
        if name == "stack" and facts["stack_reached"] is not None:
            text += f", {mib(sizes['stack'] - facts['stack_reached'])} ever used"
        entries.append((COLOURS[name], text))
    return entries


def _since_legend(facts: dict[str, Any]) -> list[tuple[str, str]]:
    pages = facts["pages"]
    if pages["differ"] is None:
        return [(SINCE_COLOURS[0], "which pages were written is not known here")]
    counts = (pages["all"] - pages["differ"], pages["differ"], pages["now"], pages["last"])
    entries = []
    for (name, _, text), colour, count in zip(SINCE_TEXTS, SINCE_COLOURS, counts, strict=True):
        if count is None:
            continue
        said = {
            "differs": "differ from the base image",
            "last": f"{text}, [{pages['cell']}]",
        }.get(name, text)
        entries.append((colour, f"{said}: {count:,} pages"))
    return entries


def _growth(x: int, y: int, rows: list[dict[str, Any]]) -> list[str]:
    """A bar for the memory after each cell, and in it the heap."""
    if len(rows) < 2:
        return [_text(x, y, "growth over cells: not known without checkpoints", fill=DIM)]
    rows = rows[-20:]
    most = max(row["bytes"] for row in rows)
    width = min(30.0, MAP_WIDTH / len(rows))
    parts = [_text(x, y, "memory and heap after each cell")]
    base = y + CHART + LINE
    for k, row in enumerate(rows):
        at = x + k * width
        full = CHART * row["bytes"] / most
        parts.append(_rect(at, base - full, width - 3, full, "#cccccc"))
        if row["heap"] is not None:
            inner = CHART * row["heap"] / most
            parts.append(_rect(at, base - inner, width - 3, inner, COLOURS["objects"]))
        name = "now" if row["cell"] is None else str(row["cell"] or "start")
        parts.append(_text(at + (width - 3) / 2, base + 11, name, size=8, fill=DIM,
                           anchor="middle"))  # fmt: skip
    parts.append(_text(x + MAP_WIDTH, y, f"most: {mib(most)}", fill=DIM, anchor="end"))
    return parts


def _types(x: int, y: int, heap: dict[str, Any] | None) -> list[str]:
    """A bar for each of the types whose objects take the most."""
    if not heap or not heap["types"]:
        return []
    parts = [_text(x, y, f"objects by type ({heap['all_types']:,} types)")]
    most = heap["types"][0]["bytes"]
    for k, each in enumerate(heap["types"][:7]):
        top = y + 10 + k * 14
        name = each["name"] or "?"
        name = name if len(name) <= 14 else name[:13] + "…"
        parts.append(_text(x + 80, top + 9, name, size=10, anchor="end"))
        width = 80 * each["bytes"] / most
        parts.append(_rect(x + 86, top, max(1.0, width), 10, COLOURS["objects"]))
        parts.append(_text(
            x + 91 + width, top + 9, f"{mib(each['bytes'])}, {each['count']:,}", size=9, fill=DIM,
        ))  # fmt: skip
    return parts
