"""`%wasi memory`: the map of linear memory, what was written since when, and how it grew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from wasi_agent.inside import Arguments
from wasi_agent.tables import mib

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wasi_agent.inside import WasiMagics

KINDS = ("unknown", "stack", "static", "objects", "blocks", "free", "unused")
"""What a piece of the map is, by the host's number for it (worker/memorymap.py)."""

KIND_TEXTS = {
    "unknown": ("?", "not known"),
    "stack": ("s", "C stack"),
    "static": ("d", "static data"),
    "objects": ("O", "Python objects"),
    "blocks": ("b", "other blocks in use"),
    "free": ("-", "free blocks"),
    "unused": (".", "not given out yet"),
}
SINCE_TEXTS = (
    ("image", ".", "as in the base image"),
    ("differs", "o", "written by a cell"),
    ("now", "+", "written by this cell so far"),
    ("last", "#", "written by the last cell"),
)
REGIONS = {
    "unknown": "stack and data",
    "stack": "C stack",
    "static": "static data",
    "zeros": "data that began as zeros",
    "heap": "heap",
    "top": "heap, not given out yet",
    "unused": "not malloc's",
}
COLUMNS = 64
MAX_CELLS, MAX_TYPES, MAX_PIECES = 1000, 1000, 16_384


def run(magics: WasiMagics, line: str, cell: str | None) -> MemoryMap:
    """Show the map of linear memory: what lies where, what was written, and how it grew.

    ``%wasi memory --cells N`` shows growth over the last N cells (10), ``--types N`` the N types
    whose objects take the most (8), ``--pieces N`` draws the map in N squares or fewer (2048).
    Everything is read from outside: malloc's own records, and the pages that differ from the base
    image. In code: ``m = %wasi memory``, then ``m.to_dict()``; ``m.text()`` is the map as text.
    """
    del cell
    parser = Arguments("memory")
    parser.add_argument("--cells", type=int, default=10)
    parser.add_argument("--types", type=int, default=8)
    parser.add_argument("--pieces", type=int, default=2048)
    said = parser.of(line)
    for name, least, most in (
        ("cells", 0, MAX_CELLS), ("types", 0, MAX_TYPES), ("pieces", 1, MAX_PIECES),
    ):  # fmt: skip
        if not least <= getattr(said, name) <= most:
            raise UsageError(f"%wasi memory: --{name} is a number from {least} to {most:,}")
    frame = magics.shell.door.look(
        "memory", type=id(type), pieces=said.pieces, cells=said.cells, types=said.types
    )
    kinds, since = (bytes(data) for data in frame.buffers)
    facts = {key: value for key, value in frame.content.items() if key != "status"}
    return MemoryMap(facts, kinds, since)


