"""Tables that magics give: text, HTML, and the data behind them."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


class Table:
    """Rows of text, shown as text or HTML; `to_dict` gives the data."""

    def __init__(
        self, title: str, rows: Sequence[tuple[str, ...]], data: dict[str, Any], *,
        head: bool = False,
    ) -> None:  # fmt: skip
        """Takes rows of equal length; with `head` the first one names the columns."""
        self._title, self._rows, self._data, self._head = title, rows, data, head

    def to_dict(self) -> dict[str, Any]:
        """What the table shows, as data."""
        return self._data

    def __repr__(self) -> str:
        widths = [max(map(len, column)) for column in zip(*self._rows, strict=True)]
        lines = [
            "  ".join(f"{text:<{n}}" for text, n in zip(row, widths, strict=True)).rstrip()
            for row in self._rows
        ]
        return "\n".join([self._title, "-" * len(self._title), *lines])

    def _repr_html_(self) -> str:
        style = 'style="text-align: left"'
        rows = []
        for k, row in enumerate(self._rows):
            tags = ["th" if c == 0 or (self._head and k == 0) else "td" for c in range(len(row))]
            cells = zip(tags, row, strict=True)
            escaped = ((t, html.escape(text, quote=False)) for t, text in cells)
            rows.append("".join(f"<{t} {style}>{text}</{t}>" for t, text in escaped))
        inside = "".join(f"<tr>{row}</tr>" for row in rows)
        title = html.escape(self._title, quote=False)
        return f"<table><caption>{title}</caption><tbody>{inside}</tbody></table>"


def mib(count: float) -> str:
    """Bytes, for people."""
    if count >= 1 << 30:
        return f"{count / (1 << 30):,.1f} GiB"
    if 0 < count < 1 << 20:
        return f"{count / (1 << 10):,.1f} KiB"
    return f"{count / (1 << 20):,.1f} MiB"
