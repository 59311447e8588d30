"""JupyterLab as people have it: a server of our own, and Debian's Chromium looking at it.

One server and one browser serve all tests of a module; each test has its own page and notebook. A
picture of every page as the test left it goes to `$WASI_KERNEL_SCREENSHOTS`, or else to pytest's
temporary folder; a failed test's report names it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import nbformat
import pytest
import uv
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Error, expect, sync_playwright

from wasi_kernel import Sandbox

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from playwright.sync_api import BrowserContext, Locator, Page

KERNELSPEC = Path(__file__).parents[2] / "kernelspec"
CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_ARGS = (
    "--no-sandbox",  # its own sandbox does not start for root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WAIT_MS = 20_000
"""How long one step may take: many times what it takes, and well below a test's limit."""

SERVER_S = 60
"""How long the server may take to start or to end."""

QUIET = {"@jupyterlab/apputils-extension/notification": {"fetchNews": "false"}}
"""The user's settings: one who was asked already."""

LOG_REQUESTS = """
import json

def log(handler):
    request = handler.request
    about = {k: request.headers.get(k, "") for k in ("Origin", "Referer", "Sec-Fetch-Dest")}
    print("REQUEST", json.dumps([request.method, request.uri, handler.get_status(), about]))

c.ServerApp.tornado_settings = {"log_function": log}
"""
"""Configuration of the server: a line for each request, once it is answered."""

READY = re.compile(r"Python \(WASI\).* \| Idle")
NUMBERED = re.compile(r"\[\d+\]:")


class Request(NamedTuple):
    """One request as the server saw it; `about` are headers that say where it came from."""

    method: str
    uri: str
    status: int
    about: dict[str, str]


