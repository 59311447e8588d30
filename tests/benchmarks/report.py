"""Medians, spreads and ratios of samples, as a Markdown table and as data for JSON. Pure."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from itertools import groupby

KEPT = "kept?"
"""Unit of samples that are 1 for yes and 0 for no."""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        text: What was measured.
        unit: The samples' unit.
        samples: By kernel name, in the order of the columns.
        aim: The ratio that is aimed at, None if there is none.
        limit: The most that the last column's median should be, None if nothing is said of it.
    """

    text: str
    unit: str
    samples: dict[str, list[float]]
    aim: float | None
    limit: float | None = None

    @property
    def ratio(self) -> float | None:
        """Median of the second kernel divided by that of the first; None for one kernel alone."""
        medians = [statistics.median(values) for values in self.samples.values()]
        if len(medians) != 2 or self.unit == KEPT:
            return None
        return medians[1] / medians[0]


def spread(values: list[float]) -> tuple[float, float]:
    """The 10th and the 90th percentile; of few samples, nearly the least and the greatest."""
    if len(values) < 2:
        return values[0], values[0]
    tenths = statistics.quantiles(values, n=10, method="inclusive")
    return tenths[0], tenths[-1]


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _cell(values: list[float], unit: str) -> str:
    if unit == KEPT:
        return "yes" if all(values) else "no"
    text = f"{_number(statistics.median(values))} {unit}"
    if len(values) > 1:
        low, high = spread(values)
        text += f" ({_number(low)} to {_number(high)})"
    return text


def table(rows: list[Row]) -> str:
    """Markdown tables: medians, with the 10th to the 90th percentile in brackets.

    A new one begins where the columns are others.
    """
    tables = groupby(rows, lambda row: list(row.samples))
    return "\n\n".join(_table(names, list(some)) for names, some in tables)


def _table(names: list[str], rows: list[Row]) -> str:
    head = ["", *names, "ratio", "aim", "samples"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in rows:
        cells = [_cell(row.samples[name], row.unit) for name in names]
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}x"
        aims = [] if row.aim is None else [f"{row.aim:.1f}x"]
        aims += [] if row.limit is None else [f"{row.limit:g} {row.unit}"]
        count = str(len(next(iter(row.samples.values()))))
        lines.append([row.text, *cells, ratio, ", ".join(aims), count])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def data(rows: list[Row]) -> list[dict[str, object]]:
    """The same, with every sample."""
    return [
        {
            "what": row.text,
            "unit": row.unit,
            "samples": row.samples,
            "median": {name: statistics.median(v) for name, v in row.samples.items()},
            "ratio": row.ratio,
            "aim": row.aim,
            "limit": row.limit,
        }
        for row in rows
    ]
