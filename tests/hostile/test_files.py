"""No cell reaches, or changes, a file that it was not granted, whatever lies in what it was.

The cases are data (cases/files.toml); here are the attacks in which the host has a part.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GROUPS = ("files",)

RACES = 3000
"""How often the guest goes through a path while the host swaps what is there."""

WAYS_IN = """
uses = [
    lambda w: open(w).read(), lambda w: open(w, "a"), lambda w: open(w, "w"), os.stat, os.listdir,
    lambda w: open(w + "/secret.txt").read(), lambda w: open(w + "/new", "x"),
    lambda w: os.mkdir(w + "/new"), lambda w: os.unlink(w + "/secret.txt"),
    lambda w: os.rename(w + "/secret.txt", "/out/x"), lambda w: os.utime(w, (1, 1)),
    lambda w: os.truncate(w, 0), lambda w: os.scandir(w),
    lambda w: os.link(w + "/secret.txt", "/out/x"),
]
"""


def links_lie_there(stage, case):
    """Links in a granted folder, to all sorts of places, each tried in all ways."""
    from wasi_kernel import caches

    world = stage.world
    targets = [
        "/", "/etc/passwd", "/proc/self/environ", "/proc/self/root", "/dev/zero",
        str(world.outside), str(world.outside / "secret.txt"), str(world.outside / "new"),
        str(world.home / ".ssh"), str(caches.default_path()), "../outside",
        "../outside/secret.txt", "../data", "../data/kept.txt", "..", "../out/../outside",
        str(world.out) + "/../outside", "inner/../../outside",
    ]  # fmt: skip
    for k, target in enumerate(targets):
        (world.out / f"l{k}").symlink_to(target)
    return stage.run(f"""
import os
{WAYS_IN}
for name in sorted(os.listdir("/out")):
    for k, use in enumerate(uses):
        try:
            found = use("/out/" + name)
        except OSError:
            continue
        raise AssertionError((name, k, found))
""")


def hard_link_follows(stage, case):
    """Hard links to what links of the host mean, with and without following."""
    (stage.world.out / "l").symlink_to(stage.world.outside / "secret.txt")
    (stage.world.out / "d").symlink_to(stage.world.outside)
    return stage.run("""
import os
for follow in (True, False):
    for way in ("/out/l", "/out/d/secret.txt", "/out/d"):
        try:
            os.link(way, f"/out/hard-{follow}", follow_symlinks=follow)
        except (OSError, NotImplementedError):
            continue
        try:
            text = open(f"/out/hard-{follow}").read()
        except OSError:
            os.unlink(f"/out/hard-{follow}")
            continue
        raise AssertionError((way, follow, text))
""")


def odd_names_lie_there(stage, case):
    """Names that are no UTF-8, terminal escapes, and what means something elsewhere."""
    folder = os.fsencode(stage.world.out)
    for name in (
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"a\nb",
        b"\x1b[2J",
        b"..\\x",
        b" ",
        b"-rf",
        b"\x7f",
    ):
        os.close(os.open(folder + b"/" + name, os.O_CREAT | os.O_WRONLY, 0o600))
    return stage.run("""
import os
for use in (os.listdir, lambda w: [e.stat() for e in os.scandir(w)], lambda w: list(os.walk(w))):
    try:
        print(len(use("/out")))
    except (OSError, UnicodeError) as e:
        print(type(e).__name__)
""")


def fifo_waits(stage, case):
    """A cell opens a FIFO that has no other end; the user stops it."""
    os.mkfifo(stage.world.out / "fifo")
    sent = stage.execute(case.cells[-1])
    stage.recorder.until_text(sent, "begun")
    for _ in range(20):
        stage.interrupt()
        if stage.replied(sent, 1.2):
            break
    return stage.answer(sent)


def fifo_looked_at(stage, case):
    """What is asked of a FIFO without opening it, and opening it without waiting."""
    os.mkfifo(stage.world.out / "fifo")
    return stage.run("""