class Server:
    """A running JupyterLab, whose root folder is the notebooks' own.

    Attributes:
        folder: The notebooks' folder; what the kernels see as `/work`.
        url: Its address, without a slash at the end.
        token: What it asks for.
        requests: What it was asked for, oldest first.
    """

    def __init__(
        self, home: Path, settings: dict[str, Any], extensions: tuple[str, ...] = ()
    ) -> None:
        self.folder, self.token = home / "notebooks", secrets.token_hex(16)
        self.folder.mkdir()
        self.requests: list[Request] = []
        self._kernels = home / "data" / "kernels"
        self._log: list[str] = []
        if extensions:
            self._add_extensions(home, extensions)
        self._started = threading.Event()
        self.url = ""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"],
            env=self._environment(home, settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        self._started.wait(SERVER_S)
        if not self.url:
            self.close()
            pytest.fail("JupyterLab did not start:\n" + "".join(self._log))

    def _environment(self, home: Path, settings: dict[str, Any]) -> dict[str, str]:
        """Jupyter's folders are our own, so what is installed is found in sys.prefix."""
        config = home / "config"
        for plugin, values in settings.items():
            path = config / "lab/user-settings" / f"{plugin}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        options = {
            "ServerApp": {"ip": "127.0.0.1", "port": 0, "root_dir": str(self.folder)},
            "IdentityProvider": {"token": self.token},
        }
        (config / "jupyter_lab_config.json").write_text(json.dumps(options))
        (config / "jupyter_lab_config.py").write_text(LOG_REQUESTS)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "JPY"))}
        return inherited | {
            "JUPYTER_CONFIG_DIR": str(config),
            "JUPYTER_DATA_DIR": str(home / "data"),
            "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
            "JUPYTER_PREFER_ENV_PATH": "1",
            "JUPYTER_PLATFORM_DIRS": "1",
            "PYTHONUNBUFFERED": "1",
        }

    @staticmethod
    def _add_extensions(home: Path, requirements: tuple[str, ...]) -> None:
        """Puts what these packages bring for JupyterLab where this user's own is looked for."""
        target = home / "packages"
        subprocess.run(
            [
                uv.find_uv_bin(), "pip", "install", "--quiet", "--no-deps",
                "--python", sys.executable, "--target", target, *requirements,
            ],
            check=True,
        )  # fmt: skip
        shutil.copytree(target / "share/jupyter/labextensions", home / "data/labextensions")

    def add_kernel(self, name: str, *options: str) -> None:
        """Offers a kernel like ours that is started with further options."""
        spec = json.loads((KERNELSPEC / "kernel.json").read_text())
        spec["argv"] = [sys.executable, *spec["argv"][1:], *options]
        spec["display_name"] += " " + " ".join(options)
        folder = self._kernels / name
        folder.mkdir(parents=True)
        (folder / "kernel.json").write_text(json.dumps(spec))

    def _read_log(self) -> None:
        for line in self._process.stdout:
            if line.startswith("REQUEST "):
                method, uri, status, about = json.loads(line.removeprefix("REQUEST "))
                self.requests.append(Request(method, uri, status, about))
                continue
            self._log.append(line)
            if address := re.search(r"http://127\.0\.0\.1:\d+(?=/)", line):
                self.url = address[0]
                self._started.set()
        self._started.set()  # it has ended

    def close(self) -> None:
        """Ends it, and its kernels with it."""
        self._process.terminate()
        try:
            self._process.wait(SERVER_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            self._reader.join(SERVER_S)
            self._process.stdout.close()


class Notebook:
    """A notebook open in a page. Cells count from 0."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.panel = page.locator(".jp-NotebookPanel")
        self.toolbar = self.panel.locator(".jp-NotebookPanel-toolbar")
        self.status = page.locator("#jp-main-statusbar")
        self.indicator = self.toolbar.locator(".jp-Notebook-ExecutionIndicator")

    def open(self, server: Server, path: str, *cells: str, kernel: str = "python-wasi") -> None:
        """Writes a notebook that has these code cells, and opens it."""
        content = new_notebook(cells=[new_code_cell(source) for source in cells])
        content.metadata["kernelspec"] = {"name": kernel, "display_name": "Python (WASI)"}
        nbformat.write(content, server.folder / path)
        self.go_to(path)

    def go_to(self, path: str) -> None:
        """Opens a notebook of the server's folder, and waits until it can be used."""
        self.page.goto(f"/lab/tree/{path}?reset")
        self.wait_until_usable()

    def wait_until_usable(self) -> None:
        """Waits for the kernel: before it is there, JupyterLab forgets a cell that is to run."""
        expect(self.status).to_contain_text(READY)

    def cell(self, index: int) -> Locator:
        """One code cell."""
        return self.panel.locator(".jp-CodeCell").nth(index)

    def output(self, index: int) -> Locator:
        """What one cell shows below its source."""
        return self.cell(index).locator(".jp-OutputArea-output")

    def prompt(self, index: int) -> Locator:
        """One cell's `[1]:`."""
        return self.cell(index).locator(".jp-InputPrompt")

    def run_all(self) -> None:
        """Runs all cells from the menu, and waits until the last has its number."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name=re.compile("^Run All Cells")).click()
        last = self.panel.locator(".jp-CodeCell").last.locator(".jp-InputPrompt")
        expect(last).to_have_text(NUMBERED, timeout=3 * WAIT_MS)

    def save(self) -> None:
        """Writes the notebook's file."""
        with self.page.expect_response(
            lambda answer: answer.request.method == "PUT" and "/api/contents/" in answer.url
        ):
            self.page.keyboard.press("Control+s")

    def edit(self, index: int) -> None:
        """Puts the cursor at the end of one cell."""
        self.cell(index).locator(".cm-content").click()
        self.page.keyboard.press("Control+End")

    def start(self, index: int) -> Locator:
        """Runs one cell as a user does, and does not wait for it; what it shows."""
        self.edit(index)
        self.page.keyboard.press("Shift+Enter")
        return self.output(index)

    def run(self, index: int) -> Locator:
        """Runs one cell and waits until it has its number; what it shows."""
        output = self.start(index)
        expect(self.prompt(index)).to_have_text(NUMBERED)
        return output


class Notebook7(Notebook):
    """The same in Notebook 7, which the same server has: a page of its own, and no status bar."""

    def go_to(self, path: str) -> None:
        """Opens a notebook of the server's folder, and waits until it can be used."""
        self.page.goto(f"/notebooks/{path}")
        self.wait_until_usable()

    def wait_until_usable(self) -> None:
        """Waits for the kernel."""
        expect(self.toolbar.locator(".jp-KernelName")).to_contain_text("Python (WASI)")
        expect(self.indicator).to_have_attribute("data-status", "idle")


@pytest.fixture(scope="module")
def lab_settings() -> dict[str, Any]:
    """A user's settings of JupyterLab, by plugin. A module may have its own."""
    return dict(QUIET)


@pytest.fixture(scope="module")
def lab_extensions() -> tuple[str, ...]:
    """Packages with extensions of JupyterLab. A module may have its own."""
    return ()


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, lab_settings: dict[str, Any],
    lab_extensions: tuple[str, ...],
) -> Iterator[Server]:  # fmt: skip
    """JupyterLab, on a free port."""
    with Sandbox():  # what takes 40 s the first time is not what these tests wait for
        pass
    server = Server(tmp_path_factory.mktemp("jupyterlab"), lab_settings, lab_extensions)
    yield server
    server.close()


