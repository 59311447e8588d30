"""Shows that a sandbox's state can be saved, resumed, forked, used in parallel and gone back to.

What is compared is what the original says next: generators, random numbers, a database in memory.
Saving and resuming take a second each, so that few tests do it.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import threading
import time
import zlib
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from wasi_kernel import Limits, Policy, Sandbox, caches, folders, launch, sessionfile
from wasi_kernel.errors import (
    CallError,
    GuestLost,
    InstallationError,
    PolicyError,
    SessionFileError,
    UnknownCheckpointError,
    WasiKernelError,
)
from wasi_kernel.policy import CheckpointLimits, Grant
from wasi_kernel.sessionfile import DIGEST_BYTES, MAGIC

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MIB = 1 << 20
NO_CHECKPOINTS = Policy(checkpoints=CheckpointLimits(enabled=False))

STATE = """
import random, sqlite3, string, time
import numpy as np
import pandas as pd
random.seed(1); np.random.seed(2); rng = np.random.default_rng(3)
array = rng.random((100, 3))
frame = pd.DataFrame({"a": range(1000), "b": list("xyzab") * 200})
squares = (n * n for n in range(1000))
for n in range(5): next(squares)
db = sqlite3.connect(":memory:")
db.executescript("create table t (n); insert into t values (1), (2)")
def counter():
    n = 10
    def add():
        nonlocal n
        n += 1
        return n
    return add
add = counter()
string.marked = marked = object()
kept_ns = time.monotonic_ns()
"""
NEXT = """
db.execute("insert into t select max(n) + 1 from t")
(
    next(squares), add(), random.random(), np.random.rand(), rng.random(), array.sum(),
    frame.groupby("b").a.sum().to_dict(), db.execute("select * from t").fetchall(),
    string.marked is marked, id(marked), time.monotonic_ns() > kept_ns,
)
"""


def own_sessions() -> set[str]:
    """The folders of sessions that this process has made, and of forks that nobody has taken up."""
    found = set()
    for path in launch.sessions_folder(caches.default_path()).iterdir():
        try:
            pid = json.loads((path / launch.ABOUT).read_bytes())["pid"]
        except OSError:
            pid = os.getpid() if (path / folders.KEEP).exists() else 0
        if pid == os.getpid():
            found.add(path.name)
    return found


def workers() -> int:
    """How many processes this one has started, but those that only fork workers from themselves."""
    return sum(
        "worker.nursery" not in command or process.ppid() != os.getpid()
        for process in psutil.Process().children(recursive=True)
        if (command := _command(process))
    )


def nurseries() -> int:
    """How many processes of this one only fork workers from themselves."""
    return sum("worker.nursery" in _command(p) for p in psutil.Process().children())


def _command(process: psutil.Process) -> str:
    """What it was started with; nothing if it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test leaves no folder of a session, and no process."""
    for name in ("box", "origin"):  # of the module
        if name in request.fixturenames:
            request.getfixturevalue(name)
    folders_before, workers_before = own_sessions(), workers()

    def left() -> tuple[set[str], int]:
        return own_sessions() - folders_before, max(0, workers() - workers_before)

    yield
    end = time.monotonic() + 10
    while left() != (set(), 0) and time.monotonic() < end:
        time.sleep(0.01)  # killed, and not gone yet
    assert left() == (set(), 0)


@pytest.fixture
def boxes() -> Iterator[ExitStack]:
    """Closes what a test opens."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A saved session: its `file`, and what it said after that, `said`, when asked for NEXT."""
    with Sandbox() as box:
        assert box.run("text = 'first'\n6 * 7").text == "42"
        assert box.run(STATE).ok
        assert box.run("log = open('/tmp/log.txt', 'w'); log.write('begun'); log.flush()").ok
        file = tmp_path_factory.mktemp("origin") / "a.session"
        box.save(file)
        box.file = file
        box.said = [box.run(NEXT).text for _ in range(2)]
        assert box.said[0] != box.said[1]
        yield box


# -- saving and resuming -------------------------------------------------------------------------


def test_it_goes_on_exactly_where_it_was_saved(origin, tmp_path):
    (tmp_path / "there.txt").touch()  # another machine has another folder to work in
    with Sandbox(resume=origin.file, work=tmp_path) as box:
        assert box.run("__import__('os').listdir('/work')").text == "['there.txt']"
        results = [box.run(NEXT) for _ in range(2)]
        assert [r.text for r in results] == origin.said
        assert [r.execution_count for r in results] == [5, 6]
        assert box.run("In[1], Out[1], In[5] == In[6], len(In), Out[6] == _").text == (
            "(\"text = 'first'\\n6 * 7\", 42, True, 8, True)"
        )


