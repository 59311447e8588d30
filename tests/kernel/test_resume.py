"""A kernel's state outlives the kernel: in a file, in a restart, and in a fork of it.

Kernels are started as Jupyter does, from kernelspecs made here that differ in their options only.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_core.paths import jupyter_runtime_dir
from waiting import eventually

from wasi_kernel import Sandbox, caches, launch, sessionfile
from wasi_kernel.caches import Cache
from wasi_kernel.launch import SCRATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TIMEOUT_S = 60.0
STATE = (
    "import random\nimport numpy as np\nimport pandas as pd\n"
    "random.seed(1); np.random.seed(2)\n"
    "squares = (n * n for n in range(100)); next(squares); next(squares)\n"
    "frame = pd.DataFrame({'a': range(5)})\n"
    "log = open('/tmp/log.txt', 'w')"
)
NEXT = "next(squares), random.random(), np.random.rand(), frame.a.sum()"


def session_of(connection_file: str) -> Path | None:
    """The folder of the session that has this connection file."""
    for path in launch.sessions_folder(caches.default_path()).iterdir():
        try:
            about = json.loads((path / launch.ABOUT).read_bytes())
        except (OSError, ValueError):
            continue
        if about.get("connection_file") == connection_file:
            return path
    return None


@pytest.fixture
def start_with(start_kernel, tmp_path) -> Callable[..., Any]:
    """Starts kernels with further options of `wasi-kernel kernel`."""
    argv = [sys.executable, "-P", "-m", "wasi_kernel", "kernel", "-f", "{connection_file}"]

    def start(*options: str, **more: Any) -> Any:
        folder = tmp_path / "kernels"
        (folder / "python-wasi").mkdir(parents=True, exist_ok=True)
        spec = {
            "argv": [*argv, *options], "display_name": "test", "language": "python",
            "interrupt_mode": "message",
        }  # fmt: skip
        (folder / "python-wasi" / "kernel.json").write_text(json.dumps(spec))
        manager = KernelSpecManager(kernel_dirs=[str(folder)])
        return start_kernel(kernel_spec_manager=manager, **more)

    return start


@pytest.fixture(scope="module")
def saved(own_folders, tmp_path_factory) -> tuple[Path, list[str | None]]:
    """(a session file, what its session said to NEXT after it was saved)."""
    path = tmp_path_factory.mktemp("saved") / "a.session"
    with Sandbox() as box:
        assert box.run("'first'").ok
        assert box.run(STATE).ok
        box.save(path)
        return path, [box.run(NEXT).text for _ in range(2)]


# -- from a file ---------------------------------------------------------------------------------


def test_a_kernel_goes_on_from_a_file(start_with, saved):
    path, said = saved
    kernel = start_with("--resume", str(path), ready=False)
    answer = kernel.run(NEXT)
    assert (answer.result, answer.content["execution_count"]) == (said[0], 3)
    assert "/tmp/log.txt" in answer.text("stderr")  # noqa: S108 - a guest path, no longer open
    assert kernel.run("log.closed").text("stderr") == ""
    assert kernel.run("In[1], Out[1], len(In)").result == "(\"'first'\", 'first', 6)"
    kernel.run("frame = None; del squares")
    kernel.run("%undo 4")
    answer = kernel.run(NEXT)
    assert (answer.result, answer.content["execution_count"]) == (said[0], 8)
    assert "no cell to undo" not in kernel.run("%undo").text("stderr")
    assert "no cell to undo" in kernel.run("%undo").text("stderr")
    assert kernel.run("import os; os._exit(1)").content["ename"] == "GuestExited"
    assert [kernel.run(NEXT).result for _ in range(2)] == said


def test_in_an_empty_home_with_an_image_of_its_own(start_with, saved, tmp_path):
    """As on another machine with the same versions: neither the image nor the plan is there."""
    path, said = saved
    home, cache = tmp_path / "home", tmp_path / "cache"
    home.mkdir()
    shutil.copytree(caches.default_path() / "modules", cache / "modules")  # checked by its hash
    bundle = sessionfile.read_manifest(path).made_of["agent"]
    shutil.copytree(caches.default_path() / "bundles" / bundle, cache / "bundles" / bundle)
    env = {caches.ENV: str(cache), "HOME": str(home), "TMPDIR": str(tmp_path)}
    kernel = start_with("--resume", str(path), env=env, ready=False)
    assert kernel.run(NEXT).result == said[0]
    assert len(list(cache.glob("images/*.image"))) == 1
    assert kernel.run("import os; os._exit(1)").content["ename"] == "GuestExited"
    assert kernel.run(NEXT).result == said[1]
    kernel.close()
    assert list((cache / "sessions").iterdir()) == []
    shutil.rmtree(cache)


def test_another_configuration_is_named_in_the_first_cell(start_with, saved, tmp_path):
    data = saved[0].read_bytes()
    at = len(sessionfile.MAGIC)
    end = at + 4 + int.from_bytes(data[at : at + 4], "little")
    manifest = json.loads(data[at + 4 : end])
    manifest["made_of"]["wasmtime"] = "1.2.3"
    text = json.dumps(manifest).encode()
    content = data[:at] + len(text).to_bytes(4, "little") + text + data[end:-32]
    path = tmp_path / "other.session"
    path.write_bytes(content + hashlib.sha256(content).digest())
    kernel = start_with("--resume", str(path), ready=False)
    for _ in range(2):
        answer = kernel.run("1")
        assert answer.content["status"] == "error"
        assert "wasmtime: 1.2.3 there" in answer.content["evalue"]
        assert "Traceback" not in answer.content["evalue"]
    assert kernel.manager.is_alive()


def test_a_file_in_the_folder_is_not_loaded_by_itself(start_kernel, saved, tmp_path):
    shutil.copy(saved[0], tmp_path / "a.session")
    kernel = start_kernel(cwd=str(tmp_path))
    assert kernel.run("import os; os.listdir('.'), 'frame' in dir()").result == (
        "(['a.session'], False)"
    )


# -- saving from within --------------------------------------------------------------------------


def test_a_cell_saves_the_state_after_it(start_kernel, start_with):
    folder = Cache().folder(SCRATCH)
    before = set(folder.iterdir())
    kernel = start_kernel()
    (scratch,) = set(folder.iterdir()) - before
    answer = kernel.run("%save_session /tmp/a.session\nx = 'after'")
    assert answer.content["status"] == "ok"
    assert re.search(r"Saved: /tmp/a.session, \d+\.\d MiB", answer.text())
    (path,) = scratch.glob("tmp/*")
    assert path.name == "a.session"
    other = start_with("--resume", str(path), ready=False)
    assert other.run("x").result == "'after'"


# -- restarts ------------------------------------------------------------------------------------

KEEP = "--restart-keeps-state"


def test_a_restart_keeps_the_state_if_asked_for(start_with):
    kernel = start_with(KEEP)
    kernel.run("'first'")
    kernel.run(STATE)
    kernel.run("log.write('text'); log.flush()")
    said = []
    for _ in range(2):
        kernel.restart()
        answer = kernel.run(NEXT)
        said.append((answer.result, answer.content["execution_count"]))
    assert [count for _, count in said] == [4, 5]
    assert kernel.run("In[1], Out[1], open('/tmp/log.txt').read()").result == (
        "(\"'first'\", 'first', 'text')"
    )
    kernel.run("%undo 3")
    assert kernel.run(NEXT).result == said[0][0]
    assert kernel.run(NEXT).result == said[1][0]


def test_a_kernel_that_is_killed_comes_back_with_its_state(start_with):
    kernel = start_with(KEEP)
    kernel.run("kept = [1]")
    kernel.run("'begins when the checkpoint of the cell before is written'")
    for n in range(2, 4):
        kernel.client.stop_channels()
        psutil.Process(kernel.pid).kill()
        kernel.manager.restart_kernel(now=True)
        kernel._open_client()
        assert kernel.run(f"kept.append({n}); kept").result == str(list(range(1, n + 1)))
        kernel.run("'begins when the checkpoint of the cell before is written'")


def test_a_restart_while_a_cell_runs_keeps_what_was_before_it(start_with):
    kernel = start_with(KEEP)
    kernel.run("kept = 'before'")
    cell = kernel.execute("kept = 'lost'\nprint('begun')\nwhile True: pass")
    kernel.until_text(cell, "begun")
    kernel.restart()
    assert kernel.run("kept").result == "'before'"


@pytest.mark.parametrize(("options", "kept"), [([], "False"), ([KEEP], "True")])
def test_a_restart_of_a_kernel_from_a_file(start_with, saved, options, kept):
    """Clean means: again from the file. Kept means: what has run since is there, too."""
    kernel = start_with("--resume", str(saved[0]), *options, ready=False)
    kernel.run("more = 1; next(squares)")
    kernel.restart()
    assert kernel.run("'more' in dir()").result == kept
    assert kernel.run("next(squares)").result == ("9" if options else "4")


def test_shutdown_removes_what_a_restart_would_need(start_with):
    scratch = Cache().folder(SCRATCH)
    before = set(scratch.iterdir())
    kernel = start_with(KEEP)
    folder = session_of(kernel.manager.connection_file)
    assert folder is not None
    processes = [psutil.Process(kernel.pid), *kernel.workers()]
    kernel.run("kept = 1")
    asked = kernel.send("shutdown_request", {"restart": False}, channel="control")
    assert kernel.reply(asked, "control")["content"]["status"] == "ok"
    assert psutil.wait_procs(processes, 30)[1] == []
    assert not folder.exists()
    assert set(scratch.iterdir()) <= before


def test_another_kernel_does_not_take_up_what_is_kept(start_with):
    one = start_with(KEEP)
    one.run("kept = 1")
    assert start_with(KEEP).run("'kept' in dir()").result == "False"


# -- forks ---------------------------------------------------------------------------------------


@dataclass
class Fork:
    """A second kernel, attached by its connection file only."""

    connection_file: Path
    process: psutil.Process
    client: BlockingKernelClient
    answers: list[dict[str, Any]] = field(default_factory=list)

    def run(self, code: str) -> tuple[str | None, int]:
        """(the value or error, the execution count) of a cell."""
        shown: list[dict[str, Any]] = []
        reply = self.client.execute_interactive(
            code, timeout=TIMEOUT_S, output_hook=shown.append, allow_stdin=False
        )
        said = [
            m["content"]["data"]["text/plain"] if m["msg_type"] == "execute_result"
            else m["content"].get("text") or m["content"].get("ename")
            for m in shown if m["msg_type"] in ("execute_result", "error", "stream")
        ]  # fmt: skip
        return "".join(said) or None, reply["content"]["execution_count"]

    def shutdown(self) -> None:
        self.client.shutdown()
        assert psutil.wait_procs([self.process], 30)[1] == []


def fork_processes(kernel: Any) -> list[psutil.Process]:
    own = psutil.Process(kernel.pid).children()
    return [p for p in own if "--take-up" in p.cmdline()]


@pytest.fixture
def fork_of() -> Iterator[Callable[..., Fork]]:
    """Forks a kernel with %fork, and attaches to the second one."""
    with ExitStack() as stack:

        def fork(kernel: Any, name: str, code: str = "") -> Fork:
            before = set(fork_processes(kernel))
            text = kernel.run(f"%fork {name}\n{code}").text()
            found = re.search(r"jupyter console --existing (\S+)", text)
            assert found is not None, text
            (process,) = set(fork_processes(kernel)) - before
            path = Path(jupyter_runtime_dir()) / found[1]
            eventually(lambda: path.exists() and path.read_text().endswith("}"))
            client = BlockingKernelClient(connection_file=str(path))
            client.load_connection_file()
            client.start_channels()
            stack.callback(client.stop_channels)
            client.wait_for_ready(timeout=TIMEOUT_S)
            return Fork(path, process, client)

        yield fork


def test_a_fork_goes_on_from_the_state_after_its_cell(start_kernel, fork_of):
    kernel = start_kernel()
    kernel.run("x = [1]; open('/tmp/a.txt', 'w').write('a')")
    fork = fork_of(kernel, "second", "x.append(2)")
    assert fork.run("x, open('/tmp/a.txt').read()") == ("([1, 2], 'a')", 3)
    assert kernel.run("x.append('parent'); x").result == "[1, 2, 'parent']"
    assert fork.run("x.append('fork'); x") == ("[1, 2, 'fork']", 4)
    assert fork.run("import os; os._exit(1)")[0] == "GuestExited"
    assert fork.run("x") == ("[1, 2, 'fork']", 6)
    fork.run("%undo 5")
    assert fork.run("'x' in dir()")[0] == "False"
    said = fork.run("%fork third")[0]
    assert said is not None
    assert "cannot be forked from within" in said
    assert len(said.strip().splitlines()) == 1
    assert fork_processes(kernel) == [fork.process]
    fork.shutdown()
    assert not fork.connection_file.exists()
    assert kernel.run("x").result == "[1, 2, 'parent']"


def test_a_fork_has_its_parents_policy(start_kernel, fork_of, tmp_path):
    (tmp_path / "policy.toml").write_text('work = false\n[limits]\nmemory_bytes = "1 GiB"\n')
    options = ["--policy", str(tmp_path / "policy.toml"), "--frontend", "text",
               "--frontend-mimes", "application/x-odd"]  # fmt: skip
    fork = fork_of(start_kernel(options=options), "second")
    said = fork.run("w = %wasi frontend\nw.to_dict()['mode'], w.to_dict()['mimes']")[0]
    assert said == "('text', ['application/x-odd'])"
    code = "import os; w = %wasi\nos.listdir('/work'), w.to_dict()['limits']['memory_bytes'] >> 20"
    assert fork.run(code)[0] == "([], 1024)"


@pytest.mark.parametrize("how", ["shutdown", "kill"])
def test_a_fork_ends_with_its_parent(start_kernel, fork_of, how):
    kernel = start_kernel()
    kernel.run("x = 1")
    fork = fork_of(kernel, "second")
    folder = session_of(str(fork.connection_file))
    assert folder is not None
    processes = [psutil.Process(kernel.pid), *psutil.Process(kernel.pid).children(recursive=True)]
    assert len(processes) == 4
    if how == "kill":
        processes[0].kill()
    else:
        kernel.send("shutdown_request", {"restart": False}, channel="control")
    assert psutil.wait_procs(processes, 30)[1] == []
    if how == "shutdown":
        assert not fork.connection_file.exists()
        assert not folder.exists()


def test_a_kernel_has_so_many_forks_at_a_time(start_kernel, fork_of):
    kernel = start_kernel()
    first = fork_of(kernel, "f0")
    for n in range(1, 4):
        assert "jupyter console" in kernel.run(f"%fork f{n}").text()
    answer = kernel.run("%fork f4")
    assert "at most 4 forks" in answer.text("stderr")
    assert answer.text() == ""
    assert len(fork_processes(kernel)) == 4
    first.shutdown()
    assert "jupyter console" in kernel.run("%fork f5").text()


def test_a_fork_s_name_is_checked(kernel):
    for line in ("%fork", "%fork 5", "%fork -x", "%fork " + "x" * 200):
        answer = kernel.run(line)
        assert "UsageError" in answer.text("stderr")
        assert len(answer.text("stderr").strip().splitlines()) == 1
    assert fork_processes(kernel) == []


def test_a_sandbox_is_not_forked_from_within():
    with Sandbox() as box:
        result = box.run("%fork second")
        assert "cannot be forked from within" in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
        assert box.run("'alive'").text == "'alive'"
