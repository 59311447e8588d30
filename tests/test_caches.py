"""Shows that the cache gives out only what this user's own process put there, and that whole."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from wasi_kernel import caches
from wasi_kernel.caches import Cache
from wasi_kernel.errors import InstallationError

if TYPE_CHECKING:
    from collections.abc import Callable

CONTENT, NOTES = b"native code", {"made": 1}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def entry(cache: Cache) -> Path:
    """A file that the cache has made and would load."""
    path = cache.folder("modules") / "entry"
    cache.store(path, lambda new: (new.write_bytes(CONTENT), NOTES)[1])
    assert cache.load(path) == NOTES
    return path


def seal(path: Path) -> Path:
    return path.with_name(path.name + ".seal")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


# -- what is loaded ------------------------------------------------------------------------------


def test_what_was_stored_is_loaded_and_is_owner_only(cache: Cache, entry: Path):
    assert entry.read_bytes() == CONTENT
    assert mode(entry) == mode(seal(entry)) == 0o600
    assert names(entry.parent) == {"entry", "entry.seal"}
    assert cache.load(entry) == NOTES


def test_what_is_not_there_is_not_loaded(cache: Cache, tmp_path: Path):
    assert cache.load(cache.folder("modules") / "nothing") is None
    assert cache.load(tmp_path / "no-folder" / "nothing") is None


def appended(path: Path) -> None:
    with path.open("ab") as f:
        f.write(b"!")


def truncated(path: Path) -> None:
    os.truncate(path, 5)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def damaged(path: Path) -> None:
    """Another byte, and the size and mtime that it had."""
    state = path.stat()
    with path.open("r+b") as f:
        f.write(b"N")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def swapped(path: Path) -> None:
    """Another file with the same size, mtime and mode in its place."""
    state = path.stat()
    other = path.with_name("other")
    other.write_bytes(b"x" * len(CONTENT))
    other.chmod(0o600)
    os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))
    other.replace(path)


def readable(path: Path) -> None:
    path.chmod(0o644)


def writable(path: Path) -> None:
    path.chmod(0o602)


def hard_linked(path: Path) -> None:
    path.with_name("link").hardlink_to(path)


def symlinked(path: Path) -> None:
    """A link to the very file that was sealed."""
    real = path.with_name("real")
    path.rename(real)
    path.symlink_to(real)


def replaced_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "in").touch()


def replaced_by_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


CHANGES = [
    appended, truncated, emptied, damaged, swapped, readable, writable, hard_linked, symlinked,
    replaced_by_a_folder, replaced_by_a_fifo,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_was_changed_is_removed(
    cache: Cache, entry: Path, change: Callable[[Path], None]
):
    change(entry)
    assert cache.load(entry) is None
    assert not os.path.lexists(entry)
    assert not os.path.lexists(seal(entry))


@pytest.mark.parametrize("change", [c for c in CHANGES if c is not appended])
def test_a_seal_that_was_changed_seals_nothing(
    cache: Cache, entry: Path, change: Callable[[Path], None]
):
    change(seal(entry))
    assert cache.load(entry) is None
    assert not os.path.lexists(entry)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "null", "[]", "1", '"text"', "{}", '{"identity": []}', "\xff", "[" * 100_000,
        '{"identity": [], "sha256": null, "notes": {}}',
        '{"identity": {}, "sha256": "0", "notes": {}}',
    ],
)  # fmt: skip
def test_a_seal_that_is_none_seals_nothing(cache: Cache, entry: Path, text: str):
    seal(entry).write_text(text, encoding="latin-1")
    assert cache.load(entry) is None
    assert not entry.exists()


def test_notes_that_are_no_object_are_not_given_out(cache: Cache, entry: Path):
    said = json.loads(seal(entry).read_text())
    seal(entry).write_text(json.dumps({**said, "notes": [1]}))
    assert cache.load(entry) is None
    assert not entry.exists()


def test_a_file_without_a_seal_is_not_loaded(cache: Cache, entry: Path):
    seal(entry).unlink()
    assert cache.load(entry) is None


def test_a_seal_without_its_file_seals_no_other(cache: Cache, entry: Path):
    entry.unlink()
    assert cache.load(entry) is None
    entry.write_bytes(b"x" * len(CONTENT))
    entry.chmod(0o600)
    assert cache.load(entry) is None
    assert not entry.exists()


def test_a_seal_of_another_file_does_not_serve(cache: Cache, entry: Path):
    other = entry.with_name("other")
    other.write_bytes(b"x" * len(CONTENT))
    other.chmod(0o600)
    shutil.copy2(seal(entry), seal(other))
    assert cache.load(other) is None
    assert cache.load(entry) == NOTES


def test_a_copy_of_the_cache_is_hashed_once_and_then_trusted(cache: Cache, tmp_path: Path):
    """Moved to another disk, every file has another identity and the same content."""
    path = cache.folder("modules") / "entry"
    cache.store(path, lambda new: (new.write_bytes(CONTENT), NOTES)[1])
    shutil.copytree(cache.path, tmp_path / "copy")
    moved = Cache(tmp_path / "copy").folder("modules") / "entry"
    before = seal(moved).read_bytes()
    assert cache.load(moved) == NOTES
    after = seal(moved).read_bytes()
    assert before != after
    assert mode(seal(moved)) == 0o600
    assert cache.load(moved) == NOTES
    assert seal(moved).read_bytes() == after


# -- storing -------------------------------------------------------------------------------------


class Unfinished(BaseException):
    """Not even an Exception: a KeyboardInterrupt in the middle of a write is one too."""


def give_up(new: Path) -> dict[str, Any]:
    """A writer that ends halfway."""
    with new.open("wb") as f:
        f.write(b"half")
    raise Unfinished


def test_a_writer_that_gives_up_leaves_nothing(cache: Cache):
    path = cache.folder("modules") / "entry"
    with pytest.raises(Unfinished):
        cache.store(path, give_up)
    assert names(path.parent) == set()


def test_a_writer_that_gives_up_leaves_what_was_there(cache: Cache, entry: Path):
    with pytest.raises(Unfinished):
        cache.store(entry, give_up)
    assert names(entry.parent) == {"entry", "entry.seal"}
    assert cache.load(entry) == NOTES


def test_storing_again_replaces_file_and_notes(cache: Cache, entry: Path):
    cache.store(entry, lambda new: (new.write_bytes(b"new"), {"made": 2})[1])
    assert (entry.read_bytes(), cache.load(entry)) == (b"new", {"made": 2})
    assert names(entry.parent) == {"entry", "entry.seal"}


def test_storing_replaces_a_folder_or_a_link_and_not_what_it_leads_to(
    cache: Cache, entry: Path, tmp_path: Path
):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for change in (replaced_by_a_folder, lambda p: (p.unlink(), p.symlink_to(precious))):
        change(entry)
        cache.store(entry, lambda new: (new.write_bytes(CONTENT), NOTES)[1])
        assert cache.load(entry) == NOTES
    assert precious.read_text() == "mine"


def test_removing_a_link_leaves_what_it_leads_to(cache: Cache, entry: Path, tmp_path: Path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    entry.unlink()
    entry.symlink_to(precious)
    cache.remove(entry)
    cache.remove(entry)
    assert not os.path.lexists(entry)
    assert names(precious) == {"file"}


def test_a_folder_appears_whole(cache: Cache):
    path = cache.folder("bundles") / "b"

    def fill(new: Path) -> None:
        (new / "sub").mkdir()
        (new / "sub" / "file").write_text("text")
        assert not path.exists()

    cache.make_folder(path, fill)
    assert (path / "sub" / "file").read_text() == "text"
    assert mode(path) == 0o700
    assert names(path.parent) == {"b"}


def test_a_folder_whose_filling_gives_up_does_not_appear(cache: Cache):
    path = cache.folder("bundles") / "b"

    def fill(new: Path) -> None:
        (new / "half").touch()
        raise Unfinished

    with pytest.raises(Unfinished):
        cache.make_folder(path, fill)
    assert names(path.parent) == set()
    cache.make_folder(path, lambda new: (new / "whole").touch())
    with pytest.raises(Unfinished):
        cache.make_folder(path, fill)
    assert names(path) == {"whole"}
    assert names(path.parent) == {"b"}


@pytest.mark.parametrize("kind", ["file", "link", "dangling link", "folder"])
def test_a_folder_replaces_whatever_is_there(cache: Cache, tmp_path: Path, kind: str):
    path, precious = cache.folder("bundles") / "b", tmp_path / "precious"
    precious.mkdir()
    if kind == "file":
        path.touch()
    elif kind == "folder":
        (path / "old").mkdir(parents=True)
    else:
        path.symlink_to(precious if kind == "link" else tmp_path / "nowhere")
    cache.make_folder(path, lambda new: (new / "new").touch())
    assert not path.is_symlink()
    assert names(path) == {"new"}
    assert precious.is_dir()


# -- folders -------------------------------------------------------------------------------------


def test_the_cache_is_owner_only_also_if_it_was_not(tmp_path: Path):
    path = tmp_path / "a" / "cache"
    assert mode(Cache(path).folder("x", "y")) == 0o700
    assert mode(path) == mode(path / "x") == 0o700
    path.chmod(0o777)
    (path / "x").chmod(0o755)
    Cache(path).folder("x")
    assert mode(path) == mode(path / "x") == 0o700


def test_a_cache_that_is_a_file_or_a_link_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for name in ("file", "link", "file/below"):
        with pytest.raises(InstallationError) as caught:
            Cache(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_a_folder_of_the_cache_that_is_a_link_is_refused(cache: Cache, tmp_path: Path):
    (tmp_path / "real").mkdir()
    (cache.path / "modules").symlink_to(tmp_path / "real")
    with pytest.raises(InstallationError, match="modules"):
        cache.folder("modules")


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(caches.ENV, str(tmp_path / "named"))
    assert caches.default_path() == Cache().path == tmp_path / "named"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(caches.ENV, "~/below")
    assert caches.default_path() == tmp_path / "below"
    monkeypatch.delenv(caches.ENV, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert caches.default_path() == tmp_path / "xdg" / "wasi-kernel"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert caches.default_path() == tmp_path / ".cache" / "wasi-kernel"


def test_the_usual_place_is_the_one_that_platformdirs_says(monkeypatch: pytest.MonkeyPatch):
    import platformdirs

    monkeypatch.delenv(caches.ENV, raising=False)
    assert caches.default_path() == Path(platformdirs.user_cache_path("wasi-kernel"))


# -- locks ---------------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from wasi_kernel.caches import Cache
with Cache(Path(sys.argv[1])).lock("prepare"):
    print("held", flush=True)
    sys.stdin.readline()
    Path(sys.argv[2]).touch()
"""