# Not for the whole session: while Playwright runs, this thread has a running event loop, in which
# other tests could not start theirs.
@pytest.fixture(scope="module")
def net_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where Chromium writes whatever it asks of the network; whole once it is closed."""
    return tmp_path_factory.mktemp("net") / "log.json"


@pytest.fixture(scope="module")
def browser(
    server: Server, net_log: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BrowserContext]:
    """Chromium, with the cookies and the cache of one user, who is logged in."""
    if not CHROMIUM.exists():
        pytest.fail(
            f"{CHROMIUM} is missing; install Debian's packages: "
            "apt-get install -y --no-install-recommends chromium fonts-dejavu-core"
        )
    expect.set_options(timeout=WAIT_MS)
    home = str(tmp_path_factory.mktemp("chromium"))
    env = os.environ | {"XDG_CONFIG_HOME": home, "XDG_CACHE_HOME": home}
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*CHROMIUM_ARGS, f"--log-net-log={net_log}"], env=env
        )
        context = chromium.new_context(
            base_url=server.url, viewport={"width": 1280, "height": 1000}
        )
        context.set_default_timeout(WAIT_MS)
        context.request.get(f"/lab?token={server.token}")
        yield context
        chromium.close()


@pytest.fixture
def page(server: Server, browser: BrowserContext) -> Iterator[Page]:
    """An empty page; the kernels that the test starts end with it."""
    page = browser.new_page()
    yield page
    page.close()
    headers = {"Authorization": f"token {server.token}"}
    for session in browser.request.get("/api/sessions", headers=headers).json():
        browser.request.delete(f"/api/sessions/{session['id']}", headers=headers)


@pytest.fixture(scope="session")
def notebook_in() -> type[Notebook]:
    """What makes a `Notebook` of a page, for modules that have pages of their own."""
    return Notebook


@pytest.fixture(scope="session")
def front_ends() -> dict[str, type[Notebook]]:
    """What makes a `Notebook` of a page, by front end."""
    return {"JupyterLab": Notebook, "Notebook 7": Notebook7}


@pytest.fixture
def notebook(page: Page) -> Notebook:
    """The notebook that the page shows, once it shows one."""
    return Notebook(page)


@pytest.fixture
def open_notebook(server: Server, notebook: Notebook, request: pytest.FixtureRequest):
    """A function: opens a notebook that has these code cells, and waits until it can be used."""

    def open_(*cells: str, kernel: str = "python-wasi") -> Notebook:
        notebook.open(server, f"{request.node.name}.ipynb", *cells, kernel=kernel)
        return notebook

    return open_


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the pictures."""
    chosen = os.environ.get("WASI_KERNEL_SCREENSHOTS")
    folder = Path(chosen) if chosen else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(autouse=True)
def picture_folder(screenshots: Path) -> Path:
    """Has the folder made for the hook below."""
    return screenshots


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Takes the picture, before the page is closed."""
    report = yield
    page = item.funcargs.get("page")
    if call.when == "call" and page is not None:
        path = item.funcargs["picture_folder"] / f"{item.name}.png"
        with contextlib.suppress(Error):  # a page that hangs has a failure of its own to report
            page.screenshot(path=path)
            report.sections.append(("screenshot", str(path)))
    return report
