"""Magics: %wasi, and those of IPython that cannot work here, which say so in one line."""

from __future__ import annotations

import html
import os
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_magic, magics_class

from wasi_agent import pip
from wasi_agent.shell import NO_PROCESSES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wasi_agent.shell import ZMQInteractiveShell

PROCESS_MAGICS = (
    "bash", "sh", "script", "perl", "ruby", "pypy", "python2", "python3", "python", "cmd",
    "system", "sx", "!",
)  # fmt: skip

OTHERS = {
    "conda": "packages are chosen in the policy; there are no processes to run conda in",
    "mamba": "packages are chosen in the policy; there are no processes to run mamba in",
    "micromamba": "packages are chosen in the policy; there are no processes to run it in",
    "uv": "packages are chosen in the policy; there are no processes to run uv in",
    "man": "there are no manual pages in the sandbox; try NAME? for Python's own help",
    "edit": "there is no editor in the sandbox; use %%writefile and %load",
    "ed": "there is no editor in the sandbox; use %%writefile and %load",
    "gui": "there is no screen in the sandbox; plots appear in the notebook",
    "killbgscripts": "there are no processes in the sandbox, so none to kill",
}


FRONTENDS = {
    "isolated": "isolated (they do not reach the page; scripts in frames run when asked to)",
    "interactive": "interactive (they do not reach the page; scripts in frames run at once)",
    "trusted": "trusted (they can do what the front end lets them do)",
    "text": "text and images only",
}

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

LISTINGS = ("ls", "lf", "lk", "ll", "ldir", "lx")

ALIASES = {
    "cp": "shutil.copy(SOURCE, TARGET)",
    "mv": "shutil.move(SOURCE, TARGET)",
    "rm": "os.remove(PATH)",
    "mkdir": "os.mkdir(PATH)",
    "rmdir": "os.rmdir(PATH)",
}
"""IPython's aliases of programs, and what does the same."""


class Table:
    """Rows of text, shown as text or HTML; `to_dict` gives the data."""

    def __init__(
        self, title: str, rows: Sequence[tuple[str, ...]], data: dict[str, Any], *,
        head: bool = False,
    ) -> None:  # fmt: skip
        """Takes rows of equal length; with `head` the first one names the columns."""
        self._title, self._rows, self._data, self._head = title, rows, data, head

    def to_dict(self) -> dict[str, Any]:
        """What the table shows, as data."""
        return self._data

    def __repr__(self) -> str:
        widths = [max(map(len, column)) for column in zip(*self._rows, strict=True)]
        lines = [
            "  ".join(f"{text:<{n}}" for text, n in zip(row, widths, strict=True)).rstrip()
            for row in self._rows
        ]
        return "\n".join([self._title, "-" * len(self._title), *lines])

    def _repr_html_(self) -> str:
        style = 'style="text-align: left"'
        rows = []
        for k, row in enumerate(self._rows):
            tags = ["th" if c == 0 or (self._head and k == 0) else "td" for c in range(len(row))]
            cells = zip(tags, row, strict=True)
            rows.append("".join(f"<{t} {style}>{html.escape(text)}</{t}>" for t, text in cells))
        inside = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<table><caption>{html.escape(self._title)}</caption>{inside}</table>"


def mib(count: float) -> str:
    """Bytes, for people."""
    if count >= 1 << 30:
        return f"{count / (1 << 30):,.1f} GiB"
    if 0 < count < 1 << 20:
        return f"{count / (1 << 10):,.1f} KiB"
    return f"{count / (1 << 20):,.1f} MiB"


def _amount(limit: str, value: float | None) -> str:
    """What is used or allowed of a limit, for people."""
    if value is None:
        return "any" if limit.startswith("cell_") else "-"
    if limit.endswith("_bytes"):
        return mib(value)
    return f"{value:,.1f} s" if limit.endswith("_s") else f"{value:,}"


