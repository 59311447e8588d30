"""Medians, spreads and ratios of samples, as a Markdown table and as data for JSON. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

KEPT = "kept?"
"""Unit of samples that are 1 for yes and 0 for no."""

Aim = float | Mapping[str, float]
"""Ratio of the last column to the first, or to each of those that are named."""


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
    samples: Mapping[str, list[float]]
    aim: Aim | None
    limit: float | None = None

    @property
    def ratio(self) -> float | None:
        """Median of the second column divided by that of the first; None if there are not two."""
        return next(iter(self.ratios.values())) if len(self.samples) == 2 and self.ratios else None

    @property
    def ratios(self) -> dict[str, float]:
        """Median of the last column divided by that of each other."""
        if self.unit == KEPT:
            return {}
        medians = {name: statistics.median(values) for name, values in self.samples.items()}
        _, last = medians.popitem()
        return {name: last / median for name, median in medians.items() if median}

    def aimed(self, name: str) -> float | None:
        """The ratio to the column `name` that is aimed at."""
        return self.aim.get(name) if isinstance(self.aim, Mapping) else self.aim


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

    A new one begins where the columns are others. Where there are more than two columns, the last
    one's ratio to each other has a column of its own.
    """
    tables = groupby(rows, lambda row: list(row.samples))
    return "\n\n".join(_table(names, list(some)) for names, some in tables)


def _table(names: list[str], rows: list[Row]) -> str:
    others = names[:-1] if len(names) > 2 else []
    head = ["", *names, *(f"to {name}" for name in others)]
    head += ["samples"] if others else ["ratio", "aim", "samples"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in rows:
        cells = [_cell(row.samples[name], row.unit) for name in names]
        cells += [_compared(row, name) for name in others] if others else _judged(row)
        lines.append([row.text, *cells, str(len(next(iter(row.samples.values()))))])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _judged(row: Row) -> list[str]:
    aims = [f"{row.aim:.4g}x"] if isinstance(row.aim, float | int) else []
    aims += [] if row.limit is None else [f"{row.limit:g} {row.unit}"]
    return ["" if row.ratio is None else f"{row.ratio:.2f}x", ", ".join(aims)]


def _compared(row: Row, name: str) -> str:
    ratio, aim = row.ratios.get(name), row.aimed(name)
    if ratio is None:
        return ""
    return f"{ratio:.2f}x" + ("" if aim is None else f" (aim {aim:.2f}x)")


def missed(rows: list[Row]) -> list[str]:
    """What is slower, or larger, than was aimed at: a line of Markdown for each."""
    lines = []
    for row in rows:
        for name, ratio in row.ratios.items():
            aim = row.aimed(name)
            if aim is not None and round(ratio, 2) > round(aim, 2):
                lines.append(f"{row.text}: {ratio:.2f}x of {name}, aim {aim:.2f}x")
        last = statistics.median(list(row.samples.values())[-1])
        if row.limit is not None and last > row.limit:
            lines.append(f"{row.text}: {_number(last)} {row.unit}, aim {row.limit:g} {row.unit}")
    return lines


def data(rows: list[Row]) -> list[dict[str, object]]:
    """The same, with every sample."""
    return [
        {
            "what": row.text,
            "unit": row.unit,
            "samples": dict(row.samples),
            "median": {name: statistics.median(v) for name, v in row.samples.items()},
            "ratio": row.ratio,
            "ratios": row.ratios,
            "aim": dict(row.aim) if isinstance(row.aim, Mapping) else row.aim,
            "limit": row.limit,
        }
        for row in rows
    ]
