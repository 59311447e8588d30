"""Shows what counts as written, created and open, that no way of writing passes by it, and what of
it survives a guest.

Real files below a real folder; the guest is WebAssembly that hands WASI's calls through, so that it
can pass any address and any number. What is on the disk in the end is compared with the counts.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from wasi_kernel.errors import GuestLost
from wasi_kernel.policy import MIB, Limits
from wasi_kernel.worker import usage as usages
from wasi_kernel.worker.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

EBADF, EEXIST, EFAULT, EINVAL, EMFILE, ENOENT, ENOSPC = 8, 20, 21, 28, 33, 44, 51  # WASI preview 1
ROOT = 3
CREAT, DIRECTORY, EXCL, TRUNC = 1, 2, 4, 8  # oflags
APPEND = 1  # fdflags
SET, CUR, END = 0, 1, 2  # whence
RIGHTS = (1 << 29) - 1
NAME, OTHER, OUT = 4096, 4400, 4800
"""Guest addresses of two names, and of a result."""

PAGES = 4 * 65536
"""The guest's memory ends here."""

LIMITS = Limits(stack_bytes=MIB, written_bytes=1000, created_files=5, open_files=16)


class Files:
    """A guest with one real, writable folder."""

    def __init__(self, probe: Any, folder: Path, usage: Usage) -> None:
        self.probe, self.folder, self.usage = probe, folder, usage
        probe.memory.write(probe.DATA, b"x" * 4096)

    def path(self, name: str, at: int = NAME) -> tuple[int, int]:
        self.probe.memory.write(at, name.encode())
        return at, len(name)

    def open(self, name: str, oflags: int = CREAT, flags: int = 0) -> tuple[int, int]:
        """path_open, following links: (errno, fd)."""
        where = self.path(name)
        errno = self.probe.call("path_open", ROOT, 1, *where, oflags, RIGHTS, RIGHTS, flags, OUT)
        return errno, self.probe.u32(OUT) if errno == 0 else -1

    def opened(self, name: str, oflags: int = CREAT, flags: int = 0) -> int:
        errno, fd = self.open(name, oflags, flags)
        assert errno == 0
        return fd

    def write(self, fd: int, count: int) -> int:
        """fd_write; the errno. All or nothing is written."""
        vectors = self.probe.iovecs((self.probe.DATA, count))
        errno = self.probe.call("fd_write", fd, *vectors, OUT)
        assert errno or self.probe.u32(OUT) == count
        return errno

    def write_at(self, fd: int, count: int, offset: int) -> int:
        vectors = self.probe.iovecs((self.probe.DATA, count))
        return self.probe.call("fd_pwrite", fd, *vectors, offset, OUT)

    def seek(self, fd: int, offset: int, whence: int = SET) -> int:
        return self.probe.call("fd_seek", fd, offset, whence, OUT)

    def resize(self, fd: int, size: int) -> int:
        return self.probe.call("fd_filestat_set_size", fd, size)

    def on_one(self, call: str, name: str) -> int:
        return self.probe.call(call, ROOT, *self.path(name))

    def on_two(self, call: str, name: str, other: str) -> int:
        names = *self.path(name), *self.path(other, OTHER)
        if call == "path_symlink":
            return self.probe.call(call, *names[:2], ROOT, *names[2:])
        follow = (0,) if call == "path_link" else ()
        return self.probe.call(call, ROOT, *follow, *names[:2], ROOT, *names[2:])

    @property
    def written(self) -> int:
        return self.usage.counts()["written_bytes"]

    @property
    def created(self) -> int:
        return self.usage.counts()["created_files"]

    @property
    def there(self) -> int:
        """The lengths of all files on the disk."""
        found = {p.stat().st_ino: p.stat().st_size for p in self.folder.rglob("*") if p.is_file()}
        return sum(found.values())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


@pytest.fixture
def make(
    open_guest: Callable, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Files]]:
    """Makes a guest of one session after the other, with the counts of that session."""
    used: list[Usage] = []

    def new(limits: Limits = LIMITS) -> Files:
        used.append(Usage(limits, [str(folder)], tmp_path / "usage"))
        probe = open_guest(preopens=[(folder, "/d", True)], limits=limits, usage=used[-1])
        return Files(probe, folder, used[-1])

    yield new
    for usage in used:
        usage.close()


@pytest.fixture
def files(make: Callable[..., Files]) -> Files:
    return make()


# -- bytes ---------------------------------------------------------------------------------------


