"""Sandbox: the guest for scripts. Each test is milliseconds once the base image exists."""

from __future__ import annotations

import re
import threading
import time

import pytest

from wasi_kernel import Limits, Policy, Sandbox
from wasi_kernel.caches import Cache
from wasi_kernel.errors import InstallationError, RuntimeNotFoundError
from wasi_kernel.launch import SCRATCH


def test_a_value_its_forms_and_its_number(box):
    r = box.run("import pandas as pd; pd.DataFrame({'a': [1, 2]})")
    assert r.ok
    assert r.error is None
    assert r.text is not None
    assert r.text.split() == ["a", "0", "1", "1", "2"]
    assert "<table" in r.data["text/html"]
    assert box.run("None").data == {}
    assert box.run("1").execution_count == r.execution_count + 2


def test_nothing_of_what_the_image_was_made_with_is_left_in_a_session():
    """Cells run before the image is made: no name, result, line, or number of them is there."""
    look = "print(sorted(globals()), In[:-1], Out, [_, __, ___, _i, _ii, _iii])"
    with Sandbox() as fresh:
        first = fresh.run(look)
        assert (first.ok, first.execution_count) == (True, 1)
        assert first.stdout.endswith(" [''] {} ['', '', '', '', '', '']\n")
        names = {"In", "Out", "exit", "get_ipython", "open", "quit"}
        shown = set(re.findall(r"'(\w+)'", first.stdout.partition("]")[0]))
        assert {name for name in shown if not name.startswith("_")} == names
        assert {name for name in shown if re.fullmatch(r"_i?\d+", name)} == {"_i1"}
        assert fresh.run("%history").stdout == f"{look}\n%history\n"
        assert fresh.run("import builtins; hasattr(builtins, '_')").text == "False"
        assert fresh.run("_").text == "False"


KEPT = """
import sys
shell = get_ipython()
kept = shell.history_manager
[dict(kept.output_hist_reprs), dict(kept.outputs), dict(kept.exceptions),
 shell.last_execution_result, shell.last_shown, shell.displayhook.formatting,
 [name for name in dir(sys) if name.startswith("last_")]]
"""


def test_nothing_is_kept_of_what_was_shown_while_the_image_was_made():
    with Sandbox() as fresh:
        assert fresh.run(KEPT).text == "[{}, {}, {}, None, None, False, []]"


BROKEN_PANDAS = """
import sys, types
agent = sys.modules["wasi_agent.agent"]._agent[0]
for name in [name for name in sys.modules if name.partition(".")[0] == "pandas"]:
    del sys.modules[name]
pandas = sys.modules["pandas"] = types.ModuleType("pandas")
class DataFrame:
    def __init__(self, data):
        if how == "made":
            raise RuntimeError("this pandas is broken")
    def _repr_html_(self):
        raise KeyboardInterrupt
pandas.DataFrame = DataFrame
how = {!r}
def rest():
    del agent.rest
    agent.rehearse()
    agent.rest()
agent.rest = rest
"""


@pytest.mark.parametrize("how", ["made", "shown"])
def test_a_package_that_breaks_a_rehearsal_leaves_nothing_behind(how: str):
    """As it would while an image is made: here the agent rehearses after a cell."""
    with Sandbox() as box:
        assert box.run(BROKEN_PANDAS.format(how)).ok
        looked = box.run(KEPT).text
        assert looked is not None
        assert looked.endswith("None, None, False, []]")
        r = box.run("try:\n    1 / 0\nexcept Exception:\n    get_ipython().showtraceback()")
        assert r.status == "ok"
        assert box.run("how").text == repr(how)


def test_outputs_come_in_order_and_while_it_runs():
    seen: list[tuple[float, str]] = []
    both = threading.Event()

    def on_output(output: dict) -> None:
        seen.append((time.monotonic(), output.get("text", output["type"])))
        both.set()

    with Sandbox(on_output=on_output) as box:
        box.run("pass")
        asked = threading.Event()
        runner = threading.Thread(
            target=lambda: box.run(
                "print('early')\nn = sum(range(20_000_000))\ninput()\nprint('late')",
                input=lambda prompt, hidden: (asked.wait(30), "")[1],
            )
        )
        runner.start()
        assert both.wait(30)  # shown while the cell still waits for its input
        assert [text for _, text in seen] == ["early\n"]
        asked.set()
        runner.join()
    assert [text for _, text in seen] == ["early\n", "late\n"]


def test_stdout_stderr_and_displays_keep_their_order(box):
    r = box.run(
        "import sys\nprint('a')\nprint('b', file=sys.stderr)\ndisplay('c')\nprint('d')\n'e'"
    )
    kinds = [o.get("name", o["type"]) for o in r.outputs]
    assert kinds == ["stdout", "stderr", "display_data", "stdout", "execute_result"]
    assert (r.stdout, r.stderr) == ("a\nd\n", "b\n")
    assert [d["text/plain"] for d in r.displays] == ["'c'"]