class MemoryMap:
    """The map: text, a drawing, and `to_dict`."""

    def __init__(self, facts: dict[str, Any], kinds: bytes, since: bytes) -> None:
        """Takes what the host has said, and of each piece of memory an index of each kind."""
        self._facts, self._kinds, self._since = facts, kinds, since

    def to_dict(self) -> dict[str, Any]:
        """Regions, heap, pages and growth, in bytes and pages; `map` has a word for each piece."""
        return {
            **self._facts,
            "map": [KINDS[k] for k in self._kinds],
            "since": [SINCE_TEXTS[k][0] for k in self._since],
        }

    # -- text --------------------------------------------------------------------------------

    def __repr__(self) -> str:
        parts = [_columns(self._region_rows()), self._pages_text()]
        if len(self._facts["growth"]) > 1:
            parts.append(_columns(self._growth_rows()))
        heap = self._facts["heap"]
        if heap and heap["types"]:
            parts.append(_columns(self._type_rows()))
        parts += [f"note: {note}" for note in self._facts["notes"]]
        title = self._title()
        return "\n\n".join([f"{title}\n{'-' * len(title)}\n{parts[0]}", *parts[1:]])

    def text(self) -> str:
        """The map in letters: what lies where, then what was written since when."""
        letters = "".join(KIND_TEXTS[KINDS[k]][0] for k in self._kinds)
        marks = "".join(SINCE_TEXTS[k][1] for k in self._since)
        step = self._facts["pages_per_piece"] * self._facts["page_bytes"]
        lines = [f"What lies where; each letter is {mib(step)}, and what most of it is:"]
        lines += ["  ".join(f"{letter} {text}" for letter, text in KIND_TEXTS.values())]
        lines += [
            f"{at * step:#010x}  {letters[at : at + COLUMNS]}"
            for at in range(0, len(letters), COLUMNS)
        ]
        if self._facts["pages"]["differ"] is None:
            return "\n".join(lines)
        lines += ["", "Pages that were written; a letter is the last of these that holds:"]
        lines += ["  ".join(f"{letter} {text}" for _, letter, text in SINCE_TEXTS)]
        lines += [
            f"{at * step:#010x}  {marks[at : at + COLUMNS]}" for at in range(0, len(marks), COLUMNS)
        ]
        return "\n".join(lines)

    def _title(self) -> str:
        size, pages = self._facts["bytes"], self._facts["pages"]["all"]
        return f"Linear memory: {mib(size)}, {pages:,} pages of {mib(self._facts['page_bytes'])}"

    def _region_rows(self) -> list[tuple[str, ...]]:
        heap = self._facts["heap"]
        rows: list[tuple[str, ...]] = [("from", "size", "what", "")]
        for region in self._facts["regions"]:
            name = region["name"]
            rows.append((
                f"{region['start']:#010x}", mib(region["bytes"]), REGIONS[name],
                self._remark(name, region),
            ))  # fmt: skip
            if name == "heap" and heap:
                for key in ("objects", "blocks", "free"):
                    said = heap[key]
                    count = f"{said['count']:,} blocks"
                    rows.append(("", mib(said["bytes"]), f"  {KIND_TEXTS[key][1]}", count))
                if heap["known_to"] < heap["top"]:
                    left = heap["top"] - heap["known_to"]
                    rows.append(("", mib(left), "  not known", "too many blocks to read, or torn"))
        return rows

    def _remark(self, name: str, region: dict[str, Any]) -> str:
        if name == "stack" and self._facts["stack_reached"] is not None:
            end = region["start"] + region["bytes"]
            return f"grows down; {mib(end - self._facts['stack_reached'])} of it were ever used"
        if name == "heap":
            return "no arenas of Python's own in it: each object is a block of malloc's"
        return ""

    def _pages_text(self) -> str:
        pages = self._facts["pages"]
        if pages["differ"] is None:
            return f"Which pages were written is not known: {pages['problem'] or 'no page map'}"
        size = self._facts["page_bytes"]

        def amount(count: int) -> str:
            return f"{count:,} pages ({mib(count * size)})"

        lines = [f"Pages that differ from the base image: {amount(pages['differ'])}"]
        if pages["last"] is not None:
            lines.append(f"written by the last cell, [{pages['cell']}]: {amount(pages['last'])}")
        if pages["now"] is not None:
            lines.append(f"written by this cell so far: {amount(pages['now'])}")
        if pages["problem"]:
            lines.append(f"not known by cell: {pages['problem']}")
        return "\n".join(lines)

    def _growth_rows(self) -> list[tuple[str, ...]]:
        return [
            ("cell", "memory", "heap in use up to", "pages written", "first line"),
            *(
                (
                    _cell(row), mib(row["bytes"]), "?" if row["heap"] is None else mib(row["heap"]),
                    "" if row["pages"] is None else f"{row['pages']:,}", _short(row["line"], 40),
                )
                for row in self._facts["growth"]
            ),
        ]  # fmt: skip

    def _type_rows(self) -> list[tuple[str, ...]]:
        heap = self._facts["heap"]
        return [
            ("objects of type", "count", "bytes"),
            *((t["name"] or "?", f"{t['count']:,}", mib(t["bytes"])) for t in heap["types"]),
            (f"({heap['all_types']:,} types have objects in the heap)", "", ""),
        ]

    # -- drawing -----------------------------------------------------------------------------

    def _repr_svg_(self) -> str:
        from wasi_agent.inside import memorysvg

        return memorysvg.draw(self)

    @property
    def drawn(self) -> tuple[dict[str, Any], bytes, bytes, str]:
        """What there is to draw: facts, pieces by kind, pieces by age, title."""
        return self._facts, self._kinds, self._since, self._title()


def _cell(row: dict[str, Any]) -> str:
    if row["cell"] is None:
        return "now"
    return f"[{row['cell']}]" if row["line"] or row["cell"] else "start"


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _columns(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{text:<{n}}" for text, n in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