def test_what_is_written_counts_and_what_would_pass_the_limit_is_refused_whole(files: Files):
    fd = files.opened("a")
    assert files.write(fd, 600) == 0
    assert files.written == 600
    assert files.write(fd, 401) == ENOSPC
    assert (files.there, files.written) == (600, 600)
    assert files.usage.refused("written_bytes") == 1
    assert files.write(fd, 400) == 0
    assert files.write(fd, 1) == ENOSPC
    assert files.write(fd, 0) == 0
    assert (files.there, files.written) == (1000, 1000)


def test_a_request_begins_with_nothing_refused(files: Files):
    assert files.write(files.opened("a"), 2000) == ENOSPC
    files.usage.begin()
    assert files.usage.refused("written_bytes") == 0


def test_a_write_that_fails_costs_nothing(files: Files, folder: Path):
    (folder / "there").write_text("content")
    errno = files.probe.call(
        "path_open", ROOT, 0, *files.path("there"), 0, 1 << 1, 1 << 1, 0, OUT
    )  # to read only
    assert errno == 0
    assert files.write(files.probe.u32(OUT), 100) == EBADF
    assert files.write(77, 100) == EBADF
    assert files.write_at(77, 100, 0) == EBADF
    assert files.write_at(files.opened("a"), 10, -1) != 0
    assert files.resize(77, 50) == EBADF
    assert files.written == 0


def test_only_the_first_buffer_is_written_and_counted(files: Files):
    """As the native call does; the rest is for the next call, as WASI allows."""
    fd, data = files.opened("a"), files.probe.DATA
    vectors = files.probe.iovecs((PAGES + 4, 0), (data, 700), (data, 700))
    assert files.probe.call("fd_write", fd, *vectors, OUT) == 0
    assert files.probe.u32(OUT) == files.there == files.written == 700


BAD = [
    (PAGES, 1, OUT), (PAGES - 4, 1, OUT), (-8, 1, OUT), (2048, 2**29, OUT), (2048, -1, OUT),
    (2049, 1, OUT), (2048, 1, PAGES), (2048, 1, -4), (2048, 1, PAGES - 3), (2048, 1, OUT + 1),
]  # fmt: skip


@pytest.mark.parametrize(("iovs", "count", "out"), BAD)
def test_a_bad_address_is_an_error_and_writes_nothing(
    files: Files, iovs: int, count: int, out: int
):
    """The native call ends the guest, some of these after it has written."""
    fd = files.opened("a")
    files.probe.iovecs((files.probe.DATA, 10))
    assert files.probe.call("fd_write", fd, iovs, count, out) == EFAULT
    assert files.probe.call("fd_pwrite", fd, iovs, count, 0, out) == EFAULT
    assert (files.there, files.written) == (0, 0)


@pytest.mark.parametrize("vector", [(PAGES - 4, 5), (-1, 2), (PAGES, 1), (0, -1), (8192, -1)])
def test_a_bad_buffer_is_an_error_and_writes_nothing(files: Files, vector: tuple[int, int]):
    fd = files.opened("a")
    vectors = files.probe.iovecs((5, 0), tuple(v & 0xFFFFFFFF for v in vector))
    assert files.probe.call("fd_write", fd, *vectors, OUT) == EFAULT
    assert files.probe.call("fd_pwrite", fd, *vectors, 0, OUT) == EFAULT
    assert (files.there, files.written) == (0, 0)


def test_a_result_that_lies_on_the_buffers_changes_no_count(files: Files):
    fd = files.opened("a")
    at, count = files.probe.iovecs((files.probe.DATA, 300))
    assert files.probe.call("fd_write", fd, at, count, at + 4) == 0
    assert files.probe.call("fd_write", fd, *files.probe.iovecs((at, 8)), at) == 0
    assert files.there == files.written == 308


FAR = 1 << 43


@pytest.mark.parametrize("offset", [1001, FAR, 2**62, 2**63 - 1, -1])
def test_a_gap_counts_however_it_comes_about(files: Files, offset: int):
    """A file of 8 TiB that takes one block takes 8 TiB wherever it is copied."""
    fd = files.opened("a")
    assert files.write_at(fd, 1, offset) != 0
    assert files.resize(fd, offset) != 0
    assert files.probe.call("fd_allocate", fd, offset, 1) != 0
    assert files.seek(fd, offset) in (0, EINVAL)
    if offset > 0:
        assert files.write(fd, 1) == files.write(fd, 1) == ENOSPC  # and not only once
    assert (files.there, files.written) == (0, 0)
    assert files.seek(fd, 0) == files.write(fd, 1) == 0


