"""Programs that run notebooks: nbconvert, papermill, nbval, and the console, with this kernel."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def program(*arguments, cwd, stdin=None, timeout=150):
    """Runs `python -m ...` to its successful end; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
        capture_output=True, text=True, cwd=cwd, timeout=timeout, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def notebook(path, *cells):
    spec = {"name": "python-wasi", "display_name": "Python (WASI)", "language": "python"}
    about = {"kernelspec": spec}
    made = new_notebook(cells=[new_code_cell(code) for code in cells], metadata=about)
    nbformat.write(made, path)
    return path


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks")
    return tmp_path / "notebooks"


def test_nbconvert_executes_and_shows(folder, tmp_path):
    program("nbconvert", "--to", "html", "--execute", folder / "01_first_steps.ipynb",
            "--output-dir", tmp_path / "out", cwd=folder)  # fmt: skip
    page = (tmp_path / "out" / "01_first_steps.html").read_text(encoding="utf-8")
    assert "Reykjavík" in page
    assert page.count("data:image/png;base64,") >= 3


def test_papermill_puts_parameters_in(tmp_path):
    path = notebook(tmp_path / "in.ipynb", "times = 2\nword = 'a'", "print(word * times)")
    made = nbformat.read(path, as_version=4)
    made.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(made, path)
    program("papermill", "in.ipynb", "out.ipynb", "-p", "times", "3", "-p", "word", "é\"'",
            cwd=tmp_path)  # fmt: skip
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    assert cells[-1].outputs[0].text == "é\"'" * 3 + "\n"
    assert "injected-parameters" in cells[1].metadata.tags


def test_papermill_says_where_it_failed(tmp_path):
    notebook(tmp_path / "in.ipynb", "x = 1", "1 / 0", "x = 2")
    done = subprocess.run(
        [sys.executable, "-m", "papermill", "in.ipynb", "out.ipynb"],
        capture_output=True, text=True, cwd=tmp_path, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "ZeroDivisionError" in done.stderr


def test_nbval_finds_the_same_outputs_again(tmp_path):
    path = notebook(
        tmp_path / "checked.ipynb",
        "import numpy as np\nnp.arange(6).reshape(2, 3)",
        "import pandas as pd\npd.DataFrame({'a': [1, 2]})",
        "print('out')\n{'b': 1}",
    )
    program("jupyter", "execute", "--inplace", path, cwd=tmp_path)
    checked = ["pytest", "--nbval", path.name, "-p", "no:cacheprovider", "-q"]
    assert "3 passed" in program(*checked, cwd=tmp_path)
    made = nbformat.read(path, as_version=4)
    made.cells[2].outputs[0].text = "another\n"
    nbformat.write(made, path)
    done = subprocess.run(
        [sys.executable, "-m", *checked],
        capture_output=True, text=True, cwd=tmp_path, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "1 failed, 2 passed" in done.stdout


def test_the_console_takes_part_in_a_running_kernel(tmp_path, start_kernel_here):
    manager, client = start_kernel_here
    client.execute_interactive("kept = 'from the other client'", timeout=60)
    said = program(
        "jupyter_console", "--existing", manager.connection_file, "--simple-prompt",
        cwd=tmp_path, stdin="kept\nimport sys; sys.platform\n1 / 0\nexit(keep_kernel=True)\n",
    )  # fmt: skip
    assert "from the other client" in said
    assert "'wasi'" in said
    assert "ZeroDivisionError" in said
    assert manager.is_alive()


@pytest.fixture
def start_kernel_here():
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python-wasi", startup_timeout=120)
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel()
