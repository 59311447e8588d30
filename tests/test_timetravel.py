"""Checkpoints as a user of a sandbox has them: undo, redo, restore, and no death that loses more
than the cell that died.

What comes back is compared by what the guest itself says of it, after each way there is to a
state: %undo, %restore, and the death of the cell that changed it. All of that is done twice: with
the pages that the operating system calls changed, and with all memory compared.
"""

from __future__ import annotations

import ast
import contextlib
import os
import random
import re
import resource
import shutil
import signal
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from wasi_kernel import Limits, Policy, Sandbox
from wasi_kernel.errors import LOSSES, UnknownCheckpointError
from wasi_kernel.pagelog import PageLog
from wasi_kernel.policy import CheckpointLimits
from wasi_kernel.records import PAGE, head_bytes
from wasi_kernel.segments import SUFFIX
from wasi_kernel.sessionfile import Base

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from wasi_kernel.results import Result

KILLS = int(os.environ.get("WASI_KERNEL_TEST_KILLS", "25"))
"""How often the worker is killed at a random moment."""

MIB = 1 << 20
HELD, LATE, OPEN = "/tmp/held", "/tmp/late", "/tmp/open"  # noqa: S108 - guest paths
STATE = re.compile(
    r"Variables are as they were "
    r"(before this cell|before the first cell|after cell \[(\d+)\]|before)"
)
LOST = re.compile(r"LOST as well: what (\[\d+\](?:, \[\d+\])*) did")
NOT_RUN = "what follows in this cell was not run"


def ok(box: Sandbox, code: str) -> Result:
    """The result of code that has to work."""
    r = box.run(code)
    assert r.error is None, (code, r.error)
    return r


def value(box: Sandbox, code: str) -> str | None:
    """The text of the code's value; None for code that fails."""
    return box.run(code).text


def explained(r: Result) -> str:
    """What was said about the loss of a guest: in the error of its cell, or before the next."""
    notes = [line for line in r.stderr.splitlines() if "between runs" in line]
    return "\n".join([*notes, *([r.error.evalue] if r.error and r.error.lost else [])])


def refused(box: Sandbox, code: str) -> str:
    """What a magic says that refuses, in one line."""
    r = box.run(code)
    assert r.error is not None, code
    assert (r.error.ename, r.error.lost) == ("UsageError", False)
    assert r.stderr == f"UsageError: {r.error.evalue}\n"
    assert "\n" not in r.error.evalue
    return r.error.evalue


def folder_of(box: Sandbox) -> Path:
    """Where the sandbox's checkpoints are."""
    kept = box._settings.checkpoints
    assert kept is not None
    return kept.path


def kill(box: Sandbox, number: int = signal.SIGKILL) -> None:
    """Sends a signal to the present worker."""
    os.kill(box._session.worker_pid, number)


def kill_soon(box: Sandbox, delay_s: float) -> threading.Timer:
    """Kills the worker that there is after that time, if there is one."""

    def at_last() -> None:
        with contextlib.suppress(ProcessLookupError):
            kill(box)

    timer = threading.Timer(delay_s, at_last)
    timer.start()
    return timer


def written(box: Sandbox) -> None:
    """Waits until everything that has run is kept."""
    box.checkpoints()


def begin(box: Sandbox) -> Sandbox:
    """The sandbox at its beginning, with no names but "clean", whatever the last test has left."""
    names = {name for row in box.checkpoints() for name in row["names"]}
    if "clean" not in names:
        box.restart()
        ok(box, "import gc, os, random, sys, time")
        box.checkpoint("clean")
    for name in names - {"clean"}:
        ok(box, f"%checkpoint --delete {name}")
    box.restore("clean")
    return box


