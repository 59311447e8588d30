"""Shows that the switchboard knows which files a guest has open, and that none is mistaken later.

What is open is also asked of the native WASI itself, fd by fd. After a restore the files of before
are gone; their fds must answer EBADF until the guest closes them, and be given to nobody else.
"""

from __future__ import annotations

import os
import random
import resource
import struct
from typing import TYPE_CHECKING, Any

import pytest

from wasi_kernel.errors import GuestLost
from wasi_kernel.worker.guest import SCRATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

EBADF, ENOENT, EPERM = 8, 44, 63  # errno, WASI preview 1
ROOT = 3
"""fd of the only preopened folder."""

CREAT, DIRECTORY, EXCL, TRUNC = 1, 2, 4, 8  # oflags
READ, SEEK, WRITE = 1 << 1, 1 << 2, 1 << 6  # rights
ALL = READ | SEEK | WRITE
NAME, OUT = 4096, 4200
"""Guest addresses of a name, and of a result."""


class Files:
    """A guest with one real folder, and what it does with files in it."""

    def __init__(self, probe: Any, first: int = ROOT + 1) -> None:
        self.probe = probe
        self._first = first

    def open(
        self, name: str = "file", oflags: int = CREAT, rights: int = ALL, *, at: int = ROOT,
        out: int = OUT,
    ) -> tuple[int, int]:  # fmt: skip
        """path_open: (errno, fd)."""
        data = name.encode()
        self.probe.memory.write(NAME, data)
        errno = self.probe.call("path_open", at, 0, NAME, len(data), oflags, rights, rights, 0, out)
        return errno, self.probe.u32(OUT) if errno == 0 and out == OUT else -1

    def opened(self, name: str = "file", oflags: int = CREAT, rights: int = ALL) -> int:
        errno, fd = self.open(name, oflags, rights)
        assert errno == 0
        return fd

    def close(self, fd: int) -> int:
        return self.probe.call("fd_close", fd)

    def renumber(self, fd: int, to: int) -> int:
        return self.probe.call("fd_renumber", fd, to)

    def answers(self, fd: int) -> tuple[int, int, int]:
        """The errnos of reading, writing and seeking."""
        self.probe.memory.write(self.probe.DATA, b"data")
        vectors = self.probe.iovecs((self.probe.DATA, 4))
        return (
            self.probe.call("fd_read", fd, *vectors, OUT),
            self.probe.call("fd_write", fd, *vectors, OUT),
            self.probe.call("fd_seek", fd, 0, 0, OUT),
        )

    def ledger(self) -> list[int]:
        return self.probe.guest._switchboard.open_fds()[0]

    def native(self, below: int = 80) -> list[int]:
        """The fds that the native WASI has, without the preopened one."""
        fdstat = [self.probe.call("fd_fdstat_get", fd, OUT) for fd in range(self._first, below)]
        return [self._first + k for k, errno in enumerate(fdstat) if errno == 0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "folder"
    (found / "sub").mkdir(parents=True)
    (found / "there").write_text("content")
    return found


@pytest.fixture
def files(open_guest: Callable, folder: Path) -> Files:
    return Files(open_guest(preopens=[(folder, "/d", True)]))


@pytest.fixture
def wake(open_guest: Callable, folder: Path) -> Callable[[list[int]], Files]:
    """Makes a guest that had these fds open in the state that it is woken at."""

    def make(fds: list[int]) -> Files:
        probe = open_guest(preopens=[(folder, "/d", True)])
        notes = {"tray": 0, "stream": "stdout", "clock_ns": 0, "fds": fds}
        probe.guest.wake(lambda memory: None, notes)
        return Files(probe)

    return make


# -- the ledger ----------------------------------------------------------------------------------


def test_nothing_is_open_at_first(files: Files):
    assert files.ledger() == files.native() == []


def test_what_is_opened_is_on_the_ledger_until_it_is_closed(files: Files):
    fds = [files.opened(f"file-{k}") for k in range(5)]
    fds.append(files.opened("sub", DIRECTORY, 0))
    assert files.ledger() == files.native() == sorted(fds)
    assert files.close(fds[2]) == files.close(fds[5]) == 0
    assert files.ledger() == files.native() == sorted({*fds} - {fds[2], fds[5]})
    again = files.opened("there", 0, READ)
    assert again in files.ledger() == files.native()
    for fd in files.ledger():
        assert files.close(fd) == 0
    assert files.ledger() == files.native() == []


def test_what_could_not_be_opened_is_not_on_it(files: Files, folder: Path):
    assert files.open("nothing", 0)[0] == ENOENT
    assert files.open("there", CREAT | EXCL)[0] != 0
    assert files.open("there", DIRECTORY)[0] != 0
    assert files.open("../outside", CREAT)[0] == EPERM
    assert files.open("x" * 3000, CREAT)[0] != 0
    assert files.open("file", CREAT, at=77)[0] == EBADF
    for bad in (0, 1, 2):
        assert files.open("file", CREAT, at=bad)[0] != 0
    assert files.ledger() == files.native() == []
    assert sorted(p.name for p in folder.iterdir()) == ["sub", "there"]


@pytest.mark.parametrize("out", [-1, -4, 4 * 65536 - 3, 4 * 65536, OUT + 1, OUT + 2])
def test_a_place_for_the_fd_that_is_none_ends_the_guest(files: Files, out: int):
    """So there is no file that is open and not on the ledger."""
    with pytest.raises(GuestLost):
        files.open("file", out=out)


def test_a_fd_that_is_no_longer_there_stays_off(files: Files):
    fd = files.opened()
    assert files.close(fd) == 0
    assert files.close(fd) == EBADF
    assert files.close(77) == files.close(2**32 - 1) == files.close(70_000) == EBADF
    assert files.ledger() == []


def test_the_standard_fds_are_never_on_it(files: Files):
    fd = files.opened()
    for standard in (0, 1, 2):
        assert files.close(standard) == EPERM
        assert files.renumber(fd, standard) == EPERM
        assert files.renumber(standard, fd) == EPERM
    assert files.ledger() == files.native() == [fd]


def test_renumbering_moves_the_entry(files: Files):
    fds = [files.opened(f"file-{k}") for k in range(3)]
    assert files.renumber(fds[2], fds[0]) == 0
    assert files.ledger() == files.native() == fds[:2]
    assert files.renumber(fds[0], fds[1]) == 0
    assert files.ledger() == files.native() == [fds[1]]


def test_renumbering_that_fails_moves_nothing(files: Files):
    fds = [files.opened(f"file-{k}") for k in range(2)]
    for fd, to in ((77, fds[0]), (fds[0], 77), (2**32 - 1, fds[0]), (fds[0], 70_000), (77, 78)):
        assert files.renumber(fd, to) != 0
        assert files.ledger() == files.native() == fds


def test_renumbering_to_itself_leaves_a_file_open(files: Files):
    fd = files.opened()
    assert files.renumber(fd, fd) == 0
    assert files.native() == [fd]
    assert files.ledger() == [fd]


def test_a_preopened_folder_that_takes_a_files_number_is_open_there(files: Files):
    """Its own number is free then, and the next file may get it."""
    fd = files.opened()
    assert files.renumber(ROOT, fd) == 0
    assert files.probe.call("fd_fdstat_get", fd, OUT) == 0
    assert files.ledger() == files.native() == [fd]


def test_the_ledger_is_exact_whatever_is_done(files: Files):
    rng = random.Random(1)  # noqa: S311 - a seed, not a secret
    for _ in range(500):
        fd, to = rng.randrange(ROOT + 1, 40), rng.randrange(ROOT + 1, 40)
        what = rng.random()
        if what < 0.45:
            name = rng.choice(["a", "b", "there", "nothing/there", "sub", ""])
            files.open(name, rng.choice([0, CREAT, DIRECTORY, CREAT | EXCL, TRUNC]))
        elif what < 0.75:
            files.close(fd)
        elif fd != to:  # the same number is a test of its own
            files.renumber(fd, to)
        assert files.ledger() == files.native(60)
    assert len(files.ledger()) > 3


def test_the_notes_of_a_resting_guest_name_its_files(files: Files):
    fds = [files.opened(f"file-{k}") for k in range(3)]
    files.close(fds[1])
    assert files.probe.guest.notes()["fds"] == [fds[0], fds[2]]


# -- stale fds -----------------------------------------------------------------------------------

SOME = [
    [4], [5], [4, 5, 6], [9], [4, 9], [5, 7, 8, 30], list(range(4, 60)), [59, 4, 4, 59, 30],
]  # fmt: skip


@pytest.mark.parametrize("fds", SOME, ids=str)
def test_files_of_before_answer_ebadf_and_nothing_else_is_open(wake: Callable, fds: list[int]):
    files = wake(fds)
    assert files.native() == files.ledger() == sorted(set(fds))
    for fd in fds:
        assert files.answers(fd) == (EBADF, EBADF, EBADF)


@pytest.mark.parametrize("fds", SOME, ids=str)
def test_a_file_that_is_opened_gets_none_of_them(wake: Callable, fds: list[int]):
    files = wake(fds)
    new = [files.opened(f"file-{k}") for k in range(70)]
    assert set(new) & set(fds) == set()
    assert len(set(new)) == 70
    assert files.ledger() == sorted({*new, *fds})
    for fd in fds:
        assert files.answers(fd) == (EBADF, EBADF, EBADF)
    for fd in new:
        assert 0 in files.answers(fd)


@pytest.mark.parametrize("fds", SOME, ids=str)
def test_they_can_be_closed_and_are_free_then(wake: Callable, fds: list[int]):
    files = wake(fds)
    for fd in set(fds):
        assert files.close(fd) == 0
        assert files.close(fd) == EBADF
    assert files.ledger() == files.native() == []
    new = {files.opened(f"file-{k}") for k in range(60)}
    assert set(fds) <= new | {0}


def test_they_can_be_taken_on_purpose(wake: Callable):
    """dup2 onto one of them."""
    files = wake([6])
    fd = files.opened()
    assert files.renumber(fd, 6) == 0
    assert files.ledger() == files.native() == [6]
    assert files.answers(6)[1:] == (0, 0)


def test_they_are_stale_in_the_next_checkpoint_too(wake: Callable):
    files = wake([5, 9])
    new = files.opened()
    notes = files.probe.guest.notes()
    assert notes["fds"] == sorted([5, 9, new])
    again = wake(notes["fds"])
    assert again.native() == sorted([5, 9, new])
    assert again.answers(new) == (EBADF, EBADF, EBADF)


@pytest.fixture
def many_files() -> Iterator[int]:
    """How many fds this process may have: as many as can be asked for, within reason."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 4096 if hard == resource.RLIM_INFINITY else min(hard, 4096)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    yield most
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_fds_as_high_as_they_get(wake: Callable, many_files: int):
    highest = min(many_files - 200, 3000)
    fds = [4, highest // 2, highest - 1, highest]
    files = wake(fds)
    assert files.ledger() == fds
    assert files.native(highest + 10) == fds
    for fd in fds:
        assert files.answers(fd) == (EBADF, EBADF, EBADF)
    new = files.opened()
    assert new not in fds
    assert files.close(highest) == 0


def host_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def few_files() -> Iterator[None]:
    """This process may have a few hundred fds only, so that trying all of them is quick."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 300, hard)
    )
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("fds", [[0], [1, 2], [3], [0, 1, 2, 3], [-1], [-(2**40), 3]], ids=str)
def test_fds_that_are_not_files_of_the_guests_are_left_out(wake: Callable, fds: list[int]):
    files = wake(fds)
    assert files.ledger() == files.native() == []
    assert files.open("sub", DIRECTORY, 0)[0] == 0  # the folder is what it was
    assert files.probe.write(1, b"text") == 0
    assert files.probe.kernel.text() == "text"


