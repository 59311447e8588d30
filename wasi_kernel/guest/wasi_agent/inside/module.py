"""`%wasi module`: what python.wasm, the running module, is made of."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import TYPE_CHECKING, Any

from wasi_agent.inside import Arguments
from wasi_agent.tables import mib

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wasi_agent.inside import WasiMagics

BIGGEST, MAX_LISTED = 10, 1000
BAR = 20
EXPORTS_SHOWN = 20
NAME_SHOWN = 60
WASM_PAGE = 65_536

Rows = list[tuple[str, ...]]


def run(magics: WasiMagics, line: str, cell: str | None) -> ModuleFacts:
    """Show what the running module is made of: sections, imports, exports, its biggest functions.

    Python, its C libraries and this kernel's packages are one WebAssembly module, python.wasm.

        %wasi module [--biggest N] [--find TEXT] [--imports]

    --biggest N   so many of the biggest functions, 0 to 1000 (10)
    --find TEXT   instead, the functions with TEXT in their name, with index and size
    --imports     every import with its type, not only how many of each module

    In code: ``m = %wasi module``, then ``m.to_dict()`` or ``m["sections"]``; it has all imports.
    ``%wasi wat NAME`` shows a function's code.
    """
    del cell
    arguments = Arguments("module")
    arguments.usage = "%(prog)s [--biggest N] [--find TEXT] [--imports]"
    arguments.add_argument("--biggest", type=int, default=BIGGEST)
    arguments.add_argument("--find", default=None)
    arguments.add_argument("--imports", action="store_true")
    options = arguments.of(line)
    if not 0 <= options.biggest <= MAX_LISTED:
        arguments.error(f"--biggest is a number from 0 to {MAX_LISTED:,}")
    if options.find == "":
        arguments.error("--find wants a part of a name")
    try:
        said = magics.shell.door.look("module", biggest=options.biggest, find=options.find or "")
    except ValueError as e:
        arguments.error(str(e))
    facts = {key: value for key, value in said.content.items() if key != "status"}
    return ModuleFacts(facts, options.find, imports=options.imports)


class ModuleFacts:
    """What the host has read of the module: text, HTML, `to_dict`."""

    def __init__(self, facts: dict[str, Any], wanted: str | None, *, imports: bool) -> None:
        """Takes the facts, what was searched for, and whether every import is shown."""
        self._facts, self._wanted, self._imports = facts, wanted, imports

    def to_dict(self) -> dict[str, Any]:
        """All that is known."""
        return self._facts

    def __getitem__(self, name: str) -> Any:
        """One of the facts, as `to_dict` has it.

        Raises:
            KeyError: There is none of that name.
        """
        if name not in self._facts:
            raise KeyError(f"{name!r}; there are {', '.join(self._facts)}")
        return self._facts[name]

    # -- what is shown -----------------------------------------------------------------------

    def _parts(self) -> list[tuple[str, Rows]]:
        """Titles, and the rows below them; the first of them names the columns."""
        facts = self._facts
        title = (
            f"python.wasm: {mib(facts['bytes'])}, {facts['functions']:,} functions, "
            f"{facts['imported_functions']:,} of them imported"
        )
        parts = [(title, self._facts_rows())]
        if self._wanted is not None:
            return [self._found_part(), *[("Imports", self._import_rows())] * self._imports]
        parts += [("Sections", self._section_rows()), ("Imports", self._import_rows())]
        parts.append(("Exports", self._export_rows()))
        if facts["biggest"]:
            parts.append(("The biggest functions", _function_rows(facts["biggest"])))
        return parts

    def _facts_rows(self) -> Rows:
        facts = self._facts
        rows: Rows = [("", "")]
        rows += [("memory", _pages(each)) for each in facts["memories"]]
        for each in facts["tables"]:
            kind, least, *_ = each.split()
            rows.append(("table", f"{int(least):,} x {kind}: what C's function pointers index"))
        for each in facts["globals"][:EXPORTS_SHOWN]:
            kind = f"(mut {each['type']})" if each["mutable"] else each["type"]
            value = "" if each["value"] is None else f" = {each['value']}"
            rows.append((f"global {each['index']}", f"{kind}{value}  {each['name']}".rstrip()))
        rows += [(f"tag {k}", each) for k, each in enumerate(facts["tags"][:EXPORTS_SHOWN])]
        if facts["start"] is not None:
            rows.append(("start", f"function {facts['start']}"))
        named = facts["named_functions"]
        rows.append(("names", f"{named:,} functions have one" if named else "of none"))
        rows += [(field, ", ".join(values)) for field, values in facts["producers"].items()]
        if facts["features"]:
            rows.append(("features", ", ".join(facts["features"])))
        return rows

    def _section_rows(self) -> Rows:
        rows: Rows = [("section", "size", "", "entries", "")]
        for each in self._facts["sections"]:
            share = each["bytes"] / max(1, self._facts["bytes"])
            name = f"custom: {each['name']}" if each["id"] == 0 else each["name"]
            count = "" if each["entries"] is None else f"{each['entries']:,}"
            bar = "█" * round(BAR * share)
            rows.append((name, _size(each["bytes"]), f"{share:.1%}", count, bar))
        return rows

    def _import_rows(self) -> Rows:
        imports = self._facts["imports"]
        if self._imports:
            every = [(i["module"], i["name"], i["kind"], i["type"]) for i in imports]
            return [("module", "name", "kind", "type"), *every]
        counted = Counter((i["module"], i["kind"]) for i in imports)
        return [
            ("module", "kind", "number"),
            *((module, kind, f"{count:,}") for (module, kind), count in counted.items()),
        ]

    def _export_rows(self) -> Rows:
        exports = self._facts["exports"]
        rows: Rows = [("name", "kind", "index", "type")]
        for each in exports[:EXPORTS_SHOWN]:
            kind = _pages(each["type"]) if each["kind"] == "memory" else each["type"]
            rows.append((each["name"], each["kind"], f"{each['index']:,}", kind))
        if len(exports) > EXPORTS_SHOWN:
            rows.append((f"... {len(exports) - EXPORTS_SHOWN:,} more", "", "", ""))
        return rows

    def _found_part(self) -> tuple[str, Rows]:
        found, count = self._facts["found"], self._facts["all_found"]
        title = f"Functions with {self._wanted!r} in their name: {count:,}"
        if count > len(found):
            title += f", the first {len(found):,} of them"
        return title, _function_rows(found)

    def __repr__(self) -> str:
        return "\n\n".join(
            f"{title}\n{'-' * len(title)}\n{_columns(rows)}" for title, rows in self._parts()
        )

    def _repr_html_(self) -> str:
        return "".join(_html(title, rows) for title, rows in self._parts())


def _size(count: int) -> str:
    return mib(count) if count >= 1 << 10 else f"{count} bytes"


def _pages(text: str) -> str:
    """`640 1024` as what a memory has at first and at most."""
    least, *rest = [word for word in text.split() if word.isdecimal()]
    size = f"{mib(int(least) * WASM_PAGE)} at the start ({int(least):,} pages of 64 KiB)"
    return size + (f", {mib(int(rest[0]) * WASM_PAGE)} at most" if rest else "")


def _function_rows(functions: Sequence[dict[str, Any]]) -> Rows:
    rows: Rows = [("index", "bytes", "name", "type")]
    for each in functions:
        name = each["name"]
        shown = name if len(name) <= NAME_SHOWN else f"{name[: NAME_SHOWN - 1]}…"
        rows.append((str(each["index"]), f"{each['bytes']:,}", shown, each["type"]))
    return rows


def _columns(rows: Rows) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    shown = [row for row in rows if any(row)]
    return "\n".join(
        "  ".join(f"{text:<{n}}" for text, n in zip(row, widths, strict=True)).rstrip()
        for row in shown
    )


def _html(title: str, rows: Rows) -> str:
    style = 'style="text-align:left"'

    def cells(row: Sequence[str], tag: Callable[[int], str]) -> str:
        inside = (
            f"<{tag(k)} {style}>{escape(t, quote=False)}</{tag(k)}>" for k, t in enumerate(row)
        )
        return f"<tr>{''.join(inside)}</tr>"

    head = cells(rows[0], lambda _: "th") if any(rows[0]) else ""
    body = "".join(cells(row, lambda k: "td" if k else "th") for row in rows[1:])
    return (
        f"<table><caption>{escape(title, quote=False)}</caption><tbody>{head}{body}</tbody></table>"
    )
