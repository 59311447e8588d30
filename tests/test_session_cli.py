"""Shows what `wasi-kernel session` says: lists, saves, shows and resumes; one line for a mistake.

Most of it needs no guest: sessions are folders, made here in a cache of their own. Kernels are
started by the command itself and attached to by the connection file that it names.
"""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import start_new_kernel
from jupyter_core.paths import jupyter_data_dir, jupyter_runtime_dir
from waiting import eventually

from wasi_kernel import Sandbox, caches, cli, folders, launch, policyfile, sessionfile
from wasi_kernel.folders import OwnFolder
from wasi_kernel.pagelog import PageLog
from wasi_kernel.records import PAGE
from wasi_kernel.sessionfile import Base

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


TIMEOUT_S = 60.0
PAGES = 16
MADE_OF = {
    "python": "3.15", "runtime": "ab" * 32, "agent": "cd" * 16, "wasmtime": "49.0.0",
    "guest_paths": ["/work"], "preload": ["numpy"],
}  # fmt: skip
BASE_NOTES = {
    "bytes": PAGES * PAGE, "tray": 0, "stream": "stdout", "clock_ns": 1, "fds": [],
    "interrupts": False, "words": {}, "is_tripped": 0,
}  # fmt: skip
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


class Outcome:
    """What a command said, and its exit status."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def mistake(self) -> str:
        """The one line that a command ends with which could not do its work."""
        assert self.status in (1, 2)
        assert self.out == ""
        assert "Traceback" not in self.err
        lines = self.err.strip().splitlines()
        if self.status == 1 or not lines[0].startswith("Usage"):
            assert len(lines) == 1
        return lines[-1]

    @property
    def json(self) -> Any:
        """What it printed, which is JSON for any program: no NaN."""
        assert (self.status, self.err) == (0, "")

        def refuse(name: str) -> None:
            raise AssertionError(name)

        return json.loads(self.out, parse_constant=refuse)


@pytest.fixture
def run(monkeypatch, capfd) -> Callable[..., Outcome]:
    """Runs `wasi-kernel session` with these arguments, in this process."""

    def run(*argv: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["wasi-kernel", "session", *map(str, argv)])
        capfd.readouterr()
        status = cli.main()
        said = capfd.readouterr()
        return Outcome(status, said.out, said.err)

    return run


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A cache without sessions, which is this user's for this test."""
    monkeypatch.setenv(caches.ENV, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def make(cache, tmp_path) -> Iterator[Callable[..., Path]]:
    """Makes sessions with cells that have these first lines."""
    made: list[OwnFolder] = []

    def make(*lines: str, kept: bool = False, **about: Any) -> Path:
        folder = OwnFolder(launch.sessions_folder(cache))
        image = tmp_path / "base.image"
        image.write_bytes(os.urandom(PAGES * PAGE))
        Base(str(image), "5e" * 32, PAGES * PAGE, BASE_NOTES, MADE_OF).store(folder.path)
        with closing(PageLog(folder.path, "5e" * 32)) as log:
            for n, line in enumerate(lines, 1):
                notes = {**BASE_NOTES, "kind": "cell", "cell": n, "line": line, "time_s": 1.0}
                log.append(PAGES, [(n, bytes([n]) * PAGE)], notes)
        said = {"pid": 12345, "folder": "/home/user", "started_s": 100.0 + len(made), **about}
        (folder.path / launch.ABOUT).write_text(json.dumps(said))
        if kept:
            folder.keep("test")
            folder.release()
        else:
            made.append(folder)
        return folder.path

    yield make
    for folder in made:
        folder.release()


# -- list ----------------------------------------------------------------------------------------


def test_no_sessions(run, cache):
    said = run("list")
    assert (said.status, said.out, said.err) == (0, "No sessions.\n", "")
    assert run("list", "--json").json == []


def test_running_and_kept_sessions_oldest_first(run, make):
    connection = "/run/user/kernel-abc.json"
    one = make("x = 1", "y = 2", connection_file=connection, name="")
    two = make("z = 3", kept=True, connection_file="/gone.json", name="second")
    said = run("list")
    assert (said.status, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0].split("  ") == [one.name, "running, process 12345"]
    assert "cell [2] y = 2; 2 checkpoints" in said.out
    assert "jupyter console --existing kernel-abc.json" in said.out
    assert f"{two.name}  kept  second" in lines
    assert "gone.json" not in said.out  # nobody is there to be attached to
    first, second = run("list", "--json").json
    assert first == {
        "id": one.name, "running": True, "pid": 12345, "name": "", "folder": "/home/user",
        "connection_file": connection, "started_s": 100.0, "cell": 2, "line": "y = 2",
        "checkpoints": 2, "bytes": (one / "000001.pages").stat().st_size,
    }  # fmt: skip
    assert (second["id"], second["running"], second["name"]) == (two.name, False, "second")


def test_a_session_that_has_not_run_a_cell_is_listed(run, make):
    make()
    (found,) = run("list", "--json").json
    assert (found["cell"], found["line"], found["checkpoints"]) == (0, "", 0)


def test_what_is_no_session_is_passed_over(run, make):
    good = make("x = 1")
    sessions = good.parent
    (sessions / "file").write_text("")
    (sessions / "empty").mkdir()
    (sessions / "link").symlink_to(sessions / "link")
    (sessions / "begun").mkdir()
    (sessions / "begun" / launch.ABOUT).write_text("{}")
    for about in ("", "{", "[]", "null", '{"pid": "x"}', '{"pid": []}', "\0" * 99):
        (make("x = 1") / launch.ABOUT).write_text(about)
        (make("x = 1") / sessionfile.BASE).write_text(about)
    assert [s["id"] for s in run("list", "--json").json] == [good.name]
    assert run("list").out.count("running") == 1


def test_code_cannot_play_with_the_terminal(run, make):
    path = make("x = 1 \x1b[2J\x1b]0;title\x07 \x9b31m")
    for argv in (("list",), ("show", path.name)):
        said = run(*argv)
        assert "x = 1" in said.out
        assert not CONTROL.search(said.out)


def test_the_cache_cannot_be_used(run, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(caches.ENV, str(tmp_path / "file"))
    for argv in (("list",), ("show", "abc"), ("save", "abc", tmp_path / "a.session")):
        assert str(tmp_path / "file") in run(*argv).mistake


def test_a_sandbox_is_listed_after_a_restart_too(run):
    with Sandbox() as box:
        folder = box._settings.checkpoints.path
        for _ in range(2):
            assert folder.name in [s["id"] for s in run("list", "--json").json if s["running"]]
            box.restart()


# -- which session -------------------------------------------------------------------------------


def test_a_session_is_named_by_its_id_the_start_of_it_or_its_name(run, make):
    one, two = make("x = 1", name="first"), make("y = 1", name="second")
    differing = [a != b for a, b in zip(one.name, two.name, strict=True)]
    length = differing.index(True) + 1
    for ident in (one.name, one.name[:length], "first"):
        (row,) = run("show", ident, "--json").json
        assert row["line"] == "x = 1"
    (row,) = run("show", "second", "--json").json
    assert row["line"] == "y = 1"


@pytest.mark.parametrize("ident", ["nowhere", "", ".", "..", "/", "%", "\x1b[31m", "a" * 300])
def test_no_such_session_is_one_line(run, make, tmp_path, ident):
    make("x = 1")
    for argv in (("show", ident), ("save", ident, tmp_path / "a.session")):
        line = run(*argv).mistake
        assert "wasi-kernel session list" in line
        assert not CONTROL.search(line)
    assert not (tmp_path / "a.session").exists()


def test_more_than_one_session_is_one_line_with_all_of_them(run, make, tmp_path):
    one, two = make("x = 1", name="same"), make("x = 1", name="same")
    line = run("save", "same", tmp_path / "a.session").mistake
    assert one.name in line
    assert two.name in line


# -- save ----------------------------------------------------------------------------------------


def test_save_says_what_it_has_saved(run, make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    session = make("x = 1", "y = 2")
    said = run("save", session.name[:8], "a.session")
    assert (said.status, said.err) == (0, "")
    assert re.fullmatch(r"Saved a\.session: the state after cell \[2\], 0\.\d MiB\.\n", said.out)
    assert sessionfile.read_manifest(tmp_path / "a.session").cells == [[1, "x = 1"], [2, "y = 2"]]
    assert (tmp_path / "a.session").stat().st_mode & 0o777 == 0o600
    make("z = 3", kept=True, name="kept")
    assert run("save", "kept", "a.session").status == 0
    assert sessionfile.read_manifest(tmp_path / "a.session").cells == [[1, "z = 3"]]


@pytest.mark.parametrize("where", ["nowhere/a.session", "file/a.session", "folder", "/proc/a"])
def test_a_place_that_takes_no_file_is_one_line(run, make, tmp_path, where):
    session = make("x = 1")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("precious")
    path = tmp_path / where
    assert os.path.basename(where) in run("save", session.name, path).mistake
    assert list((tmp_path / "folder").iterdir()) == []
    assert (tmp_path / "file").read_text() == "precious"


def test_a_session_that_cannot_be_saved_is_one_line(run, make, tmp_path):
    path = tmp_path / "a.session"
    assert "no state" in run("save", make().name, path).mistake
    damaged = make("x = 1")
    segment = damaged / "000001.pages"
    data = bytearray(segment.read_bytes())
    data[-10] ^= 1
    segment.write_bytes(data)
    assert "damaged" in run("save", damaged.name, path).mistake
    without = make("x = 1")
    (tmp_path / "base.image").unlink()
    assert "image" in run("save", without.name, path).mistake
    assert not path.exists()


# -- show ----------------------------------------------------------------------------------------


@pytest.fixture
def file(run, make, tmp_path) -> Path:
    """A session file."""
    run("save", make("x = 1", "y = 2").name, tmp_path / "a.session")
    return tmp_path / "a.session"


def test_show_of_a_file(run, file):
    said = run("show", file)
    assert (said.status, said.err) == (0, "")
    for text in ("after cell [2]", "wasi-kernel ", "49.0.0", "numpy", "[1] x = 1", "[2] y = 2"):
        assert text in said.out
    found = run("show", file, "--json").json
    assert found["file"] == str(file)
    assert found["bytes"] == file.stat().st_size
    assert found["memory_bytes"] == PAGES * PAGE
    assert (found["cell"], found["cells"]) == (2, [[1, "x = 1"], [2, "y = 2"]])
    assert found["made_of"] == MADE_OF
    assert abs(found["saved_s"] - time.time()) < 60


def test_show_of_a_session(run, make):
    session = make("x = 1", "y = 2", "z = 3")
    with closing(PageLog(session, "5e" * 32)) as log:
        log.name("first", 1)
        log.move(2)
    rows = run("show", session.name, "--json").json
    assert [(r["cell"], r["line"], r["where"], r["names"]) for r in rows] == [
        (1, "x = 1", "past", ["first"]), (2, "y = 2", "here", []), (3, "z = 3", "undone", []),
    ]  # fmt: skip
    lines = run("show", session.name).out.splitlines()
    assert [line.split()[0] for line in lines] == ["[1]", "[2]", "[3]"]
    assert [line.split("pages")[1].strip() for line in lines] == ["first", "here", "undone"]


def test_show_of_what_is_no_session_file_is_one_line(run, file, tmp_path):
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").touch()
    (tmp_path / "cut").write_bytes(file.read_bytes()[:300])
    for name in ("text", "empty", "cut"):
        for more in ((), ("--json",)):
            assert name in run("show", tmp_path / name, *more).mistake


def rewritten(source: Path, target: Path, change: Callable[[Any], None]) -> Path:
    """The session file with another manifest."""
    data = source.read_bytes()
    start = len(sessionfile.MAGIC) + 4
    end = start + int.from_bytes(data[start - 4 : start], "little")
    manifest = json.loads(data[start:end])
    change(manifest)
    text = json.dumps(manifest).encode()
    target.write_bytes(data[: start - 4] + struct.pack("<I", len(text)) + text + data[end:])
    return target


EVIL = "\x1b]0;title\x07\x1b[2J\x9b31m\r"
HOSTILE: dict[str, Callable[[Any], None]] = {
    "terminal": lambda m: m.update(
        kernel=EVIL, made_of={EVIL: EVIL, "list": [EVIL]}, cells=[[1, EVIL]]
    ),
    "no number": lambda m: m.update(saved_s=float("nan")),
    "no time": lambda m: m.update(saved_s=1e300),
    "infinite": lambda m: m.update(saved_s=float("-inf")),
    "deep": lambda m: m.update(made_of={"a": json.loads("[" * 500 + "]" * 500)}),
    "kernel": lambda m: m.update(kernel=[1, {"a": None}]),
    "cells": lambda m: m.update(cells=[[10**400, "x"]]),
    "keys": lambda m: m.update(made_of={}),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_show_of_a_hostile_file(run, file, tmp_path, change):
    """It is shown or refused; it does nothing to the terminal, or to who reads the JSON."""
    path = rewritten(file, tmp_path / "hostile", change)
    said = run("show", path)
    if said.status:
        assert "manifest is damaged" in said.mistake
    assert not CONTROL.search(said.out + said.err)
    said = run("show", path, "--json")
    if not said.status:
        assert said.json["file"] == str(path)


# -- help and mistakes ---------------------------------------------------------------------------


def test_help_names_the_commands(run):
    said = run("--help")
    assert (said.status, said.err) == (0, "")
    for name in ("list", "save", "show", "resume"):
        assert re.search(rf"^  {name} ", said.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("list", "--json"), ("save", "SESSION PATH"), ("show", "FILE|SESSION"),
        ("resume", "--kernelspec NAME"),
    ],
)  # fmt: skip
def test_each_has_help(run, name, says):
    for option in ("-h", "--help"):
        said = run(name, option)
        assert (said.status, said.err) == (0, "")
        assert f"Usage: wasi-kernel session {name}" in said.out
        assert says in said.out


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("nonsense",), "nonsense"),
        (("list", "more"), "more"),
        (("list", "--nonsense"), "--nonsense"),
        (("save",), "SESSION"),
        (("save", "abc"), "PATH"),
        (("show",), "FILE|SESSION"),
        (("resume",), "PATH"),
        (("resume", "/nowhere/a.session"), "/nowhere/a.session"),
        (("resume", "/"), "directory"),
    ],
)
def test_a_users_mistake_ends_with_2(run, cache, argv, named):
    said = run(*argv)
    assert said.status == 2
    assert named in said.mistake


