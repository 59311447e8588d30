"""Shows `%pip install` in a kernel: interrupts, deaths, restarts, other requests meanwhile.

The wheels are made here; an index that does not answer is ours as well. One test asks PyPI.
"""

from __future__ import annotations

import http.server
import threading
from typing import TYPE_CHECKING

import psutil
import pytest

from wasi_kernel import caches
from wasi_kernel.pip import MODULE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def options(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A kernelspec's policy, by whose name the kernel knows itself."""
    del shelf  # uv's settings are this process's, and so the kernel's
    folder = tmp_path_factory.mktemp("specs") / "with-pip"
    folder.mkdir()
    (folder / "kernel.json").write_text("{}")
    (folder / "policy.toml").write_text("pip = true\n")
    return ["--policy", str(folder / "policy.toml")]


@pytest.fixture
def restarting(start_kernel, tmp_path: Path) -> Callable[[], object]:
    """Starts a kernel that keeps its state when it is restarted."""
    path = tmp_path / "policy.toml"
    path.write_text("pip = ['pack']\nrestart_keeps_state = true\n")
    return lambda: start_kernel(options=["--policy", str(path)])


@pytest.fixture
def silent_index(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """An index that takes requests and does not answer; set when it has one."""
    asked, over = threading.Event(), threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.set()
            over.wait(60)

        do_HEAD = do_GET  # noqa: N815 - its base's name

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        address = f"http://127.0.0.1:{server.server_address[1]}/simple"
        monkeypatch.setenv("UV_DEFAULT_INDEX", address)
        yield asked
        over.set()
        server.shutdown()
        thread.join()


def installing(pid: int) -> list[psutil.Process]:
    """The processes that install something for a kernel."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if MODULE in process.cmdline():
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def half_made() -> list[Path]:
    """What an installation leaves in the cache if it does not clean up."""
    folder = caches.default_path() / "packages"
    return list(folder.glob(".new-*")) if folder.is_dir() else []


def test_installed_and_used_in_one_cell(kernel):
    kernel.run("before = 1")
    answer = kernel.run("%pip install app\nimport app\nprint(app.version, before)")
    assert answer.content["status"] == "ok"
    assert answer.text().splitlines() == [
        "Looking for app ...", "Fetching app 1.0, lib 1.0 ...",
        "Successfully installed app-1.0 lib-1.0", "1.0 1",
    ]  # fmt: skip
    assert "UsageError: nothing was installed" in kernel.run("%pip install nowhere").text("stderr")


def test_the_lines_for_the_policy_name_the_kernelspec(kernel):
    kernel.run("%pip install -q app")
    lines = kernel.run("%pip freeze --to-policy").text()
    command = "# wasi-kernel install --replace --name with-pip --like with-pip --package app==1.0"
    assert command in lines


def test_after_the_death_of_the_guest(kernel):
    kernel.run("%pip install -q pack\nimport pack")
    assert kernel.run("import os; os._exit(1)").content["ename"] == "GuestExited"
    assert kernel.run("import pack.later; pack.later.value").result == "7"
    assert "already satisfied: pack 1.0" in kernel.run("%pip install pack").text()


def test_a_restart_that_keeps_the_state_keeps_them(restarting, shelf):
    del shelf
    kernel = restarting()
    kernel.run("%pip install -q pack\nimport pack")
    kernel.restart()
    assert kernel.run("import pack.later; pack.later.value").result == "7"
    assert "already satisfied: pack 1.0" in kernel.run("%pip install pack").text()
    assert "only pack" in kernel.run("%pip install app").text("stderr")


@pytest.fixture
def waiting(start_kernel, shelf, silent_index, tmp_path: Path, options):
    """A kernel whose %pip install waits for an index."""
    del shelf
    (tmp_path / "config").mkdir()
    env = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "UV_HTTP_RETRIES": "0"}
    kernel = start_kernel(options=options, env=env)
    cell = kernel.execute("try:\n    %pip install app\nfinally:\n    kept = 1")
    kernel.until_text(cell, "Looking for app")
    assert silent_index.wait(30)
    return kernel, cell


def test_an_interrupt_ends_it(waiting):
    kernel, cell = waiting
    (process,) = installing(kernel.pid)
    others = process.children(recursive=True)
    assert len(others) == 1  # uv
    kernel.interrupt()
    assert kernel.answer(cell).content["ename"] == "KeyboardInterrupt"
    _, alive = psutil.wait_procs([process, *others], timeout=20)
    assert alive == []
    assert kernel.run("import os; kept, os.listdir('/opt/installed')").result == "(1, [])"
    assert half_made() == []


def test_the_kernel_answers_meanwhile(waiting):
    kernel, cell = waiting
    assert kernel.ask("kernel_info_request", channel="control")["status"] == "ok"
    assert kernel.client.is_alive()
    kernel.interrupt()
    kernel.answer(cell)


def test_it_ends_with_its_kernel(waiting):
    kernel, _ = waiting
    processes = installing(kernel.pid)
    processes += processes[0].children(recursive=True)
    psutil.Process(kernel.pid).kill()
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert alive == []


def test_a_package_of_pypi(start_kernel, shelf, tmp_path: Path, options):
    del shelf
    (tmp_path / "config").mkdir()
    env = {"XDG_CONFIG_HOME": str(tmp_path / "config")}  # no settings: uv asks PyPI
    kernel = start_kernel(options=options, env=env)
    answer = kernel.run("%pip install 'rich>=13'\nimport rich.text\nlen(rich.text.Text('four'))")
    assert answer.result == "4"
    assert "Successfully installed markdown-it-py-" in answer.text()
    refused = kernel.run("%pip install jsonschema")
    assert "jsonschema -> rpds-py" in refused.text("stderr")
    assert refused.content["status"] == "error"