def test_its_own_past_begins_where_it_was_saved(origin):
    with Sandbox(resume=str(origin.file)) as box:
        assert box.checkpoints()[-1]["kind"] == "start"
        with pytest.raises(UnknownCheckpointError):
            box.undo()
        assert box.run(NEXT).text == origin.said[0]
        box.run("text = 'second'; del db")
        box.undo(2)
        assert box.run("text").text == "'first'"
        box.undo()
        assert box.run(NEXT).text == origin.said[0]
        with pytest.raises(UnknownCheckpointError):
            box.undo(2)


def test_its_deaths_are_survived(origin):
    """Before its first checkpoint, and after: neither is the end of what was saved."""
    with Sandbox(resume=origin.file) as box:
        os.kill(box._session.worker_pid, 9)
        loss = box.run("pass")
        assert loss.error is None or loss.error.lost
        assert box.run(NEXT).text == origin.said[0]
        died = box.run("text = 'second'\nimport os; os._exit(1)")
        assert died.error is not None
        assert died.error.lost
        assert box.run("text").text == "'first'"
        assert box.run(NEXT).text == origin.said[1]


def test_two_at_once_from_one_file_go_separate_ways(origin, boxes):
    one, two = (boxes.enter_context(Sandbox(resume=origin.file)) for _ in range(2))
    assert one.run(NEXT).text == two.run(NEXT).text == origin.said[0]
    one.run("text = 'one'")
    assert two.run("text").text == "'first'"
    assert one.run("text").text == "'one'"


def test_files_that_were_open_are_named(origin):
    with Sandbox(resume=origin.file) as box:
        first = box.run("log.closed")
        assert first.text == "True"
        assert "/tmp/log.txt" in first.stderr  # noqa: S108 - a guest path
        assert box.run("log.closed").stderr == ""


