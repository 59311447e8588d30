"""Shows that plotly's figures are displayed, by `show()` and at the end of a cell.

plotly is this installation's own, of which a copy is granted to the guest.
"""

from __future__ import annotations

import re
import shutil
from importlib import metadata
from typing import TYPE_CHECKING

import pytest

from wasi_kernel import Policy, Sandbox, launch
from wasi_kernel.policy import Grant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FIGURE = "import plotly.graph_objects as go\nfigure = go.Figure(go.Bar(y=[129, 336]))\n"
LEFT_OUT = re.compile(r"^\.\.|__pycache__|labextension|datasets")
PLOTLY, HTML = "application/vnd.plotly.v1+json", "text/html"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with plotly in it."""
    found = tmp_path_factory.mktemp("granted") / "site"
    for file in metadata.distribution("plotly").files or ():
        if not LEFT_OUT.search(str(file)):
            (found / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), found / file)
    return found


@pytest.fixture
def boxes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Sandbox]]:
    """Makes a sandbox with plotly, whose host draws figures by itself, or does not."""
    opened: list[Sandbox] = []
    (tmp_path / "draws").mkdir()

    def make(*, draws: bool, **env: str) -> Sandbox:
        monkeypatch.setattr(launch, "PLOTLY", (str(tmp_path / ("draws" if draws else "not")),))
        policy = Policy(grants=(Grant(str(folder), "/site"),), env={"PYTHONPATH": "/site", **env})
        opened.append(Sandbox(policy))
        return opened[-1]

    yield make
    for box in opened:
        box.close()


@pytest.mark.parametrize("last", ["figure.show()", "figure"])
def test_where_the_front_end_draws_figures(boxes: Callable[..., Sandbox], last: str):
    said = boxes(draws=True).run(FIGURE + last)
    assert said.ok
    (shown,) = said.displays
    assert list(shown) == [PLOTLY]
    assert shown[PLOTLY]["data"][0]["y"] == [129, 336]


def test_where_it_does_not_each_figure_has_all_that_it_needs(boxes: Callable[..., Sandbox]):
    said = boxes(draws=False).run(f"{FIGURE}figure.show()\nfigure")
    assert said.ok
    assert [set(shown) for shown in said.displays] == [{PLOTLY, HTML}] * 2
    assert all("<iframe" in shown[HTML] for shown in said.displays)
    assert all(len(shown[HTML]) > 1_000_000 for shown in said.displays)  # plotly.js is in it


def test_the_policys_renderer_goes_first(boxes: Callable[..., Sandbox]):
    box = boxes(draws=True, PLOTLY_RENDERER="json")
    assert [list(shown) for shown in box.run(FIGURE + "figure.show()").displays] == [
        ["application/json"]
    ]
    assert box.run("import nbformat").error.ename == "ModuleNotFoundError"


def test_the_module_is_as_it_would_be(boxes: Callable[..., Sandbox]):
    box = boxes(draws=True)
    code = (
        "import inspect, plotly.io._renderers as r\n"
        "type(r.__loader__).__name__, r.__spec__.loader is r.__loader__, "
        "len(inspect.getsource(r)) > 1000"
    )
    assert box.run(code).text == "('SourceFileLoader', True, True)"


RETURNS = {
    "a death": ("import os; os._exit(1)",),
    "undo": ("x = 1", "%undo"),
    "redo": ("plt.plot([3]); plt.title('new $x^3$'); plt.show()", "%undo", "%redo"),
}


@pytest.mark.parametrize("cells", RETURNS.values(), ids=RETURNS)
def test_plots_after_a_return_are_as_before(cells: tuple[str, ...]):
    """matplotlib keeps its fonts open, and no file stays open over a return."""
    plot = "plt.plot([1]); plt.title('new $x^2$ \\N{GREEK CAPITAL LETTER OMEGA}'); plt.show()"
    with Sandbox() as box:
        box.run("import matplotlib.pyplot as plt")
        first = box.run(plot)
        for cell in cells:
            assert ".ttf" not in str(box.run(cell))
        second = box.run(plot)
        assert second.stderr == ""
        pictures = [[o["data"].get("image/png") for o in r.outputs] for r in (first, second)]
        assert pictures[0] == pictures[1]
        assert pictures[0][0]