@pytest.mark.parametrize(
    "fds", [[2**32 - 1], [70_000], [65_535, 65_536], [2**63], [6, 2**32 + 6], [2**32 - 1, 5]],
    ids=str,
)  # fmt: skip
def test_fds_that_can_never_be_leave_the_guest_usable(
    wake: Callable, few_files: None, fds: list[int]
):
    """As notes that were made up say: this process runs out of fds before it gets there."""
    before = host_fds()
    files = wake(fds)
    real = [fd for fd in fds if fd < 100]
    assert files.native() == [fd for fd in files.ledger() if fd < 80]
    assert set(real) <= set(files.native())
    assert host_fds() - before < 30
    new = [files.opened(f"file-{k}") for k in range(10)]
    assert set(new) & set(real) == set()


def test_waking_without_open_files_opens_none(wake: Callable):
    before = host_fds()
    files = wake([])
    assert files.native() == []
    assert host_fds() - before <= 4  # wasmtime keeps the file of each module open


def test_what_stood_where_the_host_puts_its_arguments_stands_there_again(
    open_guest: Callable, wat: Callable, folder: Path
):
    kept = bytes(range(200, 232))
    probe = open_guest(preopens=[(folder, "/d", True)])
    probe.memory.write(SCRATCH - 8, kept)
    before = probe.memory.read(0, probe.memory.size())
    notes = {"tray": 0, "stream": "stdout", "clock_ns": 0, "fds": [5, 9, 20]}
    probe.guest.wake(lambda memory: None, notes)
    assert probe.memory.read(0, probe.memory.size()) == before
    assert Files(probe).native() == [5, 9, 20]


