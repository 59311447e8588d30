"""Shows that a guest gets the very folders that were meant, or empty ones, in one order."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from wasi_kernel import environments
from wasi_kernel.policy import HOME, TMP, WORK, Grant, Policy
from wasi_kernel.runtimes import Runtime
from wasi_kernel.worker.preopens import Preopen, for_policy, opened

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def granted(tmp_path: Path) -> Preopen:
    """A folder with one file, as it was when a session began."""
    folder = tmp_path / "granted"
    folder.mkdir()
    (folder / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").touch()
    state = folder.stat()
    identity = (state.st_dev, state.st_ino)
    return Preopen(str(folder), "/data", True, identity, str(tmp_path / "empty"))


def open_ones(granted: Preopen) -> list[int]:
    """The descriptors of this process that are that folder."""
    found = []
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):
            state = os.fstat(int(name))
            if (state.st_dev, state.st_ino) == granted.identity:
                found.append(int(name))
    return found


def test_a_folder_that_is_there_is_opened_and_closed(granted: Preopen):
    with opened([granted]) as (found, missing):
        ((path, shown),) = found
        assert (os.listdir(path), shown, missing) == (["file"], granted, ())
        assert open_ones(granted)
    assert not open_ones(granted)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="without /proc there is a moment")
def test_it_is_what_it_was_when_it_was_compared(granted: Preopen, tmp_path: Path):
    with opened([granted]) as (found, _):
        (tmp_path / "granted").rename(tmp_path / "old")
        (tmp_path / "granted").symlink_to("secret")
        assert os.listdir(found[0][0]) == ["file"]


def linked(folder: Path) -> None:
    folder.rename(folder.with_name("old"))
    folder.symlink_to("secret")


def looped(folder: Path) -> None:
    folder.rename(folder.with_name("old"))
    folder.symlink_to("granted")


def gone(folder: Path) -> None:
    folder.rename(folder.with_name("old"))


def made_a_file(folder: Path) -> None:
    gone(folder)
    folder.touch()


def made_a_fifo(folder: Path) -> None:
    gone(folder)
    os.mkfifo(folder)


def made_another(folder: Path) -> None:
    gone(folder)
    (folder.with_name("secret")).rename(folder)


@pytest.mark.parametrize("change", [linked, looped, gone, made_a_file, made_a_fifo, made_another])
def test_what_is_another_folder_now_is_an_empty_one(
    granted: Preopen, tmp_path: Path, change: Callable[[Path], None]
):
    change(tmp_path / "granted")
    with opened([granted]) as (found, missing):
        ((path, shown),) = found
        assert os.listdir(path) == []
        assert (shown.guest_path, shown.writable, missing) == ("/data", False, ("/data",))


def test_a_link_to_the_very_folder_is_that_folder(granted: Preopen, tmp_path: Path):
    gone(tmp_path / "granted")
    (tmp_path / "granted").symlink_to("old")
    with opened([granted]) as (found, missing):
        assert (os.listdir(found[0][0]), missing) == (["file"], ())


def test_one_without_an_identity_is_what_is_there(tmp_path: Path):
    own = Preopen(str(tmp_path), "/tmp", writable=True)  # noqa: S108 - a guest path
    with opened([own]) as (found, missing):
        assert (found, missing) == ([(str(tmp_path), own)], ())


# -- folders -------------------------------------------------------------------------------------


def test_the_guests_folders_and_their_order(tmp_path: Path):
    """Images depend on the order: the descriptors of these folders are in memory."""
    build = Runtime("r", tmp_path, ((tmp_path / "lib", "/usr/local/lib"),))
    granted = (Grant("/h1", "/data", writable=True), Grant("/h2", "/more/data"))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    found = for_policy(build, tmp_path / "b", Policy(grants=granted), "/notebooks", scratch)
    assert [(p.guest_path, p.host_path, p.writable) for p in found] == [
        ("/usr/local/lib", str(tmp_path / "lib"), False),
        (environments.BUNDLE, str(tmp_path / "b"), False),
        (TMP, str(scratch / "tmp"), True),
        (HOME, str(scratch / "home"), True),
        (WORK, "/notebooks", False),
        ("/data", "/h1", True),
        ("/more/data", "/h2", False),
        ("/", str(scratch / "root"), False),
    ]
    for name in ("tmp", "home"):
        assert (scratch / name).stat().st_mode & 0o777 == 0o700
    for p in found:
        assert (scratch / "root" / p.guest_path[1:]).is_dir()
    assert [p for p in (scratch / "root").rglob("*") if not p.is_dir()] == []


def test_without_a_working_folder_work_is_empty_and_read_only(tmp_path: Path):
    found = for_policy(Runtime("r", tmp_path, ()), tmp_path, Policy(), None, tmp_path)
    (work,) = (p for p in found if p.guest_path == WORK)
    assert not work.writable
    assert os.listdir(work.host_path) == []