def test_a_resumed_session_can_be_saved_and_moved_on(origin, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Sandbox(resume=origin.file) as box:
        box.run(NEXT)
        box.save("b.session")
    assert [p.name for p in tmp_path.iterdir()] == ["b.session"]
    with Sandbox(resume="b.session") as box:
        assert box.run(NEXT).text == origin.said[1]
        assert box.run("1").execution_count == 6


def test_what_is_saved_is_the_present_state(tmp_path):
    """Not what was undone; and what the last run did, though it failed and is just over."""
    with Sandbox() as box:
        box.run("x = 1")
        box.run("x = 2")
        box.undo()
        box.run("x = 3\n1 / 0")
        box.save(tmp_path / "a.session")
    cells = sessionfile.read_manifest(tmp_path / "a.session").cells
    assert cells == [[1, "x = 1"], [3, "x = 3"]]


def test_a_session_that_has_just_begun_can_be_saved(tmp_path):
    with Sandbox(Policy(checkpoints=CheckpointLimits(compare=True))) as box:
        box.save(tmp_path / "a.session")
    assert sessionfile.read_manifest(tmp_path / "a.session").cells == []


def test_it_cannot_be_saved_where_nothing_can_be_written(box, tmp_path):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(NotADirectoryError):
        box.save(tmp_path / "file" / "a.session")
    with pytest.raises(FileNotFoundError):
        box.save(tmp_path / "nowhere" / "a.session")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert box.run("'alive'").text == "'alive'"


# -- losses --------------------------------------------------------------------------------------


@pytest.fixture
def struck() -> Iterator[Sandbox]:
    """A sandbox that was killed so soon after `x = 2` that its checkpoint may not be written.

    It has a new worker, and nobody was told yet.
    """
    with Sandbox() as box:
        box.run("def get(*_): return x")
        box.run("x = 1")
        box.run("x = 2; large = b'a' * (200 << 20)")
        os.kill(box._session.worker_pid, 9)
        end = time.monotonic() + 30
        while (box._session.generation, box._session.state) != (1, "ready"):
            assert time.monotonic() < end
            time.sleep(0.001)
        yield box


def test_a_fork_is_never_silently_of_an_older_state(struck):
    try:
        fork = struck.fork()
    except (GuestLost, SessionFileError):
        return
    with fork:
        first = fork.run("x")
        assert first.text == "2" or "LOST" in first.stderr


def test_a_file_is_never_silently_of_an_older_state(struck, tmp_path):
    try:
        struck.save(tmp_path / "a.session")
    except (GuestLost, SessionFileError):
        return
    assert sessionfile.read_manifest(tmp_path / "a.session").cells[-1][0] == 3


def test_undo_never_silently_undoes_another_run(struck):
    try:
        struck.undo()
    except (GuestLost, UnknownCheckpointError):
        return
    assert struck.run("x").text == "1"


def test_calls_are_never_silently_of_an_older_state(struck):
    for ask in (lambda: struck.call("get"), lambda: struck.map("get", [0])[0]):
        try:
            found = ask()
        except GuestLost:
            return
        assert found == 2


# -- what is refused -----------------------------------------------------------------------------


def edited(source: Path, target: Path, change: Callable[[Any], None], pages: bytes = b"") -> Path:
    """The session file with another manifest, or other pages, and a checksum that is right."""
    data = source.read_bytes()
    start = len(MAGIC) + 4
    end = start + int.from_bytes(data[len(MAGIC) : start], "little")
    manifest = json.loads(data[start:end])
    change(manifest)
    text = json.dumps(manifest).encode()
    body = zlib.compress(pages) if pages else data[end:-DIGEST_BYTES]
    head = MAGIC + struct.pack("<I", len(text)) + text + body
    target.write_bytes(head + hashlib.sha256(head).digest())
    return target


def test_another_configuration_is_refused_with_what_differs(origin, tmp_path):
    def change(manifest: Any) -> None:
        manifest["made_of"] |= {"python": "3.99", "wasmtime": "1.2.3"}

    path = edited(origin.file, tmp_path / "a.session", change)
    with pytest.raises(InstallationError) as caught:
        Sandbox(resume=path)
    text = str(caught.value)
    assert "Python: 3.99 there" in text
    assert "wasmtime: 1.2.3 there" in text
    assert "preload" not in text


def test_other_folders_are_another_configuration(origin, tmp_path):
    """The guest knows its folders by number: with others, a path would lead somewhere else."""
    policy = Policy(grants=(Grant(str(tmp_path), "/data"),))
    with pytest.raises(InstallationError, match="folders that the guest sees"):
        Sandbox(policy, resume=origin.file)


def test_memory_in_which_no_guest_wakes_is_refused(origin, tmp_path):
    """It is not replaced by a session without variables, in which cells run."""
    pages = struct.pack("<II", sessionfile.END, 0)  # all zero
    path = edited(origin.file, tmp_path / "a.session", lambda _manifest: None, pages)
    try:
        box = Sandbox(resume=path)
    except WasiKernelError:
        return
    with box:
        error = box.run("text").error
        assert error is not None
        assert error.lost


def test_more_memory_than_the_policy_allows_is_refused(origin, tmp_path):
    path = edited(origin.file, tmp_path / "a.session", lambda m: m.update(pages=1 << 19))
    with pytest.raises(SessionFileError, match=r"limits\.memory_bytes"):
        Sandbox(Policy(limits=Limits(memory_bytes=1 << 30)), resume=path)


@pytest.mark.parametrize("what", ["nothing", "folder", "text", "empty", "cut", "unreadable link"])
def test_what_cannot_be_used_is_a_session_file_error(origin, tmp_path, what):
    path = tmp_path / "a.session"
    if what == "folder":
        path.mkdir()
    elif what == "unreadable link":
        path.symlink_to(path)
    elif what != "nothing":
        contents = {"text": b"hello", "empty": b"", "cut": origin.file.read_bytes()[:100_000]}
        path.write_bytes(contents[what])
    with pytest.raises(SessionFileError, match=r"a\.session"):
        Sandbox(resume=path)


def test_without_checkpoints_there_is_nothing_to_save_or_to_go_back_to(origin, tmp_path):
    with Sandbox(NO_CHECKPOINTS) as box:
        box.run("def double(n): return 2 * n")
        with pytest.raises(SessionFileError, match=r"checkpoints\.enabled"):
            box.save(tmp_path / "a.session")
        with pytest.raises(SessionFileError, match=r"checkpoints\.enabled"):
            box.fork()
        with pytest.raises(SessionFileError, match=r"checkpoints\.enabled"):
            box.map("double", [1])
        for go in (box.undo, box.redo, box.checkpoints, lambda: box.checkpoint("a")):
            with pytest.raises(UnknownCheckpointError, match=r"checkpoints\.enabled"):
                go()
        assert box.call("double", 2) == 4  # needs none
    with pytest.raises(SessionFileError, match=r"checkpoints\.enabled"):
        Sandbox(NO_CHECKPOINTS, resume=origin.file)
    assert list(tmp_path.iterdir()) == []


# -- saving from within --------------------------------------------------------------------------


@pytest.fixture
def granted(tmp_path) -> Iterator[tuple[Sandbox, Path]]:
    """(a sandbox with `/data`, which it may write to; the host's folder)."""
    (tmp_path / "data").mkdir()
    with Sandbox(writing_to(tmp_path / "data")) as box:
        box.run("import os\nx = 1")
        yield box, tmp_path / "data"


def writing_to(folder: Path) -> Policy:
    return Policy(grants=(Grant(str(folder), "/data", writable=True),))


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_run_saves_the_state_after_it_where_it_may_write(granted, tmp_path):
    box, data = granted
    (data / "a.session").write_text("old")
    result = box.run("%save_session /data/a.session\nx = 2")
    assert result.ok
    assert "Saved: /data/a.session" in result.stdout
    assert names(data) == ["a.session"]
    with Sandbox(writing_to(data), resume=data / "a.session") as other:
        assert other.run("x").execution_count == 3
        assert other.run("x").text == "2"
    with Sandbox(writing_to(data)) as other:  # what lies in a folder is nobody's session
        assert other.run("'x' in dir(), os.listdir('/data')").error.ename == "NameError"


@pytest.mark.parametrize(
    ("path", "ename"),
    [
        ("/data/nowhere/a.session", "FileNotFoundError"),
        ("/data/file/a.session", "NotADirectoryError"),
        ("/work/a.session", "PermissionError"),
        ("/usr/local/lib/a.session", "PermissionError"),
        ("/a.session", "PermissionError"),
    ],
)
def test_a_place_that_takes_no_file_is_an_error_of_the_run(granted, path, ename):
    box, data = granted
    (data / "file").write_text("precious")
    (data / "folder").mkdir()
    result = box.run(f"%save_session {path}\nx = 'not reached'")
    assert result.error is not None
    assert result.error.ename == ename
    assert names(data) == ["file", "folder"]
    assert box.run("x").text == "1"


@pytest.mark.parametrize("path", ["/data", "/data/folder"])
def test_a_folder_is_no_place_to_save_to(granted, path):
    box, data = granted
    (data / "folder").mkdir()
    result = box.run(f"%save_session {path}")
    assert result.error is not None or "was not saved" in result.stderr
    assert "Saved" not in result.stdout
    assert names(data) == ["folder"]
    assert names(data / "folder") == []


def test_a_place_that_is_gone_at_the_end_of_the_run_is_told(granted):
    box, data = granted
    result = box.run("os.mkdir('/data/d')\n%save_session /data/d/a.session\nos.rmdir('/data/d')")
    assert "the session was not saved" in result.stderr
    assert "Saved" not in result.stdout
    assert names(data) == []
    assert box.run("x").text == "1"


def test_a_link_that_leads_out_of_the_folder_is_not_followed(granted, tmp_path):
    box, data = granted
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("precious")
    (data / "file").symlink_to("../outside/precious")
    (data / "new.new").symlink_to("../outside/precious")
    (data / "folder").symlink_to("../outside")
    for name in ("file", "new", "folder/a.session"):
        box.run(f"%save_session /data/{name}")
    assert names(tmp_path / "outside") == ["precious"]
    assert (tmp_path / "outside" / "precious").read_text() == "precious"


def test_a_file_beside_it_is_left_alone(granted):
    """Whatever its name is."""
    box, data = granted
    (data / "a.session.new").write_text("precious")
    box.run("%save_session /data/a.session")
    assert (data / "a.session.new").read_text() == "precious"


def test_an_interrupt_while_it_saves_leaves_no_half_a_file(granted):
    box, data = granted
    (data / "a.session").write_text("old")
    results = []
    runner = threading.Thread(
        target=lambda: results.append(box.run("%save_session /data/a.session"))
    )
    runner.start()
    while runner.is_alive() and not any(p.stat().st_size > 3 for p in data.iterdir()):
        time.sleep(0.001)
    box.interrupt()
    runner.join()
    (result,) = results
    assert names(data) == ["a.session"]
    if "Saved" in result.stdout:
        assert sessionfile.read_manifest(data / "a.session").cells[-1] == [1, "import os"]
    else:
        assert (data / "a.session").read_text() == "old"
        assert "not saved" in result.stderr
    assert box.run("x").text == "1"


# -- forks ---------------------------------------------------------------------------------------


def test_a_fork_has_everything_and_goes_its_own_way(origin, boxes):
    one = boxes.enter_context(origin.fork())
    two = boxes.enter_context(origin.fork())
    assert one.run(NEXT).text == two.run(NEXT).text
    assert one.run("text = 'one'").execution_count == two.run("text = 'two'").execution_count
    said = [b.run("text").text for b in (one, two, origin)]
    assert said == ["'one'", "'two'", "'first'"]


def test_a_fork_s_past_is_its_parent_s(boxes):
    box = boxes.enter_context(Sandbox())
    for n in range(1, 4):
        box.run(f"x = {n}")
    box.checkpoint("three")
    fork = boxes.enter_context(box.fork())
    assert fork.run("x = 10").execution_count == 4
    fork.undo(3)
    assert fork.run("x").text == "1"
    assert box.run("x").text == "3"
    fork.restore("three")
    assert fork.run("x").text == "3"
    fork.restore(2)
    assert fork.run("x").text == "2"
    fork.undo(3)
    assert fork.run("'x' in dir()").text == "False"
    box.undo(2)
    assert box.run("x").text == "2"


def test_a_fork_of_a_fork_outlives_both(boxes):
    box = boxes.enter_context(Sandbox())
    box.run("x = [1]")
    child = boxes.enter_context(box.fork())
    child.run("x.append(2)")
    grandchild = boxes.enter_context(child.fork())
    box.close()
    child.run("x.append(3)")
    child.close()
    died = grandchild.run("import os; os._exit(1)")
    assert died.error is not None
    assert grandchild.run("x.append(4); x").text == "[1, 2, 4]"
    grandchild.undo(2)
    assert grandchild.run("x").text == "[1]"


def test_a_parent_outlives_its_forks(boxes):
    box = boxes.enter_context(Sandbox())
    box.run("x = 1")
    with box.fork() as fork:
        fork.run("x = 2")
        fork.run("'begins when the checkpoint of the run before is written'")
        os.kill(fork._session.worker_pid, 9)
        fork.run("pass")
        assert fork.run("x").text == "2"
    box.undo()
    assert box.run("'x' in dir()").text == "False"


def test_a_parent_s_death_is_none_of_the_fork_s(boxes):
    box = boxes.enter_context(Sandbox())
    box.run("x = 1")
    fork = boxes.enter_context(box.fork())
    assert fork.run("x = 2").ok
    os.kill(box._session.worker_pid, 9)
    assert fork.run("x").text == "2"
    box.run("pass")
    assert box.run("x").text == "1"


def test_a_fork_after_undo_can_redo(boxes):
    box = boxes.enter_context(Sandbox())
    box.run("x = 1")
    box.run("x = 2")
    box.undo()
    fork = boxes.enter_context(box.fork())
    assert boxes.enter_context(box.fork()).run("x").text == "1"
    fork.redo()
    assert fork.run("x").text == "2"
    assert box.run("x").text == "1"


def test_a_fork_of_what_has_just_begun(boxes):
    box = boxes.enter_context(Sandbox())
    fork = boxes.enter_context(box.fork())
    assert fork.run("x = 1; x").execution_count == 1
    fork.undo()
    assert fork.run("'x' in dir()").text == "False"
    assert box.run("1").execution_count == 1


def test_forks_while_the_parent_goes_on_and_drops_its_past(boxes):
    """Each is one of the parent's states, whole; what the parent drops stays with them."""
    limits = CheckpointLimits(cells=1, bytes=32 * MIB)
    box = boxes.enter_context(Sandbox(Policy(checkpoints=limits)))
    box.run("n, data = 0, bytearray(1 << 20)")
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            box.run("n += 1; data[:] = bytes([n % 251]) * len(data)")

    worker = threading.Thread(target=work)
    worker.start()
    try:
        forks = [boxes.enter_context(box.fork()) for _ in range(6)]
    finally:
        done.set()
        worker.join()
    for n in range(25):
        box.run(f"data[:] = bytes([{n}]) * len(data)")  # the segments that the forks lie over go
    assert len(box.checkpoints()) < 25
    states = [f.run("n, len(set(data)), data[0] == n % 251").text for f in forks]
    assert all(state.endswith(", 1, True)") for state in states), states
    for fork in forks[:2]:
        assert fork.run("import os; os._exit(1)").error.lost
    assert [f.run("n, len(set(data)), data[0] == n % 251").text for f in forks] == states


def test_a_fork_compacts_without_harm_to_its_parent(boxes):
    limits = CheckpointLimits(cells=1, bytes=32 * MIB)
    box = boxes.enter_context(Sandbox(Policy(checkpoints=limits)))
    box.run("data = bytearray(b'a' * (1 << 20))")
    box.run("x = 1")
    fork = boxes.enter_context(box.fork())
    for n in range(30):
        fork.run(f"data[:] = bytes([{n}]) * len(data)")
    assert len(fork.checkpoints()) < 30
    assert box.run("import os; os._exit(1)").error.lost
    assert box.run("data[:] = b'b' * len(data); set(data), x").text == "({98}, 1)"
    box.undo()
    assert box.run("set(data), x").text == "({97}, 1)"
    assert fork.run("import os; os._exit(1)").error.lost
    assert fork.run("set(data), x").text == "({29}, 1)"


def test_own_files_are_copied_and_links_are_links(boxes, tmp_path):
    (tmp_path / "secret").write_text("secret")
    box = boxes.enter_context(Sandbox())
    up = "../" * 12
    box.run(
        "import os, pathlib\n"
        "pathlib.Path('/tmp/folder').mkdir()\n"
        "pathlib.Path('/tmp/folder/a.txt').write_text('a')\n"
        "pathlib.Path('~/b.txt').expanduser().write_text('b')\n"
        f"os.symlink('{up}{tmp_path}/secret', '/tmp/secret')\n"
        f"os.symlink('{up}{tmp_path}', '/tmp/folder/all')"
    )
    fork = boxes.enter_context(box.fork())
    read = (
        "pathlib.Path('/tmp/folder/a.txt').read_text(), "
        "pathlib.Path('~/b.txt').expanduser().read_text()"
    )
    assert fork.run(read).text == "('a', 'b')"
    fork.run("pathlib.Path('/tmp/folder/a.txt').write_text('changed')")
    assert box.run(read).text == "('a', 'b')"
    assert fork.run("os.path.islink('/tmp/secret'), os.path.islink('/tmp/folder/all')").text == (
        "(True, True)"
    )
    assert fork.run("open('/tmp/secret')").error.ename == "PermissionError"
    assert fork.run("os.listdir('/tmp/folder/all')").error.ename == "PermissionError"


def test_more_files_than_can_be_copied_are_refused(boxes):
    box = boxes.enter_context(Sandbox())
    box.run("with open('/tmp/large', 'wb') as f: f.truncate(2 << 30)")
    with pytest.raises(SessionFileError, match="too much to copy"):
        box.fork()
    box.run("import os; os.remove('/tmp/large')")
    boxes.enter_context(box.fork())


def test_a_fork_of_a_session_from_a_file(origin):
    with Sandbox(resume=origin.file) as box:
        fork = box.fork()
    with fork:
        assert fork.run(NEXT).text == origin.said[0]
        assert fork.run("text = 'second'; text").execution_count == 5
        assert fork.run("import os; os._exit(1)").error.lost
        fork.undo()
        assert fork.run(NEXT).text == origin.said[1]


def test_a_fork_that_cannot_start_leaves_nothing(tmp_path):
    (tmp_path / "data").mkdir()
    with Sandbox(Policy(grants=(Grant(str(tmp_path / "data"), "/data"),))) as box:
        box.run("x = 1")
        (tmp_path / "data").rmdir()
        with pytest.raises(PolicyError):
            box.fork()
        (tmp_path / "data").mkdir()
        with box.fork() as fork:
            assert fork.run("x").text == "1"


def test_only_a_kernel_is_restarted_with_its_state():
    """A sandbox whose policy says so leaves nothing when it is closed, as any other."""
    with Sandbox(Policy(restart_keeps_state=True)) as box, box.fork() as fork:
        assert fork.run("1").text == "1"


def test_a_restart_forgets_the_past_of_a_fork_too(boxes):
    box = boxes.enter_context(Sandbox())
    box.run("x = 1")
    fork = boxes.enter_context(box.fork())
    fork.restart()
    assert fork.run("'x' in dir()").text == "False"
    assert len([c for c in fork.checkpoints() if c["kind"] == "cell"]) == 1
    assert box.run("x").text == "1"


# -- calls ---------------------------------------------------------------------------------------

FUNCTIONS = """
import os, random
def value(text): return eval(text)
def same(x): return x
def double(n): return 2 * n
def several(a, b, c=3): return [a, b, c]
def nested(depth):
    x = []
    for _ in range(depth): x = [x]
    return x
def cycle():
    a = []
    a.append(a)
    return a
class Outer:
    class Inner:
        @staticmethod
        def method(x): return x + 1
seen = []
def see(x):
    seen.append(x)
    return len(seen)
def fails(n):
    if n >= 2: raise LookupError(f"no {n}")
    return n
def dies(n):
    if n == 1: os._exit(3)
    return n
def noise(n):
    import numpy as np
    return [random.random(), np.random.rand()]
"""


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """A sandbox with FUNCTIONS, which the tests below share."""
    with Sandbox() as sandbox:
        assert sandbox.run(FUNCTIONS).ok
        yield sandbox


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -1.5, 10**30, "", "text \x00 'quoted\" \\ \n ü \U0001f600", [], {}, [[[]]],
     {"a": [1, {"b": None}]}, list(range(10_000))],
    ids=repr,
)  # fmt: skip
def test_what_json_says_goes_in_and_comes_out(box, value):
    assert box.call("same", value) == value


