"""`wasi-kernel doctor`: what works here, and what to do about what does not."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from wasi_kernel import doctor as checks
from wasi_kernel.cli.kernelspec import as_json
from wasi_kernel.errors import WasiKernelError
from wasi_kernel.sandbox import Sandbox

MARKS = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}


@click.command()
@as_json
@click.option("--no-start", is_flag=True, help="Do not start a sandbox.")
def doctor(*, as_json: bool, no_start: bool) -> int:
    """Check this installation: versions, runtime, cache, kernelspecs, the platform, a sandbox.

    Ends with status 1 if there is a problem. A runtime that was never compiled is not compiled for
    this; see prepare.
    """
    found = checks.examine()
    prepared = any(f.what == "prepared" and f.state == "ok" for f in found)
    if prepared and not no_start:
        try:
            with Sandbox() as box:
                found += checks.started(box)
        except WasiKernelError as e:
            found.append(checks.Finding("guest", "problem", str(e), "run: wasi-kernel prepare"))
    if as_json:
        click.echo(json.dumps([asdict(f) for f in found], indent=1))
    else:
        for f in found:
            click.echo(f"{MARKS[f.state]}  {f.what}: {f.detail}")
            if f.advice:
                click.echo(f"         -> {f.advice}")
    return int(any(f.state == "problem" for f in found))