# -- resume --------------------------------------------------------------------------------------


def command(*argv: object) -> list[str]:
    return [sys.executable, "-P", "-m", "wasi_kernel", *map(str, argv)]


@pytest.fixture(scope="module")
def saved(own_folders, tmp_path_factory) -> Path:
    """A session file that a kernel can be started from."""
    path = tmp_path_factory.mktemp("saved") / "a.session"
    with Sandbox() as box:
        box.run("x = [1]")
        box.run("x.append(2)")
        box.save(path)
    return path


def attach(name: str) -> BlockingKernelClient:
    """A client of the kernel with that connection file."""
    path = os.path.join(jupyter_runtime_dir(), name)

    def whole() -> bool:
        try:
            with open(path, encoding="utf-8") as f:
                return bool(json.load(f)["shell_port"])
        except (OSError, ValueError):
            return False

    eventually(whole)
    client = BlockingKernelClient(connection_file=path)
    client.load_connection_file()
    client.start_channels()
    client.wait_for_ready(timeout=TIMEOUT_S)
    return client


def value(client: BlockingKernelClient, code: str) -> str:
    """What a cell shows."""
    shown: list[str] = []

    def hook(message: dict[str, Any]) -> None:
        content = message["content"]
        if message["msg_type"] == "stream":
            shown.append(content["text"])
        elif message["msg_type"] == "execute_result":
            shown.append(content["data"]["text/plain"])

    client.execute_interactive(code, timeout=TIMEOUT_S, output_hook=hook, allow_stdin=False)
    return "".join(shown)


