"""The notebooks under notebooks/: each runs from top to bottom and shows what its text promises.

Each is run once, by nbclient with the installed kernel, in a copy of its folder; one is run by the
command `jupyter execute`. Cells that fail on purpose carry the tag `raises-exception`.
"""

from __future__ import annotations

import base64
import csv
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from nbclient import NotebookClient

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.notebooks

FOLDER = Path(__file__).parents[2] / "notebooks"
KERNEL = "python-wasi"
ON_PURPOSE = "raises-exception"
PNG = b"\x89PNG\r\n\x1a\n"

SHOWN: dict[str, dict[str, dict[str, str]]] = {
    "first_steps.ipynb": {
        "who": {"stdout": r"^cpython 3\.\d+\.\d+ on wasi$"},
        "imports": {"text/html": "<td>Reykjavík</td>", "text/plain": r"\[2920 rows x 8 columns\]"},
        "summary": {"text/html": "<th>no sunset</th>", "text/plain": r"(?m)^Tromsø .* 69 +49$"},
        "plot": {"image/png": ""},
        "model": {"image/png": ""},
        "fit": {"stdout": r"(?m)^latitude +62\.\d+ ± 0\.\d+$"},
        "residual": {"image/png": ""},
        "orbit": {
            "stdout": r"latitude +52\.4.*\ntilt +23\.5.*\nequinox +77\.9.*\neccen.* 0\.0168 "
        },
        "await": {"stdout": r"^waited 0\.6 s in "},
        "progress": {"stderr": r"fits: 100%\|█+\| 200/200 ", "text/plain": r"(?m)^count +200\.0"},
        "error": {"stdout": "2.908", "error": "^IndexError: .*out-of-bounds"},
        "wasi": {"text/plain": "/work, read only", "text/html": "<table"},
        "refuse": {"stdout": r"(?m)^read the table +worked +\d+\n(.* refused .*\n){9}\Z"},
        "explain": {"error": r"(?s)^RuntimeError: .*\[wasi-kernel\] there are no threads here"},
        "shell": {"stderr": "UsageError: .*no processes in the sandbox"},
        "listdir": {"text/plain": "'day_length.csv'"},
        "tmp": {"stdout": r"^days\.db summary\.csv$", "text/plain": r"(?m)^7 +Tromsø +24\.000"},
    },
    "gallery.ipynb": {  # how it looks: tests/browser/test_gallery.py
        "plain": {"text/html": "<td>&lt;Köln&gt;</td>"},
        "styler": {"text/html": "Towns, dressed"},
        "png": {"image/png": ""},
        "svg": {"image/svg+xml": "^<svg "},
        "math": {"text/latex": r"\\sqrt\{\\pi\}.*\\begin\{align\}"},
        "video": {"text/html": '<source src="data:video/webm;base64,'},
        "iframe": {"text/html": 'sandbox="allow-scripts".*In a frame'},
        "javascript": {"text/html": 'sandbox="allow-scripts".*drawn by a script'},
        "file": {"text/html": 'href="data/day_length.csv"'},
        "vega": {"application/vnd.vegalite.v5+json": '"mark": "bar"'},
        "widget": {"application/vnd.jupyter.widget-view+json": "model_id"},
        "tqdm": {"stderr": r"fits: 100%\|█+\| 50/50 "},
        "tqdm_notebook": {"application/vnd.jupyter.widget-view+json": "model_id"},
        "frontend": {"text/plain": "JavaScript: in a frame"},
    },
}
"""By notebook and cell: what kind of output must match which pattern. Errors: name, text, lines."""


def _notebooks() -> list[Path]:
    found = sorted(FOLDER.rglob("*.ipynb"))
    return [path for path in found if ".ipynb_checkpoints" not in path.parts]


def _name(path: Path) -> str:
    return path.relative_to(FOLDER).as_posix()


