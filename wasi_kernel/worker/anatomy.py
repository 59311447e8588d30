"""What the running module is made of, and the text of its functions: `%wasi module`, `%wasi wat`.

Answers the looks `module`, `function` and `functions` (looks.py) from the runtime's file, which is
held open (binary.py). What is asked is the guest's word, and bounded; what the file says is its
author's, whom the policy names, and what cannot be read is refused with the reason. Nothing of the
host is told: not the file's name or place.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from wasi_kernel.worker import binary
from wasi_kernel.worker.looks import Refusal, Sight, number, text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wasi_kernel.worker.sections import Export, Module

MAX_LISTED = 1000
"""Functions in one answer."""

MAX_BORDER = 2000
"""Imports, exports, globals and sections in one answer."""

MAX_NAME = 1000
MAX_INSTRUCTIONS = 100_000
MAX_TEXT = 8 << 20
MOST_INDEX = (1 << 32) - 1
SAME_NAME = 8
"""So many indices are told of functions that are called the same."""

SIMILAR = 5
TRIGRAMS = 40
CLOSEST = 200
"""Of a misspelt name so many pieces of three letters are looked for, and so many of the names that
have the most of them are compared with it: all 70,000 would take seconds."""


class Anatomy:
    """Answers about one runtime's file."""

    def __init__(self, wasm: Path) -> None:
        """`wasm`: the module's file, which `binary.opened` has been called for before."""
        self._wasm = wasm

    @property
    def ops(self) -> dict[str, Callable[[dict[str, Any]], Sight]]:
        """The looks, by name."""
        return {"module": self.module, "function": self.function, "functions": self.functions}

    @functools.cached_property
    def _module(self) -> Module:
        """Read when it is first asked for, which takes a fifth of a second for 100 MB."""
        from wasi_kernel.worker import cursor, sections

        fd = binary.opened(self._wasm)
        if fd is None:
            raise Refusal("the runtime's file cannot be read")
        try:
            return sections.Module(fd)
        except (cursor.MalformedError, OSError) as e:
            raise Refusal(f"the runtime's file cannot be read as WebAssembly: {e}") from None

    def module(self, content: dict[str, Any]) -> Sight:
        """Sections, imports, exports and so on; `biggest` functions; those that `find` is in."""
        from wasi_kernel.worker import sections

        biggest = number(content, "biggest", most=MAX_LISTED, default=0)
        wanted = text(content, "find", most=MAX_NAME, default="")
        module = self._module
        found = self._found(wanted) if wanted else []
        told = {
            "bytes": module.bytes,
            "sections": [s._asdict() for s in module.sections[:MAX_BORDER]],
            "functions": module.functions,
            "imported_functions": module.imported,
            "named_functions": module.named_functions,
            "types": len(module.types),
            "imports": [i._asdict() for i in module.imports[:MAX_BORDER]],
            "exports": [
                {"name": e.name, "kind": e.kind, "index": e.number, "type": self._export_type(e)}
                for e in module.exports[:MAX_BORDER]
            ],
            "memories": module.memories[:MAX_BORDER],
            "tables": module.tables[:MAX_BORDER],
            "globals": [
                {"index": at, "name": module.global_names.get(at, ""), **g._asdict()}
                for at, g in enumerate(module.globals[:MAX_BORDER])
            ],
            "tags": module.tags[:MAX_BORDER],
            "start": module.start,
            "producers": sections.producers(module),
            "features": sections.features(module),
            "biggest": [self._told(at) for at in module.biggest(biggest)],
            "found": [self._told(at) for at in found[:MAX_LISTED]],
            "all_found": len(found),
        }
        return Sight(told)

    def function(self, content: dict[str, Any]) -> Sight:
        """One function, by `index`, `name` or `slot` of the table: facts, and its text."""
        from wasi_kernel.worker import cursor, disassembly

        most = number(content, "most", least=1, most=MAX_INSTRUCTIONS, default=MAX_INSTRUCTIONS)
        module = self._module
        index = self._index(content)
        if index < module.imported:
            raise Refusal(
                f"function {index} is imported ({module.name(index)}): its code is not in the "
                "module"
            )
        try:
            listing = disassembly.disassemble(module, index, most, MAX_TEXT)
        except cursor.MalformedError as e:
            raise Refusal(f"function {index} cannot be read: {e}") from None
        told = {
            **self._told(index),
            "params": listing.params, "results": listing.results, "locals": listing.locals,
            "instructions": listing.instructions, "left": listing.left,
            "problem": listing.problem,
            "calls": [
                {"index": at, "name": module.name(at), "count": count}
                for at, count in list(listing.calls.items())[:MAX_LISTED]
            ],
        }  # fmt: skip
        return Sight(told, (listing.text.encode(),))

    def functions(self, content: dict[str, Any]) -> Sight:
        """Names that begin with `prefix`, at most `most` of them: for completion."""
        prefix = text(content, "prefix", most=MAX_NAME)
        most = number(content, "most", least=1, most=MAX_LISTED, default=MAX_LISTED)
        known = [name for _, name in self._module.names()]
        known += [e.name for e in self._module.exports if e.kind == "function"]
        names = {name for name in known if name.startswith(prefix)}
        return Sight({"names": sorted(names)[:most]})

    def _told(self, index: int) -> dict[str, Any]:
        module = self._module
        return {
            "index": index, "name": module.name(index), "bytes": module.size(index),
            "type": str(module.type(module.type_index(index)) or ""),
        }  # fmt: skip

    def _export_type(self, export: Export) -> str:
        module, at = self._module, export.number
        if export.kind == "function" and at < module.functions:
            return str(module.type(module.type_index(at)) or "")
        kinds = {"memory": module.memories, "table": module.tables, "tag": module.tags}
        known = kinds.get(export.kind, [])
        return known[at] if at < len(known) else ""

    def _found(self, wanted: str) -> list[int]:
        wanted = wanted.lower()
        return [at for at, name in self._module.names() if wanted in name.lower()]

    def _index(self, content: dict[str, Any]) -> int:
        """Which function is meant."""
        module = self._module
        if "slot" in content:
            slot = number(content, "slot", most=MOST_INDEX)
            index = module.slots.get(slot)
            if index is None:
                raise Refusal(f"slot {slot:,} of the table holds no function at the start")
            return index
        if "name" not in content:
            index = number(content, "index", most=MOST_INDEX)
            if index >= module.functions:
                raise Refusal(
                    f"there is no function {index:,}; they are numbered from 0 to "
                    f"{module.functions - 1:,}"
                )
            return index
        wanted = text(content, "name", most=MAX_NAME)
        found = module.named(wanted)
        if len(found) == 1:
            return found[0]
        if found:
            some = ", ".join(map(str, found[:SAME_NAME]))
            more = f" and {len(found) - SAME_NAME} more" if len(found) > SAME_NAME else ""
            raise Refusal(
                f"{len(found)} functions are called {wanted}: give an index, {some}{more}"
            )
        if not module.named_functions:
            raise Refusal(
                f"there is no function {wanted!r}: this module has no names for its functions but "
                "those of exports and imports; give an index"
            )
        similar = self._similar(wanted)
        said = f"; similar: {', '.join(similar)}" if similar else ""
        raise Refusal(f"there is no function {wanted!r}{said}")

    def _similar(self, wanted: str) -> list[str]:
        """Names that are like one that there is not."""
        import difflib

        meant, wanted = wanted, wanted.lower()
        pieces = {wanted[at : at + 3] for at in range(max(1, min(len(wanted) - 2, TRIGRAMS)))}
        longest = 2 * len(wanted) + 2
        scored = {
            name: sum(piece in lower for piece in pieces)
            for _, name in self._module.names()
            if len(name) <= longest and pieces and (lower := name.lower())
        }

        def distance(name: str) -> tuple[int, int, bool, str]:
            other = not name.startswith(meant[:3])  # as upper case is
            return -scored[name], abs(len(name) - len(wanted)), other, name

        best = sorted(scored, key=distance)[:CLOSEST]
        by_lower: dict[str, str] = {}
        for name in best:
            by_lower.setdefault(name.lower(), name)
        close = difflib.get_close_matches(wanted, by_lower, SIMILAR, 0.6)
        return [by_lower[lower] for lower in close]
