"""`%wasi grants`: the folders that a session has, what may be done there, which line grants it.

A folder's place on the host is not told: the policy's line has HOST there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from wasi_agent.tables import Table, mib

if TYPE_CHECKING:
    from wasi_agent.inside import WasiMagics

OWN = {
    "/usr/lib/wasi-kernel": "IPython and this kernel's agent",
    "/opt/packages": "the policy's packages",
    "/opt/installed": "what cells have installed (%pip)",
}
"""Folders that every session, or every one with packages, has; those of the runtime are others."""

RUNTIME = "the runtime: Python's library and packages"
GONE = "gone: empty until a restart"
MODES = {True: "read and write", False: "read only"}


class Folder(NamedTuple):
    """A folder that the guest has.

    Attributes:
        guest_path: Where.
        writable: May what is in it be changed?
        there: Is it the folder that is meant? Else that one is gone, and an empty one is there.
        what: What it is for.
        line: The policy's line that grants it; empty if every session has it.
        bytes: Of the files in it that changed since the session began; None if not known.
        entries: How many files, folders and links these are; None if not known.
    """

    guest_path: str
    writable: bool
    there: bool
    what: str
    line: str
    bytes: int | None = None
    entries: int | None = None


def folders(magics: WasiMagics, *, measure: bool = False) -> list[Folder]:
    """The folders that this guest has: those of the policy first, then those of the runtime."""
    facts = {each["guest_path"]: each for each in magics.facts.get("grants", [])}
    packages = magics.facts.get("packages")
    found = []
    for row in magics.shell.door.look("grants", measure=measure).content["folders"]:
        path = row["guest_path"]
        known = facts.get(path, {})
        line = known.get("line", "")
        if path == "/opt/packages" and packages:
            line = "packages = [...]"
        what = known.get("what") or OWN.get(path, RUNTIME)
        found.append(Folder(
            path, row["writable"], row["there"], what, line, row.get("bytes"), row.get("entries")
        ))  # fmt: skip
    order = list(facts)
    found.sort(key=lambda f: order.index(f.guest_path) if f.guest_path in facts else len(order))
    return found


def run(magics: WasiMagics, line: str, cell: str | None) -> Table:
    """Show each granted folder: what may be done there, what changed, and the line that grants it.

    ``%wasi grants`` lists the folders that this session reaches; there are no others. A folder's
    place on the host is not told: in the line of the policy it is ``HOST``. What changed is
    measured now: files and folders there that were made or changed since the session began, by
    whomever. ``%wasi why PATH`` explains one path.
    """
    from wasi_agent.inside import Arguments

    del cell
    Arguments("grants").of(line)
    found = folders(magics, measure=True)
    return table("Granted folders", found)


def table(title: str, found: list[Folder]) -> Table:
    """The folders as a table."""
    rows = [("folder", "may be", "what it is", "changed", "line of the policy")]
    rows += [
        (f.guest_path, MODES[f.writable] if f.there else GONE, f.what, _changed(f), line_of(f))
        for f in found
    ]  # fmt: skip
    return Table(title, rows, {"grants": [f._asdict() for f in found]}, head=True)


def line_of(folder: Folder) -> str:
    """The policy's line for a folder, for people."""
    if folder.line or folder.what == "(empty)":
        return folder.line or "none: it shows nothing"
    return "none: every session has it"


def _changed(folder: Folder) -> str:
    if not folder.writable:
        return "nothing"
    if folder.entries is None or folder.bytes is None:
        return "not known"
    return (
        f"{folder.entries:,} {'entry' if folder.entries == 1 else 'entries'}, {mib(folder.bytes)}"
    )


def plain(found: list[Folder]) -> list[dict[str, Any]]:
    """The folders as data, without counts."""
    return [{k: v for k, v in f._asdict().items() if k not in ("bytes", "entries")} for f in found]
