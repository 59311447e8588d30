"""`wasi-kernel install`, `list`, `show`, `remove`: kernelspecs and what their kernels may reach."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from wasi_kernel import caches, grants, kernelspecs, policyfile, sessions
from wasi_kernel.cli import offers, policies, preparing
from wasi_kernel.errors import WasiKernelError
from wasi_kernel.policy import Policy

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@click.command(short_help="Install a kernelspec that may reach what you say.")
@click.option("--name", required=True, metavar="NAME", help="By which Jupyter is to know it.")
@click.option("--display-name", metavar="TEXT", help="As the launcher shows it.")
@click.option(
    "--like",
    metavar="NAME",
    help="Start from the policy of the kernelspec NAME; the other options change it.",
)
@policies.policy_options
@click.option(
    "--user", "place", flag_value="user", default="user", help="For this user (the default)."
)
@click.option("--sys-prefix", "place", flag_value="sys-prefix", help="For this Python environment.")
@click.option("--prefix", metavar="PATH", help="For the Python environment at PATH.")
@click.option("--replace", is_flag=True, help="Take the place of the one that has this name.")
def install(name: str, display_name: str | None, like: str | None, **given: Any) -> None:
    """Install a kernelspec whose kernels may reach what you say, and nothing else.

    Writes NAME/kernel.json and NAME/policy.toml, which can be read and edited.
    """
    if like is not None:
        other = kernelspecs.find(like)
        if given["start"]:
            raise click.UsageError("--like and --policy both say where to start from")
        given["start"] = other.policy
        if like == name and display_name is None:
            display_name = other.display_name
    data = policies.data(given)
    policy = policies.check(data, work=Path.cwd())
    place = _place(given["place"], given["prefix"])
    kernelspecs.check_name(name, place / name, replace=given["replace"])
    if policy.packages:
        preparing.prepare(policy, quiet=False, renew=True)
    title = display_name or f"Python (WASI) {name}"
    try:
        folder = kernelspecs.install(
            name, title, place=place, policy=data, replace=given["replace"]
        )
    except OSError as e:
        why = f"the kernelspec cannot be written to {place / name}: {e.strerror}"
        raise click.ClickException(why) from None
    click.echo(f"Installed {folder}")
    for line in _lines(data):
        click.echo(f"    {line}")


def _place(chosen: str, prefix: str | None) -> Path:
    if prefix:
        return kernelspecs.prefix_place(prefix)
    return (
        kernelspecs.prefix_place(sys.prefix) if chosen == "sys-prefix" else kernelspecs.user_place()
    )


def _lines(data: dict[str, Any]) -> list[str]:
    """What a policy file grants, in a line each."""
    said = dict(data)
    grants = _taken(said, "grants", list)
    found = [f"grants {_line(grant)}" for grant in grants]
    if data.get("work", True) and not any(":/work" in line for line in found):
        found.insert(0, "grants the notebook's folder as /work, read-only")
    env, passed = _taken(said, "env", dict), _taken(said, "pass_env", list)
    if env:
        found.append(f"sets {', '.join(env)}")
    if passed:
        found.append(f"passes {', '.join(map(str, passed))}")
    said.pop("work", None)
    found += [f"{key} = {said[key]}" for key in sorted(said)]
    return [sessions.plain(line) for line in found]


def _taken(said: dict[str, Any], key: str, kind: type) -> Any:
    """Takes a key's value out if it is of its kind; else it is left, and an empty one is given."""
    return said.pop(key) if isinstance(said.get(key), kind) else kind()


def _line(grant: Any) -> str:
    if not isinstance(grant, dict):
        return str(grant)
    mode = "rw" if grant.get("writable") else "ro"
    forced = " (forced)" if grant.get("forced") else ""
    return f"{grant.get('host_path')}:{grant.get('guest_path')}:{mode}{forced}"


@click.command("list")
@as_json
def list_kernelspecs(*, as_json: bool) -> None:
    """List the kernelspecs of this kernel, with what each grants."""
    rows: list[dict[str, Any]] = []
    for spec in kernelspecs.installed():
        data, problem = _read(spec)
        rows.append({
            "name": spec.name, "display_name": spec.display_name, "folder": str(spec.folder),
            "options": list(spec.options), "policy": data, "problem": problem,
        })  # fmt: skip
    if as_json:
        click.echo(json.dumps(rows, indent=1, default=str))  # dates, which TOML has
        return
    if not rows:
        click.echo("No kernelspecs of this kernel. Try: wasi-kernel install --name NAME")
    for row in rows:
        click.echo(sessions.plain(f"{row['name']}  {row['display_name']}"))
        click.echo(sessions.plain(f"    {row['folder']}"))
        for line in _lines(row["policy"]):
            click.echo(f"    {line}")
        if row["options"]:
            click.echo(sessions.plain(f"    options {' '.join(row['options'])}"))
        if row["problem"]:
            click.echo(f"    NOT USABLE: {row['problem']}")


def _read(spec: kernelspecs.Kernelspec) -> tuple[dict[str, Any], str]:
    """(what its policy file says, what is wrong with it)."""
    if spec.policy is None:
        return {}, ""
    try:
        data = policyfile.read(spec.policy)
    except WasiKernelError as e:
        return {}, str(e)
    try:
        policies.check(data, work=Path.cwd())
    except WasiKernelError as e:
        return data, str(e)
    return data, ""


@click.command(short_help="Show what a kernelspec's kernels may reach.")
@click.argument("name", shell_complete=offers.kernelspec_names)
@as_json
def show(name: str, *, as_json: bool) -> None:
    """Show what the kernels of the kernelspec NAME may reach, for a notebook in this folder."""
    spec = kernelspecs.find(name)
    policy = Policy() if spec.policy is None else Policy.load(spec.policy)
    said = policy.to_dict()
    if as_json:
        about = {"name": spec.name, "folder": str(spec.folder), "options": list(spec.options)}
        click.echo(json.dumps({**about, "policy": said}, indent=1))
        return
    click.echo(f"# {spec.folder}")
    if spec.options:
        click.echo(f"# options: {' '.join(spec.options)}")
    if policy.work and policy.work_grant is None:
        reason = grants.refusal(Path.cwd(), caches.default_path())
        what = f"not granted, since {reason}" if reason else "read-only"
        click.echo(f"# {os.getcwd()} as /work, {what}")
    click.echo(policyfile.toml(_without_none(said)), nl=False)


def _without_none(data: Any) -> Any:
    """The same without what is not set, which TOML cannot say."""
    if not isinstance(data, dict):
        return data
    return {key: _without_none(value) for key, value in data.items() if value is not None}


@click.command()
@click.argument("name", shell_complete=offers.kernelspec_names)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def remove(name: str, *, yes: bool) -> None:
    """Remove the kernelspec NAME and its policy."""
    spec = kernelspecs.find(name)
    if not yes:
        click.confirm(f"Remove {spec.folder}?", abort=True)
    kernelspecs.remove(spec)
    click.echo(f"Removed {spec.folder}")
