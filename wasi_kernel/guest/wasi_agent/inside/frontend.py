"""`%wasi frontend`: what was held back or changed of this session's outputs, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasi_agent.tables import Table

if TYPE_CHECKING:
    from wasi_agent.inside import WasiMagics

FRONTENDS = {
    "isolated": "isolated (they do not reach the page; scripts in frames run when asked to)",
    "interactive": "interactive (they do not reach the page; scripts in frames run at once)",
    "trusted": "trusted (they can do what the front end lets them do)",
    "text": "text and images only",
}


def run(magics: WasiMagics, line: str, cell: str | None) -> Table:
    """Show what was held back or changed of the outputs of this session, and why."""
    del line, cell
    said = magics.shell.door.ask("frontend_request", {}).content
    held = said.get("held", [])
    rows = [("cell", "what", "held back or changed, and why", "times")]
    rows += [(str(at), kind, reason, str(count)) for at, kind, reason, count in held]
    if len(rows) == 1:
        rows.append(("", "", "nothing", ""))
    title = f"Outputs: {FRONTENDS.get(said.get('mode', ''), said.get('mode'))}"
    if said.get("mimes"):
        title += f"; {', '.join(said['mimes'])} as they are"
    return Table(title, rows, said, head=True)