def test_arguments_are_positional_and_names_may_have_dots(box):
    assert box.call("several", 1, 2) == [1, 2, 3]
    assert box.call("several", 1, 2, [4]) == [1, 2, [4]]
    assert box.call("Outer.Inner.method", 1) == 2
    assert box.call("os.path.join", "a", "b") == "a/b"


def test_a_call_is_no_run(box):
    before = box.run("0").execution_count
    rows = len([c for c in box.checkpoints() if c["kind"] == "cell"])
    box.call("see", 1)
    assert len([c for c in box.checkpoints() if c["kind"] == "cell"]) == rows
    assert box.run("seen.clear()").execution_count == before + 1


def test_what_a_call_did_is_kept(box):
    box.call("see", "kept")
    assert box.run("import os; os._exit(1)").error.lost
    assert box.run("seen").text == "['kept']"
    box.run("seen.clear()")


@pytest.mark.parametrize(
    ("function", "arguments", "ename"),
    [
        ("fails", [2], "LookupError"),
        ("value", ["float('nan')"], "ValueError"),
        ("value", ["float('-inf')"], "ValueError"),
        ("same", [float("nan")], "ValueError"),
        ("cycle", [], "ValueError"),
        ("value", ["b'bytes'"], "TypeError"),
        ("value", ["{1}"], "TypeError"),
        ("value", ["object()"], "TypeError"),
        ("value", ["lambda: 1"], "TypeError"),
        ("value", ["{(1, 2): 3}"], "TypeError"),
        ("value", ["__import__('numpy').int64(1)"], "TypeError"),
        ("value", ["10 ** 5000"], "ValueError"),
        ("nested", [50_000], "RecursionError"),
        ("value", ["__import__('sys').exit(3)"], "SystemExit"),
        ("value", ["(_ for _ in ()).throw(KeyboardInterrupt())"], "KeyboardInterrupt"),
        ("value", ["input('?')"], "StdinNotImplementedError"),
        ("several", [1], "TypeError"),
        ("several", [1, 2, 3, 4], "TypeError"),
        ("seen", [], "TypeError"),
        ("nowhere", [], "AttributeError"),
        ("", [], "AttributeError"),
        ("same.", [1], "AttributeError"),
        ("same\n'\"", [1], "AttributeError"),
        ("same(1) or same", [1], "AttributeError"),
    ],
)
def test_an_exception_is_a_call_error(box, function, arguments, ename):
    with pytest.raises(CallError) as caught:
        box.call(function, *arguments)
    assert caught.value.ename == ename
    assert function in str(caught.value)
    assert box.call("same", 1) == 1