def _listing(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _outputs(cell: Any) -> dict[str, str]:
    """What a cell shows, by stream, mime type or `error`; several of a kind are joined."""
    shown: dict[str, str] = {}
    for output in cell.outputs:
        if output.output_type == "stream":
            parts = {output.name: output.text}
        elif output.output_type == "error":
            lines = "\n".join(output.traceback)
            parts = {"error": f"{output.ename}: {output.evalue}\n{lines}"}
        else:
            parts = {
                mime: value if isinstance(value, str) else json.dumps(value)
                for mime, value in output.data.items()
            }
        for kind, text in parts.items():
            shown[kind] = shown.get(kind, "") + text
    return {kind: _plain(text) for kind, text in shown.items()}


def _check(name: str, notebook: Any) -> None:
    """Asserts that an executed notebook shows what SHOWN says, and no error but on purpose."""
    cells = {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}
    for cell_id, cell in cells.items():
        shown = _outputs(cell)
        if ON_PURPOSE not in cell.metadata.get("tags", ()):
            assert "error" not in shown, (cell_id, shown["error"])
        for kind, pattern in SHOWN[name].get(cell_id, {}).items():
            assert kind in shown, (cell_id, kind, shown)
            assert re.search(pattern, shown[kind]), (cell_id, kind, shown[kind])
            if kind == "image/png":
                assert base64.b64decode(shown[kind]).startswith(PNG), cell_id
    assert set(SHOWN[name]) <= set(cells)


@pytest.fixture(
    scope="module", params=[pytest.param(path, id=_name(path)) for path in _notebooks()]
)
def executed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Any, Path]]:
    """A notebook's name, the notebook with its outputs, and the folder in which it ran."""
    copy = tmp_path_factory.mktemp("copy") / "notebooks"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    path = copy / _name(request.param)
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=60,
        kernel_name=KERNEL,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    yield _name(request.param), notebook, copy
    shutil.rmtree(copy)


def test_notebook_shows_what_its_text_promises(executed: tuple[str, Any, Path]) -> None:
    name, notebook, _ = executed
    _check(name, notebook)


def test_cells_that_fail_on_purpose_do_fail(executed: tuple[str, Any, Path]) -> None:
    _, notebook, _ = executed
    for cell in notebook.cells:
        if ON_PURPOSE in cell.metadata.get("tags", ()):
            shown = _outputs(cell)
            assert "error" in shown or "Error" in shown.get("stderr", ""), cell.id


def test_the_notebooks_folder_is_as_it_was(executed: tuple[str, Any, Path]) -> None:
    _, _, folder = executed
    ours = _listing(FOLDER)
    assert {
        name: data for name, data in ours.items() if ".ipynb_checkpoints" not in name
    } == _listing(folder)


def test_jupyter_execute_runs_the_first_notebook(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "notebooks")
    path = tmp_path / "notebooks" / "first_steps.ipynb"
    done = subprocess.run(
        [sys.executable, "-m", "jupyter", "execute", "--inplace", str(path)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    _check("first_steps.ipynb", nbformat.read(path, as_version=4))


def test_every_notebook_has_expected_outputs() -> None:
    assert {_name(path) for path in _notebooks()} == set(SHOWN)


@pytest.mark.parametrize("path", _notebooks(), ids=_name)
def test_notebook_is_kept_valid_and_without_outputs(path: Path) -> None:
    notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    raw = json.loads(path.read_text(encoding="utf-8"))
    assert (raw["nbformat"], raw["nbformat_minor"] >= 5) == (4, True)  # from 4.5 on: cell ids
    assert raw["metadata"]["kernelspec"]["name"] == KERNEL
    for cell in raw["cells"]:
        assert "execution" not in cell["metadata"]
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], cell["id"]
            assert cell["execution_count"] is None, cell["id"]


def test_the_table_is_what_its_script_computes() -> None:
    script = runpy.run_path(str(FOLDER / "data" / "make_day_length.py"))
    computed = list(csv.reader(script["table"]().splitlines()))
    with (FOLDER / "data" / "day_length.csv").open(encoding="utf-8", newline="") as f:
        kept = list(csv.reader(f))
    assert len(kept) == len(computed) == 1 + 8 * 365
    assert [row[:4] for row in kept] == [row[:4] for row in computed]
    for one, other in zip(kept[1:], computed[1:], strict=True):
        for a, b in zip(one[4:], other[4:], strict=True):  # the last digit is up to libm
            assert (a == b == "") or abs(float(a) - float(b)) < 0.0015, (one, other)
