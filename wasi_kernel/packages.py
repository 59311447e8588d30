"""Packages: the folder that has a resolution's distributions, for a guest to import from.

A set of packages is a folder in the cache, named by what is in it, and shared by all policies with
the same set. It is whole or not there.

Remote wheels are fetched and unpacked by uv, since only uv knows the user's indexes, proxies and
credentials, and it has no command that only downloads. What it made of one wheel is then copied
from there file by file, as suspiciously as from a zip (wheels.py). Wheels that are files on this
machine are unpacked without it.

Never imports wasmtime or anything of Jupyter; nothing of a package runs on the host.
"""

from __future__ import annotations

import json
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from wasi_kernel import environments, installed, resolver, runtimes, wheels
from wasi_kernel.chosen import FOLDER, note_path
from wasi_kernel.errors import DownloadError, HashMismatchError, PackageError
from wasi_kernel.resolution import WORK, builtins, resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasi_kernel.caches import Cache
    from wasi_kernel.policy import Policy
    from wasi_kernel.resolution import Distribution, Resolution

FETCHES = 4
"""How many wheels are fetched at a time."""

AGENT = ("ipython>=9", "matplotlib-inline", "comm>=0.2", "ipywidgets>=8.1", "tqdm")
"""What the agent is written for: environments.ROOTS, at any version of theirs that it works with.
IPython 9.0 is the first that supports Python 3.11 and no older one."""

HOST_ONLY_VERSION = "999"
"""Of what a guest does not need, where it is not even installed here."""


def install(
    cache: Cache, resolution: Resolution, compile_all: Callable[[Path], None],
    most_bytes: int | None = None,
) -> Path:  # fmt: skip
    """The folder that has the resolution's distributions, made if the cache has none.

    Args:
        cache: Where it is kept.
        resolution: What `resolve` gave.
        compile_all: Compiles the .py files of a folder to bytecode, in place, in the guest.
        most_bytes: What all files may have together, None: any.

    Raises:
        PackageError: They have more.
        WheelError: A wheel is refused; says why.
        HashMismatchError: An index has another file than it said.
        DownloadError: A wheel cannot be fetched.
        InstallationError: uv is not installed, or the cache cannot be used.
    """
    folder = cache.folder(FOLDER) / resolution.key
    with cache.lock(FOLDER):
        if is_whole(folder, resolution):
            os.utime(folder)  # used now: see Cache.sweep
            _check_size(folder, most_bytes)
            return folder

        def fill(new: Path) -> None:
            with TemporaryDirectory(prefix="fetch-", dir=cache.folder(WORK)) as scratch:
                _fill(new, Path(scratch), resolution)
            _check_size(new, most_bytes)
            compile_all(new)

        cache.sweep(WORK, 0)  # what a killed process left
        cache.sweep(FOLDER, sys.maxsize)
        cache.make_folder(folder, fill)
    return folder


def choose(cache: Cache, policy: Policy, python: str) -> Resolution:
    """Resolves and installs what `policy` wants, and notes it for the kernels with this policy.

    Args:
        cache: Where it is kept; the runtime must be unpacked in it.
        policy: Whose packages.
        python: The guest's Python, "3.15".

    Raises:
        PackageError: They cannot be had; says why. Nothing is installed.
        InstallationError: uv is not installed, or the cache cannot be used.
    """
    resolution = resolve(cache, policy.packages, python, given(cache, policy, python))
    folder = install(cache, resolution, lambda _folder: None)  # compiled by the worker
    note = note_path(cache.path, policy)
    with TemporaryDirectory(dir=cache.folder(WORK)) as scratch:
        new = Path(scratch) / "note"
        said = {"folder": folder.name, "requirements": sorted(policy.packages)}  # see upkeep.py
        new.write_text(json.dumps({**resolution.to_dict(), **said}))
        new.replace(note)
    return resolution


def given(cache: Cache, policy: Policy, python: str) -> dict[str, str]:
    """{name: version} of what a guest has without any package: the agent's bundle, the runtime's.

    Raises:
        InstallationError: There is no runtime, or something that the agent needs is not there.
    """
    runtime = runtimes.find(runtimes.named(policy.runtime), cache)
    bundle = {name: d.version for name, d in environments.closure(python, cache).items()}
    return bundle | builtins(runtime)


def _check_size(folder: Path, most_bytes: int | None) -> None:
    if most_bytes is not None and (size := installed.size(folder)) > most_bytes:
        raise PackageError(
            f"the packages have {size >> 20} MiB, and {most_bytes >> 20} MiB are left for them"
        )


def fetch_agent(cache: Cache, python: str) -> Resolution:
    """Fetches versions of IPython and what it needs that suit a guest's Python; notes them.

    For a guest whose Python is older, or newer, than what is installed here supports. What only
    the host needs (terminals, processes) is taken to be there.

    Raises:
        PackageError: They cannot be had.
        InstallationError: uv is not installed, or the cache cannot be used.
    """
    from importlib import metadata

    there = {}
    for name in environments.HOST_ONLY:
        found = next(iter(metadata.distributions(name=name)), None)
        there[name] = HOST_ONLY_VERSION if found is None else found.version
    resolution = resolve(cache, AGENT, python, there)
    folder = install(cache, resolution, lambda _folder: None)  # compiled with the bundle
    note = environments.note_path(cache.path, python)
    with TemporaryDirectory(dir=cache.folder(WORK)) as scratch:
        new = Path(scratch) / "note"
        new.write_text(json.dumps({**resolution.to_dict(), "folder": folder.name}))
        new.replace(note)
    return resolution


def is_whole(folder: Path, resolution: Resolution) -> bool:
    """Does the folder have all files of the resolution's distributions, at their sizes?"""
    import csv

    records = list(folder.glob("*.dist-info/RECORD"))
    if not folder.is_dir() or len(records) != len(resolution.distributions):
        return False
    try:
        for record in records:
            with record.open(encoding="utf-8", newline="") as f:
                for name, _, size in csv.reader(f):
                    if size and (folder / name).stat().st_size != int(size):
                        return False
    except (OSError, ValueError, csv.Error):
        return False
    return True


def _fill(new: Path, scratch: Path, resolution: Resolution) -> None:
    """Puts all distributions into `new`, in the order of their names."""
    remote = [d for d in resolution.distributions if d.host_path is None]
    with ThreadPoolExecutor(FETCHES) as pool:
        fetched = dict(zip(remote, pool.map(
            lambda d: _fetch(d, scratch, resolution.python), remote
        ), strict=True))  # fmt: skip
    for each in resolution.distributions:
        path = each.host_path
        if path is None:
            wheels.adopt(fetched[each], new, each.file, each.name, each.version)
        elif path.name != each.file or not path.is_file():
            raise DownloadError(each.file, f"there is no file {path} any more")
        else:
            wheels.unpack(path, new, each.name, each.version, each.sha256)


def _fetch(distribution: Distribution, scratch: Path, python: str) -> Path:
    folder = scratch / distribution.name
    folder.mkdir()
    name, version, url = distribution.name, distribution.version, distribution.url
    requirement = f"{name} @ {url}" if distribution.direct else f"{name}=={version}"
    answer = resolver.fetch(folder, requirement, distribution.sha256, python)
    if answer.solved:
        return folder / resolver.PREFIX
    found = re.search(r"Computed: sha256:([0-9a-f]{64})", answer.text)
    if found is not None:
        raise HashMismatchError(distribution.file, distribution.sha256, found[1])
    raise DownloadError(f"{distribution.file} cannot be fetched", answer.text)
