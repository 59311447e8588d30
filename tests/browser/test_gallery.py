"""What honest libraries display, in JupyterLab under the default policy: it is there to be seen.

Three kinds: the notebook notebooks/gallery.ipynb, which the guest runs; the bundles in
tests/gallery, recorded of libraries that do not run in a guest or are no dependency of ours; and
plotly itself, in a guest. The gallery's notebook is looked at once more as `nbconvert` makes a page
of it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Frame, Locator, Page, Route

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]
GALLERY = ROOT / "notebooks" / "gallery.ipynb"
RECORDED: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "tests" / "gallery").glob("*.json"))
}
CELLS = [
    cell["id"]
    for cell in json.loads(GALLERY.read_text(encoding="utf-8"))["cells"]
    if cell["cell_type"] == "code"
]

SHOWS: dict[str, tuple[tuple[str, ...], dict[str, int]]] = {
    "plain": (("town", "129000", "<Köln>"), {"table.dataframe tbody tr": 3}),
    "wide": (("column 0", "column 29"), {"thead th": 31}),
    "styler": (("Towns, dressed", "1,087,000", "90%", "<Köln>"), {"tbody tr": 3}),
    "png": ((), {"img[src^='data:image/png']": 1}),
    "svg": ((), {"img": 1}),
    "html": (("A title", "Some text", "code < 2"), {"h3": 1, "em": 1}),
    "markdown": (
        ("Markdown", "bold", "done", "left", "$5 or $6"),
        {"mjx-container": 1, "table td": 2, "strong": 1, "pre": 1},
    ),
    "math": ((), {"mjx-container": 2}),
    "drawing": ((), {"img": 1}),
    "image": ((), {"img": 1}),
    "audio": ((), {"audio": 1}),
    "video": ((), {"video": 1}),
    "json": (("towns", '"<Bonn>"', "depth", "it3"), {}),
    "iframe": (("In a frame",), {"h2": 1}),
    "javascript": (("drawn by a script",), {"h3": 1}),
    "file": (("data/day_length.csv",), {"a": 1}),
    "code": (("def area(width, height):", "return"), {"span.k": 2}),
    "bar": ((), {"progress": 1}),
    "details": (("Open me", "progress", "marked"), {"progress": 1, "meter": 1, "mark": 1}),
    "inline_svg": (("Before", "after"), {"img": 1}),
    "canvas": ((), {"canvas": 1}),
    "button": (("not yet",), {"button": 1}),
    "vega": ((), {".vega-embed canvas, .vega-embed svg.marks": 1}),
    "geojson": (("GeoJSON",), {}),
    "widget": (("how many", "bold text", "Press"), {".noUi-handle": 1, "button": 1}),
    "tqdm": (("fits: 100%", "50/50"), {}),
    "tqdm_notebook": (("steps:", "100%", "50/50"), {}),
    "frontend": (("shown in a frame without network",), {"table": 1}),
}
"""By cell: texts that can be read, and how many elements a selector finds."""

IN_A_PAGE = {
    "vega": ((), {"img": 1}),  # JupyterLab has put it beside the chart
    "json": (("JSON",), {}),
    "widget": (("IntSlider",), {}),
    "tqdm_notebook": (("steps:",), {}),
    "markdown": (("Markdown", "bold", "done", "left", "$5 or $6"), {"table td": 2, "strong": 1}),
    "math": ((r"\int_0^\infty", r"\begin{align}"), {}),
}
"""What a page of nbconvert shows instead: it loads MathJax and widgets' programs from the web."""

MARGIN = 8
"""Pixels by which a page of full height is higher than its frame, in every browser."""

EXTENT = """
output => {
    const box = output.getBoundingClientRect();
    const hidden = element => {
        const style = getComputedStyle(element);
        return style.overflowY === 'hidden' && element.scrollHeight > element.clientHeight + 2;
    };
    const cut = [output, ...output.querySelectorAll('div, pre, table')].filter(hidden);
    return [box.width, box.height, cut.map(element => element.outerHTML.slice(0, 200))];
}
"""
"""(Width, height, elements of which something is hidden)."""


def insides(output: Locator) -> list[Frame]:
    """The frames in an output that hold something themselves, whose scripts are let run."""
    found = []
    for handle in output.locator("iframe").element_handles():
        frame = handle.content_frame()
        frame.wait_for_load_state("load")
        button = frame.locator("#bar button")
        if button.count():
            button.click()
            expect(button).to_have_count(0)
        while frame.child_frames:
            frame = frame.child_frames[0]
            frame.wait_for_load_state("load")
        found.append(frame)
    return found


