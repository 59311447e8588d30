"""`wasi-kernel session`: keep sessions, look at them, go on with them."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from wasi_kernel import __version__, caches, kernelspecs, policyfile, sessionfile, sessions
from wasi_kernel.cli import offers, policies, preparing
from wasi_kernel.cli.kernelspec import as_json


@click.group()
def session() -> None:
    """Keep sessions, look at them, and go on with them."""


@session.command("list", short_help="List the sessions of this user.")
@as_json
def list_sessions(*, as_json: bool) -> None:
    """List the sessions of this user: kernels, forks, sandboxes; running or kept."""
    found = sessions.listed(caches.default_path())
    if as_json:
        click.echo(json.dumps([asdict(s) for s in found], indent=1))
        return
    if not found:
        click.echo("No sessions.")
    for s in found:
        state = f"running, process {s.pid}" if s.running else "kept"
        click.echo(f"{s.id}  {state}  {s.name}".rstrip())
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(s.started_s))
        click.echo(f"    since {since} in {s.folder or '(no folder)'}")
        click.echo(
            f"    cell [{s.cell}] {s.line[:60]}; {s.checkpoints} checkpoints, "
            f"{s.bytes / (1 << 20):.0f} MiB"
        )
        if s.connection_file and s.running:
            click.echo(f"    jupyter console --existing {Path(s.connection_file).name}")


@session.command(short_help="Save the state of a session to a file.")
@click.argument("ident", metavar="SESSION", shell_complete=offers.session_ids)
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
def save(ident: str, path: Path) -> None:
    """Save the state of a running or kept SESSION (see `list`) to the file PATH.

    The file holds all variables. What the session has in its own /tmp and home is not in it.
    """
    folder = sessions.folder_of(caches.default_path(), ident)
    manifest = sessionfile.save(folder, path.absolute(), __version__)
    size = path.stat().st_size / (1 << 20)
    click.echo(f"Saved {path}: the state after cell [{manifest.notes['cell']}], {size:.1f} MiB.")


@session.command("show", short_help="Show what is in a session or a session file.")
@click.argument("what", metavar="FILE|SESSION", shell_complete=offers.files_and_session_ids)
@as_json
def show_session(what: str, *, as_json: bool) -> None:
    """Show what a session FILE was saved from, or which states a SESSION has kept."""
    path = Path(what)
    if not os.path.isfile(path):
        found = sessions.states(sessions.folder_of(caches.default_path(), what))
        if as_json:
            click.echo(json.dumps(found, indent=1))
            return
        for row in found:
            cell = f"[{row['cell']}]" if row["kind"] in ("cell", "aside") else row["kind"]
            marks = " ".join([*row["names"], *([row["where"]] if row["where"] != "past" else [])])
            line = sessions.plain(row["line"][:60])
            text = f"{cell:8} {line:60} {row['pages']:>7} pages  {sessions.plain(marks)}"
            click.echo(text.rstrip())
        return
    said = sessions.shown(path)
    if as_json:
        click.echo(json.dumps(said, indent=1))
        return
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(said["saved_s"]))
    click.echo(f"saved       {when}, by wasi-kernel {sessions.plain(said['saved_by'])}")
    click.echo(f"state       after cell [{said['cell']}]")
    click.echo(
        f"memory      {said['memory_bytes'] >> 20} MiB, {said['bytes'] >> 20} MiB in the file"
    )
    for key, value in said["made_of"].items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else value
        click.echo(f"{sessions.plain(key):11} {sessions.plain(str(text))}")
    if said["installed"]:
        names = ", ".join(f"{name} {version}" for name, version in said["installed"])
        click.echo(f"installed   {names} (%pip)")
    for number, line in said["cells"]:
        click.echo(f"  [{number}] {sessions.plain(line[:80])}")


@session.command(short_help="Go on from a session file.")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--kernelspec",
    metavar="NAME",
    help="Do not start a kernel, but install a kernelspec of that name, whose kernels begin with "
    "this state.",
)
@policies.policy_options
def resume(path: Path, kernelspec: str | None, **given: Any) -> None:
    """Start a kernel that goes on from the session file PATH, with all its variables.

    Prints how to attach a console; runs until it is shut down from there, or interrupted. Folders
    must be granted to the same guest paths as in the session that was saved.
    """
    sessionfile.read_manifest(path)
    data = policies.data(given)
    policy = policies.check(data, work=Path.cwd())
    if not policy.checkpoints.enabled:
        raise click.UsageError("a session is resumed with checkpoints alone")
    preparing.get_packages(policy, quiet=False)
    options = ["--resume", str(path.absolute())]
    if kernelspec is not None:
        title = f"Python (WASI) from {path.name}"
        folder = kernelspecs.install(kernelspec, title, options, policy=data or None)
        click.echo(f"Installed {folder}: choose {title!r} in Jupyter.")
        return
    from jupyter_core.paths import jupyter_runtime_dir

    runtime = Path(jupyter_runtime_dir())
    runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
    connection = runtime / f"kernel-wasi-{os.getpid()}.json"
    if data:
        options += ["--policy", str(_beside(connection, data))]
    click.echo(f"jupyter console --existing {connection.name}")
    sys.stdout.flush()
    argv = [
        sys.executable, "-P", "-m", "wasi_kernel", "kernel", "-f", str(connection),
        "--on-terminal", *options,
    ]  # fmt: skip
    os.execv(sys.executable, argv)  # noqa: S606 - ourselves


def _beside(connection: Path, data: dict[str, Any]) -> Path:
    """A policy file for the kernel with that connection file; those of ended ones are removed."""
    for other in connection.parent.glob("kernel-wasi-*.toml"):
        if not other.with_suffix(".json").exists():
            other.unlink(missing_ok=True)
    path = connection.with_suffix(".toml")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as f:
        f.write(policyfile.toml(data))
    return path