def test_an_exception_keeps_its_text(box):
    with pytest.raises(CallError) as caught:
        box.call("fails", 7)
    assert caught.value.evalue == "no 7"
    assert str(caught.value) == "fails: LookupError: no 7"


def test_nesting_that_no_frame_can_carry(box):
    """However deep: it comes as it is, or it is an error of the call; the session goes on."""
    for depth in (300, 1500, 2500, 3500, 6000):
        try:
            found = box.call("nested", depth)
        except CallError:
            continue
        for _ in range(depth):
            (found,) = found
        assert found == []
    assert box.call("same", 1) == 1


def test_a_result_that_is_too_large():
    with Sandbox(Policy(limits=Limits(message_bytes=1 * MIB))) as box:
        box.run(FUNCTIONS)
        with pytest.raises(CallError) as caught:
            box.call("value", "'x' * (2 << 20)")
        assert caught.value.ename == "MessageTooLarge"
        assert len(box.call("value", "'x' * (1 << 19)")) == 1 << 19


HOSTILE = """
from wasi_agent import calls
class Answer:
    def __init__(self, bundle): self.bundle = bundle
    def _repr_mimebundle_(self, include=None, exclude=None): return self.bundle
"""


@pytest.mark.parametrize(
    "answer",
    [
        "5", "None", "Answer({})", "Answer({'application/json': 7})", "Answer(5)", "1 / 0",
        "Answer({'application/json': {}})", "Answer({'application/json': None})",
        "Answer({'application/json': [1]})", "Answer({'text/plain': 'x'})",
        "Answer({'application/json': float('nan')})",
    ],
)  # fmt: skip
def test_a_guest_that_answers_nonsense_is_an_error_of_ours(boxes, answer):
    """A guest can replace what makes its answers; that must not come out as a bug of the host."""
    box = boxes.enter_context(Sandbox())
    box.run(FUNCTIONS + HOSTILE + f"calls.call = lambda *a: {answer}")
    with pytest.raises(WasiKernelError):
        box.call("same", 1)
    assert box.run("'alive'").text == "'alive'"