def check(
    output: Locator, texts: tuple[str, ...], counts: dict[str, int], *, scrolls: bool = False
) -> None:
    """Asserts that what is expected is to be seen in an output, itself or in its frame.

    `scrolls`: is the frame too low for its content, which can be scrolled to?
    """
    output.first.scroll_into_view_if_needed()
    frames = insides(output)
    place = frames[0].locator("body") if frames else output
    for selector, count in counts.items():
        found = place.locator(selector)
        expect(found).to_have_count(count)
        for k in range(count):
            expect(found.nth(k)).to_be_visible()
    for text in texts:
        expect(place.filter(has_text=re.compile(re.escape(text))).first).to_be_visible()
    for handle in output.element_handles():
        width, height, cut = handle.evaluate(EXTENT)
        assert width > 20
        assert height > 8
        assert cut == []
    for frame in frames:
        size = frame.evaluate("() => [document.documentElement.scrollHeight, innerHeight]")
        assert (size[0] > size[1] + MARGIN) is scrolls, (
            f"{size[1]} pixels high, its content {size[0]}"
        )


@pytest.fixture(scope="module")
def lab_settings(lab_settings: dict[str, Any]) -> dict[str, Any]:
    """All outputs are in the page at once."""
    return lab_settings | {"@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"}}


@pytest.fixture(scope="module")
def gallery(server: Any, browser: BrowserContext, notebook_in: Any) -> Any:
    """The gallery's notebook, which has run, and is saved."""
    shutil.copytree(GALLERY.parent / "data", server.folder / "data")
    shutil.copy(GALLERY, server.folder)
    notebook = notebook_in(browser.new_page())
    notebook.go_to(GALLERY.name)
    notebook.run_all()
    notebook.save()
    return notebook


def output(notebook: Any, name: str) -> Locator:
    return notebook.output(CELLS.index(name))


PLAYS = "media => media.readyState > 0 ? media.duration : new Promise(done => { \
media.onloadedmetadata = () => done(media.duration); media.onerror = () => done(0); media.load() })"

PIXEL = """
(element, [x, y]) => [...element.getContext('2d').getImageData(x, y, 1, 1).data]
"""


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_of_the_gallery_is_to_be_seen(gallery, screenshots, name):
    shown = output(gallery, name)
    check(shown, *SHOWS[name])
    shown.first.screenshot(path=screenshots / f"gallery-{name}.png")


def test_images_have_their_sizes_and_sounds_play(gallery):
    for name, width in (("png", 500), ("svg", 200), ("drawing", 120), ("inline_svg", 60)):
        image = output(gallery, name).locator("img")
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") >= width
    assert output(gallery, "image").locator("img").bounding_box()["width"] == 40
    assert output(gallery, "audio").locator("audio").evaluate(PLAYS) == pytest.approx(0.25)
    video = output(gallery, "video").locator("video")
    assert video.evaluate(PLAYS) > 0
    assert video.evaluate("video => video.videoWidth") == 32


def test_a_styler_has_its_colours_and_tooltips(gallery):
    cells = output(gallery, "styler").locator("tbody tr").nth(2).locator("td")
    expect(cells.nth(1)).to_have_css("background-color", "rgb(253, 231, 37)")  # viridis' end
    bar = cells.nth(2).evaluate("cell => getComputedStyle(cell).backgroundImage")
    assert bar.startswith("linear-gradient(90deg, rgb(158, 202, 225)")
    tip = cells.nth(1).locator(".pd-t")
    expect(tip).to_be_hidden()
    cells.nth(1).hover()
    expect(tip).to_be_visible()
    assert tip.evaluate("tip => getComputedStyle(tip, '::after').content") == '"large"'


