"""The cache folder: what may be loaded from it, and how it gets there.

A compiled module is native code and an image is a whole interpreter, so nothing is loaded unless
this user's own process made it and it is still what was made: folders are owner-only, files are
written beside and renamed, and each has a seal, a small file with its SHA-256, its name and its
identity (device, inode, size, mtime, ctime). While the identity is the sealed one the content is
taken as the sealed one; otherwise it is hashed again, and what differs is removed and made again.

Never imports wasmtime or anything of Jupyter.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasi_kernel.errors import InstallationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ENV = "WASI_KERNEL_CACHE"
"""Environment variable that names another cache folder."""

IN_USE_S = 3600
"""How long a sweep takes what was used, or is being made, to be in use still."""

NEW = ".new-"
"""How the name of what is not whole, yet or any more, begins."""

SEAL = ".seal"
"""How the name of a seal ends."""


def default_path() -> Path:
    """Where the cache is: `$WASI_KERNEL_CACHE`, else the platform's own place."""
    if os.environ.get(ENV):
        return Path(os.path.expanduser(os.environ[ENV])).absolute()
    if sys.platform == "linux":  # the same place, without 20 ms of imports on the start path
        base = os.environ.get("XDG_CACHE_HOME", "").strip() or os.path.expanduser("~/.cache")
        return Path(base).absolute() / "wasi-kernel"
    import platformdirs

    return Path(platformdirs.user_cache_path("wasi-kernel"))