def test_arguments_that_json_cannot_say_stay_here(box):
    with pytest.raises(TypeError):
        box.call("same", object())
    assert box.call("same", 1) == 1


def test_a_call_that_kills_the_guest(box):
    with pytest.raises(GuestLost) as caught:
        box.call("dies", 1)
    assert caught.value.ename == "GuestExited"
    assert box.call("dies", 2) == 2


# -- map -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_come_in_the_order_of_the_items(box, count):
    assert box.map("double", range(7), workers=count) == [2 * n for n in range(7)]


def test_fewer_items_than_workers_and_none(box):
    assert box.map("double", [5], workers=8) == [10]
    assert box.map("double", iter([1, 2])) == [2, 4]
    assert box.map("double", []) == []
    assert box.map("double", [], workers=3) == []


@pytest.mark.parametrize("count", [0, -1])
def test_no_workers_are_a_mistake(box, count):
    for items in ([], [1]):
        with pytest.raises(ValueError, match="at least 1"):
            box.map("double", items, workers=count)


def test_the_parent_s_state_is_as_it_was(box):
    box.run("seen[:] = ['own']")
    counts = box.map("see", range(6), workers=2)
    assert len(counts) == 6
    assert min(counts) == 2
    assert box.run("seen").text == "['own']"
    box.run("seen.clear()")


