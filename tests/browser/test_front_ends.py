"""JupyterLab and Notebook 7 alike: a kernel's life as a person sees it, in a real browser.

One notebook in each front end, with a page and a kernel that its tests share, in their order.
"""

from __future__ import annotations

import contextlib
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import BrowserContext, Locator, Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

NUMBERED = re.compile(r"\[\d+\]:")
CELLS = {
    "count": "import sys\ncount = globals().get('count', 0) + 1\n(sys.platform, count)",
    "plot": "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2]); plt.show()",
    "error": "1 / 0",
    "complete": "sys.getrecursionl",
    "ask": "print('Hello', input('Who? '))",
    "c loop": "print('begun')\nsum(range(10**13))",
    "wait": (
        "import pathlib, time\nprint('waiting')\n"
        "while not pathlib.Path('/work/go').exists():\n    time.sleep(0.05)\n"
        "waited = True"
    ),
    "waited": "waited",
    "widget": (
        "import ipywidgets as w\ns = w.IntSlider(5)\n"
        "s.observe(lambda change: print('moved to', change['new']), 'value')\ns"
    ),
    "hostile": (
        "from IPython.display import HTML, Javascript, display\n"
        "display(HTML('<b>seen</b><img src=x onerror=\"top.canary=1\">'\n"
        "             '<script>top.canary=1</script>'), Javascript('top.canary=1'))"
    ),
}
NAMES = list(CELLS)


@pytest.fixture(scope="module")
def lab_settings(lab_settings: dict[str, Any]) -> dict[str, Any]:
    """All cells are in the page at once, and their times are kept."""
    tracker = {"windowingMode": "none", "recordTiming": True}
    return lab_settings | {"@jupyterlab/notebook-extension/tracker": tracker}


@pytest.fixture(scope="module", params=["JupyterLab", "Notebook 7"])
def notebook(
    server: Any, browser: BrowserContext, front_ends: Any, request: pytest.FixtureRequest
) -> Iterator[Any]:
    """The notebook in one front end."""
    notebook = front_ends[request.param](browser.new_page())
    notebook.open(server, f"{request.param}.ipynb", *CELLS.values())
    yield notebook
    notebook.page.close()


@pytest.fixture
def page(notebook: Any) -> Page:
    """The page that a test leaves a picture of."""
    return notebook.page


def run(notebook: Any, name: str) -> Locator:
    return notebook.run(NAMES.index(name))


def start(notebook: Any, name: str) -> Locator:
    return notebook.start(NAMES.index(name))


def restart(notebook: Any, command: str) -> None:
    """Presses a button that restarts the kernel, and says yes."""
    notebook.toolbar.locator(f'[data-command="{command}"]').click()
    with notebook.page.expect_response(re.compile(r"/api/kernels/[^/]+/restart")) as response:
        notebook.page.locator(".jp-Dialog .jp-mod-accept").click()
    assert response.value.ok


def test_results_plots_and_errors_are_shown(notebook, page):
    expect(run(notebook, "count")).to_have_text("('wasi', 1)")
    expect(run(notebook, "plot").locator("img")).to_be_visible()
    run(notebook, "error")
    cell = notebook.cell(NAMES.index("error"))
    expect(cell).to_contain_text("ZeroDivisionError: division by zero")


def test_tab_completes_and_shift_tab_explains(notebook, page):
    cell = notebook.cell(NAMES.index("complete"))
    notebook.edit(NAMES.index("complete"))
    page.keyboard.press("Tab")
    expect(page.locator(".jp-Completer-item")).to_contain_text("getrecursionlimit")
    page.keyboard.press("Enter")
    expect(cell.locator(".cm-content")).to_contain_text("sys.getrecursionlimit")
    page.keyboard.press("Shift+Tab")
    expect(page.locator(".jp-Tooltip")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".jp-Tooltip")).to_be_hidden()


def test_input_is_asked_for_and_answered(notebook, page):
    shown = start(notebook, "ask")
    box = notebook.cell(NAMES.index("ask")).locator("input.jp-Stdin-input")
    box.fill("Ada")
    box.press("Enter")
    expect(shown.last).to_have_text("Hello Ada")


