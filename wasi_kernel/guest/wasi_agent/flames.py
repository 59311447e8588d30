"""Flames: a tree of calls as a drawing that needs no script, in SVG."""

from __future__ import annotations

from html import escape

SVG = "http://www.w3.org/2000/svg"
WIDTH, ROW, PAD, HEAD = 960, 18, 8, 26
"""Of the drawing, a row, its border, its title: pixels."""

LETTER = 6.6
"""About the width of a letter of 11 px."""

THIN = 1.0
"""Boxes that would be thinner are left out."""

MAX_ROWS, MAX_BOXES = 60, 4000
FILLS = ("#f4a259", "#f2c14e", "#f78154", "#f6d186", "#e9967a", "#e8b46c", "#f0b27a", "#f5cba7")
"""Light ones, for dark letters: the drawing has a ground of its own in light and dark themes."""


class Flame:
    """A flame graph: the outermost function at the bottom, what it calls upon it.

    A function that calls itself directly is one box.

    Args:
        title: Stands above it.
        nodes: [(parent or -1, function, count)]; a parent stands before its children.
        labels: Of each function, short and long.
    """

    def __init__(
        self, title: str, nodes: list[tuple[int, int, int]], labels: list[tuple[str, str]]
    ) -> None:
        self._title, self._labels = title, labels
        self._functions: list[int] = []
        self._counts: list[int] = []
        self._parents: list[int] = []
        self._merge(nodes)

    def _merge(self, nodes: list[tuple[int, int, int]]) -> None:
        """One node for each function upon the same one, whatever line called it."""
        known: dict[tuple[int, int], int] = {}
        new: list[int] = []
        for parent, function, count in nodes:
            above = new[parent] if parent >= 0 else -1
            if above >= 0 and self._functions[above] == function:
                here = above
            else:
                here = known.setdefault((above, function), len(self._functions))
                if here == len(self._functions):
                    self._functions.append(function)
                    self._parents.append(above)
                    self._counts.append(0)
            new.append(here)
            self._counts[here] += count

    def _boxes(self) -> list[tuple[float, int, float, int, int]]:
        """(left, row, width, function, count) of each box that can be seen."""
        counts = list(self._counts)
        for k in range(len(counts) - 1, -1, -1):
            if self._parents[k] >= 0:
                counts[self._parents[k]] += counts[k]
        whole = sum(c for c, p in zip(counts, self._parents, strict=True) if p < 0)
        unit = (WIDTH - 2 * PAD) / max(whole, 1)
        free: dict[int, float] = {-1: PAD}
        rows: dict[int, int] = {-1: -1}
        order = sorted(range(len(counts)), key=lambda k: (self._labels[self._functions[k]][0], k))
        depth = [0] * len(counts)
        for k, parent in enumerate(self._parents):
            depth[k] = depth[parent] + 1 if parent >= 0 else 0
        order.sort(key=depth.__getitem__)
        boxes = []
        for k in order:
            parent, width = self._parents[k], counts[k] * unit
            if parent not in rows or width < THIN or rows[parent] + 1 >= MAX_ROWS:
                continue
            left, rows[k] = free[parent], rows[parent] + 1
            free[parent], free[k] = left + width, left
            boxes.append((left, rows[k], width, self._functions[k], counts[k]))
        return boxes[:MAX_BOXES]

    def _repr_svg_(self) -> str:
        boxes = self._boxes()
        rows = max((row for _, row, *_ in boxes), default=0) + 1
        height = HEAD + rows * ROW + PAD
        whole = max(sum(self._counts), 1)
        parts = [
            (
                f'<svg xmlns="{SVG}" xmlns:xlink="http://www.w3.org/1999/xlink"'
                f' viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
                ' font-family="monospace" font-size="11" role="img">'
                f'<rect x="0" y="0" width="{WIDTH}" height="{height}" rx="4" fill="#fffdf8"/>'
                f'<text x="{PAD}" y="17" fill="#333333">{_text(self._title)}</text>'
            )
        ]
        for left, row, width, function, count in boxes:
            short, long = self._labels[function]
            top = height - PAD - (row + 1) * ROW
            fill = FILLS[_colour(short) % len(FILLS)]
            room = int((width - 6) / LETTER)
            parts.append(
                f"<g><title>{_text(long)}: {count:,} looks, {count / whole:.1%}</title>"
                f'<rect x="{left:.1f}" y="{top}" width="{max(width - 0.5, 0.5):.1f}"'
                f' height="{ROW - 1}" rx="2" fill="{fill}"/>'
            )
            if room >= 3:
                text = short if len(short) <= room else short[: room - 1] + "\u2026"
                parts.append(
                    f'<text x="{left + 3:.1f}" y="{top + 12}" fill="#1a1a1a">{_text(text)}</text>'
                )
            parts.append("</g>")
        return "".join([*parts, "</svg>"])

    def __repr__(self) -> str:
        return f"<flame graph of {sum(self._counts):,} looks>"


def _colour(text: str) -> int:
    """The same in every session, so that a function keeps its colour."""
    return sum((k + 1) * ord(letter) for k, letter in enumerate(text))


def _text(text: str) -> str:
    """Text of XML: what XML cannot hold is left out."""
    return escape("".join(c if c.isprintable() else "?" for c in text), quote=False)