def test_the_first_failure_in_the_order_of_the_items(box):
    with pytest.raises(CallError) as caught:
        box.map("fails", range(6), workers=2)
    assert (caught.value.ename, caught.value.evalue) == ("LookupError", "no 2")


def test_a_fork_s_death_ends_the_map(box):
    with pytest.raises(GuestLost) as caught:
        box.map("dies", range(4), workers=2)
    assert caught.value.ename == "GuestExited"
    assert box.call("same", 1) == 1


def test_an_item_that_json_cannot_say(box):
    with pytest.raises(TypeError):
        box.map("same", [1, object(), 2], workers=2)


def test_forks_of_a_map_have_random_numbers_of_their_own(box):
    found = box.map("noise", range(6), workers=2)
    assert len({python for python, _ in found}) == 6
    assert len({numpy for _, numpy in found}) == 6


def test_all_forks_of_a_map_come_from_one_process():
    """However many begin at the same time."""
    before = nurseries()
    for _ in range(3):
        with Sandbox() as box:
            box.run(FUNCTIONS)
            assert box.map("double", range(4), workers=4) == [0, 2, 4, 6]
            assert nurseries() == before + 1
        assert nurseries() == before


def test_a_map_in_a_fork_of_a_resumed_session(origin):
    with Sandbox(resume=origin.file) as box:
        box.run("def other(n): return add() + n")
        assert box.map("other", [100, 200], workers=2) == [111, 211]