class Cache:
    """One cache folder, made owner-only if it is not there.

    Args:
        path: Where it is; default: `default_path`.
        what: What it is called in an error, when it is another folder that is kept alike.
        env: The environment variable that names it.
        shared: A folder of an administrator's, whose modules may be taken; see shared.py.

    Raises:
        InstallationError: The folder cannot be made, or is not this user's own.
    """

    def __init__(
        self, path: Path | None = None, *, what: str = "cache folder", env: str = ENV,
        shared: Path | None = None,
    ) -> None:  # fmt: skip
        self.path = path if path is not None else default_path()
        self.shared = shared
        self._held: list[int] = []
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._own(self.path)
        except OSError as e:
            raise InstallationError(
                f"the {what} {self.path} cannot be used: {e.strerror}; "
                f"name another one with the environment variable {env}"
            ) from e

    def folder(self, *names: str) -> Path:
        """A folder inside the cache, made if needed, owner-only."""
        path = self.path
        for name in names:
            path = path / name
            path.mkdir(mode=0o700, exist_ok=True)
            self._own(path)
        return path

    def _own(self, path: Path) -> None:
        state = path.lstat()
        if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid():
            raise InstallationError(f"{path} is not a folder of this user; remove or rename it")
        if state.st_mode & 0o077:
            path.chmod(0o700)

    def has_folder(self, path: Path) -> bool:
        """Is there a folder of this user's at `path`, and does it lie in this cache?

        No part of the way below the cache is a link: what a guest is shown is never elsewhere.
        """
        if not path.is_relative_to(self.path):
            return False
        return all(
            _is_own_folder(each)
            for each in (path, *path.parents)
            if each != self.path and each.is_relative_to(self.path)
        )

    @contextlib.contextmanager
    def lock(self, name: str, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Holds the lock `name` among all processes that use this cache.

        `on_wait` is called about four times a second while another process holds it.
        """
        import filelock

        path = self.folder("locks") / f"{name}.lock"
        _make_plain(path)
        lock = filelock.FileLock(path, mode=0o600)
        while True:
            try:
                lock.acquire(timeout=0.25)
                break
            except filelock.Timeout:
                if on_wait is not None:
                    on_wait()
            except OSError as e:
                raise InstallationError(f"{path} cannot be locked: {e.strerror}") from e
        try:
            yield
        finally:
            lock.release()

    # -- sealed files ------------------------------------------------------------------------

    def load(self, path: Path) -> dict[str, Any] | None:
        """The notes sealed with the file at `path`, or None: not there, or not to be trusted.

        A file that is not what its seal says is removed, so that it is made again. One that is
        given out counts as used now (see `sweep`).
        """
        try:
            notes = _checked(path)
        except FileNotFoundError:
            return None
        except _UNTRUSTED:
            self.remove(path)
            return None
        with contextlib.suppress(OSError):
            os.utime(_seal_path(path))  # the seal's: the file's own mtime is part of what is sealed
        return notes

    def is_whole(self, path: Path) -> bool:
        """Would `load` give the file out? It does not count as used by this question."""
        mark = _seal_path(path)
        try:
            before = mark.lstat()
            _checked(path)
            os.utime(mark, ns=(before.st_atime_ns, before.st_mtime_ns))
        except _UNTRUSTED:
            return False
        return True

    def sealed_digest(self, path: Path) -> str:
        """SHA-256 that the file at `path` was sealed with, hex; "" if it has no seal."""
        try:
            return str(json.loads(_read_own(_seal_path(path)))["sha256"])
        except (OSError, ValueError, TypeError, KeyError):
            return ""

    def store(self, path: Path, write: Callable[[Path], dict[str, Any]]) -> None:
        """Makes the file at `path`: `write` fills a new file and returns notes to keep with it.

        The file appears whole or not at all.
        """
        import shutil
        import tempfile

        fd, name = tempfile.mkstemp(prefix=NEW, dir=path.parent)  # created 0600
        os.close(fd)
        new = Path(name)
        try:
            notes = write(new)
            with new.open("rb") as f:
                digest = hashlib.file_digest(f, "sha256").hexdigest()
            _seal_path(path).unlink(missing_ok=True)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            new.replace(path)
            seal = {
                "sha256": digest, "identity": _identity(_own_file(path)), "name": _name(path),
                "notes": notes,
            }  # fmt: skip
            _write_new(_seal_path(path), json.dumps(seal).encode())
        finally:
            new.unlink(missing_ok=True)

    def remove(self, path: Path) -> None:
        """Removes the file or folder at `path` and its seal; it need not be there.

        Nobody finds a half of it, whenever this process is killed.
        """
        for each in (_seal_path(path), path):
            _discard(each)

    def sealed_notes(self, path: Path) -> dict[str, Any] | None:
        """The notes that the file at `path` was sealed with, None if its seal cannot be read.

        To be looked at alone: nothing is checked, and it does not count as used.
        """
        try:
            notes = json.loads(_read_own(_seal_path(path)))["notes"]
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None
        return notes if isinstance(notes, dict) else None

    # -- what is in use ----------------------------------------------------------------------

    def hold(self, path: Path) -> bool:
        """From now on nobody sweeps the file or folder at `path`, until this process ends.

        Returns:
            Is it held? Otherwise it is gone; a removal that has begun is waited for.
        """
        try:
            fd = _locked(path, exclusive=False)
        except BlockingIOError:
            return False
        if fd is None:
            return False
        self._held.append(fd)
        return True

    def is_held(self, path: Path) -> bool:
        """Does a process hold it, this one included?"""
        try:
            fd = _locked(path, exclusive=True)
        except BlockingIOError:
            return True
        if fd is not None:
            os.close(fd)
        return False

    def release(self) -> None:
        """Lets go of all that this object holds."""
        while self._held:
            os.close(self._held.pop())

    def discard(self, path: Path) -> bool:
        """Removes the file or folder at `path` and its seal unless it is held; is it gone?

        Raises:
            OSError: It cannot be removed.
        """
        fd = None
        if not path.is_symlink() and (path.is_dir() or path.is_file()):  # else nobody can hold it
            try:
                fd = _locked(path, exclusive=True)
            except BlockingIOError:
                return False
        try:
            self.remove(path)
        finally:
            if fd is not None:
                os.close(fd)
        return True

    def make_folder(self, path: Path, fill: Callable[[Path], None]) -> None:
        """Makes the folder at `path` whole or not at all: `fill` fills a new folder beside it."""
        import shutil
        import tempfile

        new = Path(tempfile.mkdtemp(prefix=NEW, dir=path.parent))  # created 0700
        try:
            fill(new)
            if path.exists() or path.is_symlink():
                self.remove(path)
            new.replace(path)
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def digest(self, path: Path) -> str:
        """SHA-256 of any file, hex; remembered in the cache while the file's identity stays."""
        state = path.stat()
        identity = [str(path), *_identity(state)]
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
        note = self.folder("digests") / key
        with contextlib.suppress(OSError, ValueError, InstallationError):
            digest, _, check = _read_own(note).decode().partition(" ")
            if check == _check(key, digest):
                return digest
        with path.open("rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
        _discard(note)
        _write_new(note, f"{digest} {_check(key, digest)}".encode())
        return digest

    def sweep(self, name: str, keep: int) -> None:
        """Removes all but the `keep` most recently used entries of the folder `name`.

        What was used within the last hour stays, and what is held. What a killed process left half
        made is no entry; it goes after an hour.
        """
        found = [p for p in self.folder(name).iterdir() if not p.name.endswith(SEAL)]
        half_made = [p for p in found if p.name.startswith(NEW)]
        entries = sorted(set(found) - set(half_made), key=used_s, reverse=True)
        for path in (*half_made, *entries[keep:]):
            if time.time() - used_s(path) > IN_USE_S:
                with contextlib.suppress(OSError):  # the next sweep tries again
                    self.discard(path)

    def sweep_half_made(self) -> None:
        """Removes what killed processes had begun to make, an hour later."""
        for path in self.path.glob(f"*/{NEW}*"):
            if time.time() - used_s(path) > IN_USE_S:
                with contextlib.suppress(OSError):  # the next sweep tries again
                    self.discard(path)


def _name(path: Path) -> str:
    """What a file is by its place in the cache; one that was put in another's place is not."""
    return f"{path.parent.name}/{path.name}"


def _check(key: str, digest: str) -> str:
    """Shows that a note of a digest is whole, and the one of that file."""
    return hashlib.sha256(f"{key} {digest}".encode()).hexdigest()[:16]


def _seal_path(path: Path) -> Path:
    return path.with_name(path.name + SEAL)


_UNTRUSTED = (OSError, ValueError, TypeError, KeyError, RecursionError)
"""What a file or a seal that is not to be trusted is met with."""


def _checked(path: Path) -> dict[str, Any]:
    """The notes sealed with a file that is what its seal says; raises `_UNTRUSTED` if it is not."""
    seal = json.loads(_read_own(_seal_path(path)))
    state = _own_file(path)
    if seal["identity"] != _identity(state) or seal.get("name") != _name(path):
        with path.open("rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
        # A file that was renamed has another ctime, so that one that was sealed before seals had
        # names, and still has its identity, is at its place.
        name = seal.get("name", _name(path) if seal["identity"] == _identity(state) else "")
        if digest != seal["sha256"] or name != _name(path):
            raise ValueError("content differs from its seal")
        seal |= {"identity": _identity(state), "name": _name(path)}
        _write_new(_seal_path(path), json.dumps(seal).encode())
    notes = seal["notes"]
    if not isinstance(notes, dict):
        raise TypeError("notes are no object")
    return notes


def used_s(path: Path) -> float:
    """When the entry at `path` was made or last given out (`load`); 0 if it is gone meanwhile."""
    for mark in (_seal_path(path), path):
        with contextlib.suppress(OSError):
            return mark.lstat().st_mtime
    return 0.0


def _discard(path: Path) -> None:
    """Removes the file, link or folder at `path`, if there is one; a folder goes as a whole."""
    import shutil

    if path.is_dir() and not path.is_symlink():
        aside = path.with_name(f"{NEW}{os.urandom(8).hex()}")
        path.rename(aside)  # a full disk has room for another name
        shutil.rmtree(aside, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _locked(path: Path, *, exclusive: bool) -> int | None:
    """A descriptor of the file or folder at `path` with a lock on it, which ends with its process.

    None: it is not there, or nobody can open it. A lock that is not exclusive is waited for: who
    removes something does so soon.

    Raises:
        BlockingIOError: It is held, or it has just become another one.
    """
    import fcntl

    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)
        except BlockingIOError:
            raise
        except OSError as e:  # this file system has no locks: nothing there is taken to be free
            if exclusive:
                raise BlockingIOError(*e.args) from e
        there, here = path.lstat(), os.fstat(fd)
        if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
            raise BlockingIOError(f"{path} is another one now")
    except FileNotFoundError:
        os.close(fd)
        return None
    except OSError:
        os.close(fd)
        raise
    return fd


def _is_own_folder(path: Path) -> bool:
    try:
        state = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid()


def _make_plain(path: Path) -> None:
    """Removes what is there if it is no plain file: a folder or a link cannot be locked."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            _discard(path)


def _identity(state: os.stat_result) -> list[int]:
    return [state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns]


def _own_file(path: Path) -> os.stat_result:
    state = path.lstat()
    if not stat.S_ISREG(state.st_mode) or state.st_uid != os.getuid() or state.st_nlink != 1:
        raise ValueError(f"{path} is not a plain file of this user")
    if state.st_mode & 0o077:
        raise ValueError(f"{path} can be read or written by others")
    return state


def _read_own(path: Path) -> bytes:
    _own_file(path)
    return path.read_bytes()


def _write_new(path: Path, data: bytes) -> None:
    import tempfile

    fd, name = tempfile.mkstemp(prefix=NEW, dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as f:
            f.write(data)
        os.replace(name, path)
    except BaseException:  # raised again: nothing half written is left behind
        Path(name).unlink(missing_ok=True)
        raise
