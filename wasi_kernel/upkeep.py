"""Upkeep: what the cache holds, what of it is needed, and the removal of the rest.

An entry is needed if a running worker holds it (`Cache.hold`), if the policy of an installed
kernelspec or the default policy starts with it, or if a session that is kept lies over it. What is
not needed stays while it was used lately, and as long as all that is not needed is not too large.

Whoever removes something has the locks of those who make something, so that nothing goes while it
is built upon. Being killed leaves nothing half: a folder is set aside before it is emptied.

Never imports wasmtime. Runtimes, the history and sessions that are kept are not cached things: they
are left alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasi_kernel import caches, chosen, folders, kernelspecs, policyfile, runtimes
from wasi_kernel.caches import Cache
from wasi_kernel.errors import SessionFileError, WasiKernelError
from wasi_kernel.policy import Policy
from wasi_kernel.sessionfile import Base

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

KINDS = ("plans", "images", "bundles", "modules", "packages")
"""The cache's folders whose entries are looked at one by one; what names others stands first."""

SCRAPS = {"fetches": 0, "digests": 200, "builtins": 500}
"""Folders of small and short-lived things, and how many of each are kept."""

LATELY_S = 14 * 24 * 3600
"""How long what nobody needs stays after it was last used."""

SPARE_BYTES = 2 << 30
"""How large all that nobody needs may be: about six runtimes, or twenty base images."""

DEFAULT = "the default policy"
RUNNING = "a running kernel"


@dataclass(frozen=True)
class Entry:
    """One thing in the cache.

    Attributes:
        kind: One of `KINDS`.
        path: Where it is.
        bytes: What it takes on disk.
        used_s: When it was last used, in seconds since 1970.
        needed_by: Who needs it, in a few words each; empty if nobody does.
        damaged: Is it of no use to anybody?
    """

    kind: str
    path: Path
    bytes: int
    used_s: float
    needed_by: tuple[str, ...] = ()
    damaged: bool = False


@dataclass(frozen=True)
class Cleaned:
    """What was removed, and what was to be removed and could not be.

    Attributes:
        removed: These are gone.
        spared: (entry, why it is still there: `RUNNING`, or the system's reason).
    """

    removed: tuple[Entry, ...] = ()
    spared: tuple[tuple[Entry, str], ...] = ()


def survey(cache: Cache) -> list[Entry]:
    """All entries of the cache, and who needs each; the order is that in which they may be removed.

    Raises:
        OSError: The cache cannot be read.
    """
    found: dict[Path, Entry] = {}
    for kind in KINDS:
        for path in sorted(_entries(cache, kind)):
            damaged = _is_damaged(cache, kind, path)
            size = _size(path) + _size(path.with_name(path.name + caches.SEAL))
            found[path] = Entry(kind, path, size, caches.used_s(path), damaged=damaged)
    plans = {path: notes for path in found if (notes := _plan(cache, found[path])) is not None}
    needed: dict[Path, list[str]] = {}
    used: dict[Path, float] = {}
    for path, notes in plans.items():
        for member in _members(notes):
            used[member] = max(used.get(member, 0), found[path].used_s)
    for path, who in _needs(cache, plans, found):
        needed.setdefault(path, []).append(who)
    return [
        Entry(
            e.kind, e.path, e.bytes, max(e.used_s, used.get(e.path, 0)),
            () if e.damaged else tuple(dict.fromkeys(needed.get(e.path, ()))), e.damaged,
        )
        for e in found.values()
    ]  # fmt: skip


def idle(entries: Iterable[Entry], now_s: float) -> list[Entry]:
    """Those that a sweep removes: what nobody needs and was not used lately, or is too much."""
    left, found = 0, []
    for entry in sorted(entries, key=lambda e: e.used_s, reverse=True):
        age_s = now_s - entry.used_s
        if entry.needed_by or age_s < caches.IN_USE_S:
            continue
        left += 0 if entry.damaged else entry.bytes
        if entry.damaged or age_s > LATELY_S or left > SPARE_BYTES:
            found.append(entry)
    return sorted(found, key=lambda e: KINDS.index(e.kind))


