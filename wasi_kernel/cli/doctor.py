"""`wasi-kernel doctor`: what works here, what to do about what does not, and a tidy cache."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from wasi_kernel import caches, upkeep
from wasi_kernel import doctor as checks
from wasi_kernel.cli.kernelspec import as_json
from wasi_kernel.errors import WasiKernelError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from wasi_kernel.upkeep import Entry

MARKS = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}


@click.command(short_help="Check this installation; clean its cache.")
@as_json
@click.option("--no-start", is_flag=True, help="Do not start a sandbox.")
@click.option(
    "--clean-caches",
    is_flag=True,
    help="Instead of checking: remove from the cache what no running kernel, no kernelspec and no "
    "kept session needs, and what is damaged. Says what, and asks.",
)
@click.option(
    "--all", "everything", is_flag=True,
    help="With --clean-caches: also what kernelspecs need; it is made anew when they start.",
)  # fmt: skip
@click.option("-y", "--yes", is_flag=True, help="With --clean-caches: do not ask.")
def doctor(
    *, as_json: bool, no_start: bool, clean_caches: bool, everything: bool, yes: bool
) -> int:
    """Check this installation: versions, runtime, cache, kernelspecs, the platform, a sandbox.

    Ends with status 1 if there is a problem. A runtime that was never compiled is not compiled for
    this; see prepare.
    """
    if clean_caches:
        return _clean(as_json=as_json, everything=everything, yes=yes)
    if everything or yes:
        raise click.UsageError("--all and --yes belong to --clean-caches")
    from wasi_kernel.sandbox import Sandbox

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


def _clean(*, as_json: bool, everything: bool, yes: bool) -> int:
    """Removes what is of no use; 1 if something of it could not be removed."""
    if as_json and not yes:
        raise click.UsageError("--json cannot ask: say --yes as well")
    path = caches.default_path()
    if not path.exists():
        return _done(path, upkeep.Cleaned(), [], as_json=as_json)
    cache = caches.Cache(path)
    for wrong in upkeep.misplaced(path):
        if not yes:
            click.confirm(f"{wrong} is no folder. Remove it?", abort=True)
        wrong.unlink()
        click.echo(f"Removed {wrong}, which was no folder", err=True)
    entries = upkeep.survey(cache)
    chosen = _chosen(entries, everything=everything)
    if not as_json:
        _describe(path, entries, chosen)
        if chosen and not yes:
            click.confirm(f"Remove {len(chosen)} of them, {_mib(chosen)}?", abort=True)

    told = False

    def waiting() -> None:
        nonlocal told
        if not told:
            click.echo("waiting for another process that prepares a start", err=True)
        told = True

    wanted = {entry.path for entry in chosen}

    def choose(now: list[Entry]) -> list[Entry]:  # what was agreed to, as far as it still holds
        return [e for e in _chosen(now, everything=everything) if e.path in wanted]

    done = upkeep.remove(cache, choose, waiting)
    return _done(path, done, entries, as_json=as_json)


def _chosen(entries: list[Entry], *, everything: bool) -> list[Entry]:
    if everything:
        return [entry for entry in entries if upkeep.RUNNING not in entry.needed_by]
    return upkeep.useless(entries)


def _describe(path: Path, entries: list[Entry], chosen: list[Entry]) -> None:
    """Says what is there, and what becomes of it."""
    click.echo(f"{path}: {_mib(entries)}")
    going = {entry.path for entry in chosen}
    for entry in entries:
        name = f"{entry.kind}/{entry.path.name}"
        why = "; needed by " + ", ".join(entry.needed_by) if entry.needed_by else ""
        why = "; damaged" if entry.damaged else why or "; not needed"
        mark = "remove" if entry.path in going else "keep  "
        click.echo(f"    {mark}  {name}  {_mib([entry])}{why}")
    if not chosen:
        click.echo("Nothing to remove.")


def _done(path: Path, done: upkeep.Cleaned, entries: list[Entry], *, as_json: bool) -> int:
    refused = [(e, why) for e, why in done.spared if why != upkeep.RUNNING]
    if as_json:
        gone = {entry.path for entry in done.removed}
        said = {
            "cache": str(path),
            "removed": [_row(e) for e in done.removed],
            "removed_bytes": sum(e.bytes for e in done.removed),
            "spared": [{**_row(e), "why": why} for e, why in done.spared],
            "kept": [_row(e) for e in entries if e.path not in gone],
        }
        click.echo(json.dumps(said, indent=1))
        return int(bool(refused))
    for entry, why in done.spared:
        reason = f"{why} uses it" if why == upkeep.RUNNING else why
        click.echo(f"Left {entry.kind}/{entry.path.name}: {reason}")
    click.echo(f"Removed {len(done.removed)}, {_mib(done.removed)}.")
    return int(bool(refused))


def _row(entry: Entry) -> dict[str, object]:
    return {
        "kind": entry.kind, "name": entry.path.name, "bytes": entry.bytes,
        "used_s": round(entry.used_s), "needed_by": list(entry.needed_by),
        "damaged": entry.damaged,
    }  # fmt: skip


def _mib(entries: Iterable[Entry]) -> str:
    return f"{sum(entry.bytes for entry in entries) / (1 << 20):.1f} MiB"
