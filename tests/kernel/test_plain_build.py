"""A plain CPython build for WASI, not made for this project: CPython 3.12 of an npm package.

It is a command (`_start`), so it has no base image; everything else works. Needs `npm` (Debian's
package of that name).
"""

from __future__ import annotations

import shutil
import threading
from typing import TYPE_CHECKING

import pytest

from wasi_kernel import Grant, Policy, Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def box(plain_build: Path) -> Iterator[Sandbox]:
    with Sandbox(Policy(runtime=str(plain_build))) as sandbox:
        yield sandbox


def test_cells(box):
    assert box.python.startswith("3.12")
    assert box.run("x = 20\nx + 1").text == "21"
    assert box.run("print('hello'); x").stdout == "hello\n"
    failed = box.run("1/0")
    assert failed.error is not None
    assert failed.error.ename == "ZeroDivisionError"
    assert box.run("await __import__('asyncio').sleep(0.01, 'done')").text == "'done'"
    assert box.run("input('? ')", input=lambda prompt, _: prompt + "yes").text == "'? yes'"


def test_the_sandbox_is_the_same(box):
    assert box.run("import os; os.getcwd(), sorted(os.listdir('/'))").text == (
        "('/work', ['home', 'tmp', 'usr', 'work'])"
    )
    assert box.run("open('/etc/passwd')").error.ename == "FileNotFoundError"
    assert box.run("open('/tmp/a', 'w').write('abc')").text == "3"
    shown = box.run("%wasi").text
    assert "no (a command build boots each time)" in shown
    assert "soft and hard" in shown


def test_what_is_granted_and_why_not_is_the_same(box):
    box.run("open('/etc/passwd')")
    assert box.run("w = %wasi why\nw.to_dict()['reason']").text == "'not-granted'"
    assert box.run("w = %wasi why\nw.to_dict()['option']").text == "'--grant HOST:/etc'"
    box.run("open('/tmp/x', 'w').write('abc')")
    found = box.run("w = %wasi grants\nw.to_dict()['grants'][1]['bytes']").text
    assert found is not None
    assert int(found) >= 3


@pytest.mark.parametrize("code", ["while True: pass", "import time; time.sleep(60)", "input()"])
def test_soft_interrupts(box, code):
    box.run("kept = 'kept'")
    asked = threading.Event()

    def never(prompt: str, hidden: bool) -> str:
        asked.wait(30)
        return ""

    timer = threading.Timer(0.5, box.interrupt)
    timer.start()
    stopped = box.run(code, input=never)
    asked.set()
    assert stopped.error is not None
    assert stopped.error.ename == "KeyboardInterrupt"
    assert not stopped.error.lost
    assert box.run("kept").text == "'kept'"


def test_deaths(box):
    died = box.run("import os; os._exit(3)")
    assert died.error is not None
    assert (died.error.ename, died.error.lost) == ("GuestExited", True)
    assert box.run("1 + 1").text == "2"


def test_a_folder_with_its_library_beside_it(plain_build, tmp_path):
    """The layout of CPython's own WASI builds: python.wasm, and lib/ with the library."""
    library = tmp_path / "build" / "lib"
    library.mkdir(parents=True)
    shutil.copyfile(plain_build, tmp_path / "build" / "python.wasm")
    out = Grant(str(library), "/out", writable=True)
    with Sandbox(Policy(runtime=str(plain_build), grants=(out,))) as box:
        copied = box.run(
            "import shutil\n"
            "shutil.copytree('/usr/local/lib', '/out', dirs_exist_ok=True)\n"
            "open('/out/python3.12/of_the_folder.py', 'w').write('here = 42')"
        )
        assert copied.ok, copied.error
    with Sandbox(Policy(runtime=str(tmp_path / "build"))) as box:
        assert box.run("import of_the_folder; of_the_folder.here").text == "42"


def test_a_kernel_of_it(plain_build, start_kernel):
    kernel = start_kernel(env={"WASI_KERNEL_RUNTIME": str(plain_build)})
    assert kernel.run("import sys; sys.version_info[:2], sys.platform").result == (
        "((3, 12), 'wasi')"
    )