@pytest.fixture
def resumed(saved) -> Iterator[tuple[subprocess.Popen[str], BlockingKernelClient]]:
    """A kernel that `session resume` has started, and a client of it."""
    with subprocess.Popen(
        command("session", "resume", saved), text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"jupyter console --existing (\S+)\n", line)
        assert found is not None
        client = attach(found[1])
        yield process, client
        client.stop_channels()
        process.kill()


def test_resume_starts_a_kernel_that_the_other_commands_know(resumed, run, tmp_path):
    process, client = resumed
    assert value(client, "x.append(3); x") == "[1, 2, 3]"
    said = value(client, "%fork second")
    (row,) = [s for s in run("list", "--json").json if s["pid"] == process.pid]
    assert (row["running"], row["cell"]) == (True, 4)
    assert os.path.basename(row["connection_file"]) in run("list").out
    fork = attach(said.split()[-1])
    assert value(fork, "x.append(4); x") == "[1, 2, 3, 4]"

    def listed() -> dict[str, Any] | None:  # when the checkpoint of its last cell is written
        found = [s for s in run("list", "--json").json if s["name"] == "second"]
        return found[0] if found and found[0]["line"] == "x.append(4); x" else None

    found = eventually(listed)
    assert found["running"]
    assert os.path.basename(found["connection_file"]) == said.split()[-1]
    assert run("save", found["id"], tmp_path / "b.session").status == 0
    assert sessionfile.read_manifest(tmp_path / "b.session").cells[-1][1] == "x.append(4); x"
    assert value(client, "x") == "[1, 2, 3]"
    fork.stop_channels()
    client.shutdown()
    assert process.wait(30) == 0
    ids = {row["id"], found["id"]}
    assert ids.isdisjoint(s["id"] for s in run("list", "--json").json if s["running"])


