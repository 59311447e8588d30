"""`%wasi` alone: what this sandbox is and what it grants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wasi_agent.tables import Table, mib

if TYPE_CHECKING:
    from wasi_agent.inside import WasiMagics


def run(magics: WasiMagics, line: str, cell: str | None) -> Table:
    """Show the runtime, what is granted, the limits, the memory in use, and what confines it."""
    del line, cell
    host = magics.shell.door.ask("info_request", {}).content
    facts = magics.facts
    limits = facts.get("limits", {})
    rows = [
        ("runtime", f"{host['runtime']}, wasmtime {host['wasmtime']}"),
        ("interrupts", "soft and hard" if host["interrupts"] else "hard only"),
        ("base image", "yes" if host["images"] else "no (a command build boots each time)"),
        ("checkpoints", _checkpoints(host["checkpoints"])),
    ]
    for k, grant in enumerate(facts.get("grants", [])):
        mode = "read and write" if grant["writable"] else "read only"
        shown = f"{grant['guest_path']}, {mode}, {grant['what']}"
        rows.append(("grants" if k == 0 else "", shown))
    rows += [
        ("confinement", _confinement(host["confinement"])),
        ("outputs", f"{facts.get('frontend')}; %wasi frontend shows what was held back"),
        ("packages", ", ".join(facts.get("packages", [])) or "none beside the runtime's"),
        ("%pip install", _pip(facts.get("pip"))),
        ("environment", ", ".join(sorted(facts.get("env", []))) or "nothing of the host"),
        ("network", "none"),
        ("processes", "none"),
        ("memory", f"{mib(host['memory_bytes'])} of {mib(limits.get('memory_bytes', 0))}"),
        ("stack", mib(limits.get("stack_bytes", 0))),
        ("output per cell", mib(limits.get("output_bytes", 0))),
        ("limits", "%wasi limits shows all of them, what is used, and what raises them"),
    ]
    for text in facts.get("notices", []):
        rows.append(("note", text))
    return Table("WASI sandbox", rows, {**host, **facts})


def _checkpoints(said: dict[str, Any]) -> str:
    if said["problem"]:
        return str(said["problem"])
    return f"{said['count']}, {mib(said['bytes'])} on disk; %undo takes a cell back"


def _pip(allowed: Any) -> str:
    if isinstance(allowed, (list, tuple)):
        return f"only {', '.join(allowed)}, and what they need" if allowed else "no"
    return "any package of the host's index" if allowed else "no (pip in the policy)"


def _confinement(said: dict[str, Any]) -> str:
    if said["wanted"] == "off":
        return "off: the worker process can do what its user can (confine in the policy)"
    has = [f"Landlock {said['landlock']}"] * bool(said["landlock"])
    has += ["seccomp"] * said["seccomp"]
    return "; ".join([" and ".join(has) or "none", *said["missing"]])