import os, shutil
assert os.listdir("/out") == ["fifo"]
os.stat("/out/fifo"), os.path.exists("/out/fifo"), list(os.scandir("/out"))[0].is_file()
os.rename("/out/fifo", "/out/moved")
os.unlink("/out/moved")
""")


def socket_lies_there(stage, case):
    """A listening socket in a granted folder; the guest finds no way to speak to it."""
    here = os.getcwd()
    with socket.socket(socket.AF_UNIX) as sock:
        os.chdir(stage.world.out)  # its address has no room for long paths
        try:
            sock.bind("socket")
        finally:
            os.chdir(here)
        sock.listen()
        sock.settimeout(0)
        answer = stage.run("""
import os, socket
for use in (lambda: open("/out/socket"), lambda: open("/out/socket", "w"),
            lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect("/out/socket"),
            lambda: socket.create_connection(("127.0.0.1", 80), 1)):
    try:
        use()
    except (OSError, AttributeError):
        continue
    raise AssertionError("reached")
""")
        with pytest.raises(BlockingIOError):
            sock.accept()
    return answer


def huge_folder(stage, case):
    """Three thousand files: wasmtime reads a folder from its begin for each 4 KiB of names."""
    for k in range(3000):
        os.close(os.open(stage.world.out / f"file-{k:06}", os.O_CREAT | os.O_WRONLY, 0o600))
    return stage.run("""
import os
assert len(os.listdir("/out")) == 3000
assert len({e.name for e in os.scandir("/out")}) == 3000
""")


def folder_moved_out(stage, case):
    """A folder that the guest has open is moved outside, with a way up beside it."""
    folder = stage.world.out / "a" / "b"
    folder.mkdir(parents=True)
    assert stage.run("import os\nfd = os.open('/out/a/b', os.O_RDONLY)").ename == "ok"
    moved = stage.world.outside / "moved"
    folder.rename(moved)
    try:
        return stage.run("""
for way in ("../secret.txt", "..", "../sub/secret.txt", "./../secret.txt"):
    for use in (lambda: os.open(way, os.O_RDONLY, dir_fd=fd), lambda: os.stat(way, dir_fd=fd)):
        try:
            found = use()
        except (OSError, NotImplementedError):
            continue
        raise AssertionError(way)
os.close(fd)
""")
    finally:
        moved.rmdir()
        os.utime(stage.world.outside, ns=(0, stage.world.outside_ns))


CHANGE = """
import os, sys
path = sys.argv[1]
print("begun", flush=True)
while os.getppid() == int(os.environ["PARENT"]):
    with open(path, "r+b") as f:
        f.truncate(0); f.truncate(1 << 20); f.write(b"x" * 70_000)
    with open(path + ".new", "wb") as f:
        f.write(b"y" * 70_000)
    os.replace(path + ".new", path)
"""

SWAP = """
import os, sys
there, other, spare = sys.argv[1:]
print("begun", flush=True)
while os.getppid() == int(os.environ["PARENT"]):
    for a, b in (there, spare), (other, there), (there, other), (spare, there):
        try:
            os.rename(a, b)
        except OSError:
            pass
"""


@contextlib.contextmanager
def running(source: str, *argv: Path) -> Iterator[None]:
    """While the body runs, another process runs `source`."""
    env = {**os.environ, "PARENT": str(os.getpid())}
    with subprocess.Popen(
        [sys.executable, "-c", source, *map(str, argv)], stdout=subprocess.PIPE, text=True, env=env
    ) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "begun\n"
            yield
        finally:
            other.kill()


def files_change(stage, case):
    """A file that another process cuts, grows and replaces while it is read."""
    path = stage.world.out / "file"
    path.write_bytes(b"y" * 70_000)
    with running(CHANGE, path):
        return stage.run("""
import os
for _ in range(500):
    with open("/out/file", "rb") as f:
        size = os.fstat(f.fileno()).st_size
        data = f.read()
    assert set(data) <= set(b"xy\\0"), set(data)
    assert len(data) <= 1 << 20
