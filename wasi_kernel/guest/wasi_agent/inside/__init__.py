"""%wasi: what this sandbox is, and what happens inside; a module for each subcommand.

A subcommand's module has `run(magics, line, cell)`, whose docstring is its help; `line` is what
follows its name. It gives an object to show, with `to_dict` for programs, or None.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import shlex
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from IPython.core.error import UsageError
from IPython.core.magic import (
    Magics,
    cell_magic,
    line_cell_magic,
    magics_class,
    no_var_expand,
)

from wasi_agent.tables import Table

if TYPE_CHECKING:
    from wasi_agent.shell import ZMQInteractiveShell


class Subcommand(NamedTuple):
    """Where a subcommand is; and does it take a cell (`%%wasi NAME`)?"""

    module: str
    summary: str
    cell: bool = False


SUBCOMMANDS = {
    "info": Subcommand("info", "runtime, grants, limits, memory; also without a name"),
    "grants": Subcommand(
        "grants", "the granted folders, what changed there, and their policy lines"
    ),
    "why": Subcommand("why", "explain the last error, or a path: what of the policy is behind it"),
    "limits": Subcommand("limits", "what is used and allowed of each limit, and what raises it"),
    "profile": Subcommand("profile", "where a cell's time goes, seen from outside", cell=True),
    "trace": Subcommand("trace", "each WASI call of a cell, as strace shows them", cell=True),
    "frontend": Subcommand("frontend", "what was held back of this session's outputs, and why"),
    "memory": Subcommand("memory", "the map of linear memory, what was written, how it grew"),
    "dump": Subcommand("dump", "the bytes of an object, or at an address, and what they mean"),
    "module": Subcommand("module", "what python.wasm is made of: sections, imports, functions"),
    "wat": Subcommand("functions", "the WebAssembly text of one of python.wasm's functions"),
}
"""Name -> module of this package, and what it shows in a line."""


class Arguments(argparse.ArgumentParser):
    """Parses what follows a subcommand's name; what is wrong is a UsageError."""

    def __init__(self, name: str) -> None:
        """Takes the subcommand's name, for messages."""
        super().__init__(prog=f"%wasi {name}", add_help=False)
        self.color = False  # 3.14 and later: usage is part of an error's text here

    def error(self, message: str) -> NoReturn:
        """Says what is wrong, and what would be right."""
        raise UsageError(f"{self.prog}: {message}; {self.format_usage().strip()}")

    def of(self, line: str) -> argparse.Namespace:
        """The options in `line`, which is split as a shell does."""
        try:
            words = shlex.split(line)
        except ValueError as e:
            self.error(str(e))
        return self.parse_args(words)


@magics_class
class WasiMagics(Magics):
    """%wasi and %%wasi.

    Attributes:
        facts: What the host has said of the session at its boot.
        last_profile: Of `%wasi profile`, None before the first.
        last_trace: Of `%wasi trace`, as well.
    """

    shell: ZMQInteractiveShell
    facts: dict[str, Any] = {}  # noqa: RUF012 - set as a whole at boot
    last_profile: Any = None
    last_trace: Any = None

    @no_var_expand  # code follows some of its names: {x} is a set there
    @line_cell_magic
    def wasi(self, line: str, cell: str | None = None) -> Any:
        """Show what this sandbox is, what it grants, and what happens inside.

        ``%wasi`` alone shows the runtime, the granted folders, the limits and the memory in use.
        ``%wasi help`` lists the subcommands, ``%wasi help NAME`` explains one.
        The value can be used: ``w = %wasi`` and ``w.to_dict()``.
        """
        __tracebackhide__ = True  # an error's traceback shows the cell's own lines
        name, _, rest = line.strip().partition(" ")
        if name == "help":
            return self._help(rest.strip())
        subcommand = SUBCOMMANDS.get(name or "info")
        if subcommand is None:
            raise UsageError(
                f"%wasi has no subcommand {name!r}; there are {', '.join(SUBCOMMANDS)}; "
                "%wasi help NAME explains one"
            )
        if cell is not None and not subcommand.cell:
            raise UsageError(f"%wasi {name or 'info'} takes no cell: write it with one %")
        return self._module(subcommand).run(self, rest.strip(), cell)

    @cell_magic
    def wat(self, line: str, cell: str) -> Any:
        """Compile WebAssembly text: `%%wat [NAME] [--wasi]`; `%wasi help %%wat` tells more."""
        return importlib.import_module(f"{__name__}.wat").run(self.shell, line, cell)

    def _help(self, name: str) -> Table | None:
        if not name:
            rows = [(f"%wasi {known}", it.summary) for known, it in SUBCOMMANDS.items()]
            rows = [(f"%{row[0]}", row[1]) if SUBCOMMANDS[k].cell else row
                    for k, row in zip(SUBCOMMANDS, rows, strict=True)]  # fmt: skip
            data = {known: it.summary for known, it in SUBCOMMANDS.items()}
            return Table("%wasi: what the sandbox is, and what happens inside", rows, data)
        if name == "%%wat":
            module = importlib.import_module(f"{__name__}.wat")
            print(f"%%wat: {inspect.getdoc(module.run)}")
            return None
        subcommand = SUBCOMMANDS.get(name)
        if subcommand is None:
            raise UsageError(
                f"%wasi has no subcommand {name!r}; there are {', '.join(SUBCOMMANDS)}"
            )
        print(f"%wasi {name}: {inspect.getdoc(self._module(subcommand).run)}")
        return None

    def _module(self, subcommand: Subcommand) -> Any:
        return importlib.import_module(f"{__name__}.{subcommand.module}")


def install(shell: ZMQInteractiveShell) -> WasiMagics:
    """Registers %wasi, with completion of its subcommands."""
    magics = WasiMagics(shell=shell)
    shell.register_magics(magics)

    def complete(_shell: Any, event: Any) -> Any:
        words = event.line[: len(event.line)].split()
        first = len(words) < 2 or (len(words) == 2 and not event.line.endswith(" "))
        if first or words[1:2] == ["help"]:
            return [*SUBCOMMANDS, *["help"] * first]
        if words[1] == "wat":
            return importlib.import_module(f"{__name__}.functions").complete(shell, event)
        return []

    for name in ("%wasi", "%%wasi"):
        shell.set_hook("complete_command", complete, str_key=name)
    return magics
