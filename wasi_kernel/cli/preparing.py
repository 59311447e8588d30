"""What takes long and is done once: packages, the compiled runtime, a base image.

Imports what it needs when it is called: a shell that completes a command must not wait for it.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import click

from wasi_kernel import caches, chosen
from wasi_kernel.errors import AgentMissingError, InstallationError, PackageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasi_kernel.policy import Policy
    from wasi_kernel.resolution import Resolution
    from wasi_kernel.starts import Status

T = TypeVar("T")


class Display:
    """What is being done: a bar on a terminal, a line for each step elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._what = ""
        self._terminal = sys.stderr.isatty()

    def show(self, status: Status) -> None:
        """Shows how far it is."""
        if self._quiet:
            return
        if self._terminal and status.fraction is not None:
            done = int(30 * status.fraction)
            left = "longer than estimated"
            if status.left_s is not None:
                left = f"about {max(1, round(status.left_s))} s left"
            bar = "#" * done + "-" * (30 - done)
            click.echo(f"\r\x1b[K{status.what}  [{bar}] {left}", nl=False, err=True)
        elif status.what != self._what:
            left = "" if status.left_s is None else f" (about {round(status.left_s)} s)"
            click.echo(f"{status.what}{left}", err=True)
        self._what = status.what

    def end(self) -> None:
        """Ends a line that was begun."""
        if self._terminal and self._what and not self._quiet:
            click.echo(err=True)


def prepare(policy: Policy, *, quiet: bool, renew: bool = False) -> None:
    """Makes all that kernels with this policy need; nothing if it is done.

    Args:
        policy: Its host folders do not matter, and need not be there.
        quiet: Print nothing.
        renew: Ask the index again, for newer packages.

    Raises:
        PackageError: Its packages cannot be had.
        InstallationError: The runtime cannot be used.
    """
    from wasi_kernel import upkeep

    get_packages(policy, quiet=quiet, renew=renew)
    _prepare(policy, quiet=quiet)
    upkeep.sweep(caches.default_path())


def _prepare(policy: Policy, *, quiet: bool) -> str:
    """The same without packages; the guest's Python's version."""
    import asyncio

    with tempfile.TemporaryDirectory() as empty:
        grants = tuple(replace(grant, host_path=empty) for grant in policy.grants)
        policy = replace(policy, grants=grants)
        return with_agent(lambda: asyncio.run(_ready(policy, quiet=quiet)), quiet=quiet)


def with_agent(start: Callable[[], T], *, quiet: bool) -> T:
    """What `start` gives, which starts a guest.

    If the IPython that is installed here does not suit that guest's Python, one that does is
    fetched, and the guest started again.
    """
    try:
        return start()
    except AgentMissingError as e:
        if not quiet:
            click.echo(f"{'; '.join(e.reasons)}: getting what suits {e.python}", err=True)
        try:
            from wasi_kernel import packages

            found = packages.fetch_agent(caches.Cache(caches.default_path()), e.python)
        except PackageError as other:
            raise InstallationError(f"{e} That failed: {other}") from other
        _say(found, quiet=quiet)
        return start()


def get_packages(policy: Policy, *, quiet: bool, renew: bool = False) -> None:
    """The packages alone; see `prepare`."""
    cache = caches.default_path()
    if not policy.packages or (not renew and chosen.read(cache, policy) is not None):
        return

    from wasi_kernel import packages

    bare = replace(
        policy, packages=(), grants=(), checkpoints=replace(policy.checkpoints, enabled=False)
    )
    version = _prepare(bare, quiet=quiet)
    if not quiet:
        click.echo(f"getting the packages {', '.join(policy.packages)}", err=True)
    python = ".".join(version.split(".")[:2])
    found = packages.choose(caches.Cache(cache), policy, python)
    _say(found, quiet=quiet)


def _say(found: Resolution, *, quiet: bool) -> None:
    if quiet:
        return
    for each in found.distributions:
        click.echo(f"    {each.name} {each.version}", err=True)
    for note in found.notes:
        click.echo(f"    {note}", err=True)


async def _ready(policy: Policy, *, quiet: bool) -> str:
    """Starts a guest once; its Python's version."""
    from wasi_kernel import launch
    from wasi_kernel.session import Session

    display = Display(quiet=quiet)
    guest = Session(launch.settings(policy, None))
    guest.on_status = display.show
    try:
        await guest.ready()
        return str(guest.facts.get("version", ""))
    finally:
        display.end()
        await guest.close()