def test_a_gap_within_the_limit_costs_its_length(files: Files):
    fd = files.opened("a")
    assert files.seek(fd, 300) == files.write(fd, 10) == 0
    assert files.there == files.written == 310
    assert files.write_at(fd, 10, 400) == 0
    assert files.there == files.written == 410
    assert files.resize(fd, 500) == 0
    assert files.there == files.written == 500
    assert files.seek(fd, 100, END) == files.write(fd, 10) == 0
    assert files.there == files.written == 610
    assert files.seek(fd, 50, CUR) == files.write(fd, 10) == 0
    assert files.there == files.written == 670


def test_writing_over_what_is_there_counts_but_is_measured_in_the_end(files: Files):
    fd = files.opened("a")
    for _ in range(5):
        assert files.seek(fd, 0) == files.write(fd, 90) == 0
    assert (files.there, files.written) == (90, 450)
    for _ in range(50):
        assert files.seek(fd, 0) == files.write(fd, 90) == 0
        assert files.write_at(fd, 90, 0) == 0
    assert files.there == 90


def test_a_file_that_takes_all_room_can_be_written_over(files: Files):
    """As a database does with its own; no more than that can be written."""
    fd = files.opened("a")
    assert files.write(fd, 1000) == 0
    for _ in range(5):
        assert files.seek(fd, 0) == files.write(fd, 1000) == 0
        assert files.write_at(fd, 500, 500) == 0
        assert files.write_at(fd, 500, 501) == ENOSPC
        assert files.seek(fd, -999, END) == 0
        assert files.write(fd, 1000) == ENOSPC
    appending = files.opened("a", CREAT, APPEND)
    assert files.write(appending, 1) == ENOSPC
    assert files.there == files.written == 1000
    assert files.usage.refused("written_bytes") == 11


@pytest.mark.parametrize("how", ["truncate", "resize"])
def test_a_file_that_is_cut_behind_a_writers_back_leaves_a_gap(files: Files, how: str):
    """Its position lies behind the end then, without any seek."""
    fd = files.opened("a")
    assert files.write(fd, 900) == 0
    if how == "truncate":
        files.opened("a", TRUNC)
    else:
        assert files.resize(files.opened("a"), 0) == 0
    assert files.there == 0
    assert files.write(fd, 101) == ENOSPC
    assert files.write(fd, 100) == 0
    assert (files.there, files.written) == (1000, 1000)


def test_appending_leaves_none_wherever_the_position_is(files: Files):
    """As a log does that is cut from time to time."""
    fd = files.opened("log", CREAT, APPEND)
    for _ in range(20):
        assert files.write(fd, 400) == 0
        files.probe.call("fd_close", files.opened("log", TRUNC))
        assert files.seek(fd, FAR) == 0
    assert files.there == 0
    assert files.write(fd, 1000) == 0
    assert files.write(fd, 1) == ENOSPC


def test_a_moved_descriptor_takes_its_position_with_it(files: Files):
    fd, other = files.opened("a"), files.opened("b")
    assert files.seek(fd, FAR) == 0
    assert files.probe.call("fd_renumber", fd, other) == 0
    assert files.write(other, 1) == ENOSPC


def test_what_is_deleted_can_be_written_again(files: Files):
    for _ in range(30):
        fd = files.opened("a")
        assert files.write(fd, 900) == 0
        assert files.probe.call("fd_close", fd) == files.on_one("path_unlink_file", "a") == 0
    fd = files.opened("a")
    assert files.write(fd, 1000) == 0
    assert files.resize(fd, 100) == 0
    assert files.write_at(fd, 900, 100) == 0
    assert files.write_at(fd, 1, 1000) == ENOSPC


def test_a_file_that_was_deleted_and_is_open_is_still_there(files: Files):
    fd = files.opened("a")
    assert files.write(fd, 900) == files.on_one("path_unlink_file", "a") == 0
    assert files.write(files.opened("b"), 200) == ENOSPC
    assert files.probe.call("fd_close", fd) == 0
    assert files.write(files.opened("b"), 1000) == 0


def test_a_file_with_two_names_is_there_once_and_only_gone_with_both(files: Files):
    assert files.write(files.opened("a"), 600) == files.on_two("path_link", "a", "b") == 0
    assert not files.usage.measure()
    assert files.written == 600
    assert files.on_one("path_unlink_file", "a") == 0
    assert files.write(files.opened("c"), 500) == ENOSPC


