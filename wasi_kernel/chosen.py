"""Chosen packages: the folder that was made for a policy's requirements, if it was made.

A kernel's start asks no index: `wasi-kernel install` and `prepare` do (resolution.py, packages.py),
and write down here what they made. Pure bookkeeping; never imports uv, wasmtime or Jupyter.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from typing import TYPE_CHECKING, Any

from wasi_kernel import plainfiles, runtimes
from wasi_kernel.errors import PackagesMissingError

if TYPE_CHECKING:
    from pathlib import Path

    from wasi_kernel.policy import Policy

FOLDER = "packages"
"""The cache's folder that has the sets, and notes of what they were made for."""

_SET = re.compile(r"[0-9a-f]{32}")
"""Name of a set (Resolution.key): a note that names another folder grants nothing."""


def note_path(cache: Path, policy: Policy) -> Path:
    """Where it is noted which set fulfils `policy`'s requirements."""
    facts = [sorted(policy.packages), runtimes.named(policy.runtime), sys.prefix]
    name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
    return cache / FOLDER / f"{name}.json"


def is_set(name: str) -> bool:
    """Is this the name of a set's folder?"""
    return _SET.fullmatch(name) is not None


def read(cache: Path, policy: Policy) -> dict[str, Any] | None:
    """The resolution that was noted (see Resolution.to_dict), with the `folder` of its set."""
    try:
        said = json.loads(plainfiles.read(note_path(cache, policy)))
        path = cache / FOLDER / said["folder"]
        there = _SET.fullmatch(said["folder"]) and path.is_dir() and not path.is_symlink()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return said if there else None


def folder(cache: Path, policy: Policy) -> Path | None:
    """The folder with `policy`'s packages; None if it wants none.

    Raises:
        PackagesMissingError: They were not installed yet.
    """
    if not policy.packages:
        return None
    said = read(cache, policy)
    if said is None:
        raise PackagesMissingError(policy.packages)
    return cache / FOLDER / str(said["folder"])