def test_a_plot_is_a_png(box):
    r = box.run("import matplotlib.pyplot as plt; plt.plot([1, 2]);")
    assert r.displays[0]["image/png"].startswith("iVBOR")


def test_an_exception_is_data(box):
    r = box.run("def f(): return 1 / 0\nf()")
    assert r.status == "error"
    assert r.error is not None
    assert (r.error.ename, r.error.evalue) == ("ZeroDivisionError", "division by zero")
    plain = re.sub("\x1b\\[[0-9;]*m", "", "\n".join(r.error.traceback))
    assert "f()" in plain
    assert not r.error.lost


def test_input_and_its_refusal(box):
    r = box.run(
        "import getpass\ninput('name? '), getpass.getpass('secret? ')",
        input=lambda prompt, hidden: f"{prompt}{hidden}",
    )
    assert r.text == "('name? False', 'secret? True')"
    assert box.run("input()").error.ename == "StdinNotImplementedError"

    def end(prompt: str, hidden: bool) -> str:
        raise EOFError

    assert box.run("input()", input=end).error.ename == "EOFError"


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        "import asyncio; await asyncio.sleep(60)",
        "import re; re.match(r'(a+)+$', 'a' * 40 + 'b')",
        "while True: print('x' * 100)",
        "df = __import__('pandas').DataFrame({'a': range(10**5)})\nwhile True: df.sort_values('a')",
    ],
)
def test_interrupt_keeps_the_state(box, code):
    box.run("kept = 'kept'")
    timer = threading.Timer(0.2, box.interrupt)
    timer.start()
    r = box.run(code)
    assert r.error is not None
    assert r.error.ename == "KeyboardInterrupt"
    assert not r.error.lost
    assert box.run("kept").text == "'kept'"


def test_an_interrupt_at_rest_is_nothing(box):
    box.interrupt()
    assert box.run("1").text == "1"


def test_an_interrupt_that_is_caught_leaves_the_next_wait_alone(box):
    timer = threading.Timer(0.2, box.interrupt)
    timer.start()
    r = box.run(
        "import time\ntry:\n    while True: pass\nexcept KeyboardInterrupt: pass\n"
        "start = time.monotonic(); time.sleep(0.3); time.monotonic() - start >= 0.3"
    )
    assert r.text == "True"


def test_a_deadline_interrupts_then_stops():
    with Sandbox(Policy(limits=Limits(grace_s=0.3))) as box:
        box.run("kept = 1")
        r = box.run("while True: pass", deadline_s=0.2)
        assert r.error is not None
        assert (r.error.ename, r.error.lost) == ("KeyboardInterrupt", False)
        assert box.run("kept").text == "1"
        r = box.run("sum(range(10**11))", deadline_s=0.2)
        assert r.error is not None
        assert r.error.lost
        assert r.error.ename in ("DeadlineExceeded", "KeyboardInterrupt")
        assert box.run("2").text == "2"


@pytest.mark.parametrize(
    ("code", "ename"),
    [
        ("import os; os._exit(7)", "GuestExited"),
        ("import os; os.abort()", "GuestAborted"),
    ],
)
def test_a_death_is_one_error_and_the_next_run_works(box, code, ename):
    r = box.run("print('before')\n" + code)
    assert r.error is not None
    assert (r.error.ename, r.error.lost) == (ename, True)
    assert r.stdout == "before\n"  # what was printed is not lost with it
    assert box.run("'alive'").text == "'alive'"


def test_the_stack_is_exhausted():
    policy = Policy(limits=Limits(stack_bytes=1 << 20))
    with Sandbox(policy) as box:
        r = box.run("t = []\nfor _ in range(100_000): t = [t]\ndel t")
        assert r.error is not None
        assert r.error.ename == "StackExhausted"
        assert box.run("1").text == "1"


def test_the_memory_limit_is_reached():
    policy = Policy(limits=Limits(memory_bytes=256 << 20))
    with Sandbox(policy) as box:
        r = box.run("kept = [bytearray(10**7) for _ in range(1000)]")
        assert r.error is not None
        assert r.error.ename == "MemoryError"
        assert box.run("1").text == "1"


def test_an_endless_printer_is_cut_with_one_notice():
    policy = Policy(limits=Limits(output_bytes=100_000))
    with Sandbox(policy) as box:
        r = box.run("for n in range(100_000): print('line', n)\n'the end'")
        assert r.ok
        assert sum(len(o.get("text", "")) for o in r.outputs) < 200_000
        assert r.stderr.count("output limit reached") == 1
        assert box.run("print('again')").stdout == "again\n"


