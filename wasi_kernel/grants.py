"""Grants: which host folders must never be given to a guest.

Decided by identity (device and inode), never by name, so that a symlink or a bind mount does not
help. A folder is refused if it is, contains, or lies in a protected place. A place that is not
there yet is protected where it would be made.

Never imports wasmtime or anything of Jupyter.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasi_kernel import policyfile, runtimestore, shared
from wasi_kernel.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from wasi_kernel.policy import Grant, Policy

SYSTEM = ("/proc", "/sys", "/dev", "/run")
KEYS = (".ssh", ".aws", ".gnupg", ".kube", ".docker", ".config", ".jupyter", ".local/share/jupyter")
"""Places in a home that hold keys and tokens; Jupyter's own hold the way to its server."""

_KEYS = "keys"


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino


def _ancestry(path: Path) -> set[tuple[int, int]]:
    """Identities of `path` and everything above it, as far as it exists."""
    real = Path(os.path.realpath(path))
    return {i for p in (real, *real.parents) if (i := _identity(p)) is not None}


def check(policy: Policy, cache: Path) -> None:
    """Checks that every folder which `policy` grants may be granted.

    Args:
        policy: The policy.
        cache: The cache folder of this project.

    Raises:
        PolicyError: Some of them must not; the keys are those of the host paths.
    """
    PolicyError.raise_all(_refusals(policy, range(len(policy.grants)), cache))


def identities(policy: Policy, work: str | None) -> tuple[tuple[str, tuple[int, int]], ...]:
    """(host path, (device, inode)) of each folder that a session with `policy` in `work` has."""
    paths = [grant.host_path for grant in policy.grants]
    paths += [work] if work is not None and policy.work_grant is None else []
    return tuple((path, i) for path in paths if (i := _identity(Path(path))) is not None)


def check_file(policy: Policy, data: dict[str, Any], cache: Path) -> None:
    """The same for a policy file's `data`, as far as it is the same for every notebook's folder.

    Raises:
        PolicyError: Some of them must not; the keys are those of the host paths.
    """
    tables = [policyfile.table(g) if isinstance(g, str) else g for g in data.get("grants", ())]
    fixed = [
        k for k, table in enumerate(tables)
        if table is not None and policyfile.is_absolute(str(table.get("host_path")))
    ]  # fmt: skip
    PolicyError.raise_all(_refusals(policy, fixed, cache))


def _refusals(policy: Policy, numbers: Iterable[int], cache: Path) -> Iterator[PolicyError]:
    for k in numbers:
        grant = policy.grants[k]
        reason = refusal(Path(grant.host_path), cache, forced=grant.forced)
        reason = reason or _led_astray(grant, policy)
        if reason is not None:
            allowed = f"a folder that may be granted; this one is refused, since {reason}"
            yield PolicyError(f"grants[{k}].host_path", grant.host_path, allowed)


def _led_astray(grant: Grant, policy: Policy) -> str | None:
    """Why `grant` must not be given beside the others that are writable.

    What lies in a writable folder is the guest's: it may have put a link there, to anywhere, for
    the next session that follows the path of another grant through it.
    """
    way = [_ancestry(Path(step)) for step in _way(grant.host_path)]
    for other in policy.grants:
        own = _identity(Path(other.host_path)) if other.writable and other is not grant else None
        if own is not None and any(own in above for above in way) and own not in way[-1]:
            return f"a link leads out of {other.host_path} there, which is granted writable"
    return None


def _way(path: str) -> list[str]:
    """The folders that a path leads through, links resolved one by one; the last is its end."""
    left, links = path.split("/")[::-1], 0
    here, found = "/", ["/"]
    while left:
        name = left.pop()
        if name in ("", "."):
            continue
        there = os.path.normpath(os.path.join(here, name))  # `here` has no links in it
        try:
            target = os.readlink(there)
        except OSError:
            here = there
            found.append(here)
            continue
        links += 1
        if links > LINKS:
            break
        if target.startswith("/"):
            here = "/"
        left += target.split("/")[::-1]
    return found


LINKS = 40
"""So many links one after the other are followed by Linux (path_resolution(7))."""


def refusal(folder: Path, cache: Path, *, forced: bool = False) -> str | None:
    """Why `folder` must not be granted, in a few words; None if it may be.

    Args:
        folder: The host folder, which need not exist.
        cache: The cache folder of this project.
        forced: May it be, or lie in, a place that holds keys? (Never one that holds such a place.)
    """
    try:
        str(folder).encode()
    except UnicodeEncodeError:  # wasmtime takes no other paths
        return "its path is not UTF-8 text"
    own = _identity(folder)
    if own is None:
        return "it does not exist"
    if not folder.is_dir():
        return "it is no folder"
    if own == _identity(Path("/")):
        return "it is the root of the file system"
    above = _ancestry(folder)
    home = Path(os.path.expanduser("~"))
    places = _protected(cache, home)
    for path, what in places:
        identity = _identity(path)
        if identity in above and forced and what.startswith(_KEYS):
            continue
        if identity in above:
            return f"it is {what}" if identity == own else f"it lies in {what}"
        if identity is not None and own in _ancestry(path):
            return f"it contains {what}"
    if home.is_absolute() and own in _ancestry(home):
        return "it is the home folder" if own == _identity(home) else "it contains the home folder"
    # What is left are places that are not there yet.
    return next((f"it is to contain {what}" for p, what in places if own in _ancestry(p)), None)


def _protected(cache: Path, home: Path) -> list[tuple[Path, str]]:
    """(place, what it is) of all that no guest is given, there or not."""
    found = [(Path(p), f"a system folder ({p})") for p in SYSTEM]
    found.append((cache, "this project's cache"))
    found.append((runtimestore.default_path(), "the folder of added runtimes"))
    if (common := shared.default_path()) is not None:
        found.append((common, "the folder of compiled runtimes that all users share"))
    runtime = os.environ.get("JUPYTER_RUNTIME_DIR")
    if runtime:
        found.append((Path(runtime), "Jupyter's runtime folder"))
    if home.is_absolute():  # else this user has none
        found += [(home / name, f"{_KEYS} (~/{name})") for name in KEYS]
    return found