""")


def folders_are_swapped(stage, case):
    """A folder and a link to outside take turns in one place; both hold a secret.txt."""
    world = stage.world
    folder, link = world.out / "d", world.folder / "link"
    folder.mkdir()
    link.symlink_to(world.outside)
    with running(SWAP, folder, link, world.folder / "spare"):
        answer = stage.run(f"""
import os
inside = outside = 0
for k in range({RACES}):
    for use in (lambda: open("/out/d/secret.txt", "x").close(),
                lambda: open("/out/d/secret.txt").read(), lambda: os.listdir("/out/d"),
                lambda: os.stat("/out/d/sub"),
                lambda: open("/out/d/new", "x").close(), lambda: os.mkdir("/out/d/dir"),
                lambda: os.rename("/out/d/secret.txt", "/out/d/moved"),
                lambda: os.unlink("/out/d/moved"), lambda: os.unlink("/out/d/new"),
                lambda: os.rmdir("/out/d/dir"), lambda: os.link("/out/d/secret.txt", "/out/x")):
        try:
            found = use()
            inside += 1
        except OSError:
            outside += 1
            continue
        assert not found or "sub" not in found, "reached"
    try:
        os.unlink("/out/x")
    except OSError:
        pass
assert inside and outside, (inside, outside)
""")
    for path in (link, world.folder / "spare"):
        if path.is_dir() and not path.is_symlink():
            subprocess.run(["rm", "-rf", path], check=True)
        else:
            path.unlink(missing_ok=True)
    return answer


def files_are_swapped(stage, case):
    """A file and a link to a file outside take turns in one place."""
    world = stage.world
    path, link = world.out / "file", world.folder / "link"
    path.write_text("inside")
    link.symlink_to(world.outside / "secret.txt")
    with running(SWAP, path, link, world.folder / "spare"):
        answer = stage.run(f"""
import os
inside = outside = 0
for k in range({RACES}):
    for use in (lambda: open("/out/file").read(), lambda: open("/out/file", "w").write("inside"),
                lambda: os.truncate("/out/file", 6), lambda: os.utime("/out/file", (1, 1)),
                lambda: os.open("/out/file", os.O_RDONLY | os.O_TRUNC)):
        try:
            found = use()
            inside += 1
        except OSError:
            outside += 1
            continue
        assert not isinstance(found, str) or found in ("inside", "", "\\0" * 6), "reached"
        if isinstance(found, int) and found > 6:
            os.close(found)
assert inside and outside, (inside, outside)
""")
    for path in (link, world.folder / "spare"):
        path.unlink(missing_ok=True)
    return answer


def grant_replaced(stage, case):
    """The case's cells, of which one may lose its guest; then all is put back."""
    nest = stage.world.folder / "nest"
    try:
        for cell in case.cells[:-1]:
            stage.run(cell)
        answer = stage.run(case.cells[-1])
        look = stage.run("import os; os.listdir('/inner')")
        assert look.result == "[]", "reached"
        return answer
    finally:
        if (nest / "inner").is_symlink():
            (nest / "inner").unlink()
        if (nest / "old").is_dir():
            (nest / "old").rename(nest / "inner")


ACTS = {
    act.__name__: act
    for act in (
        links_lie_there, hard_link_follows, odd_names_lie_there, fifo_waits, fifo_looked_at,
        socket_lies_there, huge_folder, folder_moved_out, files_change, folders_are_swapped,
        files_are_swapped, grant_replaced,
    )
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def nest(hostile):
    """A folder in another one; both can be granted."""
    inner = hostile.world.folder / "nest" / "inner"
    inner.mkdir(parents=True)
    (inner / "file").write_text("inner")
    hostile.world.outside_ns = hostile.world.outside.stat().st_mtime_ns
    return inner


def test_case(hostile, case):
    hostile.check(case, ACTS)