def test_a_loop_in_c_ends_when_the_button_is_pressed_again(notebook, page):
    shown = start(notebook, "c loop")
    expect(shown).to_have_text("begun")
    expect(notebook.indicator).to_have_attribute("data-status", "busy")
    button = notebook.toolbar.locator('[data-command="notebook:interrupt-kernel"]')
    prompt = notebook.prompt(NAMES.index("c loop"))
    for _ in range(20):  # a second one counts a second after the first
        with page.expect_response(re.compile(r"/api/kernels/[^/]+/interrupt")):
            button.click()
        with contextlib.suppress(AssertionError):
            expect(prompt).to_have_text(NUMBERED, timeout=1200)
            break
    expect(shown.last).to_contain_text("a second interrupt")
    expect(shown.last).to_contain_text("KeyboardInterrupt")
    expect(notebook.indicator).to_have_attribute("data-status", "idle")
    expect(run(notebook, "count")).to_have_text("('wasi', 2)")


def test_a_page_that_is_loaded_anew_finds_the_cell_still_running(notebook, page, server):
    go = server.folder / "go"
    go.unlink(missing_ok=True)
    expect(start(notebook, "wait")).to_have_text("waiting")
    notebook.save()
    page.reload()
    # "unknown": the kernel answers on its shell channel when the cell has ended, as ipykernel does
    expect(notebook.indicator).not_to_have_attribute("data-status", "idle")
    go.touch()
    notebook.wait_until_usable()
    expect(run(notebook, "waited")).to_have_text("True")
    expect(run(notebook, "count")).to_have_text("('wasi', 3)")


def test_the_times_of_a_cell_are_kept(notebook, page, server):
    run(notebook, "count")
    notebook.save()
    path = server.folder / re.search(r"[^/]+\.ipynb", page.url.replace("%20", " "))[0]
    saved = nbformat.read(path, as_version=4).cells[0].metadata["execution"]
    steps = ("iopub.status.busy", "iopub.execute_input", "shell.execute_reply")
    begun = datetime.fromisoformat(saved["shell.execute_reply.started"])
    assert begun <= datetime.fromisoformat(saved["shell.execute_reply"])
    assert all(datetime.fromisoformat(saved[step]) for step in steps)


def test_hostile_output_does_nothing_and_a_widget_answers(notebook, page):
    output = run(notebook, "hostile").first
    outer = output.frame_locator("iframe")
    outer.locator("#bar button").click()
    expect(outer.frame_locator("iframe").locator("b")).to_have_text("seen")
    slider = run(notebook, "widget").locator(".widget-slider")
    number = slider.locator(".widget-readout")
    number.fill("60")
    number.press("Enter")
    handle = slider.locator(".noUi-handle")
    expect(handle).to_have_attribute("aria-valuenow", re.compile(r"^60\b"))
    assert page.evaluate("self.canary") is None


def test_the_kernel_is_changed_to_python_3_and_back(notebook, page):
    for name, platform in (("Python 3 (ipykernel)", "linux"), ("Python (WASI)", "wasi")):
        notebook.toolbar.locator(".jp-KernelName").click()
        dialog = page.locator(".jp-Dialog")
        dialog.locator("select").select_option(label=name)
        dialog.locator(".jp-mod-accept").click()
        expect(notebook.toolbar.locator(".jp-KernelName")).to_contain_text(name)
        expect(notebook.indicator).to_have_attribute("data-status", "idle")
        expect(run(notebook, "count")).to_have_text(f"('{platform}', 1)")


def test_restart_and_run_all_begins_anew_and_stops_at_the_error(notebook, page):
    run(notebook, "count")
    restart(notebook, "notebook:restart-run-all")
    expect(notebook.prompt(NAMES.index("error"))).to_have_text("[3]:")
    expect(notebook.output(0)).to_have_text("('wasi', 1)")
    restart(notebook, "notebook:restart-kernel")
    notebook.wait_until_usable()
    expect(run(notebook, "count")).to_have_text("('wasi', 1)")
    expect(notebook.prompt(0)).to_have_text("[1]:")


def test_a_new_notebook_is_made_in_the_list_of_notebook_7(browser, front_ends, picture_folder):
    page = browser.new_page()
    page.goto("/tree")
    page.locator('.jp-FileBrowser-toolbar [data-jp-item-name="new-dropdown"]').click()
    with page.expect_popup() as opened:
        page.get_by_role("menuitem", name="Python (WASI)").click()
    made = front_ends["Notebook 7"](opened.value)
    made.wait_until_usable()
    made.edit(0)
    made.page.keyboard.insert_text("import sys; sys.platform")
    expect(made.run(0)).to_have_text("'wasi'")
    logo = made.page.locator(".jp-NotebookKernelLogo img")
    expect(logo).to_have_attribute("src", re.compile(r"/python-wasi/logo"))
    assert logo.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    picture = picture_folder / "new_in_notebook_7.png"
    made.page.screenshot(path=picture)
    made.page.close()
    page.close()