@magics_class
class WasiMagics(Magics):
    """%wasi."""

    shell: ZMQInteractiveShell
    facts: dict[str, Any] = {}  # noqa: RUF012 - set as a whole at boot

    @line_magic
    def wasi(self, line: str) -> Table:
        """Show what this sandbox is and what it grants.

        ``%wasi`` prints the runtime, the granted folders, the limits and the memory in use,
        ``%wasi frontend`` what was held back or changed of the outputs of this session, and why,
        ``%wasi limits`` what is used and allowed of each limit, and what raises it.
        The value can be used: ``w = %wasi`` and ``w.to_dict()``.
        """
        shown = {
            "": self._info, "info": self._info, "frontend": self._frontend, "limits": self._limits,
        }.get(line.strip())  # fmt: skip
        if shown is None:
            raise UsageError(
                f"%wasi has no subcommand {line.strip()!r}; try %wasi, %wasi frontend, "
                "%wasi limits or %wasi?"
            )
        return shown()

    def _frontend(self) -> Table:
        said = self.shell.door.ask("frontend_request", {}).content
        held = said.get("held", [])
        rows = [("cell", "what", "held back or changed, and why", "times")]
        rows += [(str(cell), kind, reason, str(count)) for cell, kind, reason, count in held]
        if len(rows) == 1:
            rows.append(("", "", "nothing", ""))
        title = f"Outputs: {FRONTENDS.get(said.get('mode', ''), said.get('mode'))}"
        if said.get("mimes"):
            title += f"; {', '.join(said['mimes'])} as they are"
        return Table(title, rows, said, head=True)

    def _limits(self) -> Table:
        said = self.shell.door.limits()
        rows = [("limit", "used", "allowed", "when it is reached", "raised by")]
        for row in said:
            name, effect = LIMITS[row["limit"]]
            used, allowed = (_amount(row["limit"], row[key]) for key in ("used", "allowed"))
            rows.append((name, used, allowed, effect, f"limits.{row['limit']}, {row['option']}"))
        return Table("Limits", rows, {row["limit"]: row for row in said}, head=True)

    def _info(self) -> Table:
        host = self.shell.door.ask("info_request", {}).content
        facts = self.facts
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


def _refusing(text: str) -> Any:
    def magic(line: str = "", cell: str | None = None) -> None:
        del line, cell
        raise UsageError(text)

    magic.__doc__ = f"Not in the sandbox: {text}."
    return magic


def install(shell: ZMQInteractiveShell) -> WasiMagics:
    """Registers %wasi, and refusals for magics that need a process, a screen or an editor."""
    magics = WasiMagics(shell=shell)
    shell.register_magics(magics)
    for name in PROCESS_MAGICS:
        for kind in ("line", "cell"):
            if name in shell.magics_manager.magics[kind]:
                refusal = _refusing(NO_PROCESSES.format(f"%{name}"))
                shell.register_magic_function(refusal, kind, name)
    for name, text in OTHERS.items():
        shell.register_magic_function(_refusing(text), "line", name)
    listing: Any = _list_folder
    printing: Any = _print_files
    for name in LISTINGS:
        shell.register_magic_function(listing, "line", name)
    shell.register_magic_function(printing, "line", "cat")
    for name, instead in ALIASES.items():
        text = NO_PROCESSES.format(f"%{name}") + f"; for this one, {instead}"
        shell.register_magic_function(_refusing(text), "line", name)
    showing: Any = pip.Pip(lambda: magics.facts).pip
    shell.register_magic_function(showing, "line", "pip")
    for name in ("less", "more"):
        shell.register_magic_function(_pager(shell), "line", name)
    return magics


def _list_folder(line: str) -> None:
    """List a folder: ``%ls [PATH]``. Folders end in a slash."""
    path = line.strip() or "."
    with os.scandir(path) as entries:
        names = sorted(e.name + "/" * e.is_dir() for e in entries)
    print("\n".join(names))


def _print_files(line: str) -> None:
    """Print files: ``%cat PATH ...``."""
    for path in line.split():
        with open(path, encoding="utf-8", errors="replace") as f:
            print(f.read(), end="")


def _pager(shell: ZMQInteractiveShell) -> Any:
    def less(line: str) -> None:
        """Show a file through the front end's pager."""
        if not line.strip():
            raise UsageError("name a file")
        with open(line.strip(), encoding="utf-8", errors="replace") as f:
            shell.page(f.read())

    return less