def test_what_was_there_before_the_session_is_not_the_sessions(make: Callable, folder: Path):
    (folder / "before").write_bytes(bytes(10_000))
    os.utime(folder, (0, 0))
    files = make()
    old = folder / "before"
    assert files.write(files.opened("a"), 900) == 0
    files.usage.measure()
    assert files.written <= 900
    fd = files.opened("before", 0)
    assert files.write_at(fd, 100, 10_000) == 0  # and what grows counts by what it grows
    assert files.write_at(fd, 1, 10_100) == ENOSPC
    assert old.stat().st_size == 10_100


def test_what_cannot_be_measured_is_not_given_back(files: Files, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(usages, "MAX_ENTRIES", 2)
    for name in ("a", "b", "c"):
        fd = files.opened(name)
        assert files.write(fd, 300) == 0
    assert files.resize(fd, 0) == files.seek(fd, 0) == 0
    assert files.write(fd, 200) == ENOSPC
    assert files.on_one("path_unlink_file", "a") == 0
    assert files.write(fd, 200) == 0


def test_folders_that_are_deeper_than_a_path_are_not_forgotten(make: Callable):
    files = make(Limits(stack_bytes=MIB, written_bytes=1000, created_files=100, open_files=50))
    at, name = ROOT, files.path("d" * 200)
    for _ in range(30):
        assert files.probe.call("path_create_directory", at, *name) == 0
        where = (*name, DIRECTORY, 0, RIGHTS, 0, OUT)
        assert files.probe.call("path_open", at, 0, *where) == 0
        at = files.probe.u32(OUT)
    where = files.path("deep")
    assert files.probe.call("path_open", at, 0, *where, CREAT, RIGHTS, RIGHTS, 0, OUT) == 0
    assert files.write(files.probe.u32(OUT), 900) == 0
    assert files.write(files.opened("a"), 200) == ENOSPC


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_done_no_more_is_on_the_disk_than_is_counted(  # noqa: C901 - a case per call
    make: Callable, seed: int
):
    files = make(Limits(stack_bytes=MIB, written_bytes=20_000, created_files=8, open_files=16))
    rng = random.Random(seed)  # noqa: S311 - a seed, not a secret
    fds: list[int] = []
    for _ in range(1500):
        what, name = rng.randrange(11), rng.choice("abcdefgh")
        fd = rng.choice(fds) if fds else 99
        size = rng.choice([0, 1, 100, 3000, 19_999, 20_001, FAR])
        if what == 0:
            oflags = rng.choice([CREAT, CREAT | TRUNC, CREAT | EXCL, 0])
            errno, new = files.open(name, oflags, rng.choice([0, 0, APPEND]))
            fds += [new] if errno == 0 else []
        elif what == 1 and fds:
            fds.remove(fd)
            assert files.probe.call("fd_close", fd) == 0
        elif what == 2:
            files.write_at(fd, rng.randrange(4000), size)
        elif what == 3:
            files.seek(fd, size, rng.choice([SET, CUR, END]))
        elif what == 4:
            files.resize(fd, size)
        elif what == 5:
            files.on_one("path_unlink_file", name)
        elif what == 6:
            files.on_two(rng.choice(["path_rename", "path_link"]), name, rng.choice("abcdefgh"))
        elif what == 7:
            vectors = files.probe.iovecs((16_384, rng.randrange(8000)))
            files.probe.call("fd_read", fd, *vectors, OUT)
        elif what == 8:
            files.probe.call("fd_fdstat_set_flags", fd, rng.choice([0, APPEND]))
        else:
            files.write(fd, rng.randrange(4000))
        assert files.there <= files.written <= 20_000
        assert len(list(files.folder.iterdir())) <= files.created <= 8
        assert files.probe.guest.open_files == len(fds) <= 16


# -- files ---------------------------------------------------------------------------------------

MAKING = [
    lambda files, name: files.open(name)[0],
    lambda files, name: files.open(name, CREAT | EXCL)[0],
    lambda files, name: files.on_one("path_create_directory", name),
    lambda files, name: files.on_two("path_symlink", "target", name),
    lambda files, name: files.on_two("path_link", "first", name),
]


@pytest.mark.parametrize("make_one", MAKING)
def test_everything_that_makes_a_file_counts(files: Files, make_one: Callable):
    files.opened("first")
    assert [make_one(files, f"new-{k}") for k in range(5)] == [0, 0, 0, 0, ENOSPC]
    assert (files.created, len(os.listdir(files.folder))) == (5, 5)
    assert files.usage.refused("created_files") == 1


def test_opening_what_is_there_makes_nothing(files: Files):
    for _ in range(3):
        for name in "abcde":
            files.probe.call("fd_close", files.opened(name, CREAT | TRUNC))
    assert files.created == 5
    assert files.open("f")[0] == ENOSPC
    assert files.open("a", CREAT | EXCL)[0] in (EEXIST, ENOSPC)


def test_a_file_that_could_not_be_made_costs_nothing(files: Files, folder: Path):
    (folder / "there").touch()
    assert files.open("no/file")[0] == ENOENT
    assert files.open("../file")[0] != 0
    assert files.open("there", CREAT | EXCL)[0] == EEXIST
    assert files.on_one("path_create_directory", "there") == EEXIST
    assert files.on_two("path_symlink", "x", "there") == EEXIST
    assert files.on_two("path_link", "none", "new") == ENOENT
    assert files.open("there", CREAT | DIRECTORY)[0] != 0
    assert files.created == 0


def test_a_link_to_nothing_makes_the_file_that_it_names(files: Files):
    assert files.on_two("path_symlink", "named", "link") == 0
    files.opened("link")
    assert files.created == 2
    assert sorted(os.listdir(files.folder)) == ["link", "named"]


def test_removing_gives_back_but_never_more_than_was_made(files: Files, folder: Path):
    for k in range(20):
        (folder / f"before-{k}").touch()
    for k in range(20):
        assert files.on_one("path_unlink_file", f"before-{k}") == 0
    assert files.created == 0
    for _ in range(20):
        assert files.on_one("path_create_directory", "d") == 0
        assert files.on_one("path_remove_directory", "d") == 0
    assert [files.on_one("path_create_directory", f"d{k}") for k in range(6)][-1] == ENOSPC


def test_replacing_files_again_and_again_goes_on(files: Files):
    """A file that is written beside and renamed, as careful programs do."""
    for _ in range(30):
        files.probe.call("fd_close", files.opened("new"))
        assert files.on_two("path_rename", "new", "old") == 0
    assert os.listdir(files.folder) == ["old"]


def test_renaming_a_name_to_another_of_the_same_file_gives_nothing_back(files: Files):
    """It does nothing: both are still there."""
    files.opened("a")
    made = 1
    for k in range(20):
        if files.on_two("path_link", "a", f"b{k}") == 0:
            made += 1
            assert files.on_two("path_rename", "a", f"b{k}") == 0
    assert made == len(os.listdir(files.folder)) == 5


# -- open files ----------------------------------------------------------------------------------


def test_so_many_files_may_be_open_at_a_time(files: Files):
    fds = [files.opened("a") for _ in range(16)]
    for oflags in (0, CREAT, DIRECTORY, TRUNC):
        assert files.open("a", oflags)[0] == EMFILE
    assert files.usage.refused("open_files") == 4
    assert files.probe.call("fd_close", fds[3]) == 0
    assert files.probe.call("fd_close", fds[3]) == EBADF
    files.opened("a")
    assert files.open("a")[0] == EMFILE
    assert files.probe.call("fd_renumber", fds[0], fds[1]) == 0
    files.opened("a")
    assert files.open("a")[0] == EMFILE


def test_standard_descriptors_and_granted_folders_are_none(files: Files):
    for _ in range(40):
        files.probe.call("fd_close", 0)
        files.probe.call("fd_renumber", 1, 2)
    assert files.probe.guest.open_files == 0
    assert files.probe.call("fd_close", ROOT) == 0
    assert files.probe.guest.open_files == 0


def test_a_woken_guest_has_its_stale_files_open_and_the_limit_again(make: Callable):
    files = make()
    notes = {"tray": 0, "stream": "stdout", "clock_ns": 0, "fds": [4, 6, 30]}
    files.probe.guest.wake(lambda memory: None, notes)
    assert files.probe.guest.open_files == 3
    assert [files.open("a")[0] for _ in range(14)] == [0] * 13 + [EMFILE]


LIMITED = """
import resource, sys
from wasi_kernel.policy import Limits
from wasi_kernel.worker import usage
most = usage.RESERVED_FDS + 40
hard = most if sys.argv[1] == "hard" else resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
may = usage.Usage(Limits(open_files=600), []).open_files
print(may, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - usage.RESERVED_FDS)
"""
"""What a process does that may have a few descriptors more than it needs: {soft, hard} limit. A
process of its own, since this one may have more than those open."""


def limited(kind: str) -> list[int]:
    """[files that a guest may have open there, descriptors beside the worker's own]"""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, kind],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return list(map(int, done.stdout.split()))


