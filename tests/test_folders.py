"""Shows that a session's folder is its own while it lives, and gone soon after, and no other is.

Other processes are real ones. Where two meet at an unlucky moment, the interpreter's audit events
stop one of them right there while the other does its part.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from wasi_kernel import folders
from wasi_kernel.folders import KEEP, KEEP_S, LOCK, OwnFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOLD = """
import sys
from pathlib import Path
from wasi_kernel.folders import OwnFolder
own = OwnFolder(Path(sys.argv[1]), sys.argv[2])
(own.path / "data").write_text("x")
if len(sys.argv) > 3:
    own.keep(sys.argv[3])
print(own.path.name, flush=True)
sys.stdin.read()
own.release()
"""


class Holder:
    """Another process that has a folder of its own."""

    def __init__(self, base: Path, prefix: str = "", *keep: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(base), prefix, *keep],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        self.path = base / self._process.stdout.readline().strip()
        assert self.path != base

    def kill(self) -> None:
        """Ends it without a word."""
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()

    def end(self) -> None:
        """Lets it end by itself."""
        self._process.communicate("")
        assert self._process.returncode == 0


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Callable[..., Holder]]:
    made: list[Holder] = []

    def make(*args: str) -> Holder:
        made.append(Holder(tmp_path, *args))
        return made[-1]

    yield make
    for each in made:
        each.kill()


def dead(base: Path, name: str = "dead") -> Path:
    """The folder of a process that was killed."""
    path = base / name
    (path / "sub").mkdir(parents=True)
    (path / LOCK).touch()
    (path / "sub" / "data").write_text("x")
    return path


def kept(base: Path, name: str = "kept", age_s: float = 0) -> Path:
    """A folder that was kept so long ago."""
    path = dead(base, name)
    (path / KEEP).write_text("why")
    then = time.time() - age_s
    os.utime(path / KEEP, (then, then))
    return path


def names(base: Path) -> set[str]:
    return {path.name for path in base.iterdir()}


# -- one folder ----------------------------------------------------------------------------------


def test_a_new_folder_is_this_users_only(tmp_path: Path):
    mask = os.umask(0)
    try:
        own = OwnFolder(tmp_path, "a-")
    finally:
        os.umask(mask)
    assert own.path.parent == tmp_path
    assert own.path.name.startswith("a-")
    assert stat.S_IMODE(own.path.stat().st_mode) == 0o700
    assert stat.S_IMODE((own.path / LOCK).stat().st_mode) == 0o600
    assert folders.in_use(own.path)
    own.release()
    assert names(tmp_path) == set()


def test_no_two_folders_are_the_same(tmp_path: Path):
    made = [OwnFolder(tmp_path) for _ in range(20)]
    assert len(names(tmp_path)) == 20
    for own in made:
        own.release()
    assert names(tmp_path) == set()


def test_where_there_is_no_place_for_it(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        OwnFolder(tmp_path / "nothing")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        OwnFolder(tmp_path / "file")
    with pytest.raises(OSError, match="file"):
        OwnFolder(tmp_path, name="file")
    with pytest.raises(FileNotFoundError):
        OwnFolder(tmp_path, name="nothing")
    assert names(tmp_path) == {"file"}


def test_a_released_folder_takes_all_that_is_in_it_along(tmp_path: Path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    own = OwnFolder(tmp_path)
    (own.path / "a" / "b").mkdir(parents=True)
    (own.path / "a" / "b" / "file").touch()
    (own.path / "a" / "out").symlink_to(tmp_path / "other")
    (own.path / "file").symlink_to(tmp_path / "other" / "file")
    os.mkfifo(own.path / "fifo")
    own.release()
    assert names(tmp_path) == {"other"}
    assert (tmp_path / "other" / "file").read_text() == "mine"


def test_folders_that_are_deeper_than_a_path_or_the_stack_go_too(tmp_path: Path):
    """A guest can make them; shutil.rmtree of Python 3.11 calls itself for each."""
    own = OwnFolder(tmp_path)
    at = os.open(own.path, os.O_RDONLY)
    for _ in range(1200):
        os.close(os.open("file", os.O_CREAT, dir_fd=at))
        for name in ("other", "d" * 100):
            os.mkdir(name, dir_fd=at)
        below = os.open("d" * 100, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    own.release()
    assert names(tmp_path) == set()


def test_a_folder_that_is_released_twice_does_no_harm(tmp_path: Path):
    """By then its descriptor's number may be somebody else's."""
    own = OwnFolder(tmp_path)
    own.release()
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(4)]
    try:
        own.release()
        for fd in opened:
            os.fstat(fd)
    finally:
        for fd in opened:
            try:
                os.close(fd)
            except OSError:  # told by fstat above
                continue


def test_a_folder_that_is_gone_can_be_released(tmp_path: Path):
    own = OwnFolder(tmp_path)
    (own.path / LOCK).unlink()
    own.path.rmdir()
    own.release()
    assert names(tmp_path) == set()


def test_clearing_leaves_the_folder_in_use(tmp_path: Path):
    (tmp_path / "other").mkdir()
    own = OwnFolder(tmp_path)
    (own.path / "sub").mkdir()
    (own.path / "sub" / "file").touch()
    (own.path / "file").touch()
    (own.path / "link").symlink_to(tmp_path / "other")
    own.keep("why")
    own.clear()
    assert names(own.path) == {LOCK}
    assert folders.in_use(own.path)
    assert names(tmp_path) == {"other", own.path.name}
    own.release()


# -- other processes -----------------------------------------------------------------------------


def test_a_folder_is_in_use_as_long_as_its_process(tmp_path: Path, holder: Callable):
    ended, killed = holder(), holder()
    for other in (ended, killed):
        assert folders.in_use(other.path)
        with pytest.raises(BlockingIOError):
            OwnFolder(tmp_path, name=other.path.name)
    ended.end()
    assert not ended.path.exists()
    killed.kill()
    assert killed.path.exists()
    assert not folders.in_use(killed.path)
    own = OwnFolder(tmp_path, name=killed.path.name)
    assert folders.in_use(killed.path)
    assert (own.path / "data").read_text() == "x"
    own.release()
    assert names(tmp_path) == set()


def test_what_is_no_folder_of_a_session_is_not_in_use(tmp_path: Path):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name in ("file", "empty", "nothing"):
        assert not folders.in_use(tmp_path / name)
    assert names(tmp_path / "empty") == set()


def test_asking_takes_no_lock(tmp_path: Path):
    path = dead(tmp_path)
    for _ in range(3):
        assert not folders.in_use(path)
    own = OwnFolder(tmp_path, name="dead")
    assert folders.in_use(path)
    own.release()


def test_a_child_process_does_not_hold_its_parents_folder(tmp_path: Path):
    own = OwnFolder(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        own.keep("why")
        own.release()
        assert not folders.in_use(own.path)
        child.communicate(b"\n")


# -- keeping -------------------------------------------------------------------------------------


def test_a_kept_folder_stays(tmp_path: Path):
    own = OwnFolder(tmp_path)
    (own.path / "data").touch()
    own.keep("fork a")
    own.keep("fork b")
    own.release()
    assert names(own.path) == {LOCK, KEEP, "data"}
    assert (own.path / KEEP).read_text() == "fork b"
    assert not folders.in_use(own.path)
    folders.sweep(tmp_path)
    assert own.path.exists()


def test_a_kept_folder_that_is_taken_up_goes_with_who_took_it(tmp_path: Path):
    path = kept(tmp_path)
    own = OwnFolder(tmp_path, name="kept")
    own.unkeep()
    own.unkeep()
    assert (path / "sub" / "data").exists()
    own.release()
    assert names(tmp_path) == set()


def test_a_process_that_was_killed_keeps_what_it_said(tmp_path: Path, holder: Callable):
    kept_one, other = holder("", "why"), holder()
    kept_one.kill()
    other.kill()
    folders.sweep(tmp_path)
    assert names(tmp_path) == {kept_one.path.name}


# -- sweeping ------------------------------------------------------------------------------------


def test_only_folders_that_nobody_uses_or_keeps_are_swept(tmp_path: Path, holder: Callable):
    dead(tmp_path, "dead-1")
    dead(tmp_path, "dead-2")
    kept(tmp_path, "kept-new", KEEP_S - 600)
    kept(tmp_path, "kept-old", KEEP_S + 600)
    own, other = OwnFolder(tmp_path), holder()
    folders.sweep(tmp_path)
    assert names(tmp_path) == {"kept-new", own.path.name, other.path.name}
    assert names(other.path) == {LOCK, "data"}
    other.kill()
    folders.sweep(tmp_path)
    assert names(tmp_path) == {"kept-new", own.path.name}
    own.release()


def test_a_kept_folder_in_use_is_not_swept_however_old(tmp_path: Path):
    path = kept(tmp_path, age_s=10 * KEEP_S)
    own = OwnFolder(tmp_path, name="kept")
    folders.sweep(tmp_path)
    assert (path / "sub" / "data").exists()
    own.release()


KILLED = """
import os, sys
from pathlib import Path
from wasi_kernel.folders import OwnFolder
own = OwnFolder(Path(sys.argv[1]))
left = int(sys.argv[2])
for k in range(3):
    (own.path / f"file-{k}").touch()
    (own.path / f"folder-{k}" / "in").mkdir(parents=True)
