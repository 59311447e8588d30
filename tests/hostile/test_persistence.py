"""Whatever becomes of what is kept on the disk: it is renewed, or refused in words; never a hang.

Here is what concerns several modules at once. The damage of one kind of file alone is with its
module: test_caches.py, test_pagelog.py, test_sessionfile.py, test_wheels.py, test_packages.py,
worker/test_prepare.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from wasi_kernel import (
    caches,
    chosen,
    history,
    installed,
    kernelspecs,
    launch,
    plainfiles,
    sessions,
)
from wasi_kernel.caches import Cache
from wasi_kernel.errors import (
    InstallationError,
    PackagesMissingError,
    PageLogError,
    PolicyFileError,
    SessionFileError,
    WasiKernelError,
)
from wasi_kernel.folders import KEEP, LOCK, OwnFolder
from wasi_kernel.pagelog import PageLog
from wasi_kernel.policy import Policy
from wasi_kernel.segments import ORIGIN
from wasi_kernel.sessionfile import BASE, Base, read_manifest, unpack

if TYPE_CHECKING:
    from collections.abc import Callable

BOMB = b"[" * 200_000
"""JSON and TOML that is deeper than Python's recursion may be."""


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_folder(path: Path) -> None:
    path.mkdir()


def a_loop(path: Path) -> None:
    path.symlink_to(path.name)


def a_dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_socket(path: Path) -> None:
    code = "import socket, os, sys; os.chdir(sys.argv[1]); "
    code += "socket.socket(socket.AF_UNIX).bind(sys.argv[2])"
    subprocess.run([sys.executable, "-c", code, str(path.parent), path.name], check=True)


def a_huge_file(path: Path) -> None:
    with path.open("wb") as f:
        f.truncate(8 << 40)


def a_bomb(path: Path) -> None:
    path.write_bytes(BOMB)


def an_empty_file(path: Path) -> None:
    path.touch()


def other_types(path: Path) -> None:
    path.write_text('[1, null, {"a": "b"}]')


