"""Programs that run notebooks or cells with this kernel: what they give, and how they fail.

`jupyter execute`, nbclient, nbconvert, papermill, nbval, the console in a terminal and in a window
(qtconsole, offscreen).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
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


def test_jupyter_execute_keeps_outputs_up_to_an_error(tmp_path):
    path = notebook(tmp_path / "a.ipynb", "print('é')\n6 * 7", "1 / 0", "'not reached'")
    done = subprocess.run(
        [sys.executable, "-m", "jupyter", "execute", "--inplace", path.name],
        capture_output=True, text=True, cwd=tmp_path, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "ZeroDivisionError" in done.stderr
    program("jupyter", "execute", "--inplace", "--allow-errors", path.name, cwd=tmp_path)
    first, failed, last = nbformat.read(path, as_version=4).cells
    assert [o.get("text") or o.data["text/plain"] for o in first.outputs] == ["é\n", "42"]
    assert failed.outputs[0].ename == "ZeroDivisionError"
    assert last.outputs[0].data["text/plain"] == "'not reached'"
    assert [cell.execution_count for cell in (first, failed, last)] == [1, 2, 3]


def _client(*cells, **options):
    made = new_notebook(cells=[new_code_cell(code) for code in cells])
    return NotebookClient(made, kernel_name="python-wasi", **options)


def test_nbclient_goes_on_after_a_cell_that_took_too_long():
    client = _client(
        "kept = 'kept'", "while True: pass", "kept", timeout=3, interrupt_on_timeout=True,
        allow_errors=True,
    )  # fmt: skip
    client.execute()
    _, slow, after = client.nb.cells
    assert slow.outputs[0].ename == "KeyboardInterrupt"
    assert after.outputs[0].data["text/plain"] == "'kept'"


def test_nbclient_says_what_failed():
    client = _client("import os\nos._exit(3)", "1")
    with pytest.raises(CellExecutionError, match="GuestExited"):
        client.execute()
    with pytest.raises(CellTimeoutError):
        _client("while True: pass", timeout=2).execute()


def test_nbclient_keeps_widgets_states_and_updated_displays():
    client = _client(
        "import ipywidgets as w\ns = w.IntSlider(4)\ns",
        "d = display('before', display_id=True)",
        "d.update('after'); s.value = 9",
    )
    client.execute()
    assert client.nb.cells[1].outputs[0].data["text/plain"] == "'after'"
    states = client.nb.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    assert [
        s["state"]["value"] for s in states.values() if s["model_name"] == "IntSliderModel"
    ] == [9]


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


def test_qtconsole_is_used_as_by_a_person(tmp_path):
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("qtdriver.py"), "python-wasi"],
        env=os.environ | {"QT_QPA_PLATFORM": "offscreen"}, cwd=tmp_path, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert "in WebAssembly (WASI), wasi-kernel" in seen["banner"]
    assert "Out[1]: 'wasi'" in seen["result"]
    assert "ZeroDivisionError: division by zero" in seen["error"]
    assert seen["completed"] == "sys.getrefcount"
    assert "reference count of object" in seen["tip"]
    assert "Out[7]: 'bob'" in seen["answered"]
    assert "Out[1]: False" in seen["restarted"]