def hook(event, args):
    global left
    if event in ("os.remove", "os.rmdir"):
        left -= 1
        if left < 0:
            os._exit(0)
sys.addaudithook(hook)
own.release()
"""


def test_what_is_left_when_the_removing_is_killed_is_swept(tmp_path: Path):
    """The lock goes last: a folder without one was never swept."""
    left = []
    for k in range(0, 10, 3):
        argv = [sys.executable, "-c", KILLED, str(tmp_path), str(k)]
        subprocess.run(argv, check=True)
        left += names(tmp_path)
        folders.sweep(tmp_path)
        assert names(tmp_path) == set()
    assert len(left) == 4


def test_only_folders_with_the_prefix_are_swept(tmp_path: Path):
    for name in ("a-1", "a-2", "b-1", "a"):
        dead(tmp_path, name)
    folders.sweep(tmp_path, "a-")
    assert names(tmp_path) == {"a", "b-1"}


def test_what_others_put_there_stays(tmp_path: Path):
    """No folder of ours is without a lock, and no lock is anything but a file."""
    base, outside = tmp_path / "base", tmp_path / "outside"
    base.mkdir()
    outside.touch()
    (base / "file").write_text("x")
    (base / "folder").mkdir()
    (base / "folder" / "data").touch()
    for name in ("linked", "nested"):
        (base / name).mkdir()
    (base / "linked" / LOCK).symlink_to(outside)
    (base / "nested" / LOCK).mkdir()
    (base / "broken").symlink_to("nowhere")
    (base / "loop").symlink_to("loop")
    before = sorted(base.rglob("*"))
    folders.sweep(base)
    assert sorted(base.rglob("*")) == before
    assert outside.exists()


def test_links_are_not_followed(tmp_path: Path):
    """Neither the ones among the folders nor those in them."""
    base, elsewhere = tmp_path / "base", tmp_path / "elsewhere"
    base.mkdir()
    elsewhere.mkdir()
    target = dead(elsewhere, "target")
    (base / "link").symlink_to(target)
    (dead(base) / "sub" / "out").symlink_to(target)
    folders.sweep(base)
    assert "dead" not in names(base)
    assert (target / LOCK).exists()
    assert (target / "sub" / "data").read_text() == "x"


def test_a_link_to_a_folder_in_use(tmp_path: Path):
    own = OwnFolder(tmp_path)
    (tmp_path / "link").symlink_to(own.path)
    folders.sweep(tmp_path)
    assert names(own.path) == {LOCK}
    own.release()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make folders of other users")
def test_folders_of_other_users_stay(tmp_path: Path):
    path = dead(tmp_path)
    os.chown(path, 12345, 12345)
    folders.sweep(tmp_path)
    assert (path / "sub" / "data").exists()


def test_where_there_is_nothing_to_sweep(tmp_path: Path):
    folders.sweep(tmp_path)
    folders.sweep(tmp_path / "nothing")
    (tmp_path / "file").touch()
    folders.sweep(tmp_path / "file")
    assert names(tmp_path) == {"file"}


# -- unlucky moments -----------------------------------------------------------------------------

MEET = """
import sys
from pathlib import Path
from wasi_kernel import folders
from wasi_kernel.folders import OwnFolder