# -- time travel ---------------------------------------------------------------------------------


def test_undo_redo_and_names(boxes):
    box = boxes.enter_context(Sandbox())
    for n in range(1, 5):
        box.run(f"x = {n}")
    box.checkpoint("four")
    box.undo(2)
    assert [c["cell"] for c in box.checkpoints() if c["where"] == "undone"] == [3, 4]
    box.redo()
    box.redo(1)
    with pytest.raises(UnknownCheckpointError, match="nothing to redo"):
        box.redo()
    box.undo(4)
    assert box.run("'x' in dir()").execution_count == 5
    with pytest.raises(UnknownCheckpointError, match="nothing to redo"):
        box.redo()
    box.restore("four")
    assert box.run("x").text == "4"
    (row,) = [c for c in box.checkpoints() if c["names"]]
    assert (row["names"], row["cell"], row["line"]) == (["four"], 4, "x = 4")


@pytest.mark.parametrize("cells", [0, -1, 1000, 10**30, "1", 1.5, None, True])
def test_what_cannot_be_undone_changes_nothing(box, cells):
    for go in (box.undo, box.redo):
        with pytest.raises(UnknownCheckpointError):
            go(cells)
    assert box.call("same", 1) == 1


@pytest.mark.parametrize("name", ["nowhere", "", 10**9, -1, "[x]"])
def test_a_state_that_is_not_there(box, name):
    with pytest.raises(UnknownCheckpointError, match="there are: "):
        box.restore(name)


@pytest.mark.parametrize("name", ["", "5", "-a", "[a", "a\nb", "x" * 101, "\x1b[31m"])
def test_a_name_that_is_none(box, name):
    with pytest.raises(UnknownCheckpointError):
        box.checkpoint(name)
    assert not any(name in c["names"] for c in box.checkpoints())


def test_files_that_are_not_open_any_more_are_named(boxes):
    box = boxes.enter_context(Sandbox())
    box.run("f = open('/tmp/log.txt', 'w')")
    box.run("x = 1")
    box.undo()
    told = box.run("f.closed")
    assert told.text == "True"
    assert "/tmp/log.txt" in told.stderr  # noqa: S108 - a guest path