def test_a_lock_is_held_among_processes(cache: Cache, tmp_path: Path):
    released = tmp_path / "released"
    argv = [sys.executable, "-c", HOLD, str(cache.path), str(released)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        waits = []

        def on_wait() -> None:
            waits.append(released.exists())
            if len(waits) == 1:
                other.stdin.write("\n")
                other.stdin.flush()

        with cache.lock("another", on_wait):
            assert waits == []
        with cache.lock("prepare", on_wait):
            assert released.exists()
        assert waits[0] is False
    assert other.returncode == 0


def test_a_lock_of_a_process_that_was_killed_is_free(cache: Cache, tmp_path: Path):
    argv = [sys.executable, "-c", HOLD, str(cache.path), str(tmp_path / "never")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        other.kill()
    with cache.lock("prepare", lambda: pytest.fail("the lock is still held")):
        pass


# -- digests -------------------------------------------------------------------------------------


def test_a_digest_is_remembered_until_the_file_changes(cache: Cache, tmp_path: Path):
    path = tmp_path / "python.wasm"
    path.write_bytes(b"a")
    first = cache.digest(path)
    assert first == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    (note,) = cache.folder("digests").iterdir()
    zeros = "0" * 64
    note.write_text(f"{zeros} {caches._check(note.name, zeros)}")  # shows that it is looked up
    note.chmod(0o600)
    assert cache.digest(path) == "0" * 64
    damage = path.stat()
    path.write_bytes(b"b")
    os.utime(path, ns=(damage.st_atime_ns, damage.st_mtime_ns))
    assert cache.digest(path) == "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d"


@pytest.mark.parametrize("change", [truncated, emptied, readable, hard_linked, symlinked])
def test_a_remembered_digest_that_was_changed_is_not_used(
    cache: Cache, tmp_path: Path, change: Callable[[Path], None]
):
    path = tmp_path / "python.wasm"
    path.write_bytes(b"a")
    right = cache.digest(path)
    (note,) = cache.folder("digests").iterdir()
    note.write_text("0" * 64)
    note.chmod(0o600)
    change(note)
    assert cache.digest(path) == right
    assert cache.digest(path) == right


def test_a_digest_of_nothing_is_an_os_error(cache: Cache, tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        cache.digest(tmp_path / "nothing")


# -- sweeping ------------------------------------------------------------------------------------


def age(path: Path, then: float) -> None:
    """Makes an entry one that was made, and used last, at `then`."""
    for part in (path, seal(path)):
        os.utime(part, (then, then))


@pytest.fixture
def entries(cache: Cache) -> list[Path]:
    """Five entries, the first the oldest, all made hours ago."""
    found = []
    for k in range(5):
        path = cache.folder("images") / str(k)
        cache.store(path, lambda new: (new.write_bytes(CONTENT), NOTES)[1])
        found.append(path)
        age(path, time.time() - 36_000 + 60 * k)
    return found


def test_a_sweep_removes_the_oldest(cache: Cache, entries: list[Path]):
    cache.sweep("images", 2)
    assert names(cache.folder("images")) == {"3", "4", "3.seal", "4.seal"}


def test_a_sweep_leaves_what_is_young(cache: Cache, entries: list[Path]):
    for path in entries:
        age(path, time.time())
    cache.sweep("images", 1)
    assert all(path.exists() for path in entries)


def test_a_sweep_leaves_what_was_used_last(cache: Cache, entries: list[Path]):
    assert cache.load(entries[0]) == NOTES
    cache.sweep("images", 1)
    assert entries[0].exists()


def test_what_a_killed_process_left_half_made_is_swept_and_takes_no_place(
    cache: Cache, entries: list[Path]
):
    half = cache.folder("images") / ".new-abc"
    half.write_bytes(b"half")
    then = time.time() - 7200
    os.utime(half, (then, then))
    cache.sweep("images", 5)
    assert not half.exists()
    assert all(path.exists() for path in entries)


def test_a_sweep_of_nothing(cache: Cache):
    cache.sweep("images", 1)
    assert names(cache.folder("images")) == set()


def test_a_sweep_removes_folders_too(cache: Cache):
    for name in "ab":
        cache.make_folder(cache.folder("bundles") / name, lambda new: (new / "file").touch())
        then = time.time() - (7200 if name == "a" else 5000)
        os.utime(cache.folder("bundles") / name, (then, then))
    cache.sweep("bundles", 1)
    assert names(cache.folder("bundles")) == {"b"}