base, moment = Path(sys.argv[1]), sys.argv[2]
met = []

def watch(event, args):
    if event == moment and not met and ready:
        met.append(event)
        meanwhile()

ready = False
sys.addaudithook(watch)
{source}
assert met, "the moment did not come"
"""


def meet(base: Path, moment: str, source: str) -> str:
    """What a process prints in which `meanwhile` happens at the first audit event `moment`."""
    done = subprocess.run(
        [sys.executable, "-c", MEET.replace("{source}", source), str(base), moment],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


LOCKING, REMOVING = "fcntl.flock", "os.remove"
"""Just before a lock is taken, and before the first file of a folder is removed."""


def test_a_folder_is_not_swept_while_it_is_made(tmp_path: Path):
    """Its lock is there, but not taken yet."""
    said = meet(
        tmp_path, LOCKING,
        """
def meanwhile():
    folders.sweep(base)
ready = True
own = OwnFolder(base)
print(own.path.is_dir(), folders.in_use(own.path))
""",
    )  # fmt: skip
    assert said == "True True\n"


def test_a_folder_that_is_swept_while_it_is_taken_up_is_there_or_refused(tmp_path: Path):
    kept(tmp_path, age_s=KEEP_S + 600)
    said = meet(
        tmp_path, LOCKING,
        """
