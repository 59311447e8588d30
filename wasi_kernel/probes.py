"""Probes: what a sandbox can do here, found out by doing it.

For `runtime info`, `runtime add` and `doctor`. Nothing is taken from what a build says of itself:
a variable is undone, a loop is interrupted, a prompt is answered.

Never imports wasmtime or anything of Jupyter.
"""

from __future__ import annotations

import ast
import json
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from wasi_kernel.errors import InstallationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasi_kernel.policy import Policy
    from wasi_kernel.sandbox import Sandbox

INTERRUPT_AFTER_S = (0.2, 1.0, 3.0)
"""How long after a loop was asked for it is interrupted; each is tried, for loaded machines."""

PATIENCE_S = 300.0
"""How long a step of a build's start, or its first cell, may take, unless it reports progress. The
slowest such step of CPython 3.13, to compile the agent's files, took 13 s on a busy machine."""

LOOP_S = 20.0
"""When a loop that no interrupt ends ends by itself."""

NO_ANSWER = "it starts, but does not answer as Python does"

_SAID = "__import__('json').dumps(get_ipython().run_line_magic('wasi', '').to_dict())"

_MODULES = """
import importlib.util as _util, json as _json, sys as _sys
def _there(name):
    try:
        __import__(name)
    except Exception:  # whatever a build's module raises, it cannot be used
        return False
    return True
_ = _json.dumps({
    "builtin": sorted(_sys.builtin_module_names),
    "lacks": sorted(n for n in _ASKED if not _there(n)),
})
del _util, _json, _sys, _there
_
"""

ASKED = (
    "bz2",
    "ctypes",
    "curses",
    "dbm.gnu",
    "decimal",
    "hashlib",
    "lzma",
    "mmap",
    "multiprocessing",
    "readline",
    "socket",
    "sqlite3",
    "ssl",
    "tkinter",
    "unicodedata",
    "xml.parsers.expat",
    "zlib",
    "zoneinfo",
)
"""Modules of the standard library that stand on libraries or on the system: some builds lack them.
"""


@dataclass(frozen=True)
class Abilities:
    """What was seen of one runtime.

    Attributes:
        python: Its version, "3.12.0".
        runtime: What it calls itself.
        images: Does it start from an image?
        undo: Was a variable as before after an undo?
        undo_problem: Why not; "" if it was.
        interrupts: Did an interrupt end a loop, with all variables kept?
        input: Did `input()` get its answer?
        builtin: Names of the modules that are compiled in.
        lacks: Which of `ASKED` cannot be imported.
        first_result_s: Seconds from the start of a sandbox to the result of its first cell.
    """

    python: str
    runtime: str
    images: bool
    undo: bool
    undo_problem: str
    interrupts: bool
    input: bool
    builtin: tuple[str, ...]
    lacks: tuple[str, ...]
    first_result_s: float | None = None

    @property
    def kind(self) -> str:
        """What kind of build it is, by whether it can be imaged."""
        return "reactor" if self.images else "command"


def said(box: Sandbox) -> dict[str, Any]:
    """What `%wasi` says in a sandbox; empty if it says nothing."""
    text = box.run(_SAID).text
    return {} if text is None else _loaded(text)


def _loaded(text: str) -> dict[str, Any]:
    """A JSON object that stands in a cell's result as the repr of a string."""
    try:
        found = json.loads(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def abilities(box: Sandbox) -> Abilities:
    """What a sandbox can do; uses it up: nobody's variables should be in it."""
    about = said(box)
    modules = _loaded(box.run(_MODULES.replace("_ASKED", repr(ASKED))).text or "")
    undo = undoes(box)
    problem = about.get("checkpoints", {}).get("problem", "") if isinstance(about, dict) else ""
    return Abilities(
        python=box.python,
        runtime=str(about.get("runtime", "")),
        images=bool(about.get("images")),
        undo=undo,
        undo_problem="" if undo else str(problem or "a variable was not as before"),
        interrupts=interrupts(box),
        input=_answers(box),
        builtin=tuple(map(str, modules.get("builtin", ()))),
        lacks=tuple(map(str, modules.get("lacks", ()))),
    )


def undoes(box: Sandbox) -> bool:
    """Is a variable as before after an undo?"""
    box.run("_probe = 1")
    box.run("_probe = 2")
    undone = box.run("%undo")
    return undone.ok and box.run("_probe").text == "1"


def interrupts(box: Sandbox) -> bool:
    """Does an interrupt end a loop of Python code, and leave the guest as it is?"""
    loop = (
        "import time as _time\n"
        f"_end = _time.monotonic() + {LOOP_S}\n"
        "while _time.monotonic() < _end: pass"
    )
    for after_s in INTERRUPT_AFTER_S:
        timer = threading.Timer(after_s, box.interrupt)
        timer.start()
        ended = box.run(loop)
        timer.cancel()
        if ended.error is None or ended.error.ename != "KeyboardInterrupt":
            continue
        if not ended.error.lost:
            return True
    return False


def _answers(box: Sandbox) -> bool:
    return box.run("input('? ')", input=lambda prompt, _hidden: prompt + "yes").text == "'? yes'"


def answers(box: Sandbox, patience_s: float = PATIENCE_S) -> bool:
    """Does it calculate as Python does, and in time?"""
    return box.run("6 * 7", deadline_s=patience_s).text == "42"


def examine(
    policy: Policy, on_status: Callable[[str], None], patience_s: float = PATIENCE_S
) -> Abilities:
    """What a sandbox with this policy can do, and how soon it gives its first result.

    Args:
        policy: Whose runtime is examined.
        on_status: Told what is being prepared, the first time; this is not part of the figure.
        patience_s: How long one step of its start, or its first cell, may take.

    Raises:
        InstallationError: The sandbox cannot start; says why.
    """
    from wasi_kernel.sandbox import Sandbox  # the command line's other commands need none

    waited = False

    def told(what: str) -> None:
        nonlocal waited
        waited = True
        on_status(what)

    for _ in range(2):
        waited, begun = False, time.monotonic()
        with Sandbox(policy, on_status=told, _patience_s=patience_s) as box:
            if not answers(box, patience_s):
                raise InstallationError(NO_ANSWER)
            took_s = time.monotonic() - begun
            if not waited:
                return replace(abilities(box), first_result_s=took_s)
    raise InstallationError("what was prepared is gone already; is the cache's disk full?")