def test_a_resumed_kernel_has_the_policy_that_is_given(saved, tmp_path):
    base = tmp_path / "base.toml"
    base.write_text('frontend = "text"\n[env]\nBASE = "file"\n')
    argv = command("session", "resume", saved, "--policy", base, "--env", "MORE=option")
    with subprocess.Popen(argv, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as p:
        assert p.stdout is not None
        name = p.stdout.readline().split()[-1]
        client = attach(name)
        try:
            code = "import os; print(os.environ['BASE'], os.environ['MORE'], x)"
            shown: list[dict] = []
            client.execute_interactive(code, timeout=TIMEOUT_S, output_hook=shown.append)
            assert "file option [1, 2]\n" in [m["content"].get("text") for m in shown], shown
            written = Path(jupyter_runtime_dir()) / name.replace(".json", ".toml")
            assert written.stat().st_mode & 0o777 == 0o600
        finally:
            client.stop_channels()
            p.terminate()


def test_a_session_is_not_resumed_with_a_policy_that_is_wrong(run, saved):
    assert "limits.cell_s" in run("resume", saved, "--cell-seconds", "-1").mistake
    assert "checkpoints" in run("resume", saved, "--no-checkpoints").mistake


def test_a_kernelspec_that_resumes_has_the_policy_that_is_given(run, saved, data_dir):
    assert run("resume", saved, "--kernelspec", "mine", "--frontend", "text").status == 0
    assert policyfile.read(data_dir / "kernels/mine/policy.toml") == {"frontend": "text"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_resumed_kernel_ends_when_it_is_interrupted(resumed, number):
    """Ctrl-C, as the help says: the command has a terminal of its own, no Jupyter."""
    process, _ = resumed
    process.send_signal(number)
    process.wait(15)


def test_resume_of_a_damaged_file_is_one_line(saved, tmp_path):
    data = bytearray(saved.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "pages.session").write_bytes(data)
    (tmp_path / "text.session").write_text("hello")
    for name in ("pages.session", "text.session"):
        done = subprocess.run(
            command("session", "resume", tmp_path / name), capture_output=True, text=True,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode in (1, 2)
        (line,) = done.stderr.splitlines()
        assert name in line


def test_a_kernel_of_what_is_no_file_is_one_line(tmp_path):
    for options in (["--resume", tmp_path], ["--resume"]):
        done = subprocess.run(
            command("kernel", "--on-terminal", "-f", tmp_path / "connection.json", *options),
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode != 0
        (line,) = done.stderr.splitlines()
        assert line.startswith("wasi-kernel: ")


# -- kernelspecs ---------------------------------------------------------------------------------


@pytest.fixture
def data_dir(tmp_path, monkeypatch) -> Path:
    """Jupyter's data folder of this user, for this test."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    return tmp_path / "jupyter"


def test_a_kernelspec_whose_kernels_begin_with_the_file(run, saved, data_dir):
    said = run("resume", saved, "--kernelspec", "my-work")
    assert (said.status, said.err) == (0, "")
    assert str(data_dir / "kernels" / "my-work") in said.out
    assert jupyter_data_dir() == str(data_dir)
    spec = KernelSpecManager().get_kernel_spec("my-work")
    assert spec.display_name in said.out
    assert spec.interrupt_mode == "message"
    for _ in range(2):  # each begins with the file
        manager, client = start_new_kernel(kernel_name="my-work", startup_timeout=TIMEOUT_S)
        try:
            assert value(client, "x.append(3); x") == "[1, 2, 3]"
        finally:
            client.stop_channels()
            manager.shutdown_kernel()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "a/b", "Big", "with space", "-x", "a\nb", "ü", "/abs", ".hid"]
)
def test_a_bad_name_is_refused(run, saved, data_dir, name):
    assert "kernelspec" in run("resume", saved, f"--kernelspec={name}").mistake
    assert not data_dir.exists()


def test_a_name_that_is_taken_is_refused(run, saved, data_dir, tmp_path, monkeypatch):
    """By this user, or by anyone whose kernelspecs Jupyter finds: that one would be hidden."""
    assert run("resume", saved, "--kernelspec", "mine").status == 0
    before = (data_dir / "kernels" / "mine" / "kernel.json").read_bytes()
    assert "mine" in run("resume", saved, "--kernelspec", "mine").mistake
    assert (data_dir / "kernels" / "mine" / "kernel.json").read_bytes() == before
    theirs = tmp_path / "share" / "kernels" / "theirs"
    theirs.mkdir(parents=True)
    (theirs / "kernel.json").write_bytes(before)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    assert "theirs" in KernelSpecManager().find_kernel_specs()
    assert "theirs" in run("resume", saved, "--kernelspec", "theirs").mistake


def test_a_kernelspec_that_cannot_be_written_is_one_line(run, saved, data_dir):
    data_dir.write_text("no folder")
    assert str(data_dir) in run("resume", saved, "--kernelspec", "mine").mistake


def test_no_kernelspec_for_what_is_no_session_file(run, data_dir, tmp_path):
    (tmp_path / "text").write_text("hello")
    assert "text" in run("resume", tmp_path / "text", "--kernelspec", "mine").mistake
    assert not data_dir.exists()


# -- kept sessions -------------------------------------------------------------------------------


def test_a_kernel_that_was_killed_is_listed_as_kept_and_can_be_saved(run, tmp_path):
    name = "kernel-kept.json"  # in Jupyter's own folder, if it is not there yet
    with subprocess.Popen(
        command("kernel", "-f", name, "--restart-keeps-state"), stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        client = attach(name)
        value(client, "x = 1")
        value(client, "y = 2")
        process.kill()
    client.stop_channels()
    (row,) = [s for s in run("list", "--json").json if s["pid"] == process.pid]
    assert row["running"] is False
    assert f"{row['id']}  kept" in run("list").out
    assert run("save", row["id"], tmp_path / "a.session").status == 0
    assert sessionfile.read_manifest(tmp_path / "a.session").cells[0] == [1, "x = 1"]
    path = launch.sessions_folder(caches.default_path()) / row["id"]
    taken = OwnFolder(path.parent, name=path.name)
    taken.unkeep()
    taken.release()
    assert not path.exists()
    assert not folders.in_use(path)
