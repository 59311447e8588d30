"""The timeline: what a session's checkpoints mean to its user: cells, undo, redo, names.

Pure: reads a page log's index, writes nothing, takes no clock.

A checkpoint's notes (all of them: see worker/checkpoints.py) say of which `kind` it is: "start", a
"cell", an "aside" (an execution that is no step: silent, or only looking at checkpoints) or "comm"
(what widgets did since). `cell` is the execution count it belongs to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wasi_kernel.errors import UnknownCheckpointError
from wasi_kernel.records import PAGE

if TYPE_CHECKING:
    from wasi_kernel.pagelog import PageLog
    from wasi_kernel.records import Checkpoint

MAX_NAMED = 20
MAX_NAME = 100


def is_cell(found: Checkpoint) -> bool:
    """Is it a step that undo counts?"""
    return found.notes.get("kind") == "cell"


def cell_of(found: Checkpoint) -> int:
    """The execution count that it belongs to."""
    cell = found.notes.get("cell")
    return cell if isinstance(cell, int) else 0


def undo(log: PageLog, cells: int) -> int:
    """The checkpoint before the last so many cells.

    Raises:
        UnknownCheckpointError: There are not so many.
    """
    seen = 0
    for found in log.chain(log.head):
        seen += is_cell(found)
        if seen == cells and found.parent:
            return found.parent
        if seen == cells:
            break
    most = _undoable(log)
    if most == 0:
        raise UnknownCheckpointError("there is no cell to undo")
    raise UnknownCheckpointError(f"only the last {most} can be undone")


def _undoable(log: PageLog) -> int:
    return sum(is_cell(c) and c.parent != 0 for c in log.chain(log.head))


def redo(log: PageLog, cells: int) -> int:
    """The checkpoint so many undone cells after the head.

    Raises:
        UnknownCheckpointError: Nothing was undone, or something new has run since.
    """
    ahead = undone(log)
    if not ahead:
        raise UnknownCheckpointError("there is nothing to redo: no cell was undone since the last")
    seen, target = 0, 0
    for found in ahead:
        if is_cell(found):
            seen += 1
            if seen > cells:
                break
        target = found.id
    if seen < cells:
        raise UnknownCheckpointError(f"only {seen} can be done again")
    return target


def undone(log: PageLog) -> list[Checkpoint]:
    """What lies between the head and the newest cell, oldest first; empty if a cell ran since.

    Looking around (asides) is no cell.
    """
    behind: set[int] = set()
    base = 0
    newest = max((c.id for c in log if is_cell(c)), default=0)
    while after := [k for k in log.children(newest) if not is_cell(log[k])] if newest else []:
        newest = max(after)  # what widgets did after it
    ahead: list[Checkpoint] = []
    for found in log.chain(log.head):
        behind.add(found.id)
        if found.notes.get("kind") != "aside":
            break  # what was undone stands on this one, if on any
    for found in log.chain(newest):
        if found.id in behind:
            base = found.id
            break
        ahead.append(found)
    return ahead[::-1] if base else []


def find(log: PageLog, wanted: str) -> int:
    """The checkpoint of that name, or of that cell: "first" or "7".

    Raises:
        UnknownCheckpointError: There is none; says which there are.
    """
    wanted = wanted.strip()
    if wanted in log.names:
        return log.names[wanted]
    number = wanted.removeprefix("[").removesuffix("]")
    if number.isdecimal():
        known = [c.id for c in log if is_cell(c) and cell_of(c) == int(number)]
        if known:
            return max(known)
    cells = sorted({cell_of(c) for c in log if is_cell(c)})
    there = f"cells {cells[0]} to {cells[-1]}" if cells else "no cells yet"
    names = ", ".join(sorted(log.names)) or "none"
    raise UnknownCheckpointError(f"no checkpoint {wanted!r}; there are: {there}; names: {names}")


def check_name(log: PageLog, name: str, more: int = 0) -> None:
    """May a checkpoint be called that? `more` names are about to be given.

    Raises:
        UnknownCheckpointError: No; says why.
    """
    odd = name != name.strip() or not name.isprintable()
    if not name or odd or len(name) > MAX_NAME or name[0] in "-[":
        raise UnknownCheckpointError(
            f"{name[:MAX_NAME]!r} is no name: printable text of at most {MAX_NAME} characters that "
            "does not begin with '-' or '[', without spaces around it"
        )
    if name.isdecimal():
        raise UnknownCheckpointError(f"{name} would be taken for a cell's number")
    if name not in log.names and len(log.names) + more >= MAX_NAMED:
        raise UnknownCheckpointError(
            f"there are {MAX_NAMED} names already; take one away with %checkpoint --delete NAME"
        )


def describe(log: PageLog, ident: int) -> dict[str, Any]:
    """One checkpoint, as JSON-able data."""
    found = log[ident]
    return {
        "id": found.id,
        "kind": found.notes.get("kind"),
        "cell": cell_of(found),
        "line": str(found.notes.get("line", "")),
        "time_s": found.notes.get("time_s"),
        "pages": found.written,
        "bytes": found.written * PAGE,
        "names": sorted(n for n, k in log.names.items() if k == ident),
    }


def rows(log: PageLog) -> list[dict[str, Any]]:
    """All that can be gone to, oldest first: `describe` and `where`.

    `where` is "past", "here" (the head), "undone" (redo leads there) or "aside" (on a branch that
    was left, kept by its name).
    """
    past = [c.id for c in log.chain(log.head)][::-1]
    ahead = [c.id for c in undone(log)]
    found = []
    for ident in [*past, *ahead]:
        where = "here" if ident == log.head else "undone" if ident in ahead else "past"
        found.append({**describe(log, ident), "where": where})
    named = sorted(set(log.names.values()) - set(past) - set(ahead))
    return found + [{**describe(log, ident), "where": "aside"} for ident in named]