@pytest.fixture(scope="module", params=["mapped", "compared"])
def _either(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    limits = CheckpointLimits(compare=request.param == "compared")
    with Sandbox(Policy(checkpoints=limits)) as sandbox:
        yield sandbox


@pytest.fixture
def traveller(_either: Sandbox) -> Sandbox:
    """A sandbox at its beginning, in both ways to find out what has changed."""
    return begin(_either)


@pytest.fixture(scope="module")
def _usual() -> Iterator[Sandbox]:
    limits = Limits(stack_bytes=MIB, memory_bytes=256 * MIB, grace_s=0.2)
    with Sandbox(Policy(limits=limits)) as sandbox:
        yield sandbox


@pytest.fixture
def usual(_usual: Sandbox) -> Sandbox:
    """A sandbox at its beginning, which notices changes in the usual way, and has little memory."""
    return begin(_usual)


# -- exactness -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """Something that has to come back.

    Attributes:
        made: Code that makes it.
        changed: Code that changes it.
        seen: An expression that shows it, and may move it on.
        text: What that gives before the change; empty if it is not known beforehand.
    """

    made: str
    changed: str
    seen: str
    text: str = ""


CASES = {
    "an open generator": Case(
        "def numbers():\n    n = 0\n    while True:\n        n += 1\n        yield n\n"
        "it = numbers(); next(it), next(it)",
        "it.close()", "next(it, 'at its end')", "3",
    ),
    "a generator that waits in with and try": Case(
        "import contextlib\nlog = []\n@contextlib.contextmanager\ndef noted():\n"
        "    log.append('in')\n    try: yield\n    finally: log.append('out')\n"
        "def guarded():\n    with noted():\n        got = yield 'first'\n        yield got\n"
        "it = guarded(); next(it)",
        "it.close()", "it.send('sent'), log", "('sent', ['in'])",
    ),
    "a coroutine half way": Case(
        "import types\n@types.coroutine\ndef pause(x): return (yield x)\n"
        "async def steps():\n    a = await pause(1)\n    b = await pause(a + 1)\n    return a, b\n"
        "it = steps(); it.send(None)",
        "it.close()", "it.send(10)", "11",
    ),
    "a database in memory with rows that are not committed": Case(
        "import sqlite3\ndb = sqlite3.connect(':memory:')\ndb.execute('create table t(a)')\n"
        "db.commit()\ndb.executemany('insert into t values(?)', [(1,), (2,), (3,)])\n"
        "cursor = db.execute('select a from t order by a'); cursor.fetchone()",
        "db.rollback()",
        "db.in_transaction, cursor.fetchone(), "
        "db.execute('select count(*), sum(a) from t').fetchone()",
        "(True, (2,), (3, 6))",
    ),
    "an attribute of a module": Case(
        "import string; string.digits = 'mine'", "string.digits = 'other'",
        "string.digits", "'mine'",
    ),
    "which modules are imported": Case(
        "names = ['colorsys', 'wave_of_mine']",
        "import colorsys, types; sys.modules['wave_of_mine'] = types.ModuleType('wave_of_mine')",
        "[name in sys.modules for name in names]", "[False, False]",
    ),
    "a module made at runtime": Case(
        "import types\nmodule = sys.modules['made_here'] = types.ModuleType('made_here')\n"
        "exec('count = 0\\ndef up():\\n    global count\\n    count += 1\\n    return count',"
        " module.__dict__)\nmodule.up()",
        "del sys.modules['made_here']; module.up()", "__import__('made_here').up()", "2",
    ),
    "random numbers": Case(
        "random.random()", "random.random()", "[random.random() for _ in range(3)]"
    ),
    "random numbers of numpy": Case(
        "import numpy as np; rng = np.random.default_rng(); rng.random(); np.random.random()",
        "rng.random(); np.random.random()",
        "rng.random(3).tolist(), np.random.random(3).tolist()",
    ),
    "a task of asyncio": Case(
        "import asyncio\nlog = []\ngate = asyncio.Event()\nasync def tick():\n"
        "    for n in range(1000):\n        log.append(n)\n        await gate.wait()\n"
        "        gate.clear()\ntask = asyncio.create_task(tick())\nawait asyncio.sleep(0)",
        "task.cancel(); await asyncio.sleep(0)",
        "gate.set()\nawait asyncio.sleep(0.01)\nlen(log), task.done()",
    ),
    "a future and its callback": Case(
        "import asyncio\nlog = []\nfuture = asyncio.get_running_loop().create_future()\n"
        "future.add_done_callback(log.append)\nawait asyncio.sleep(0)",
        "future.set_result(1); await asyncio.sleep(0)", "future.done(), log", "(False, [])",
    ),
    "iterators": Case(
        "import itertools\nits = [itertools.count(5), itertools.cycle('abc'), iter([1, 2, 3]),\n"
        "    itertools.chain([1], [2, 3]), enumerate('xyz'), zip('ab', 'cd'), reversed([7, 8]),\n"
        "    itertools.permutations('abc'), map(str, range(3)), iter({1: 0, 2: 0})]\n"
        "for each in its: next(each)",
        "for each in its: next(each, None)", "[next(each, None) for each in its]",
        "[6, 'b', 2, 2, (1, 'y'), ('b', 'd'), 7, ('a', 'c', 'b'), '1', 2]",
    ),
    "a class and its instances": Case(
        "class A:\n    def f(self): return 'old'\na = A()",
        "old = A\nclass A:\n    def f(self): return 'new'\na.__class__ = A; old.f = None",
        "a.f(), type(a) is A", "('old', True)",
    ),
    "weak references": Case(
        "import weakref\nclass O: pass\nlog = []\no = O(); ref = weakref.ref(o)\n"
        "by_name = weakref.WeakValueDictionary(o=o)\nweakref.finalize(o, log.append, 'gone')",
        "del o; gc.collect()", "ref() is o, len(by_name), log", "(True, 1, [])",
    ),
    "identities": Case(
        "objects = [object() for _ in range(100)]; ids = list(map(id, objects))",
        "objects.pop(0); objects.append([])", "list(map(id, objects)) == ids", "True",
    ),
    "the order of dicts and sets": Case(
        "d = dict.fromkeys('hello world'); d.pop('h'); d['h'] = 1\n"
        "texts = {str(n) for n in range(50)}; order = list(texts)",
        "d.pop('e'); d['e'] = 2; texts.clear(); texts |= set(map(str, range(1000)))",
        "''.join(d), list(texts) == order", "('elo wrdh', True)",
    ),
    "a data frame": Case(
        "import pandas as pd\ndf = pd.DataFrame({'a': [1, 2], 'b': ['x', 'y']}, index=[5, 6])",
        "df.loc[5, 'a'] = 99; df.drop(columns='b', inplace=True)",
        "df.to_dict('list'), list(df.index)", "({'a': [1, 2], 'b': ['x', 'y']}, [5, 6])",
    ),
    "a deep graph of objects": Case(
        "deep = None\nfor n in range(50_000): deep = [deep, n]",
        "deep[0][0][1] = -1",
        "total, each = 0, deep\nwhile each: total, each = total + each[1], each[0]\ntotal",
        "1249975000",
    ),
    "a cycle of garbage that is not collected yet": Case(
        "gc.collect(); gc.disable()\nlog = []\nclass O:\n    def __del__(self): log.append(1)\n"
        "o = O(); o.me = o; del o",
        "gc.collect()", "log, gc.isenabled()", "([], False)",
    ),
    "the collector's settings": Case(
        "gc.disable(); gc.set_threshold(123, 4, 5)", "gc.enable(); gc.set_threshold(700, 10, 10)",
        "gc.isenabled(), gc.get_threshold()", "(False, (123, 4, 5))",
    ),
    "the environment and the current folder": Case(
        "os.environ['A'] = '1'; os.makedirs('/tmp/here', exist_ok=True); os.chdir('/tmp/here')",
        "os.environ['A'] = '2'; os.chdir('/')",
        "os.environ['A'], os.getcwd(), os.path.abspath('.')",
        "('1', '/tmp/here', '/tmp/here')",
    ),
    "settings of libraries": Case(
        "import decimal, locale, warnings, logging, pandas as pd\n"
        "decimal.DefaultContext.prec = 50; ctx = decimal.Context(prec=7)\n"
        "locale.setlocale(locale.LC_ALL, 'C.UTF-8'); warnings.simplefilter('error')\n"
        "pd.set_option('display.max_rows', 7)\n"
        "logging.getLogger('mine').setLevel(5); sys.setrecursionlimit(1234)",
        "decimal.DefaultContext.prec = 5; ctx.prec = 3; locale.setlocale(locale.LC_ALL, 'C')\n"
        "warnings.resetwarnings(); pd.reset_option('display.max_rows')\n"
        "logging.getLogger('mine').setLevel(10); sys.setrecursionlimit(1000)",
        "decimal.DefaultContext.prec, ctx.prec, locale.setlocale(locale.LC_ALL)[:7],\\\n"
        "    warnings.filters[0][0],\\\n"
        "    pd.get_option('display.max_rows'), logging.getLogger('mine').level,\\\n"
        "    sys.getrecursionlimit()",
        "(50, 7, 'C.UTF-8', 'error', 7, 5, 1234)",
    ),
    "context variables, and what libraries keep in them": Case(
        "import contextvars, decimal, numpy as np\nvar = contextvars.ContextVar('var')\n"
        "var.set(1); decimal.getcontext().prec = 50; np.set_printoptions(precision=2)",
        "var.set(2); decimal.getcontext().prec = 5; np.set_printoptions(precision=3)",
        "var.get(), decimal.getcontext().prec, np.get_printoptions()['precision']",
        "(1, 50, 2)",
    ),
    "what lies in C code half way": Case(
        "import hashlib, io, zlib, functools\nh = hashlib.sha256(b'a'); z = zlib.compressobj()\n"
        "first = z.compress(b'one' * 100); text = io.StringIO('abcdef'); text.read(2)\n"
        "data = bytearray(b'xyz'); view = memoryview(data)\n"
        "@functools.cache\ndef f(n): return n\nf(1), f(1)",
        "h.update(b'b'); z.compress(b'two'); text.read(1); view.release(); data.append(0); f(2)",
        "h.hexdigest()[:6], zlib.decompress(first + z.flush()) == b'one' * 100,\\\n"
        "    text.read(1), bytes(view), f.cache_info().misses",
        "('ca9781', True, 'c', b'xyz', 1)",
    ),
    "a closure": Case(
        "def counter():\n    n = 0\n    def up():\n        nonlocal n\n        n += 1\n"
        "        return n\n    return up\nup = counter(); up()",
        "up(); up()", "up()", "2",
    ),
}  # fmt: skip
"""What comes back, and how that is seen."""


EACH = """
import ast, inspect
spaces = {}
async def each(codes):
    texts = {}
    for name, code in codes.items():
        space = spaces.setdefault(name, {"__name__": "__main__", **MODULES})
        *body, last = ast.parse(code).body
        parts = [(ast.Module(body + [last] * (type(last) is not ast.Expr), []), "exec")]
        if type(last) is ast.Expr:
            parts.append((ast.Expression(last.value), "eval"))
        try:
            for tree, mode in parts:
                flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
                found = eval(compile(tree, name, mode, flags), space)
                found = await found if inspect.iscoroutine(found) else found
            texts[name] = repr(found)
        except BaseException as e:
            texts[name] = f"raised {e!r}"
    return texts
import gc, os, random, sys
MODULES = {"gc": gc, "os": os, "random": random, "sys": sys}
"""
"""Runs code for each case, in a namespace that is its own, and gives the values' texts."""


@pytest.fixture(scope="module")
def seen(_either: Sandbox) -> dict[str, dict[str, str]]:
    """{what was done: {case: what was seen then}}."""
    box = begin(_either)
    codes = {
        part: {name: getattr(case, part) for name, case in CASES.items()}
        for part in ("made", "changed", "seen")
    }
    ok(box, f"{EACH}codes = {codes!r}")

    def look() -> dict[str, str]:
        texts: dict[str, str] = ast.literal_eval(value(box, "await each(codes['seen'])") or "")
        return texts

    made = ok(box, "await each(codes['made'])")
    assert "raised" not in (made.text or "")
    found = {"nothing": look()}
    ok(box, "%undo")
    ok(box, "await each(codes['changed'])")
    found["change"] = look()
    ok(box, "%undo 2")
    found["undo"] = look()
    ok(box, "%undo 2")
    ok(box, "%redo")
    found["redo"] = look()
    ok(box, "x = 1")
    ok(box, f"%restore {made.execution_count}")
    found["restore"] = look()
    ok(box, "%undo")
    died = box.run("await each(codes['changed'])\nos._exit(1)")
    assert died.error is not None
    assert died.error.ename == "GuestExited"
    found["death"] = look()
    ok(box, "%undo")
    ok(box, "await each(codes['changed'])")
    ok(box, "%undo")
    kill(box)
    assert STATE.search(explained(box.run("'next'")))
    ok(box, f"%restore {made.execution_count}")
    found["kill"] = look()
    return found


@pytest.mark.parametrize("name", CASES)
def test_everything_is_what_it_was(seen: dict[str, dict[str, str]], name: str) -> None:
    first = seen["nothing"][name]
    assert first == (CASES[name].text or first)
    assert "raised" not in first
    assert seen["change"][name] != first
    for way in ("undo", "redo", "restore", "death", "kill"):
        assert seen[way][name] == first, way


def test_memory_that_has_grown_shrinks_again(traveller: Sandbox) -> None:
    used = "(%wasi)".strip("()")
    ok(traveller, f"before = {used}")
    ok(traveller, "big = bytearray(300 << 20); big[::1 << 20] = b'x' * 300")
    seen = "len(big), big.count(b'x')"
    assert value(traveller, seen) == "(314572800, 300)"
    ok(traveller, "%undo 2")
    ok(traveller, f"now = {used}")
    grown = "now.to_dict()['memory_bytes'] - before.to_dict()['memory_bytes']"
    assert int(value(traveller, grown) or -1) < 16 * MIB
    assert value(traveller, "'big' in globals()") == "False"
    ok(traveller, "big = bytearray(300 << 20); big[::1 << 20] = b'y' * 300; big[0] = 0")
    written(traveller)
    kill(traveller)
    assert STATE.search(explained(traveller.run("'next'")))
    assert value(traveller, "len(big), big.count(b'y'), big.count(b'x')") == "(314572800, 299, 0)"


def test_what_is_done_again_after_an_undo_is_kept(traveller: Sandbox) -> None:
    """The same pages with the same content as once before are not the pages of the state now."""
    for _ in range(3):
        for code in ("big = bytearray(b'A' * (1 << 20))", "table = [[n] for n in range(20_000)]"):
            ok(traveller, code)
        ok(traveller, "%undo 2")
    ok(traveller, "big = bytearray(b'A' * (1 << 20))")
    ok(traveller, "table = [[n] for n in range(20_000)]")
    traveller.run("import os; os._exit(1)")
    seen = "set(big), table == [[n] for n in range(20_000)]"
    assert value(traveller, seen) == "({65}, True)"


def test_many_travels_one_after_another(traveller: Sandbox) -> None:
    rnd = random.Random(3)  # noqa: S311 - the same in every run
    ok(traveller, "log = []; junk = []")
    states: dict[int, list[int]] = {}
    model: list[int] = []
    for n in range(12):
        move = rnd.choice(["run", "run", "run", "undo", "restore", "die"])
        if move == "restore" and states:
            cell = rnd.choice(sorted(states))
            ok(traveller, f"%restore {cell}")
            model = list(states[cell])
        elif move == "undo" and model:
            ok(traveller, "%undo")
            model.pop()
        elif move == "die":
            traveller.run("log.clear(); junk = None; os._exit(1)")
        else:
            size = rnd.choice([1, 100_000, 3_000_000])
            r = ok(traveller, f"log.append({n}); junk.append(bytes([{n}]) * {size})")
            model.append(n)
            states[r.execution_count] = list(model)
        seen = "log, [each[0] for each in junk], [len(set(each)) for each in junk]"
        text = value(traveller, seen)
        assert ast.literal_eval(text or "") == (model, model, [1] * len(model))
        traveller.undo()  # that look


def test_numbers_rise_and_in_and_out_stay_usable(usual: Sandbox) -> None:
    made = ok(usual, "40 + 2").execution_count
    ok(usual, "'undone'")
    ok(usual, "%undo")
    r = ok(usual, "_, Out[max(Out)], len(In), get_ipython().execution_count")
    assert r.execution_count == made + 3
    assert r.text == f"(42, 42, {made + 4}, {made + 4})"
    assert value(usual, f"In[{made}], In[{made + 1}], In[{made + 2}]") == "('40 + 2', '', '')"
    assert value(usual, f"In[{made + 3}][:6], _{made}, sorted(Out)[-3:]") == (
        f"('_, Out', 42, [{made}, {made + 3}, {made + 4}])"
    )
    died = usual.run("'dead'; os._exit(1)")
    assert ok(usual, "1").execution_count == died.execution_count + 1
    assert value(usual, f"In[{died.execution_count}], In[-2]") == "('', '1')"


TRAVELS: dict[str, Callable[[Sandbox, int], Result]] = {
    "undo": lambda box, _cell: ok(box, "%undo"),
    "restore": lambda box, cell: ok(box, f"%restore {cell}"),
    "death": lambda box, _cell: box.run("import os; os._exit(1)"),
}
"""Ways back to what a cell left, when one cell has run since."""


@pytest.fixture(params=TRAVELS)
def way(request: pytest.FixtureRequest) -> Callable[[Sandbox, int], Result]:
    """A way back."""
    return TRAVELS[request.param]


def test_the_guest_goes_on_as_before(usual: Sandbox, way: Callable[[Sandbox, int], Result]) -> None:
    """It can be interrupted, asks, sleeps, awaits, plots, and has its streams."""
    made = ok(usual, "import asyncio, matplotlib.pyplot as plt").execution_count
    ok(usual, "x = 1")
    way(usual, made)
    stopped = usual.run("while True: pass", deadline_s=0.1)
    assert stopped.error is not None
    assert (stopped.error.ename, stopped.error.lost) == ("KeyboardInterrupt", False)
    assert usual.run("input('? ')", input=lambda prompt, _: prompt + "yes").text == "'? yes'"
    assert value(usual, "await asyncio.sleep(0.01, 'awaited')") == "'awaited'"
    slept = "start = time.monotonic(); time.sleep(0.05); 0.05 <= time.monotonic() - start < 10"
    assert value(usual, slept) == "True"
    assert value(usual, "abs(time.time() - os.stat('/tmp').st_atime) < 10**8") == "True"
    assert "image/png" in ok(usual, "plt.plot([1, 2]);").displays[0]
    both = ok(usual, "print('out'); print('err', file=sys.stderr)")
    assert (both.stdout, both.stderr) == ("out\n", "err\n")


# -- open files ------------------------------------------------------------------------------


def gone(r: Result) -> list[str]:
    """The files that are not open any more, as the one line says that tells of them."""
    said = r.stderr + (r.error.evalue if r.error else "")
    lines = [line for line in said.splitlines() if "no longer open" in line.lower()]
    assert len(lines) <= 1
    return lines[0].lower().partition("no longer open: ")[2].split(", ") if lines else []


def test_open_files_are_closed_and_named(
    usual: Sandbox, way: Callable[[Sandbox, int], Result]
) -> None:
    """Also with holes among the fds, which new files take."""
    made = ok(
        usual,
        "files = [open(f'/tmp/open{n}', 'w+') for n in range(6)]\n"
        "files[1].close(); files[3].close()\n"
        "for each in files[::2]: each.write('before'); each.flush()\n"
        "raw = os.open('/tmp/raw', os.O_RDWR | os.O_CREAT | os.O_TRUNC); os.write(raw, b'raw')",
    ).execution_count
    ok(usual, "x = 1")
    names = gone(way(usual, made))
    assert names[:-1] == [f"{OPEN}{n}" for n in (0, 2, 4, 5)]
    assert names[-1].startswith("fd ")
    assert value(usual, "[each.closed for each in files]") == str([True] * 6)
    assert usual.run("files[0].write('after')").error.ename == "ValueError"
    ok(
        usual,
        "new = [open(f'/tmp/new{n}', 'w+b') for n in range(12)]\n"
        "for each in new: each.write(b'new'); each.flush()",
    )
    for code in ("os.write(raw, b'mixed up')", "os.read(raw, 9)", "os.lseek(raw, 0, 0)"):
        assert usual.run(code).error.ename == "OSError", code
    assert value(usual, "[(each.seek(0), each.read())[1] for each in new] == [b'new'] * 12") == (
        "True"
    )
    assert value(usual, "open('/tmp/open0').read(), open('/tmp/raw').read()") == (
        "('before', 'raw')"
    )
    ok(usual, "os.close(raw); again = os.open('/tmp/raw', os.O_RDWR)")
    assert value(usual, "os.read(again, 9)") == "b'raw'"


def test_files_opened_later_are_not_touched(
    usual: Sandbox, way: Callable[[Sandbox, int], Result]
) -> None:
    made = ok(usual, "x = 1").execution_count
    ok(usual, "late = open('/tmp/late', 'w'); late.write('late'); late.flush()")
    assert gone(way(usual, made)) == ([] if way is not TRAVELS["death"] else [LATE])


def test_what_is_gone_is_named_once(usual: Sandbox) -> None:
    ok(usual, "raw = os.open('/tmp/raw', os.O_RDWR | os.O_CREAT); held = open('/tmp/held', 'w')")
    ok(usual, "x = 1")
    assert len(gone(ok(usual, "%undo"))) == 2
    ok(usual, "x = 2")
    ok(usual, "x = 3")
    assert gone(ok(usual, "%undo")) == []


def test_a_database_file_that_was_open_never_meets_another_file(
    usual: Sandbox, way: Callable[[Sandbox, int], Result]
) -> None:
    made = ok(
        usual,
        "import sqlite3\nif os.path.exists('/tmp/db'): os.remove('/tmp/db')\n"
        "db = sqlite3.connect('/tmp/db'); db.execute('pragma cache_size = 2')\n"
        "db.execute('create table t(a, b)')\n"
        "db.executemany('insert into t values(?, ?)', [(n, b'x' * 3000) for n in range(200)])\n"
        "db.commit(); db.execute('insert into t values(-1, 0)'); None",
    ).execution_count
    ok(usual, "x = 1")
    assert gone(way(usual, made))
    ok(
        usual,
        "others = [open(f'/tmp/other{n}', 'w+b') for n in range(12)]\n"
        "for each in others: each.write(b'other' * 40_000); each.flush()",
    )
    for code in (
        "db.execute('select sum(length(b)) from t').fetchone()",
        "db.execute('insert into t values(1, 1)'); db.commit()",
    ):
        assert usual.run(code).error.ename in ("OperationalError", "DatabaseError"), code
    assert value(usual, "{(each.seek(0), each.read())[1] == b'other' * 40_000 for each in others}")
    fresh = "sqlite3.connect('/tmp/db').execute('select count(*), max(a) from t').fetchone()"
    assert value(usual, fresh) == "(200, 199)"


# -- magics ----------------------------------------------------------------------------------


def test_undo_several_and_redo(usual: Sandbox) -> None:
    cells = [ok(usual, f"x = {n}").execution_count for n in range(5)]
    r = ok(usual, "%undo 2")
    assert r.stdout == (
        f"Undone: cells [{cells[3]}], [{cells[4]}]. Now after cell [{cells[2]}]: x = 2\n"
    )
    assert r.stderr == ""
    assert ok(usual, "%redo").stdout == f"Now after cell [{cells[3]}]: x = 3\n"
    assert ok(usual, "%redo").stdout == f"Now after cell [{cells[4]}]: x = 4\n"
    assert "nothing to redo" in refused(usual, "%redo")
    assert value(usual, "x") == "4"


def test_redo_ends_with_something_new(usual: Sandbox) -> None:
    ok(usual, "x = 1")
    ok(usual, "x = 2")
    ok(usual, "%undo 2")
    assert "only 2 can be done again" in refused(usual, "%redo 3")


def test_redo_several(usual: Sandbox) -> None:
    for n in range(3):
        ok(usual, f"x = {n}")
    ok(usual, "%undo 3")
    ok(usual, "%redo 2")
    assert value(usual, "x") == "1"
    assert "nothing to redo" in refused(usual, "%redo")


@pytest.mark.parametrize("look", ["%checkpoints", "%diff", "%wasi"])
def test_looking_ends_no_redo(usual: Sandbox, look: str) -> None:
    """As it is no step for undo either; the table itself says what was undone."""
    ok(usual, "x = 1")
    ok(usual, "x = 2")
    ok(usual, "%undo")
    ok(usual, look)
    ok(usual, "%redo")
    assert value(usual, "x") == "2"


def test_looking_is_no_step(usual: Sandbox) -> None:
    ok(usual, "x = 1")
    ok(usual, "x = 2")
    for look in ("%checkpoints", "%diff", "%checkpoint a name", "%wasi"):
        ok(usual, look)
    ok(usual, "%undo")
    assert value(usual, "x") == "1"


def test_more_than_there_is() -> None:
    with Sandbox() as box:
        assert refused(box, "%undo") == "there is no cell to undo"
        box.restart()
        ok(box, "x = 1")
        ok(box, "x = 2")
        assert refused(box, "%undo 3") == "only the last 2 can be undone"
        assert value(box, "x") == "2"


MISUSE = (
    "%undo x", "%undo 0", "%undo -1", "%undo 1 2", "%undo 1.5", "%undo ²", "%undo --on",
    "%undo --on-error maybe", "%undo --on-error on off", "%redo x", "%redo 0", "%restore",
    "%restore no such", "%restore 99999", "%restore -1", "%checkpoint", "%checkpoint --delete",
    "%checkpoint --delete no such", "%checkpoint 12", "%checkpoint [3]", "%checkpoint -x",
    "%checkpoint " + "n" * 101, "%checkpoint a\tb", "%checkpoints x", "%diff no such",
    "%diff 99999",
)  # fmt: skip


def test_misuse_is_one_line(usual: Sandbox) -> None:
    ok(usual, "x = 1")
    for code in MISUSE:
        assert refused(usual, code), code
        assert value(usual, "x") == "1", code
    assert {name for row in usual.checkpoints() for name in row["names"]} == {"clean"}


def test_names(usual: Sandbox) -> None:
    ok(usual, "x = 1\n%checkpoint so far, so good")
    assert "so far, so good" in refused(usual, "%restore no such")
    cell = ok(usual, "x = 2").execution_count
    ok(usual, "%checkpoint \N{SNOWMAN}")
    ok(usual, "x = 3")
    ok(usual, "%restore so far, so good")
    assert value(usual, "x") == "1"
    ok(usual, "%restore \N{SNOWMAN}")
    assert value(usual, "x") == "2"
    ok(usual, f"%restore [{cell}]")
    assert value(usual, "x") == "2"
    ok(usual, "x = 4\n%checkpoint \N{SNOWMAN}")
    ok(usual, "x = 5")
    ok(usual, "%restore \N{SNOWMAN}")
    assert value(usual, "x") == "4"
    ok(usual, "%checkpoint --delete \N{SNOWMAN}")
    refused(usual, "%restore \N{SNOWMAN}")


def test_a_name_outlives_the_branch_and_the_worker(usual: Sandbox) -> None:
    ok(usual, "x = 'on a branch'\n%checkpoint branch")
    ok(usual, "%undo")
    ok(usual, "x = 'another'")
    usual.run("os._exit(1)")
    rows = {row["names"][0]: row["where"] for row in usual.checkpoints() if row["names"]}
    assert rows["branch"] == "aside"
    ok(usual, "%restore branch")
    assert value(usual, "x") == "'on a branch'"


def test_two_names_for_one_state(usual: Sandbox) -> None:
    r = ok(usual, "x = 1\n%checkpoint one\n%checkpoint two")
    assert "'one'" in r.stdout
    assert "'two'" in r.stdout
    ok(usual, "x = 2")
    for name in ("one", "two"):
        ok(usual, f"%restore {name}")
        assert value(usual, "x") == "1"


def test_at_most_twenty_names(usual: Sandbox) -> None:
    ok(usual, "x = 1")
    taken = sum(bool(row["names"]) for row in usual.checkpoints())
    for n in range(20 - taken):
        usual.checkpoint(f"name {n}")
    assert "there are 20 names already" in refused(usual, "%checkpoint one more")
    ok(usual, "%checkpoint name 0")  # one that is there may move


def test_checkpoints_are_a_table_and_data(usual: Sandbox) -> None:
    first = ok(usual, "\n\nx = 1\ny = 2").execution_count
    ok(usual, "%checkpoint named")
    last = ok(usual, "z = '<b>'" + "#" * 300).execution_count
    shown = ok(usual, "%checkpoints")
    assert shown.text is not None
    lines = shown.text.splitlines()
    assert re.match(r"Checkpoints, \d+\.\d [MG]iB on disk$", lines[0])
    assert lines[2].split() == ["cell", "first", "line", "when", "pages", "size"]
    (line,) = (line for line in lines if line.startswith(f"[{first}] "))
    assert re.match(r"\[\d+\] +x = 1 +\d\d:\d\d:\d\d +\d+ +\d+\.\d MiB$", line)
    assert lines[-1].endswith("here")
    assert "'named'" in shown.text
    html = shown.data["text/html"]
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    ok(usual, "c = %checkpoints")
    ok(usual, "rows = {row['cell']: row for row in c.to_dict()['checkpoints']}")
    keys = "['cell', 'line', 'kind', 'where', 'names']"
    assert value(usual, f"[rows[{first}][key] for key in {keys}]") == (
        f"[{first}, 'x = 1', 'cell', 'past', []]"
    )
    assert value(usual, f"rows[{last}]['bytes'] == 4096 * rows[{last}]['pages'] > 0") == "True"
    assert value(usual, f"0 <= time.time() - rows[{last}]['time_s'] < 60") == "True"
    assert value(usual, "c.to_dict()['bytes'] > sum(row['bytes'] for row in rows.values())")


def test_what_the_table_lists_can_be_gone_to(usual: Sandbox) -> None:
    ok(usual, "x = 1")
    ok(usual, "%diff")
    ok(usual, "%undo")
    ok(usual, "x = 2")
    text = ok(usual, "%checkpoints").text
    assert text is not None
    for cell in re.findall(r"^\[(\d+)\]", text, re.MULTILINE):
        ok(usual, f"%restore {cell}")


DIFFERENCES = {
    "an int": ("v = 1", "v = 2", "int, 1", "int, 2"),
    "a long int": ("v = 10**40", "v = 10**40 + 1", "int", "int"),
    "a float": ("v = 0.5", "v = 0.25", "float, 0.5", "float, 0.25"),
    "another type": ("v = 1", "v = True", "int, 1", "bool, True"),
    "a list": ("v = [1, 2]", "v.append(3)", "list, length 2", "list, length 3"),
    "of the same length": ("v = [1, 2]", "v[1] = 3", "list, length 2", "list, length 2"),
    "nested": ("v = {'a': [1, (2, {3})]}", "v['a'][1][1].add(4)", "dict, length 1", "dict"),
    "the order of a dict": ("v = {1: 0, 2: 0}", "v[1] = v.pop(1)", "dict", "dict"),
    "text": ("v = 'ab'", "v = 'ac'", "str, length 2", "str, length 2"),
    "the end of a long list": ("v = list(range(10_000))", "v[-1] = 0", "list", "list"),
    "an array": (
        "import numpy as np; v = np.zeros((2, 3))", "v[1, 2] = 1",
        "numpy.ndarray, float64 (2, 3), 48 bytes", "numpy.ndarray, float64 (2, 3), 48 bytes",
    ),
    "an array's shape": (
        "import numpy as np; v = np.zeros(6)", "v = v.reshape(2, 3)",
        "numpy.ndarray, float64 (6,)", "numpy.ndarray, float64 (2, 3)",
    ),
    "an array of objects": (
        "import numpy as np; v = np.array([[1], 2], dtype=object)", "v[0].append(1)",
        "numpy.ndarray, object (2,)", "numpy.ndarray, object (2,)",
    ),
    "a data frame": (
        "import pandas as pd; v = pd.DataFrame({'a': [1, 2]})", "v.loc[0, 'a'] = 3",
        "pandas.DataFrame, (2, 1)", "pandas.DataFrame, (2, 1)",
    ),
    "a data frame's columns": (
        "import pandas as pd; v = pd.DataFrame({'a': [1]})", "v.columns = ['b']",
        "pandas.DataFrame", "pandas.DataFrame",
    ),
    "a series": (
        "import pandas as pd; v = pd.Series([1, 2])", "v[1] = 5", "pandas.Series", "pandas.Series",
    ),
    "a function": ("def v(): return 1", "def v(): return 2", "function", "function"),
    "a function's default": ("def v(a=1): pass", "def v(a=2): pass", "function", "function"),
    "a function that calls another": (
        "def v(): return len(a)", "def v(): return max(a)", "function", "function",
    ),
    "a class": ("class v:\n    a = 1", "class v:\n    a = 2", "type", "type"),
    "a class's attribute": ("class v:\n    a = 1", "v.a = 2", "type", "type"),
    "a class's method": (
        "class v:\n    def f(self): return 1", "class v:\n    def f(self): return 2",
        "type", "type",
    ),
    "an own object": (
        "class Own:\n    def __init__(self): self.inner = {'a': [1]}\nv = Own()",
        "v.inner['a'].append(2)", "Own", "Own",
    ),
    "an own object with slots": (
        "class Own:\n    __slots__ = 'a'\nv = Own(); v.a = 1", "v.a = 2", "Own", "Own",
    ),
    "a data class": (
        "import dataclasses\n@dataclasses.dataclass\nclass Own:\n    a: int\nv = Own(1)",
        "v.a = 2", "Own", "Own",
    ),
    "an instance of a list's subclass": (
        "class Own(list): pass\nv = Own([1])", "v.append(2)", "Own", "Own",
    ),
    "a deque": (
        "import collections; v = collections.deque([1])", "v.append(2)",
        "collections.deque", "collections.deque",
    ),
    "a counter": (
        "import collections; v = collections.Counter('a')", "v['b'] += 1",
        "collections.Counter", "collections.Counter",
    ),
    "a date": (
        "import datetime; v = datetime.date(2024, 1, 1)", "v = datetime.date(2024, 1, 2)",
        "datetime.date", "datetime.date",
    ),
}  # fmt: skip
"""Values, changes, and the beginnings of what stands in the columns "before" and "now"."""


@pytest.fixture(scope="module")
def differing() -> Iterator[dict[str, dict[str, str]]]:
    """What %diff says of all `DIFFERENCES`, each in variables of its own."""

    def renamed(code: str, n: int) -> str:
        return re.sub(r"\bOwn\b", f"Own{n}", re.sub(r"\bv\b", f"v{n}", code))

    with Sandbox() as box:
        for n, (made, _, _, _) in enumerate(DIFFERENCES.values()):
            ok(box, renamed(made, n))
        ok(box, "gone = 'x'; same = [1, {'a': {2, 3}}, 'text', 1.5]; alike = [1]")
        cell = ok(box, "%checkpoint before").execution_count
        assert cell
        for n, (_, changed, _, _) in enumerate(DIFFERENCES.values()):
            ok(box, renamed(changed, n))
        ok(box, "del gone; new = (1, 2); alike = [1]")
        ok(box, "d = %diff before")
        box.run("found = d.to_dict()['differences']")
        found = {row["name"]: row for row in ast.literal_eval(ok(box, "found").text or "")}
        named = {name: f"v{n}" for n, name in enumerate(DIFFERENCES)}
        rows = {name: found.get(variable, {}) for name, variable in named.items()}
        rows |= {n: found.get(n, {}) for n in ("gone", "new", "same", "alike")}
        yield rows


@pytest.mark.parametrize("name", DIFFERENCES)
def test_diff_sees_a_change_in(differing: dict[str, dict[str, str]], name: str) -> None:
    _, _, before, now = DIFFERENCES[name]
    row = differing[name]
    assert row, "not seen"
    assert row["change"] == "changed"
    kind, _, rest = row["before"].partition(", ")
    assert re.sub(r"\d+$", "", kind) + (rest and ", ") + rest == row["before"] or "Own" in kind
    assert re.sub(r"^Own\d+", "Own", row["before"]).startswith(before)
    assert re.sub(r"^Own\d+", "Own", row["now"]).startswith(now)


def test_diff_of_what_is_new_gone_or_the_same(differing: dict[str, dict[str, str]]) -> None:
    assert differing["gone"]["change"] == "removed"
    assert differing["gone"]["before"].startswith("str, length 1")
    assert differing["gone"]["now"] == ""
    assert differing["new"]["change"] == "added"
    assert differing["new"]["before"] == ""
    assert differing["new"]["now"].startswith("tuple, length 2")
    assert differing["same"] == {}
    assert differing["alike"] == {}


def test_diff_with_a_cell_a_name_or_nothing(usual: Sandbox) -> None:
    first = ok(usual, "x = 1").execution_count
    usual.checkpoint("before")
    ok(usual, "x = 2")
    for wanted in (str(first), f"[{first}]", "before"):
        text = ok(usual, f"%diff {wanted}").text or ""
        assert re.search(r"changed +x +int, 1 +int, 2", text)
        assert text.startswith(f"Differences, after cell [{first}]: x = 1")
    assert re.search(r"added +y +int, 5$", ok(usual, "y = 5\n%diff").text or "")
    assert "no variable differs" in (ok(usual, "%diff").text or "")
    assert "<table" in ok(usual, "%diff before").data["text/html"]
    assert value(usual, "x, y") == "(2, 5)"  # looking there has not gone there


def test_diff_runs_no_code_of_the_values(usual: Sandbox) -> None:
    ok(
        usual,
        "log = []\nclass Own:\n"
        "    def __repr__(self): log.append('repr'); raise SystemExit\n"
        "    def __len__(self): log.append('len'); return 1 / 0\n"
        "    def __eq__(self, other): log.append('eq'); return True\n"
        "    def __hash__(self): log.append('hash'); return 1\n"
        "    def __sizeof__(self): log.append('sizeof'); raise KeyboardInterrupt\n"
        "    def __reduce__(self): log.append('reduce'); raise SystemExit\n"
        "    def __getattr__(self, name): log.append(name); raise SystemExit\n"
        "own = Own(); owns = [own]",
    )
    cell = ok(usual, "x = 1").execution_count
    ok(usual, "log.clear()")
    ok(usual, f"%diff {cell}")
    assert value(usual, "log") == "[]"


FOLLOWED = {
    "by a line": "print('shown')\n%undo\nprint('not run')",
    "by another undo": "print('shown')\n%undo\n%undo",
    "by the next round": "for n in range(3):\n    print('shown')\n    %undo",
    "by except and finally": "try:\n    print('shown')\n    %undo\n"
    "except BaseException:\n    print('not run')\nfinally:\n    print('not run')",
    "after with": "import contextlib\nwith contextlib.suppress(BaseException):\n"
    "    print('shown')\n    %undo\nprint('not run')",
    "after await": "import asyncio\nawait asyncio.sleep(0)\nprint('shown')\n%undo\n"
    "print('not run')",
    "in a coroutine": "async def back():\n    print('shown')\n"
    "    get_ipython().run_line_magic('undo', '')\nawait back()\nprint('not run')",
    "in a function": "def back():\n    print('shown', end='')\n"
    "    get_ipython().run_line_magic('undo', '')\nback()\nprint('not run')",
    "in a finalizer": "class Back:\n    def __del__(self):\n        print('shown')\n"
    "        get_ipython().run_line_magic('undo', '')\nb = Back(); del b\nprint('not run')",
}
"""Cells in which something follows the undo, and is not run."""

LAST = {
    "at the end": "print('shown')\n%undo",
    "before empty lines": "print('shown')\n%undo\n\n",
    "before a comment": "print('shown')\n%undo\n# only a comment",
    "in the last block": "if True:\n    print('shown')\n    %undo",
}
"""Cells in which nothing follows it."""


@pytest.mark.parametrize("name", [*FOLLOWED, *LAST])
def test_a_cell_ends_at_its_undo(usual: Sandbox, name: str) -> None:
    code, said = {**FOLLOWED, **LAST}[name], name in FOLLOWED
    ok(usual, "x = 'before'")
    cell = ok(usual, "x = 'after'").execution_count
    r = ok(usual, code)
    assert re.match(rf"shown\n?Undone: cell \[{cell}\]\. Now after cell \[\d+\]: x = ", r.stdout)
    assert "not run" not in r.stdout
    assert r.stderr.count(NOT_RUN) == said
    assert r.stderr.count("\n") == said
    assert value(usual, "x") == "'before'"


def test_a_magic_without_its_sign(usual: Sandbox) -> None:
    ok(usual, "x = 1")
    ok(usual, "x = 2")
    assert ok(usual, "undo").stderr == ""
    assert value(usual, "x") == "1"


def test_what_was_shown_before_an_undo_is_kept(usual: Sandbox) -> None:
    ok(usual, "x = 1")
    r = ok(usual, "display('shown'); print('err', file=sys.stderr)\n%undo")
    assert [o.get("name", o["type"]) for o in r.outputs] == ["display_data", "stderr", "stdout"]


def test_failing_cells_that_leave_no_trace(usual: Sandbox) -> None:
    ok(usual, "x = []")
    assert "leaves what it did" in ok(usual, "%undo --on-error").stdout
    usual.run("x.append('kept'); 1/0")
    assert "leaves no trace" in ok(usual, "%undo --on-error on").stdout
    r = usual.run("print('shown'); x.append('no trace')\ndef f(): return 1/0\nf()")
    assert r.error is not None
    assert (r.error.ename, r.error.lost) == ("ZeroDivisionError", False)
    assert r.stdout == "shown\n"
    assert r.stderr.count("leaves no trace") == 1
    assert len(r.error.traceback) > 1
    assert value(usual, "x") == "['kept']"
    assert usual.run("def f(:").error.ename == "SyntaxError"
    refused_there = usual.run("x.append('no trace')\n%undo 99999")
    assert refused_there.error.ename == "UsageError"
    timer = threading.Timer(0.3, usual.interrupt)
    timer.start()
    assert usual.run("x.append('no trace')\nwhile True: pass").error.ename == "KeyboardInterrupt"
    timer.join()
    assert value(usual, "x") == "['kept']"
    assert "leaves no trace" in ok(usual, "%undo --on-error").stdout
    assert "leaves what it did" in ok(usual, "%undo --on-error off").stdout
    usual.run("x.append('again'); 1/0")
    assert value(usual, "x") == "['kept', 'again']"


def test_the_flag_is_part_of_the_state(usual: Sandbox) -> None:
    ok(usual, "x = []")
    ok(usual, "%undo --on-error on")
    ok(usual, "%undo")
    assert "leaves what it did" in ok(usual, "%undo --on-error").stdout
    ok(usual, "%undo --on-error on")
    usual.run("os._exit(1)")
    usual.run("x.append(1); 1/0")
    assert value(usual, "x") == "[]"


def test_the_same_from_outside(usual: Sandbox) -> None:
    ok(usual, "x = 1")
    cell = ok(usual, "x = 2").execution_count
    ok(usual, "x = 3")
    usual.checkpoint("three")
    usual.undo(2)
    assert value(usual, "x") == "1"
    usual.undo()
    usual.redo()
    assert value(usual, "x") == "1"
    usual.restore("three")
    assert value(usual, "x") == "3"
    usual.restore(cell)
    assert value(usual, "x") == "2"
    with pytest.raises(UnknownCheckpointError, match="no checkpoint 'no such'"):
        usual.restore("no such")
    with pytest.raises(UnknownCheckpointError, match="only the last"):
        usual.undo(99999)
    with pytest.raises(UnknownCheckpointError, match="nothing to redo"):
        usual.redo()
    with pytest.raises(UnknownCheckpointError, match="is no name"):
        usual.checkpoint("-x")
    with pytest.raises(UnknownCheckpointError):
        usual.undo(0)
    assert value(usual, "x") == "2"


# -- deaths ----------------------------------------------------------------------------------

BEFORE = (
    "kept = [1]; it = iter(range(9)); next(it); held = open('/tmp/held', 'w')\n"
    "if os.path.exists('/tmp/ran'): os.remove('/tmp/ran')"
)
"""Sentinels; a cell that is to die notes in /tmp/ran that it has run."""

DYING = "kept.append('from the dead'); next(it); open('/tmp/ran', 'a').write('x')\n"
STILL = "kept, next(it), held.closed, open('/tmp/ran').read()"
AS_BEFORE = "([1], 1, True, 'x')"


def assert_lost_one_cell(box: Sandbox, r: Result, ename: str) -> None:
    assert r.error is not None
    assert r.error.lost
    assert r.error.ename == ename
    said = r.error.evalue
    assert said.startswith(LOSSES[ename])
    assert "Variables are as they were before this cell" in said
    assert "files that it wrote stay" in said
    assert HELD in gone(r)
    assert value(box, STILL) == AS_BEFORE


DEATHS = {
    "os._exit": ("os._exit(3)", "GuestExited"),
    "os._exit(0)": ("os._exit(0)", "GuestExited"),
    "os.abort": ("os.abort()", "GuestAborted"),
    "freeing nested lists": (
        "t = []\nfor _ in range(100_000): t = [t]\ndel t", "StackExhausted",
    ),
    "endless recursion": (
        "sys.setrecursionlimit(10**8)\ndef f(): f()\nf()", "StackExhausted",
    ),
    "bad bytecode": (
        "f = lambda: 0\nf.__code__ = f.__code__.replace(co_code=bytes([250, 0] * 10))\nf()",
        "GuestTrapped",
    ),
    "a fatal error": ("import faulthandler; faulthandler._sigsegv()", "GuestAborted"),
}  # fmt: skip


@pytest.mark.parametrize("name", DEATHS)
def test_a_death_takes_nothing_but_its_cell(usual: Sandbox, name: str) -> None:
    code, ename = DEATHS[name]
    ok(usual, BEFORE)
    assert_lost_one_cell(usual, usual.run(DYING + code), ename)


def test_a_stop_from_outside(usual: Sandbox) -> None:
    ok(usual, BEFORE)
    r = usual.run(DYING + "sum(range(10**13))", deadline_s=0.3)
    assert r.error is not None
    assert r.error.ename in ("DeadlineExceeded", "KeyboardInterrupt")
    assert_lost_one_cell(usual, r, r.error.ename)


SIGNALS = {
    signal.SIGKILL: "WorkerKilled", signal.SIGSEGV: "WorkerFailed", signal.SIGABRT: "WorkerFailed",
    signal.SIGTERM: "WorkerFailed",
}  # fmt: skip


@pytest.mark.parametrize("number", SIGNALS)
def test_the_worker_is_killed_while_a_cell_runs(usual: Sandbox, number: signal.Signals) -> None:
    ok(usual, BEFORE)
    r = usual.run(DYING + "input()", input=lambda _prompt, _hidden: kill(usual, number) or "")
    assert_lost_one_cell(usual, r, SIGNALS[number])


@pytest.mark.parametrize("number", SIGNALS)
def test_the_worker_is_killed_at_rest(usual: Sandbox, number: signal.Signals) -> None:
    ok(usual, BEFORE + "\nopen('/tmp/ran', 'w').write('x')")
    written(usual)
    pid = usual._session.worker_pid
    kill(usual, number)
    with contextlib.suppress(ChildProcessError):  # an abort prints what it was at, and serves on
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    said = explained(usual.run("'next'"))
    assert LOSSES[SIGNALS[number]] in said
    assert "Variables are as they were before" in said
    assert HELD in said
    assert "LOST" not in said
    assert value(usual, STILL) == AS_BEFORE
    assert explained(ok(usual, "1")) == ""  # it is told once


def test_the_worker_is_killed_while_a_checkpoint_is_written(usual: Sandbox) -> None:
    """The cell has been answered: what it did is there, or said to be lost."""
    lost = 0
    for _ in range(3):
        usual.restore("clean")
        before = ok(usual, "n = 0").execution_count
        written(usual)
        cell = ok(usual, "n = 1; junk = os.urandom(60 << 20)").execution_count
        kill(usual)
        said = explained(usual.run("'next'"))
        if "LOST" in said:
            lost += 1
            assert f"as they were after cell [{before}]" in said
            assert f"LOST as well: what [{cell}] did" in said
            assert value(usual, "n") == "0"
        else:
            assert value(usual, "n") == "1"
    assert lost


def test_the_worker_is_killed_while_another_takes_its_place(usual: Sandbox) -> None:
    """It is not the state's fault: the next worker takes up the same one."""
    for delay_s in (0.0, 0.02, 0.04, 0.06, 0.08):
        ok(usual, "n = 1")
        ok(usual, "n = 2")
        written(usual)
        first = usual._session.worker_pid
        kill(usual)
        while usual._session.worker_pid == first:  # until the host has noticed
            threading.Event().wait(0.001)
        kill_soon(usual, delay_s).join()
        said = explained(usual.run("'next'"))
        assert "damaged" not in said
        assert value(usual, "n") == "2", (delay_s, said)


def test_a_failed_allocation_at_the_limit_is_rolled_back(usual: Sandbox) -> None:
    ok(usual, BEFORE)
    r = usual.run(DYING + "hoard = [bytearray(10**6) for _ in range(1000)]")
    assert r.error is not None
    assert (r.error.ename, r.error.lost) == ("MemoryError", False)
    (line,) = (line for line in r.stderr.splitlines() if "memory limit was reached" in line)
    assert "variables are as they were before this cell" in line
    assert "limits.memory_bytes" in line
    assert gone(r) == [HELD]
    assert value(usual, STILL) == AS_BEFORE
    ok(usual, "fits = bytearray(50 << 20)")


def test_a_guest_that_dies_of_a_lack_of_memory(usual: Sandbox) -> None:
    ok(usual, BEFORE)
    r = usual.run(DYING + "hoard = []\nwhile True: hoard.append([])")
    assert r.error is not None
    assert r.error.ename == "MemoryError"
    assert value(usual, STILL) == AS_BEFORE


def test_a_death_with_the_memory_full(usual: Sandbox) -> None:
    """What fills it was caught, and stays."""
    ok(usual, "hoard = []\ntry:\n    while True: hoard.append(bytearray(10**6))\n"
       "except MemoryError: pass")  # fmt: skip
    ok(usual, BEFORE)
    died = usual.run(DYING + "os.abort()")
    assert_lost_one_cell(usual, died, "MemoryError")
    assert value(usual, "len(hoard) > 50") == "True"


def test_one_death_after_another(usual: Sandbox) -> None:
    ok(usual, BEFORE)
    for n in range(6):
        r = usual.run("kept.append('dead'); os._exit(1)")
        assert "Variables are as they were before this cell" in explained(r)
        if n % 2:
            ok(usual, f"kept.append({n})")
    assert value(usual, "kept") == "[1, 1, 3, 5]"


def test_a_restart_forgets_all() -> None:
    with Sandbox() as box:
        ok(box, "kept = 1\n%checkpoint name")
        box.restart()
        assert value(box, "'kept' in globals()") == "False"
        assert [row["names"] for row in box.checkpoints() if row["names"]] == []
        assert explained(box.run("kept")) == ""
        box.run("import os; os._exit(1)")
        assert value(box, "'kept' in globals()") == "False"


def test_kills_at_random_moments() -> None:
    """What a counter says is what the successful cells and the notices of losses imply."""
    rnd = random.Random(11)  # noqa: S311 - the same in every run
    after: dict[int, int] = {}
    now, losses = 0, 0

    def take_note(r: Result) -> None:
        """Sets `now` to what the notice implies; what it does not name must be there."""
        nonlocal now, losses
        said = explained(r)
        if not said:
            return
        losses += 1
        found = STATE.search(said)
        assert found is not None, said
        known = {cell: n for cell, n in after.items() if n <= now}
        cell = int(found[2]) if found[2] else max(known)
        named = re.findall(r"\[(\d+)\]", lost[1]) if (lost := LOST.search(said)) else []
        undone = [n for n in after if n > cell]
        assert set(undone) <= set(map(int, named)), said
        for n in undone:
            del after[n]
        now = after[cell]

    with Sandbox() as box:
        after[ok(box, "counter = 0; junk = b''").execution_count] = 0
        for k in range(KILLS):
            delays = [rnd.uniform(0, rnd.choice([0.01, 0.05, 0.15]))]
            if rnd.random() < 0.3:
                delays.append(delays[0] + rnd.uniform(0, 0.12))
            timers = [kill_soon(box, delay) for delay in delays]
            good = False
            while not good or any(timer.is_alive() for timer in timers) or rnd.random() < 0.4:
                size = rnd.choice([1, 1, 1 << 16, 1 << 20, 6 << 20])
                work = rnd.choice([1, 1, 10**5, 5 * 10**5])
                r = box.run(
                    f"counter += 1; junk = bytes([{k % 256}]) * {size}; sum(range({work})); counter"
                )
                take_note(r)
                good = r.ok and not any(timer.is_alive() for timer in timers)
                if r.ok:
                    now += 1
                    after[r.execution_count] = now
                    assert r.text == str(now)
                else:
                    assert r.error is not None
                    assert r.error.lost, r.error
            for timer in timers:
                timer.join()
        r = box.run("counter")
        take_note(r)
        assert value(box, "counter") == str(now)
    assert losses >= KILLS / 2


# -- damage ----------------------------------------------------------------------------------


def flip(path: Path, at: int) -> None:
    """Changes one byte of a file."""
    with path.open("r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 1]))


def damage(folder: Path, where: str) -> None:
    """Damages what was written last; the worker must be stopped."""
    log = PageLog(folder, Base.load(folder).digest, read_only=True)
    newest = log[log.head]
    data = log.fileno(newest.runs[0].place)[1]
    begin, end = data - head_bytes(len(newest.runs), newest.notes), data + PAGE * newest.written
    log.close()
    path = max(folder.glob(f"*{SUFFIX}"))
    if where in ("its first page", "its last page"):
        flip(path, data + 99 if where == "its first page" else end - 99)
    elif where == "the head of its record":
        flip(path, begin + 50)
    elif where == "it is cut short":
        os.truncate(path, end - 3 * PAGE)
    else:
        assert where == "it is cut off"
        os.truncate(path, begin)


@pytest.mark.parametrize(
    "where",
    ["its first page", "its last page", "the head of its record", "it is cut short",
     "it is cut off"],
)  # fmt: skip
def test_a_damaged_checkpoint(where: str) -> None:
    """The one before is gone on with, and that is said; undo works from there."""
    with Sandbox() as box:
        ok(box, "kept = [1]")
        cell = ok(box, "kept.append(2)").execution_count
        last = ok(box, "kept.append(3)").execution_count
        written(box)
        kill(box, signal.SIGSTOP)
        damage(folder_of(box), where)
        kill(box)
        said = explained(box.run("'next'"))
        assert f"Variables are as they were after cell [{cell}]" in said
        assert "damaged" in said or f"[{last}]" in said
        assert value(box, "kept") == "[1, 2]"
        ok(box, "kept.append(4)")
        box.run("import os; os._exit(1)")
        assert value(box, "kept") == "[1, 2, 4]"
        ok(box, f"%restore {cell}")
        ok(box, "%undo")
        assert value(box, "kept") == "[1]"


def test_a_damaged_checkpoint_is_not_gone_to() -> None:
    """Asked for by name, it is refused; nothing else comes instead, and nothing is lost."""
    with Sandbox() as box:
        ok(box, "big = bytes([7]) * (4 << 20)\n%checkpoint big")
        ok(box, "%undo")
        ok(box, "here = 2")
        written(box)
        kill(box, signal.SIGSTOP)
        folder = folder_of(box)
        log = PageLog(folder, Base.load(folder).digest, read_only=True)
        named = log[log.names["big"]]
        longest = max(named.runs, key=lambda run: run.count)
        at = log.fileno(longest.place)[1] + PAGE * (longest.count // 2)
        log.close()
        flip(min(folder.glob(f"*{SUFFIX}")), at)
        kill(box)
        assert "Variables are as they were" in explained(box.run("'next'"))
        assert value(box, "here") == "2"
        r = box.run("%restore big")
        assert "damaged" in r.stderr + (r.error.evalue if r.error else "")
        assert value(box, "here") == "2"


@pytest.mark.parametrize("how", ["files", "folder", "emptied"])
def test_deleted_checkpoints(how: str) -> None:
    with Sandbox() as box:
        ok(box, "kept = [1]")
        ok(box, "kept.append(2)")
        written(box)
        kill(box, signal.SIGSTOP)
        for path in folder_of(box).glob(f"*{SUFFIX}"):
            os.truncate(path, 0) if how == "emptied" else path.unlink()
        if how == "folder":
            shutil.rmtree(folder_of(box))
        kill(box)
        assert "All variables are lost" in explained(box.run("'next'"))
        assert value(box, "'kept' in globals()") == "False"
        ok(box, "kept = [5]")
        r = box.run("import os; os._exit(1)")
        if how == "folder":
            assert "All variables are lost" in explained(r)
        else:
            assert "Variables are as they were before this cell" in explained(r)
            assert value(box, "kept") == "[5]"


# -- poison ----------------------------------------------------------------------------------

POISON = {
    "no modules": "import sys; sys.modules.clear()",
    "no builtins": "import builtins; builtins.__dict__.clear()",
    "no __builtins__": "del __builtins__",
    "no turn": "import wasi_agent.agent as a; a.turn = None",
    "no agent": "import wasi_agent.agent as a; a._agent.clear()",
    "no json": "import json; json.loads = None; json.decoder.JSONDecoder = None",
    "no run_cell": "get_ipython().run_cell = None",
    "no streams": "import sys; sys.stdout = sys.stderr = None",
    "no fds": "import os\nfor fd in range(40):\n    try: os.close(fd)\n    except OSError: pass",
    "no get_objects": "import gc; gc.get_objects = None; f = open('/tmp/f', 'w')",
    "no return": "import wasi_agent.timetravel as t; t.close_files = None\nf = open('/tmp/f', 'w')",
    "a file that raises": "import io\nclass F(io.FileIO):\n"
    "    def fileno(self): raise SystemExit\n    def close(self): raise SystemExit\n"
    "f = F('/tmp/f', 'w')",
    "a file that ends it": "import io, os\nclass F(io.FileIO):\n"
    "    def close(self): os._exit(3)\nf = F('/tmp/f', 'w')",
    "a trace function": "import sys; sys.settrace(lambda *_: 1 / 0)",
}


@pytest.mark.parametrize("name", POISON)
def test_a_poisoned_state_is_left_again(usual: Sandbox, name: str) -> None:
    """A death takes up an older state if need be; what never dies can be undone."""
    cell = ok(usual, "kept = [1]").execution_count
    usual.run(POISON[name])
    for _ in range(2):
        usual.run("kept.append(2)")
    usual.run("import os; os._exit(1)")
    if value(usual, "1 + 1") != "2":
        usual.restore(cell)
    assert value(usual, "1 + 1") == "2"
    assert value(usual, "kept[0]") == "1"
    ok(usual, "kept.append(3)")
    usual.run("import os; os._exit(1)")
    assert value(usual, "kept[-1]") == "3"


def test_a_poison_that_is_noticed_late(usual: Sandbox) -> None:
    """However many checkpoints are of no use: those before them are."""
    cell = ok(usual, "kept = [1]").execution_count
    ok(usual, POISON["no return"])
    for _ in range(6):
        ok(usual, "kept.append(2)")
    assert f"as they were after cell [{cell}]" in explained(usual.run("os._exit(1)"))
    assert value(usual, "kept") == "[1]"


def test_a_cell_that_dies_each_time_takes_no_other_with_it(usual: Sandbox) -> None:
    """It is run once more, as one does; the state that it began in is a good one."""
    ok(usual, "kept = [1]")
    ok(usual, "kept.append(2)")
    for _ in range(4):
        assert "before this cell" in explained(usual.run(POISON["no builtins"]))
    assert value(usual, "kept") == "[1, 2]"


# -- limits, and no room ---------------------------------------------------------------------


def test_a_full_disk_stops_nothing_and_is_told() -> None:
    """What a limit on the size of the worker's files does is what a full disk does."""
    with Sandbox() as box:

        def room(size: int) -> None:
            pid, hard = box._session.worker_pid, resource.RLIM_INFINITY
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))

        ok(box, "kept = [1]")
        before = ok(box, "kept.append(2)").execution_count
        written(box)
        used = sum(path.stat().st_size for path in folder_of(box).glob(f"*{SUFFIX}"))
        room(used + 20_000)
        lost = [ok(box, f"kept.append({n})").execution_count for n in (3, 4)]
        for code in ("%undo", f"%restore {before}", "%checkpoint name", "%checkpoints"):
            assert "could not be written" in refused(box, code)
        assert value(box, "kept") == "[1, 2, 3, 4]"
        said = explained(box.run("import os; os._exit(1)"))
        assert f"Variables are as they were after cell [{before}]" in said
        named = LOST.search(said)
        assert named is not None
        assert {f"[{n}]" for n in lost} <= set(named[1].split(", "))
        assert value(box, "kept") == "[1, 2]"
        written(box)
        room(0)
        ok(box, "kept.append(5)")
        both = ok(box, "kept.append(6)").execution_count
        room(resource.RLIM_INFINITY)  # there is room again: all that changed is kept
        ok(box, "kept.append(7)")
        ok(box, "%undo")
        assert value(box, "kept") == "[1, 2, 5, 6]"
        assert both
        box.run("os._exit(1)")
        assert value(box, "kept") == "[1, 2, 5, 6]"


def test_no_trace_is_not_promised_where_it_cannot_be_kept() -> None:
    with Sandbox() as box:
        ok(box, "x = 1")
        ok(box, "%undo --on-error on")
        written(box)
        limit = (0, resource.RLIM_INFINITY)
        resource.prlimit(box._session.worker_pid, resource.RLIMIT_FSIZE, limit)
        ok(box, "y = 1")
        r = box.run("x = 2; 1/0")
        assert ("leaves no trace" in r.stderr) == (value(box, "x") == "1")


def test_without_checkpoints_a_death_loses_all() -> None:
    with Sandbox(Policy(checkpoints=CheckpointLimits(enabled=False))) as box:
        ok(box, "x = 1")
        for code in ("%undo", "%redo", "%restore 1", "%checkpoint a", "%checkpoints", "%diff"):
            assert refused(box, code) == (
                "checkpoints are switched off (checkpoints.enabled in the policy)"
            )
        with pytest.raises(UnknownCheckpointError, match="switched off"):
            box.undo()
        said = explained(box.run("import os; os._exit(1)"))
        assert said.startswith(LOSSES["GuestExited"])
        assert "All variables are lost" in said
        assert value(box, "'x' in globals()") == "False"
        box.run("%undo --on-error on")
        r = box.run("x = 2; 1/0")
        assert ("leaves no trace" in r.stderr) == (value(box, "'x' in globals()") == "False")


def test_old_checkpoints_are_dropped() -> None:
    limit = 64 * MIB
    policy = Policy(checkpoints=CheckpointLimits(cells=5, bytes=limit))
    with Sandbox(policy) as box:
        ok(box, "n = 0")
        most = 0
        for _ in range(119):
            ok(box, "n += 1")
            used = sum(path.stat().st_size for path in folder_of(box).iterdir())
            most = max(most, used)
        written(box)
        assert most < limit
        said = refused(box, "%undo 119")
        reach = int(re.fullmatch(r"only the last (\d+) can be undone", said)[1])
        assert 5 <= reach < 119
        assert "no checkpoint '1'" in refused(box, "%restore 1")
        ok(box, "%undo 5")  # the refused ones are two of them
        assert value(box, "n") == "116"
        box.run("import os; os._exit(1)")
        assert value(box, "n") == "116"


def test_a_named_state_outlives_all_that_is_dropped() -> None:
    policy = Policy(checkpoints=CheckpointLimits(cells=1, bytes=16 * MIB))
    with Sandbox(policy) as box:
        ok(box, "n = 'named'; data = bytes([7]) * (1 << 20)\n%checkpoint name")
        most = 0
        for k in range(25):
            ok(box, f"n = {k}; data = bytes([{k}]) * (1 << 20)")
            most = max(most, sum(path.stat().st_size for path in folder_of(box).iterdir()))
        assert most < 48 * MIB  # two whole states, and another while they are written anew
        ok(box, "%restore name")
        assert value(box, "n, set(data)") == "('named', {7})"


# -- what is left ----------------------------------------------------------------------------


def test_nothing_is_left() -> None:
    with Sandbox() as box:
        folder = folder_of(box)
        written(box)
        assert list(folder.glob(f"*{SUFFIX}"))
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o077 for path in folder.glob(f"*{SUFFIX}")} == {0}
        ok(box, "open('/tmp/a', 'w').write('a')")
        for code in ("%undo", "import os; os._exit(1)"):
            box.run(code)
    assert not folder.exists()


def test_checkpoints_are_out_of_the_guests_reach(usual: Sandbox) -> None:
    folder = str(folder_of(usual))
    assert value(usual, f"os.path.exists({folder!r})") == "False"