def test_restart_forgets(box):
    box.run("kept = 1")
    box.restart()
    assert box.run("kept").error.ename == "NameError"


def test_after_close_nothing_is_left():
    folder = Cache().folder(SCRATCH)
    before = set(folder.iterdir())
    with Sandbox() as box:
        assert box.run("open('/tmp/a', 'w').write('a')").ok
        (new,) = set(folder.iterdir()) - before
        assert (new / "tmp" / "a").read_text() == "a"
    assert not new.exists()
    assert set(folder.iterdir()) <= before
    box.interrupt()  # nothing to interrupt, no error
    box.close()


def test_work_is_shown_read_only(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    with Sandbox(work=tmp_path) as box:
        assert box.run("open('a.txt').read()").text == "'hello'"
        refused = box.run("open('b.txt', 'w')")
        assert refused.error is not None
        assert refused.error.ename == "PermissionError"
        assert "granted read-only" in refused.error.traceback[-1]
        assert box.run("import os; os.remove('a.txt')").error.ename == "PermissionError"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_an_installation_that_cannot_work_says_so(tmp_path):
    with pytest.raises(InstallationError, match="no-such"):
        Sandbox(Policy(runtime=str(tmp_path / "no-such.wasm")))
    assert issubclass(RuntimeNotFoundError, InstallationError)


def test_completion_and_whole_cells(box: Sandbox):
    box.run("import os")
    said = box.complete("os.path.isf")
    assert "isfile" in " ".join(said["matches"])
    assert said["cursor_start"] <= len("os.path.")
    assert box.complete("pri + 1", 3)["matches"]
    assert box.is_complete("x = 1")["status"] == "complete"
    assert box.is_complete("for k in x:") == {"status": "incomplete", "indent": "    "}


@pytest.mark.parametrize("switched", ["enable", "disable"])
def test_completion_leaves_the_garbage_collector_as_it_was(box: Sandbox, switched: str):
    box.run(f"import gc; gc.{switched}()")
    assert "print" in [str(match) for match in box.complete("pri")["matches"]]
    assert box.run("gc.isenabled()").text == str(switched == "enable")
    box.run("gc.enable()")


INTERRUPTED = """
import gc, types
from wasi_agent import lookups
def disable():
    gc.disable()
    raise KeyboardInterrupt
lookups.gc = types.SimpleNamespace(isenabled=gc.isenabled, enable=gc.enable, disable=disable)
try:
    lookups.complete(get_ipython(), {"code": "pri", "cursor_pos": 3})
except KeyboardInterrupt:
    print("interrupted", gc.isenabled())
lookups.gc = gc
"""


def test_an_interrupt_of_a_completion_leaves_the_garbage_collector_on(box: Sandbox):
    assert box.run(INTERRUPTED).stdout == "interrupted True\n"


BREAK_JEDI = """
import sys, wasi_agent.agent as module
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "jedi":
            raise AttributeError("abi_thread")  # as pydoc does in a build without _sysconfigdata
for name in [name for name in sys.modules if name.split(".")[0] == "jedi"]:
    del sys.modules[name]
sys.meta_path.insert(0, Broken())
"""


def test_completion_in_a_build_where_jedi_does_not_import():
    with Sandbox() as box:
        assert box.run(BREAK_JEDI).ok
        assert box.complete("sys.vers")["matches"] == []
        assert box.run("module._agent[0].choose_completer()").ok
        assert ".version" in box.complete("sys.vers")["matches"]


# -- the start -----------------------------------------------------------------------------------

SPIN = """
import _thread, signal, sys, wasi_agent.agent as module
agent, spin = module._agent[0], module.spin.__code__
def interrupted_at(nth):
    count = 0
    def trace(frame, event, arg):
        nonlocal count
        if frame.f_code is spin and event == "line":
            count += 1
            if count == nth:
                _thread.interrupt_main()
        return trace
    agent.reading, agent.busy = True, False  # as it is while a guest starts
    sys.settrace(trace)
    try:
        return module.spin(agent), agent.early
    except KeyboardInterrupt:
        return "KeyboardInterrupt"
    finally:
        sys.settrace(None)
        signal.signal(signal.SIGINT, agent.on_sigint)
        agent.reading, agent.busy, agent.early = False, True, False
{interrupted_at(nth) for nth in range(1, 10)}
"""


def test_the_interrupt_that_is_tried_at_a_start_may_come_at_any_moment():
    """It is never left for the first cell, nor does it end the start: on a loaded machine it comes
    before the loop that it is to end.
    """
    with Sandbox() as box:
        assert box.run(SPIN).text == "{(True, False)}"
        assert box.run("1").text == "1"