def test_the_worker_asks_for_as_many_descriptors_as_it_needs():
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 1000:
        pytest.skip("this process may not have more")
    may, room = limited("soft")
    assert may == 600
    assert room >= 600


def test_where_it_cannot_have_them_the_guest_has_fewer():
    """So that the guest is refused a file before the worker lacks a descriptor."""
    assert limited("hard") == [40, 40]


# -- what survives -------------------------------------------------------------------------------


def test_the_next_guest_of_the_session_goes_on_counting(make: Callable):
    first = make()
    assert first.write(first.opened("a"), 700) == 0
    second = make()
    assert (second.written, second.created) == (700, 1)
    assert second.probe.guest.open_files == 0
    assert second.write(second.opened("b"), 301) == ENOSPC
    with pytest.raises(GuestLost):
        second.probe.call("proc_exit", 1)
    assert make().written == 700


KILLED = """
import os, sys
from pathlib import Path
from wasi_kernel.policy import Limits
from wasi_kernel.worker.memory import LinearMemory
from wasi_kernel.worker.usage import Usage
from wasmtime import Engine, Instance, Module, Store
usage = Usage(Limits(), [], Path(sys.argv[1]))
store = Store(Engine())
text = '''(module (memory (export "memory") 1)
  (func (export "run") (loop $go (i64.store (i32.const 0)
    (i64.add (i64.load (i32.const 0)) (i64.const 1))) (br $go))))'''
exports = Instance(store, Module(store.engine, text), []).exports(store)
usage.count_at(LinearMemory(store, exports["memory"]), 0)
print("counting", flush=True)
exports["run"](store)
"""