def useless(entries: Iterable[Entry]) -> list[Entry]:
    """Those that nobody needs, however lately they were used."""
    return [entry for entry in entries if not entry.needed_by]


def remove(
    cache: Cache,
    choose: Callable[[list[Entry]], list[Entry]],
    on_wait: Callable[[], None] | None = None,
) -> Cleaned:
    """Removes what `choose` takes of the entries, but for what running workers hold.

    Args:
        cache: The cache.
        choose: It sees the entries as they are while nobody makes new ones.
        on_wait: Called now and then while another process makes something.

    Raises:
        OSError: The cache cannot be read.
    """
    removed, spared = [], []
    with cache.lock("prepare", on_wait), cache.lock(chosen.FOLDER, on_wait):
        for entry in choose(survey(cache)):
            try:
                gone, why = cache.discard(entry.path), RUNNING
            except OSError as e:
                gone, why = False, e.strerror or str(e)
            if gone:
                removed.append(entry)
            else:
                spared.append((entry, why))
        for name, keep in SCRAPS.items():
            cache.sweep(name, keep)
        cache.sweep_half_made()
    for name in ("sessions", "scratch"):
        with contextlib.suppress(OSError):
            folders.sweep(cache.folder(name))
    return Cleaned(tuple(removed), tuple(spared))


def sweep(cache_path: Path) -> None:
    """Removes what a sweep removes; raises nothing, since nobody waits for it.

    Nothing is removed while another process makes something: that one sweeps afterwards.
    """
    with contextlib.suppress(OSError, WasiKernelError):
        remove(Cache(cache_path), lambda entries: idle(entries, time.time()), _give_up)


def _give_up() -> None:
    raise BlockingIOError("another process has the lock")


def sweep_beside(cache_path: Path) -> threading.Thread:
    """The same on a thread of its own, which ends with this process if it is not done by then."""
    thread = threading.Thread(target=sweep, args=(cache_path,), name="sweep", daemon=True)
    thread.start()
    return thread


def misplaced(path: Path) -> list[Path]:
    """What stands where the cache at `path` has its folders, and is no folder."""
    names = (*KINDS, *SCRAPS, "locks", "runtimes", "sessions", "scratch")
    found = [path / name for name in names if os.path.lexists(path / name)]
    return [each for each in found if each.is_symlink() or not each.is_dir()]


# -- what is there -------------------------------------------------------------------------------


def _entries(cache: Cache, kind: str) -> Iterator[Path]:
    there = list(cache.folder(kind).iterdir())
    names = {path.name for path in there}
    for path in there:
        if path.name.startswith(caches.NEW):
            continue
        if not path.name.endswith(caches.SEAL) or path.name[: -len(caches.SEAL)] not in names:
            yield path  # a seal of nothing is an entry, too


def _is_damaged(cache: Cache, kind: str, path: Path) -> bool:
    """Can nobody use it? Sealed files are hashed again where their identity has changed."""
    if kind == "bundles":
        return path.is_symlink() or not path.is_dir()
    if kind == "packages":
        return _is_damaged_package(path)
    return path.name.endswith(caches.SEAL) or not cache.is_whole(path)


def _is_damaged_package(path: Path) -> bool:
    """Is it neither a set nor a note or a mark of a set that is there?"""
    if path.is_symlink():
        return True
    if path.is_dir():
        return not chosen.is_set(path.name)
    named = path.stem if path.suffix == ".compiled" else _set_of(path)
    return not named or not (path.parent / named).is_dir()


