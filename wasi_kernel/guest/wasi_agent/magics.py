"""Magics of IPython that cannot work here as they do elsewhere; they say so in one line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from wasi_agent import pip
from wasi_agent.shell import NO_PROCESSES

if TYPE_CHECKING:
    from collections.abc import Callable

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
    "store": (
        "nothing of a session is kept for others; %save_session PATH keeps all of it, and "
        "wasi-kernel session resume PATH goes on with it"
    ),
    "killbgscripts": "there are no processes in the sandbox, so none to kill",
}


LISTINGS = ("ls", "lf", "lk", "ll", "ldir", "lx")

ALIASES = {
    "cp": "shutil.copy(SOURCE, TARGET)",
    "mv": "shutil.move(SOURCE, TARGET)",
    "rm": "os.remove(PATH)",
    "mkdir": "os.mkdir(PATH)",
    "rmdir": "os.rmdir(PATH)",
}
"""IPython's aliases of programs, and what does the same."""


def _refusing(text: str) -> Any:
    def magic(line: str = "", cell: str | None = None) -> None:
        del line, cell
        raise UsageError(text)

    magic.__doc__ = f"Not in the sandbox: {text}."
    return magic


def install(shell: ZMQInteractiveShell, facts: Callable[[], dict[str, Any]]) -> None:
    """Registers refusals for magics that need a process, a screen or an editor."""
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
    showing: Any = pip.Pip(facts).pip
    shell.register_magic_function(showing, "line", "pip")
    for name in ("less", "more"):
        shell.register_magic_function(_pager(shell), "line", name)


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
