"""`%wasi limits`: what is used and allowed of each limit, and what raises it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasi_agent.tables import Table, mib

if TYPE_CHECKING:
    from wasi_agent.inside import WasiMagics

LIMITS = {
    "memory_bytes": ("memory", "MemoryError, or the state before the cell comes back"),
    "stack_bytes": ("stack", "StackExhausted: the state before the cell comes back"),
    "output_bytes": ("output of this cell", "the rest is dropped, the cell goes on"),
    "message_bytes": ("largest message of it", "that message is dropped"),
    "cell_s": ("time of this cell", "TimeLimitExceeded: interrupted, then stopped"),
    "cell_cpu_s": ("processor time of it", "TimeLimitExceeded: interrupted, then stopped"),
    "grace_s": ("time to react to that", "stopped: the state before the cell comes back"),
    "written_bytes": ("growth of files", "OSError: no space left (ENOSPC)"),
    "created_files": ("files created", "OSError: no space left (ENOSPC)"),
    "open_files": ("open files", "OSError: too many (EMFILE)"),
}
"""Key of each limit -> what it limits, and what happens when it is reached."""


def run(magics: WasiMagics, line: str, cell: str | None) -> Table:
    """Show what is used and allowed of each limit, what happens there, and what raises it."""
    del line, cell
    said = magics.shell.door.limits()
    rows = [("limit", "used", "allowed", "when it is reached", "raised by")]
    for row in said:
        name, effect = LIMITS[row["limit"]]
        used, allowed = (amount(row["limit"], row[key]) for key in ("used", "allowed"))
        rows.append((name, used, allowed, effect, f"limits.{row['limit']}, {row['option']}"))
    return Table("Limits", rows, {row["limit"]: row for row in said}, head=True)


def amount(limit: str, value: float | None) -> str:
    """What is used or allowed of a limit, for people."""
    if value is None:
        return "any" if limit.startswith("cell_") else "-"
    if limit.endswith("_bytes"):
        return mib(value)
    return f"{value:,.1f} s" if limit.endswith("_s") else f"{value:,}"