def _set_of(note: Path) -> str:
    try:
        said = json.loads(note.read_bytes())["folder"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
    return said if isinstance(said, str) and chosen.is_set(said) else ""


def _size(path: Path) -> int:
    total, waiting = 0, [str(path)]
    while waiting:
        name = waiting.pop()
        with contextlib.suppress(OSError):
            total += os.lstat(name).st_blocks * 512
            if not os.path.islink(name) and os.path.isdir(name):
                waiting += [entry.path for entry in os.scandir(name)]
    return total


# -- who needs it --------------------------------------------------------------------------------


def _plan(cache: Cache, entry: Entry) -> dict[str, Any] | None:
    """What a plan says; None if it is none, or of another version of this project."""
    if entry.kind != "plans" or entry.damaged:
        return None
    notes = cache.sealed_notes(entry.path)
    return notes if notes is not None and isinstance(notes.get("made_for"), dict) else None


def _members(plan: dict[str, Any]) -> Iterator[Path]:
    for name in ("module", "bundle", "image", "packages"):
        if isinstance(plan.get(name), str):
            yield Path(plan[name])
    if isinstance(plan.get("packages"), str):
        yield Path(plan["packages"] + ".compiled")


def _needs(
    cache: Cache, plans: dict[Path, dict[str, Any]], found: dict[Path, Entry]
) -> Iterator[tuple[Path, str]]:
    """(entry, who needs it)."""
    held = {path for path in found if not path.is_symlink() and cache.is_held(path)}
    yield from ((path, RUNNING) for path in held)
    for path, notes in plans.items():
        if Path(str(notes.get("image") or notes.get("module"))) in held:
            yield path, RUNNING
    for who, policy in _policies(plans.values()):
        yield from ((path, who) for path in _needed_by(policy, cache, plans, found))
    for path in cache.folder("sessions").glob("*"):
        with contextlib.suppress(SessionFileError):
            base = Base.load(path)
            if not base.own and isinstance(base.image, str):
                yield Path(base.image), f"session {path.name}"


def _needed_by(
    policy: Policy, cache: Cache, plans: dict[Path, dict[str, Any]], found: dict[Path, Entry]
) -> Iterator[Path]:
    """What kernels with this policy start with."""
    sets: set[str | None] = {None}
    if policy.packages:
        folder = cache.path / chosen.FOLDER
        notes = [path for path in found if path.parent == folder and _answers(path, policy)]
        sets = {str(folder / _set_of(note)) for note in notes}
        yield from notes
        for name in filter(None, sets):
            yield from (Path(name), Path(f"{name}.compiled"))
    facts = {**policy.image_facts, "runtime": runtimes.named(policy.runtime)}
    newest: dict[str, Path] = {}  # by Python environment; an older plan was replaced by it
    for path, plan in plans.items():
        made_for = dict(plan["made_for"])
        prefix = str(made_for.pop("prefix", ""))
        packages = plan.get("packages")
        wanted = packages is None or isinstance(packages, str)
        if wanted and made_for == facts and packages in sets and os.path.isdir(prefix):
            other = newest.get(prefix)
            if other is None or found[other].used_s < found[path].used_s:
                newest[prefix] = path
    for path in newest.values():
        yield from (path, *_members(plans[path]))


def _answers(note: Path, policy: Policy) -> bool:
    """Does this note of a set belong to the policy's requirements?"""
    try:
        said = json.loads(note.read_bytes())
        return bool(said["requirements"] == sorted(policy.packages))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _policies(plans: Iterable[dict[str, Any]]) -> Iterator[tuple[str, Policy]]:
    """(who has it, policy): the default one and those of all kernelspecs that are found.

    Looked for in Jupyter's folders, and in the environments that plans were made in.
    """
    yield DEFAULT, Policy()
    prefixes = {str(plan["made_for"].get("prefix", "")) for plan in plans}
    places = [kernelspecs.prefix_place(prefix) for prefix in sorted(prefixes) if prefix]
    for spec in kernelspecs.in_places([*kernelspecs.places(), *places]):
        policy = Policy()
        if spec.policy is not None:
            try:
                data = policyfile.read(spec.policy)
                # Jupyter's server may have variables that this process has not
                meant, _ = policyfile.resolve(data, work=Path("/"), environ=_Anything(os.environ))
                policy = Policy.from_dict(meant)
            except WasiKernelError:
                continue  # no kernel starts with it
        yield f"kernelspec {spec.name}", policy


class _Anything(dict[str, str]):
    """An environment that has every variable, most of them empty."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> str:
        return ""