def meanwhile():
    folders.sweep(base)
ready = True
try:
    own = OwnFolder(base, name="kept")
except OSError:
    print("refused")
else:
    print(own.path.is_dir() and folders.in_use(own.path))
""",
    )  # fmt: skip
    assert said in ("refused\n", "True\n")


def test_a_folder_that_is_kept_while_a_sweep_looks_at_it_stays(tmp_path: Path):
    """As a fork is: made, marked and let go for another process to take up."""
    said = meet(
        tmp_path, LOCKING,
        """
own = OwnFolder(base)
def meanwhile():
    own.keep("fork")
    own.release()
ready = True
folders.sweep(base)
print(own.path.is_dir())
""",
    )  # fmt: skip
    assert said == "True\n"


@pytest.mark.parametrize("moment", [LOCKING, REMOVING])
def test_a_sweep_in_the_middle_of_another(tmp_path: Path, moment: str):
    for k in range(3):
        dead(tmp_path, f"dead-{k}")
    kept(tmp_path)
    (tmp_path / "file").touch()
    meet(
        tmp_path, moment,
        """
living = OwnFolder(base)
def meanwhile():
    folders.sweep(base)
ready = True
folders.sweep(base)
print(living.path.is_dir() and folders.in_use(living.path))
living.release()
""",
    )  # fmt: skip
    assert names(tmp_path) == {"kept", "file"}


def test_many_sweeps_at_once(tmp_path: Path):
    for k in range(100):
        dead(tmp_path, f"dead-{k}")
    kept(tmp_path)
    own = OwnFolder(tmp_path)
    sweep = (
        "import sys; from pathlib import Path; from wasi_kernel import folders; input();"
        "folders.sweep(Path(sys.argv[1]))"
    )
    sweepers: list[Any] = [
        subprocess.Popen([sys.executable, "-c", sweep, str(tmp_path)], stdin=subprocess.PIPE)
        for _ in range(3)
    ]
    for each in sweepers:
        each.stdin.write(b"\n")
        each.stdin.flush()
    for each in sweepers:
        each.communicate()
        assert each.returncode == 0
    assert names(tmp_path) == {"kept", own.path.name}
    own.release()
