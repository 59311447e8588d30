"""What kernels have on the machine, seen from outside: folders, locks, files of the cache.

Imports of wasi_kernel only where its cache is, and what the folders in it are called.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from wasi_kernel import caches, folders, launch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MIB = 1 << 20
OWN = ("sessions", launch.SCRATCH)
"""The cache's folders in which each session has one of its own."""


def own_folders(process: psutil.Process) -> set[Path]:
    """The folders in the cache that a kernel process uses: those whose locks it has open."""
    root = caches.default_path()
    locks = [Path(file.path) for file in process.open_files()]
    return {
        path.parent
        for path in locks
        if path.name == folders.LOCK and path.parent.parent in [root / name for name in OWN]
    }


def disk_bytes(folder: Path) -> int:
    """What a folder takes on the disk, or a file."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # dropped just now
                total += 512 * os.lstat(os.path.join(root, name)).st_blocks
    return total


def mapped(pid: int) -> tuple[int, int] | None:
    """(mappings, mapped files that are gone) of a process; None where that cannot be seen."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    fields = [line.split(None, 5) for line in lines]
    gone = {each[4] for each in fields if len(each) > 5 and each[5].endswith("(deleted)")}
    return len(fields), len(gone)


def anonymous_bytes(pid: int) -> int | None:
    """Resident memory of a process that is no file's; None where that cannot be seen."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^RssAnon:\s*(\d+) kB$", status, re.MULTILINE)
    return None if found is None else 1024 * int(found[1])


def seals() -> dict[str, str]:
    """{path: SHA-256} of what is in the cache but for locks and what sessions have of their own."""
    root = caches.default_path()
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        if name.parts[0] in OWN or path.suffix == ".lock":
            continue
        with contextlib.suppress(OSError):  # a folder, or gone meanwhile
            digest = hashlib.sha256()
            with path.open("rb") as f:
                while piece := f.read(MIB):
                    digest.update(piece)
            found[str(name)] = digest.hexdigest()
    return found


def changed(before: dict[str, str]) -> list[str]:
    """What of the cache is gone, or not what it was when those seals were taken."""
    after = seals()
    return sorted(name for name, digest in before.items() if after.get(name) != digest)


def prepared() -> bool:
    """Is there a plan: the last thing that is made before a first start?"""
    return any((caches.default_path() / "plans").glob(f"*{caches.SEAL}"))


def not_whole() -> list[str]:
    """The files of the cache that are not what their seals say."""
    cache = caches.Cache(caches.default_path())
    sealed = [path.with_suffix("") for path in cache.path.rglob(f"*{caches.SEAL}")]
    return still_there(path for path in sealed if not cache.is_whole(path))


def half_made() -> list[str]:
    """What processes that were killed had begun to make; a sweep removes it after an hour."""
    return still_there(caches.default_path().rglob(f"{caches.NEW}*"))


@contextlib.contextmanager
def another_cache() -> Iterator[None]:
    """Another cache folder for this process and what it starts, with compiled modules only."""
    usual, before = caches.default_path(), os.environ.get(caches.ENV)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        root = Path(folder) / "cache"
        root.mkdir(mode=0o700)
        os.environ[caches.ENV] = str(root)
        try:
            _copy_compiled(caches.Cache(usual), caches.Cache(root))
            yield
        finally:
            os.environ.pop(caches.ENV)
            if before is not None:
                os.environ[caches.ENV] = before


def _copy_compiled(usual: caches.Cache, other: caches.Cache) -> None:
    """Copies what is compiled, and needed by what is prepared; it takes longest to make."""
    for plan in usual.folder("plans").glob(f"*{caches.SEAL}"):
        module = Path((usual.sealed_notes(plan.with_suffix("")) or {})["module"])
        for name in (module.name, module.name + caches.SEAL):
            shutil.copy2(module.with_name(name), other.folder("modules") / name)
    not_whole()  # a copy has another identity: it is sealed anew


def stale_locks() -> list[str]:
    """The cache's files that a process has locked which is no more (Linux; see proc_locks(5))."""
    try:
        lines = Path("/proc/locks").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    held: dict[int, int] = {}
    for line in lines:
        fields = line.replace("-> ", "").split()
        held[int(fields[5].split(":")[2])] = int(fields[4])
    found = []
    root = caches.default_path()
    for path in root.rglob("*"):
        with contextlib.suppress(OSError):
            pid = held.get(path.lstat().st_ino)
            if pid is not None and pid > 0 and not psutil.pid_exists(pid):
                found.append(str(path.relative_to(root)))
    return found


def still_there(paths: Iterable[Path]) -> list[str]:
    """Those of the paths that exist, as they lie in the cache."""
    root = caches.default_path()
    return sorted(str(path.relative_to(root)) for path in paths if path.exists())