def test_a_count_is_there_when_the_worker_is_killed_in_the_middle_of_it(tmp_path: Path):
    path = tmp_path / "usage"
    worker = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "counting\n"
    while not (seen := struct.unpack("<Q", path.read_bytes()[:8])[0]):
        continue
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    usage = Usage(Limits(), [], path)
    assert usage.counts()["written_bytes"] >= seen > 0
    assert not usage.fresh
    usage.close()


def test_counts_that_were_saved_are_gone_on_from(tmp_path: Path):
    usage = Usage(LIMITS, [], tmp_path / "new")
    assert usage.fresh
    began_ns = usage.notes()["began_ns"]
    usage.adopt({"written_bytes": 400, "created_files": 3, "began_ns": began_ns - 5})
    assert usage.counts() == {"written_bytes": 400, "created_files": 3}
    assert usage.notes()["began_ns"] == began_ns - 5
    usage.adopt({"written_bytes": 0, "created_files": 0})  # of an undo, say
    assert usage.counts() == {"written_bytes": 400, "created_files": 3}
    usage.close()


def test_no_session_began_later_than_it_did(tmp_path: Path):
    """What it has changed would not be measured."""
    usage = Usage(LIMITS, [], tmp_path / "new")
    began_ns = usage.notes()["began_ns"]
    usage.adopt({"written_bytes": 400, "began_ns": began_ns + 10**12})
    assert usage.notes()["began_ns"] == began_ns
    usage.close()


@pytest.mark.parametrize(
    "said", [None, 7, [], {}, {"written_bytes": -1}, {"written_bytes": 2**64, "created_files": "x"}]
)
def test_what_is_no_count_is_left_out(said: Any):
    usage = Usage(LIMITS, [])
    usage.adopt(said)
    assert usage.counts() == {"written_bytes": 0, "created_files": 0}
    usage.close()


def test_a_limit_that_is_lowered_below_what_is_used_refuses_what_is_more(make: Callable):
    first = make()
    assert first.write(first.opened("a"), 900) == 0
    later = make(Limits(stack_bytes=MIB, written_bytes=500, created_files=0))
    fd = later.opened("a")
    assert later.write(fd, 1) == 0  # over what is there
    assert later.seek(fd, 0, END) == 0
    assert later.write(fd, 1) == ENOSPC
    assert later.write(fd, 0) == 0
    assert later.open("b")[0] == ENOSPC
    assert later.on_one("path_unlink_file", "a") == 0