def test_the_memory_that_is_filled_is_what_stands_there(open_guest: Callable, folder: Path):
    """`fill` comes first; what it put there is not written over."""
    probe = open_guest(preopens=[(folder, "/d", True)])
    content = struct.pack("<16I", *range(16))
    notes = {"tray": 0, "stream": "stdout", "clock_ns": 0, "fds": [4, 6]}
    probe.guest.wake(lambda memory: memory.write(SCRATCH - 16, content), notes)
    assert probe.memory.read(SCRATCH - 16, 64) == content


def test_with_several_folders_the_last_one_serves(open_guest: Callable, tmp_path: Path):
    preopens = []
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        preopens.append((tmp_path / name, f"/{name}", True))
    probe = open_guest(preopens=preopens)
    notes = {"tray": 0, "stream": "stdout", "clock_ns": 0, "fds": [3, 4, 5, 6, 8]}
    probe.guest.wake(lambda memory: None, notes)
    files = Files(probe, first=6)
    assert files.ledger() == files.native() == [6, 8]
    for fd in (3, 4, 5):
        assert files.open("file", at=fd)[0] == 0
    assert sorted(p.name for p in tmp_path.rglob("file")) == ["file"] * 3


def test_a_guest_without_a_folder_is_woken_all_the_same(open_guest: Callable):
    probe = open_guest()
    notes = {"tray": 0, "stream": "stdout", "clock_ns": 0, "fds": [5, 9]}
    probe.guest.wake(lambda memory: None, notes)
    assert Files(probe).answers(5) == (EBADF, EBADF, EBADF)
