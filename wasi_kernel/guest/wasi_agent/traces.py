"""A trace of WASI calls, as `%wasi trace` gives it: text as strace writes it, a table, data."""

from __future__ import annotations

import html
import os
from typing import TYPE_CHECKING, Any

from wasi_agent.tables import Table

if TYPE_CHECKING:
    from collections.abc import Callable

RIGHTS, SHOWN_RIGHTS = ("rights", "inheriting"), 4
SHOWN = 200
"""Calls that a trace shows; `t.calls` has all that were kept."""


class Trace:
    """The calls of one cell.

    Attributes:
        calls: Each as {"call", "args": {name: value}, "text" (of the arguments), "errno" (0 for
            success), "error" (its name or None), "meaning", "result": {name: value}, "ns",
            "file", "line", "function" (of the innermost Python code; None: not known),
            "cell_line" (the line of the cell that led there, or None)}.
        dropped: How many calls were not kept, since there were too many.
    """

    def __init__(
        self, seen: dict[str, Any], code_name: Callable[[str], Any], cell_file: str
    ) -> None:
        """Takes the host's answer, IPython's way to name code, and the cell's own file."""
        names: dict[str, str] = {}

        def named(file: str) -> str:
            if file not in names:
                found = code_name(file)
                names[file] = file if found is None else f"{found[1]}"
            return names[file]

        self._cell = named(cell_file)
        self.calls = [_call(each, named) for each in seen["calls"]]
        self.dropped = int(seen["dropped"])
        self._totals: dict[str, list[int]] = seen["totals"]
        self._lines = bool(seen["lines"])
        self._by_call = False

    def shown(self, *, by_call: bool) -> Trace:
        """The same trace, from now on shown as a summary or as calls."""
        self._by_call = by_call
        return self

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        totals = {
            name: {"count": count, "errors": errors, "ns": ns}
            for name, (count, errors, ns) in self._totals.items()
        }
        return {"calls": self.calls, "dropped": self.dropped, "summary": totals}

    def summary(self) -> Table:
        """By call: how often, how often with an error, how long together; the longest first."""
        rows: list[tuple[str, ...]] = [("call", "count", "errors", "time", "each")]
        for name, (count, errors, ns) in sorted(self._totals.items(), key=lambda i: -i[1][2]):
            rows.append((name, f"{count:,}", f"{errors:,}", _time(ns), _time(ns // max(count, 1))))
        return Table(self._title(), rows, self.to_dict()["summary"], head=True)

    def _title(self) -> str:
        count, errors, ns = (sum(t[k] for t in self._totals.values()) for k in range(3))
        made = f"{count:,} WASI call{'s' * (count != 1)}"
        title = f"Trace: {made}, {errors:,} with an error, {_time(ns)}"
        if self.dropped:
            title += f"; {self.dropped:,} were only counted (--most)"
        return title + ("" if self._lines else "; this build does not say which line it runs")

    def _line(self, call: dict[str, Any]) -> str:
        return f"{call['call']}({call['text']}) = {_result(call)} <{_time(call['ns'])}>"

    def _where(self, call: dict[str, Any]) -> str:
        if call["file"] is None:
            return ""
        inner = f"{call['file']}:{call['line']}"
        if call["cell_line"] is None or call["file"] == self._cell:
            return inner
        return f"{self._cell}:{call['cell_line']}, in {inner}"

    def __repr__(self) -> str:
        if self._by_call:
            return repr(self.summary())
        lines = [self._title()]
        for call in self.calls[:SHOWN]:
            where = self._where(call)
            lines.append(self._line(call) + f"  # {where}" * bool(where))
        if len(self.calls) > SHOWN:
            lines.append(f"... {len(self.calls) - SHOWN:,} more in .calls")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        if self._by_call:
            return self.summary()._repr_html_()
        style = 'style="text-align:left"'
        head = "".join(f"<th {style}>{t}</th>" for t in ("call", "result", "time", "from"))
        rows = [f"<tr>{head}</tr>"]
        for call in self.calls[:SHOWN]:
            cells = (
                f"{call['call']}({call['text']})", _result(call), _time(call["ns"]),
                self._where(call),
            )  # fmt: skip
            inside = "".join(f"<td {style}>{html.escape(text, quote=False)}</td>" for text in cells)
            rows.append(f"<tr>{inside}</tr>")
        more = len(self.calls) - SHOWN
        note = f"<p>{more:,} more in .calls</p>" if more > 0 else ""
        title = html.escape(self._title(), quote=False)
        table = f"<table><tbody>{''.join(rows)}</tbody></table>"
        return f"<details><summary>{title}</summary>{table}{note}</details>"


def _call(seen: dict[str, Any], named: Callable[[str], str]) -> dict[str, Any]:
    file, line, function = seen["at"] or (None, None, None)
    return {
        "call": seen["call"], "args": seen["args"], "text": seen["text"],
        "errno": seen["errno"], "error": seen["error"],
        "meaning": os.strerror(seen["errno"]) if seen["errno"] else None,
        "result": seen["result"], "ns": seen["ns"],
        "file": None if file is None else named(file), "line": line, "function": function,
        "cell_line": seen["cell"],
    }  # fmt: skip


def _result(call: dict[str, Any]) -> str:
    if call["errno"]:
        return f"{call['error']} ({call['meaning']})"
    return ", ".join(f"{k} {_value(k, v)}" for k, v in call["result"].items()) or "ok"


def _value(name: str, value: Any) -> str:
    """A result for a line: lists of names are short there."""
    if isinstance(value, list):
        return "[" + ", ".join(map(str, value)) + "]"
    count = str(value).count("|") + 1
    return f"{count} rights" if name in RIGHTS and count > SHOWN_RIGHTS else str(value)


def _time(ns: int) -> str:
    """A duration, for people."""
    if ns < 1_000_000:
        return f"{ns / 1000:,.0f} µs"
    return f"{ns / 1e6:,.1f} ms" if ns < 1_000_000_000 else f"{ns / 1e9:,.2f} s"
