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
import tomllib
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

SHOWN = Path(__file__).parent / "shown"
"""NAME.toml for NAME.ipynb: by cell, what kind of output must match which pattern.

Kinds: stdout, stderr, mime types, error (name, text, lines)."""

EXERCISE, CHECK = "exercise", "check"
"""Tags: a cell that the reader changes, and the one below it that says whether that is right."""

SOLUTION = re.compile(r"<details>\s*<summary>Solution</summary>.*?```python\n(.*?)```", re.DOTALL)


def _notebooks() -> list[Path]:
    found = sorted(FOLDER.rglob("*.ipynb"))
    return [path for path in found if ".ipynb_checkpoints" not in path.parts]


def _name(path: Path) -> str:
    return path.relative_to(FOLDER).as_posix()


def _expected(name: str) -> dict[str, dict[str, str]]:
    path = SHOWN / f"{name.removesuffix('.ipynb')}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _tags(cell: Any) -> list[str]:
    return list(cell.metadata.get("tags", ()))


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
    """Asserts that an executed notebook shows what its file in SHOWN says, and no error but on purpose."""
    expected = _expected(name)
    cells = {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}
    for cell_id, cell in cells.items():
        shown = _outputs(cell)
        if ON_PURPOSE not in _tags(cell):
            assert "error" not in shown, (cell_id, shown["error"])
        for kind, pattern in expected.get(cell_id, {}).items():
            assert kind in shown, (cell_id, kind, shown)
            assert re.search(pattern, shown[kind]), (cell_id, kind, shown[kind])
            if kind == "image/png":
                assert base64.b64decode(shown[kind]).startswith(PNG), cell_id
    assert set(expected) <= set(cells)


def _execute(notebook: Any, folder: Path) -> Any:
    where = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=60, kernel_name=KERNEL, resources=where)
    client.execute()
    return notebook


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
    notebook = _execute(nbformat.read(path, as_version=4), path.parent)
    yield _name(request.param), notebook, copy
    shutil.rmtree(copy)


def test_notebook_shows_what_its_text_promises(executed: tuple[str, Any, Path]) -> None:
    name, notebook, _ = executed
    _check(name, notebook)


def test_cells_that_fail_on_purpose_do_fail(executed: tuple[str, Any, Path]) -> None:
    _, notebook, _ = executed
    for cell in notebook.cells:
        if ON_PURPOSE in _tags(cell):
            shown = _outputs(cell)
            assert "error" in shown or "Error" in shown.get("stderr", ""), cell.id


def test_the_notebooks_folder_is_as_it_was(executed: tuple[str, Any, Path]) -> None:
    _, _, folder = executed
    ours = _listing(FOLDER)
    assert {
        name: data for name, data in ours.items() if ".ipynb_checkpoints" not in name
    } == _listing(folder)


# -- exercises ---------------------------------------------------------------------------------


def _solved(notebook: Any) -> int:
    """Puts the solutions into the exercises; how many."""
    waiting = None
    count = 0
    for cell in notebook.cells:
        if EXERCISE in _tags(cell):
            assert waiting is None, f"{waiting.id} has no solution"
            waiting = cell
        elif cell.cell_type == "markdown" and (found := SOLUTION.search(cell.source)):
            assert waiting is not None, f"{cell.id} is the solution of nothing"
            waiting.source, waiting = found[1].rstrip(), None
            count += 1
    assert waiting is None, f"{waiting.id} has no solution"
    return count


def _verdicts(notebook: Any) -> list[str]:
    """The first line of what each check says."""
    checks = [cell for cell in notebook.cells if CHECK in _tags(cell)]
    return [_outputs(cell).get("stdout", "").partition("\n")[0] for cell in checks]


def test_what_is_not_solved_is_not_right_yet(executed: tuple[str, Any, Path]) -> None:
    _, notebook, _ = executed
    verdicts = _verdicts(notebook)
    assert [said for said in verdicts if not said.startswith("Not yet")] == []


def _has_exercises(path: Path) -> bool:
    return any(EXERCISE in _tags(cell) for cell in nbformat.read(path, as_version=4).cells)


@pytest.mark.parametrize("path", [p for p in _notebooks() if _has_exercises(p)], ids=_name)
def test_the_solutions_are_right(path: Path, tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "notebooks")
    notebook = nbformat.read(path, as_version=4)
    count = _solved(notebook)
    _execute(notebook, tmp_path / "notebooks")
    verdicts = _verdicts(notebook)
    assert [said for said in verdicts if not said.startswith("Right")] == []
    assert len(verdicts) == count >= 2
    for cell in notebook.cells:
        if cell.cell_type == "code" and ON_PURPOSE not in _tags(cell):
            assert "error" not in _outputs(cell), cell.id


def test_jupyter_execute_runs_the_first_notebook(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "notebooks")
    path = tmp_path / "notebooks" / "01_first_steps.ipynb"
    done = subprocess.run(
        [sys.executable, "-m", "jupyter", "execute", "--inplace", str(path)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    _check("01_first_steps.ipynb", nbformat.read(path, as_version=4))


def test_every_notebook_has_expected_outputs() -> None:
    names = {path.name.removesuffix(".toml") for path in SHOWN.iterdir()}
    assert {_name(path).removesuffix(".ipynb") for path in _notebooks()} == names


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