def no_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00{")


THINGS = [
    a_fifo, a_folder, a_loop, a_dangling_link, a_device, a_socket, a_huge_file, a_bomb,
    an_empty_file, other_types, no_text,
]  # fmt: skip
"""What may lie where a file is expected. A test's limit of time shows that none is waited for."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv(caches.ENV, str(tmp_path / "cache"))
    return Cache()


@pytest.fixture
def session(cache: Cache) -> Path:
    """The folder of a session that is kept, without any state."""
    own = OwnFolder(cache.folder("sessions"))
    base = Base("its.image", "00" * 32, 1 << 16, {"cell": 3}, {})
    base.store(own.path)
    PageLog(own.path, base.digest).close()
    plainfiles.replace(own.path / launch.ABOUT, json.dumps({"name": "name", "started_s": 1}))
    own.keep("fork name")
    own.release()
    return own.path


def replaced(path: Path, thing: Callable[[Path], None]) -> None:
    path.unlink(missing_ok=True)
    thing(path)


# -- what is read --------------------------------------------------------------------------------


@pytest.mark.parametrize("thing", THINGS)
def test_a_session_file_that_is_none_is_refused(tmp_path: Path, thing: Callable[[Path], None]):
    path = tmp_path / "a.session"
    thing(path)
    with pytest.raises(SessionFileError):
        read_manifest(path)
    (tmp_path / "new").mkdir()
    with pytest.raises(SessionFileError):
        unpack(path, tmp_path / "new", 1 << 32)
    assert os.listdir(tmp_path / "new") == []


@pytest.mark.parametrize("thing", THINGS)
def test_a_policy_file_that_is_none_is_refused(tmp_path: Path, thing: Callable[[Path], None]):
    path = tmp_path / "policy.toml"
    thing(path)
    if thing is an_empty_file:
        assert Policy.load(path) == Policy()
        return
    with pytest.raises(WasiKernelError):
        Policy.load(path)


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * 500 + "]" * 500,
        "[a" + ".a" * 2000 + "]",
        "a" + ".a" * 2000 + " = 1",
        f"limits = {{memory_bytes = {'9' * 5000}}}",
        f"limits = {{memory_bytes = '{'9' * 400} GiB'}}",
        "grants = ['~nobody\0/x:/d']",
        'grants = ["~nobody\\u0000/x:/d"]',
        'runtime = "~\\u0000"',
        'grants = ["${A\\u0000}:/d"]',
    ],
)  # fmt: skip
def test_a_policy_that_says_the_impossible_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(WasiKernelError):
        Policy.load(path)


@pytest.mark.parametrize("thing", THINGS)
def test_a_note_of_packages_that_is_none_is_as_none(cache: Cache, thing: Callable[[Path], None]):
    policy = Policy(packages=("attrs",))
    cache.folder(chosen.FOLDER)
    thing(chosen.note_path(cache.path, policy))
    with pytest.raises(PackagesMissingError):
        chosen.folder(cache.path, policy)


def test_packages_that_are_a_link_are_not_shown(cache: Cache, tmp_path: Path):
    policy = Policy(packages=("attrs",))
    cache.folder(chosen.FOLDER)
    chosen.note_path(cache.path, policy).write_text(json.dumps({"folder": "0" * 32}))
    (cache.path / chosen.FOLDER / ("0" * 32)).symlink_to(tmp_path)
    with pytest.raises(PackagesMissingError):
        chosen.folder(cache.path, policy)


@pytest.mark.parametrize("thing", THINGS)
def test_a_kernelspec_that_is_none_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thing: Callable[[Path], None]
):
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    folder = tmp_path / "kernels" / "mine"
    folder.mkdir(parents=True)
    thing(folder / "kernel.json")
    assert "mine" not in {spec.name for spec in kernelspecs.installed()}


# -- sessions' folders ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [BASE, launch.ABOUT, KEEP, ORIGIN, "000001.pages", LOCK, installed.NOTE, installed.FOLDER],
)
@pytest.mark.parametrize("thing", THINGS)
def test_a_session_whose_files_are_none(
    cache: Cache, session: Path, thing: Callable[[Path], None], name: str
):
    """It is listed or left out, taken up or refused in words; other sessions are not concerned."""
    replaced(session / name, thing)
    assert {found.id for found in sessions.listed(cache.path)} <= {session.name}
    assert launch.restarted(Policy(restart_keeps_state=True), "connection") is None
    begin = launch.Start(folder=session.name)
    with contextlib.suppress(WasiKernelError, OSError):  # what it is not taken up for, in words
        given = launch.settings(Policy(pip=True), None, begin)
        if not (session / launch.ABOUT).is_dir():  # else it is not listed; no more
            assert json.loads((session / launch.ABOUT).read_text())["pid"] == os.getpid()
        given.release()
    fresh = launch.settings(Policy(), None)
    fresh.release()


def test_what_a_session_writes_goes_through_no_link(cache: Cache, session: Path, tmp_path: Path):
    precious = tmp_path / "precious"
    precious.write_text('{"mine": 1}')
    replaced(session / launch.ABOUT, lambda path: path.symlink_to(precious))
    launch.settings(Policy(), None, launch.Start(folder=session.name)).release()
    assert precious.read_text() == '{"mine": 1}'


@pytest.mark.parametrize(
    "name", ["x.pages", "-1.pages", "1e9.pages", "\N{ARABIC-INDIC DIGIT ONE}.pages"]
)
def test_files_in_a_log_that_are_not_its_own(session: Path, name: str):
    (session / name).write_bytes(b"x" * 9000)
    log = PageLog(session, "00" * 32)
    log.append(16, [], {})
    log.close()
    assert (session / name).read_bytes() == b"x" * 9000


@pytest.mark.parametrize("thing", [a_fifo, a_folder, a_socket, a_device])
@pytest.mark.parametrize("read_only", [True, False])
def test_a_segment_that_is_no_file(
    session: Path, thing: Callable[[Path], None], *, read_only: bool
):
    thing(session / "000001.pages")
    with pytest.raises((OSError, PageLogError)):
        PageLog(session, "00" * 32, read_only=read_only)


@pytest.mark.parametrize(
    "said",
    [
        {"notes": []}, {"made_of": None}, {"bytes": "1"}, {"bytes": -1}, {"bytes": 1 << 60},
        {"own": "yes"}, {"image": None}, {"digest": 1}, {"own": True}, {"more": 1},
        {"own": True, "notes": {"words": {"99999999999": 1}, "interrupts": True, "is_tripped": 0,
         "tray": 0, "clock_ns": 0, "cell": 0, "fds": [], "stream": "stdout"}},
    ],
)  # fmt: skip
def test_a_base_that_cannot_have_been_written(session: Path, said: dict[str, object]):
    known = json.loads((session / BASE).read_text())
    (session / BASE).write_text(json.dumps(known | said))
    with pytest.raises(SessionFileError, match="no state that was kept"):
        Base.load(session)


def test_files_of_a_session_that_are_a_link_are_not_taken_up(
    cache: Cache, session: Path, tmp_path: Path
):
    """A guest would be shown what the link leads to as its home."""
    (session / "home").symlink_to(tmp_path)
    (session / "tmp").mkdir()
    given = launch.settings(Policy(), None, launch.Start(folder=session.name))
    try:
        assert sorted(os.listdir(given.scratch.path)) == [LOCK, "tmp"]
    finally:
        given.release()


# -- the cache -----------------------------------------------------------------------------------


def swapped(a: Path, b: Path) -> None:
    """Two files, with their seals, take each other's place."""
    for x, y in ((a, b), (a.with_name(a.name + ".seal"), b.with_name(b.name + ".seal"))):
        x.rename(x.with_name("spare"))
        y.rename(x)
        x.with_name("spare").rename(y)


@pytest.mark.parametrize("folders", [("modules", "modules"), ("plans", "images")])
def test_files_of_the_cache_that_are_swapped_are_made_again(cache: Cache, folders: tuple[str, str]):
    """Each of them is what its seal says, and would be run as native code in the other's place."""
    paths = [cache.folder(name) / f"entry-{k}" for k, name in enumerate(folders)]
    for k, path in enumerate(paths):
        cache.store(path, lambda new, k=k: (new.write_bytes(bytes([k])), {"k": k})[1])
    swapped(*paths)
    assert [cache.load(path) for path in paths] == [None, None]
    assert not any(os.path.lexists(path) for path in paths)


def test_a_copy_of_another_file_with_its_seal_is_not_loaded(cache: Cache):
    one, other = (cache.folder("modules") / name for name in ("one", "other"))
    cache.store(one, lambda new: (new.write_bytes(b"one"), {})[1])
    for suffix in ("", ".seal"):
        data = one.with_name(one.name + suffix).read_bytes()
        other.with_name(other.name + suffix).write_bytes(data)
        other.with_name(other.name + suffix).chmod(0o600)
    assert cache.load(other) is None
    assert cache.load(one) == {}


def test_a_seal_from_before_names_serves_at_its_place_alone(cache: Cache):
    """A cache of an older version need not be made anew; what was moved in it, must."""
    paths = [cache.folder("modules") / name for name in ("stays", "moves")]
    for path in paths:
        cache.store(path, lambda new: (new.write_bytes(b"x"), {})[1])
        seal = path.with_name(path.name + ".seal")
        said = json.loads(seal.read_text())
        del said["name"]
        seal.write_text(json.dumps(said))
    stays, moves = paths
    for suffix in ("", ".seal"):
        (moves.parent / f"moves{suffix}").rename(moves.parent / f"there{suffix}")
    assert cache.load(stays) == {}
    assert json.loads((stays.parent / "stays.seal").read_text())["name"] == "modules/stays"
    assert cache.load(moves.parent / "there") is None


def test_notes_of_digests_that_are_swapped_or_changed_are_made_again(cache: Cache, tmp_path: Path):
    """One digest for another would take one build's compiled module for the other's."""
    files = [tmp_path / name for name in "ab"]
    for path in files:
        path.write_text(path.name)
    right = [cache.digest(path) for path in files]
    one, other = cache.folder("digests").iterdir()
    one.rename(tmp_path / "spare")
    other.rename(one)
    (tmp_path / "spare").rename(other)
    assert [cache.digest(path) for path in files] == right
    data = bytearray(one.read_bytes())
    data[3] = ord("0") + (data[3] == ord("0"))
    one.write_bytes(data)
    assert [cache.digest(path) for path in files] == right


@pytest.mark.parametrize("thing", [a_fifo, a_folder, a_loop, a_dangling_link, a_socket])
def test_a_lock_that_is_no_file_is_replaced(cache: Cache, thing: Callable[[Path], None]):
    path = cache.folder("locks") / "prepare.lock"
    thing(path)
    with cache.lock("prepare", lambda: pytest.fail("nobody has it")):
        assert stat.S_ISREG(path.lstat().st_mode)


def test_a_lock_that_is_a_link_empties_nothing(cache: Cache, tmp_path: Path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (cache.folder("locks") / "prepare.lock").symlink_to(precious)
    with cache.lock("prepare"):
        pass
    assert precious.read_text() == "mine"


@pytest.mark.parametrize("name", ["modules", "sessions", launch.SCRATCH, "locks"])
@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(cache: Cache, name: str):
    os.chown(cache.folder(name), 12345, -1)
    with pytest.raises(InstallationError, match="not a folder of this user"):
        cache.folder(name)


@pytest.mark.parametrize("name", ["sessions", launch.SCRATCH])
def test_a_session_begins_though_the_caches_folder_is_a_link(
    cache: Cache, tmp_path: Path, name: str
):
    """It is not used; the session's private folders are elsewhere, or it has no checkpoints."""
    (tmp_path / "elsewhere").mkdir()
    (cache.path / name).symlink_to(tmp_path / "elsewhere")
    launch.settings(Policy(), None).release()
    assert os.listdir(tmp_path / "elsewhere") == []


# -- the environment -----------------------------------------------------------------------------

LIST = """
import sys
from wasi_kernel.cli import main
sys.argv[1:] = "session", "list"
sys.exit(main())
"""
BEGIN = """
import os, stat
from wasi_kernel import caches, launch
from wasi_kernel.policy import Policy
given = launch.settings(Policy(), None)
print(caches.default_path())
print(given.scratch.path)
for path in (caches.default_path(), given.scratch.path, given.checkpoints.path):
    for each in (path, *path.rglob("*")):
        assert not path.lstat().st_mode & 0o077, path
given.release()
"""


def program(code: str, **env: str | None) -> subprocess.CompletedProcess[str]:
    given = {k: v for k, v in {**os.environ, **env}.items() if v is not None}
    argv = [sys.executable, "-c", code]
    return subprocess.run(argv, env=given, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "env",
    [
        {"HOME": None}, {"HOME": "/nonexistent/home"}, {"HOME": "/proc/self/nothing"},
        {"HOME": "{}/file"}, {"HOME": ""}, {"TMPDIR": "/nonexistent"}, {"TMPDIR": "{}/file"},
        {"TMPDIR": "relative"}, {"TMPDIR": "{}/fifo"},
    ],
)  # fmt: skip
def test_a_session_begins_in_an_odd_environment(tmp_path: Path, env: dict[str, str | None]):
    """Its cache is named; nothing else is asked of HOME and TMPDIR."""
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    given = {k: v if v is None else v.format(tmp_path) for k, v in env.items()}
    done = program(BEGIN, **{caches.ENV: str(tmp_path / "cache"), **given})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].startswith(str(tmp_path / "cache"))


@pytest.mark.parametrize("home", ["/proc/self/nothing", "{}/file"])
def test_a_home_that_takes_no_cache_is_named_with_what_to_do(tmp_path: Path, home: str):
    (tmp_path / "file").touch()
    done = program(LIST, HOME=home.format(tmp_path), XDG_CACHE_HOME=None, **{caches.ENV: None})
    assert done.returncode != 0
    assert caches.ENV in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("mask", ["0", "0o777 & ~0o700", "0o077"])
def test_the_umask_opens_nothing(tmp_path: Path, mask: str):
    code = f"import os; os.umask({mask})\n{BEGIN}"
    done = program(code, **{caches.ENV: str(tmp_path / "cache")})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["XDG_CACHE_HOME", "HOME", caches.ENV])
def test_a_cache_that_is_named_by_a_relative_path_is_one_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    for other in ("XDG_CACHE_HOME", caches.ENV):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "relative")
    monkeypatch.chdir(tmp_path)
    assert caches.default_path().is_absolute()


@pytest.mark.parametrize("thing", [t for t in THINGS if t is not a_huge_file])
def test_a_history_that_is_none_is_done_without(tmp_path: Path, thing: Callable[[Path], None]):
    path = tmp_path / "history.sqlite"
    thing(path)
    kept = history.History(path)
    kept.add(1, "x")
    assert [row[2] for row in kept.tail(1, output=False)] == ["x"]
    assert thing in (an_empty_file, a_dangling_link) or kept.problem
    kept.close()


def test_a_policy_in_a_fifo_is_named(tmp_path: Path):
    os.mkfifo(tmp_path / "policy.toml")
    with pytest.raises(PolicyFileError, match="no plain file"):
        Policy.load(tmp_path / "policy.toml")


def test_the_cache_as_a_fifo_is_named(tmp_path: Path):
    os.mkfifo(tmp_path / "cache")
    with pytest.raises(InstallationError, match=r"cannot be used|not a folder"):
        Cache(Path(tmp_path / "cache"))