# -- the same as a page ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def converted(
    gallery: Any, server: Any, browser: BrowserContext, screenshots: Path
) -> tuple[Page, list[str]]:
    """What nbconvert makes of the gallery, without a network; and what it would have loaded."""
    source = server.folder / GALLERY.name
    command = [sys.executable, "-m", "nbconvert", "--to", "html", str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    page = browser.new_page()
    asked: list[str] = []

    def answer(route: Route) -> None:
        if route.request.url.startswith(("file:", "data:")):
            route.continue_()
            return
        asked.append(route.request.url)
        route.abort()

    page.route("**/*", answer)
    page.goto(source.with_suffix(".html").as_uri(), wait_until="load")
    page.screenshot(path=screenshots / "gallery-nbconvert.png", full_page=True)
    return page, asked


@pytest.mark.parametrize("name", CELLS)
def test_it_is_to_be_seen_in_the_page_of_nbconvert(converted, name):
    page, _ = converted
    shown = page.locator(f"[id='cell-id={name}'] .jp-OutputArea-output")
    check(shown, *(IN_A_PAGE.get(name) or SHOWS[name]))


def test_the_page_asks_for_nothing_but_what_its_template_loads(converted):
    _, asked = converted
    hosts = {url.split("/")[2] for url in asked}
    assert hosts <= {"cdnjs.cloudflare.com", "cdn.jsdelivr.net", "unpkg.com"}


# -- more of the notebook in JupyterLab ------------------------------------------------------------


def test_a_wide_table_scrolls(gallery):
    last = output(gallery, "wide").locator("thead th").last
    last.scroll_into_view_if_needed()
    expect(last).to_be_in_viewport(ratio=0.9)


def test_scripts_have_drawn_and_buttons_answer_in_their_frames(gallery):
    (frame,) = insides(output(gallery, "canvas"))
    assert frame.locator("canvas").evaluate(PIXEL, [20, 20]) == [0xC0, 0x00, 0x40, 0xFF]
    (frame,) = insides(output(gallery, "button"))
    frame.locator("button").click()
    expect(frame.locator("b")).to_have_text("clicked")


def test_a_link_to_a_file_leads_to_it(gallery, browser):
    address = output(gallery, "file").locator("a").evaluate("link => link.href")
    expected = (GALLERY.parent / "data" / "day_length.csv").read_bytes()
    assert browser.request.get(address).body() == expected


# -- libraries that are recorded -------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(server: Any, browser: BrowserContext, notebook_in: Any) -> Any:
    """A notebook with a cell for each recorded bundle, which the guest displays."""
    bundles = {name: [about["data"], about["metadata"]] for name, about in RECORDED.items()}
    (server.folder / "recorded.json").write_text(json.dumps(bundles))
    cells = [
        f"import json\ndata, about = json.load(open('recorded.json'))[{name!r}]\n"
        "display(data, metadata=about, raw=True)"
        for name in RECORDED
    ]
    notebook = notebook_in(browser.new_page())
    notebook.open(server, "recorded.ipynb", *cells)
    notebook.run_all()
    return notebook


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_library_is_to_be_seen(recorded, screenshots, name):
    shown = recorded.output(list(RECORDED).index(name))
    shows = RECORDED[name]["shows"]
    texts, drawn = tuple(shows.get("text", ())), shows.get("drawn", {})
    check(shown, texts, drawn, scrolls=shows.get("scrolls", False))
    shown.first.screenshot(path=screenshots / f"gallery-{name}.png")


# -- plotly, in the guest --------------------------------------------------------------------------


LEFT_OUT = re.compile(r"^\.\.|__pycache__|labextension|datasets")


@pytest.fixture(scope="module")
def plotly(server: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A kernel whose guest finds plotly in a folder that is granted to it."""
    granted = tmp_path_factory.mktemp("granted") / "site"
    for name in ("plotly", "narwhals", "packaging"):
        for file in metadata.distribution(name).files:
            if not LEFT_OUT.search(str(file)):
                target = granted / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), target)
    policy = granted.parent / "policy.toml"
    policy.write_text(f'grants = ["{granted}:/site"]\n', encoding="utf-8")
    server.add_kernel("python-wasi-plotly", "--policy", str(policy))
    return "python-wasi-plotly"


def test_plotly_runs_in_the_guest(open_notebook, plotly, screenshots):
    notebook = open_notebook(
        "import sys\nsys.path.insert(0, '/site')\nimport plotly.graph_objects as go\n"
        "bars = go.Bar(x=['Ulm', 'Bonn'], y=[129, 336])\n"
        "figure = go.Figure(bars, {'title': {'text': 'Towns'}})\n"
        "figure.show()",
        "from IPython.display import HTML\nHTML(figure.to_html(include_plotlyjs=True))",
        kernel=plotly,
    )
    shown = notebook.run(0)
    check(shown, ("Towns", "Ulm"), {".barlayer .point path": 2})
    framed = notebook.run(1)
    check(framed, ("Towns", "Ulm"), {".barlayer .point path": 2})
    framed.screenshot(path=screenshots / "gallery-plotly-html.png")
    (frame,) = insides(framed)
    bar = frame.locator(".barlayer .point").first
    bar.hover(force=True)
    expect(frame.locator(".hovertext")).to_contain_text("129")
