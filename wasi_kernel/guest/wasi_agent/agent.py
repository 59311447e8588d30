"""The agent: answers the kernel's requests, one turn each, with IPython.

Importing this module makes the door's tray and, at the first boot_request, the shell. A reactor
calls `turn` once per request; a command build runs `serve`, which blocks reading the door.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import contextvars
import gc
import importlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from wasi_agent.door import FD, Door
from wasi_agent.streams import Input, Inputs, Output

if TYPE_CHECKING:
    from types import FrameType

    from comm.base_comm import CommManager

    from wasi_agent.frames import Frame
    from wasi_agent.inside import WasiMagics
    from wasi_agent.shell import ZMQInteractiveShell
    from wasi_agent.timetravel import TimeMagics

LOOP_MODULES = ("asyncio.base_events", "asyncio.events", "wasi_agent.aio")
WARM_CELLS = ("None", "await __import__('asyncio').sleep(0)")

REHEARSED = ("1", "import os; print(os.name)")
REHEARSED_WITH_PANDAS = ("__import__('pandas').DataFrame({'number': [1, 2], 'text': ['a', 'b']})",)
"""Cells that run before the image is made: CPython specializes the code that every cell comes
through, and what libraries make at their first use is there (a first cell takes 6 ms instead of 10,
a first DataFrame 10 instead of 60)."""
REHEARSALS = 3

WARM_COMPLETIONS = ("import os; os.pa", "{}.ke", "%ma", "import js", "pri")


class KernelFace:
    """What libraries look for at `get_ipython().kernel`."""

    def __init__(self, shell: ZMQInteractiveShell, manager: CommManager) -> None:
        self.shell, self.comm_manager = shell, manager
        self.parent: dict[str, Any] = {}

    def get_parent(self, channel: str | None = None) -> dict[str, Any]:
        """The message that is being answered (its header: msg_id, msg_type, session)."""
        del channel
        return self.parent

    @property
    def _parent_header(self) -> dict[str, Any]:
        return self.parent

    def do_complete(self, code: str, cursor_pos: int | None) -> dict[str, Any]:
        """complete_reply's content, as ipykernel's method of that name gives it."""
        from wasi_agent import lookups

        position = len(code) if cursor_pos is None else cursor_pos
        return lookups.complete(self.shell, {"code": code, "cursor_pos": position})

    def do_inspect(
        self, code: str, cursor_pos: int, detail_level: int = 0, omit_sections: Any = ()
    ) -> dict[str, Any]:
        """inspect_reply's content, as ipykernel's method of that name gives it."""
        from wasi_agent import lookups

        content = {
            "code": code, "cursor_pos": cursor_pos, "detail_level": detail_level,
            "omit_sections": omit_sections,
        }  # fmt: skip
        return lookups.inspect(self.shell, content)


class Agent:
    """One guest's agent, with its shell: made by the first boot_request."""

    def __init__(self, door: Door) -> None:
        from wasi_agent import aio, comms, inside, magics, plots, timetravel
        from wasi_agent.shell import make_shell

        self.door = door
        self.env: dict[str, str] = {}  # what the policy gave
        self.loop = aio.install()
        self.inputs = Inputs(door)
        self.streams = Output(door, "stdout"), Output(door, "stderr")
        sys.stdout, sys.stderr = self.streams
        sys.stdin = Input(self.inputs.input)
        self.shell = make_shell(door)
        self.comms = comms.install(door)
        self.shell.kernel = KernelFace(self.shell, self.comms)
        self.magics: WasiMagics = inside.install(self.shell)
        magics.install(self.shell, lambda: self.magics.facts)
        self.time_magics: TimeMagics = timetravel.install(self.shell)
        plots.install(lambda: self.magics.facts)
        import getpass

        self.busy = self.early = False
        self.reading = True  # from the end of one answer to the start of the next
        self.ran = ""
        self._task: asyncio.Task[Any] | None = None
        self._context = contextvars.copy_context()
        builtins.input = self.inputs.input
        getpass.getpass = self.inputs.getpass

    # -- boot --------------------------------------------------------------------------------

    def preload(self, modules: list[str]) -> None:
        """Imports what this runtime has of `modules`; binds no name."""
        for name in modules:
            try:
                importlib.import_module(name)
            except ImportError:
                continue
        if "matplotlib.pyplot" in sys.modules:
            self.shell.enable_matplotlib("inline")
        try:
            from tqdm import tqdm
        except ImportError:
            pass
        else:
            tqdm.monitor_interval = 0  # its monitor is a thread; without one it warns

    def choose_completer(self) -> None:
        """Completes without jedi where jedi cannot be imported.

        A build without its `_sysconfigdata` module has no pydoc, and no jedi; IPython then finds
        nothing at all.
        """
        try:
            importlib.import_module("jedi")
        except Exception:  # noqa: BLE001 - whatever a library with parts missing raises
            self.shell.Completer.use_jedi = False

    def warm_up(self, *, rehearse: bool) -> None:
        """Does once, for the image, what is slow the first time; leaves no trace in the session.

        With `rehearse`, what is shown meanwhile must reach nobody.
        """
        from wasi_agent import lookups, packing

        self.choose_completer()
        for code in WARM_COMPLETIONS:
            lookups.complete(self.shell, {"code": code, "cursor_pos": len(code)})
        lookups.inspect(self.shell, {"code": "print", "cursor_pos": 5, "detail_level": 0})
        self.shell.input_transformer_manager.check_complete("for x in y:")
        count = self.shell.execution_count
        for code in WARM_CELLS * REHEARSALS:
            self.run(code, store_history=False, silent=True)
        if rehearse:
            self.rehearse()
        self.shell.execution_count = count
        try:
            compile("1 +", "<warm-up>", "exec")
        except SyntaxError as e:
            self.shell.InteractiveTB.structured_traceback(type(e), e, e.__traceback__)
        try:
            # through IPython's own open(), whose large source file takes 0.5 s to read
            self.shell.user_ns["open"]("/warm-up")
        except OSError as e:
            self.shell.InteractiveTB.structured_traceback(type(e), e, e.__traceback__)
        self.shell.payloads.clear_payload()
        gc.collect()
        packing.pack()
        # What exists now lives as long as the guest: later collections need not visit it, nor
        # write to its pages, which are shared between kernels.
        gc.freeze()

    def rehearse(self) -> None:
        """Runs some cells, of which no name, result or line stays."""
        shell = self.shell
        spaces = (shell.user_ns, shell.user_ns_hidden, vars(sys))
        before = [dict(names) for names in spaces]
        codes = REHEARSED + (REHEARSED_WITH_PANDAS if "pandas" in sys.modules else ())
        for code in codes * REHEARSALS:
            self.run(code, store_history=False, silent=False)
        shell.displayhook.flush()
        shell.forget()
        for names, was in zip(spaces, before, strict=True):
            for name in set(names) - set(was):
                del names[name]
            names.update(was)

    def begin_session(self, content: dict[str, Any]) -> None:
        """Makes an imaged guest this session's own: environment, folder, randomness, facts."""
        from wasi_agent import plots

        env = content["env"]
        for name in set(os.environ) - set(env):
            del os.environ[name]
        self.learn(content)
        extend_path(env.get("PYTHONPATH", ""))
        plots.settle(content["facts"])
        os.chdir(content["facts"].get("cwd", "/work"))
        reseed()

    def learn(self, content: dict[str, Any]) -> None:
        """Takes note of what this session may use.

        Of the environment, what differs from what was given before: what cells did to it stays.
        """
        env = dict(content["env"])
        for name in set(self.env) - set(env):
            os.environ.pop(name, None)
        os.environ.update({k: v for k, v in env.items() if self.env.get(k) != v})
        self.env = env
        self.door.message_bytes = content["message_bytes"]
        self.magics.facts = content["facts"]

    # -- requests ----------------------------------------------------------------------------

    def execute(self, frame: Frame) -> None:
        """execute_request."""
        content, shell = frame.content, self.shell
        from wasi_agent import threads, timetravel

        timetravel.pad_history(shell, content["execution_count"])
        sys.stdout, sys.stderr = sys.stdout or self.streams[0], sys.stderr or self.streams[1]
        shell.execution_count = content["execution_count"]
        shell.kernel.parent = {"header": frame.metadata}
        self.inputs.allowed = bool(content.get("allow_stdin"))
        silent = bool(content.get("silent"))
        kept = bool(content.get("store_history", not silent))
        with contextlib.nullcontext() if kept else threads.run_in_place():
            result = self.run(
                content["code"], store_history=kept, silent=silent, cell_id=content.get("cell_id")
            )
        reply: dict[str, Any] = {"execution_count": content["execution_count"]}
        if self.ran != content["code"]:
            reply["ran"] = self.ran
        error = result.error_before_exec or result.error_in_exec
        if result.success and not shell.failed_display:
            reply["status"] = "ok"
            reply["user_expressions"] = shell.user_expressions(
                content.get("user_expressions") or {}
            )
        else:
            from wasi_agent.tracebacks import name_of, text_of

            shell.show_what_was_not(error)
            shown = shell.last_error if shell.last_error is not None else error
            reply |= {
                "status": "error",
                "ename": name_of(type(shown)),
                "evalue": text_of(shown),
                "traceback": shell.last_traceback,
                "user_expressions": {},
            }
            if self.time_magics.undo_errors:
                reply["undo"] = True
        reply["payload"] = shell.payloads.read_payload()
        shell.payloads.clear_payload()
        self.busy = False
        self.door.reply("execute_reply", reply | self._due())

    def _due(self) -> dict[str, float]:
        """For a reply: when something that cells have left running is due; empty if nothing is."""
        due_s = self.loop.due_s()
        return {} if due_s is None else {"due": due_s}

    def idle(self, content: dict[str, Any]) -> None:
        """idle_request: what cells have left running goes on, or is cancelled."""
        due_s, slice_s = self.loop.due_s(), content["slice_s"]
        ran = bool(content["cancel"]) or (due_s is not None and due_s <= slice_s)
        reply: dict[str, Any] = {"status": "ok", "ran": ran}
        try:
            if content["cancel"]:
                reply["cancelled"] = self.loop.cancel_all()
            if ran:
                self.loop.idle(slice_s)
        except KeyboardInterrupt:
            reply["interrupted"] = True
        except BaseException:  # noqa: BLE001 - a SystemExit of a task: the loop has passed it on
            self.shell.showtraceback()
        self.busy = False
        self.door.reply("idle_reply", reply | self._due())

    def run(
        self, code: str, *, store_history: bool, silent: bool, cell_id: str | None = None
    ) -> Any:
        """Runs a cell inside the event loop, so that it may await or make tasks."""
        self.shell.interrupted, self.shell.cell_text = False, code
        self.loop.reset()
        cell = self._cell(code, store_history, silent, cell_id)
        task = self.loop.create_task(cell, context=self._context)  # one for all cells: decimal's
        self._task = task
        try:
            return self.loop.run_until_complete(task)
        finally:
            self._task = None

    def begin_work(self) -> None:
        """From here on an interrupt is for what is being done; so is one that came just before."""
        self.busy, self.reading = True, False
        if self.early:
            self.early = False
            raise KeyboardInterrupt

    def rest(self) -> None:
        """Makes ready for the next request, whatever the last one has changed."""
        signal.signal(signal.SIGINT, self.on_sigint)
        self.busy, self.reading = False, True

    def on_sigint(self, signum: int, frame: FrameType | None) -> None:
        """SIGINT's handler: KeyboardInterrupt in the cell's code.

        While the loop itself is at work, all of the cell's tasks sleep: the cell is cancelled
        where it awaits, and an exception would only tear the loop. Between cells nothing is to be
        interrupted.
        """
        del signum
        if self.reading:
            self.early = True
            return
        if not self.busy:
            return
        if self.door.looking:
            self.door.interrupted = True  # raised as soon as the answer, which comes soon, is read
            return
        if not self.door.waiting and _inside_door(frame):
            self.door.interrupt_again()  # in a moment: its two ends must agree first
            return
        module = "" if frame is None else frame.f_globals.get("__name__", "")
        if module in LOOP_MODULES and self._task is not None:
            self.shell.interrupted = True
            self._task.cancel()
            return
        raise KeyboardInterrupt

    async def _cell(self, code: str, store_history: bool, silent: bool, cell_id: str | None) -> Any:
        shell, problem = self.shell, None
        try:
            transformed = shell.transform_cell(code)
        except Exception:  # noqa: BLE001 - shown by run_cell as the cell's error
            transformed, problem = code, sys.exc_info()
        self.ran = shell.cell_text = transformed
        options = {"store_history": store_history, "silent": silent, "cell_id": cell_id}
        if not shell.should_run_async(
            code, transformed_cell=transformed, preprocessing_exc_tuple=problem
        ):
            return shell.run_cell(code, **options)
        result = None
        try:
            result = await shell.run_cell_async(
                code, transformed_cell=transformed, preprocessing_exc_tuple=problem, **options
            )
        finally:
            shell.events.trigger("post_execute")
            if not silent:
                shell.events.trigger("post_run_cell", result)
        return result

    def answer(self, frame: Frame) -> None:
        """Answers any request but boot_request."""
        from wasi_agent import comms, lookups

        content = frame.content
        self.inputs.allowed = False  # only a cell's front end answers questions
        self.begin_work()
        if frame.type == "execute_request":
            self.execute(frame)
        elif frame.type == "complete_request":
            self.door.reply("complete_reply", lookups.complete(self.shell, content))
        elif frame.type == "inspect_request":
            self.door.reply("inspect_reply", lookups.inspect(self.shell, content))
        elif frame.type == "is_complete_request":
            self.door.reply("is_complete_reply", lookups.is_complete(self.shell, content))
        elif frame.type == "comm_info_request":
            found = comms.info(self.comms, content.get("target_name"))
            self.door.reply("comm_info_reply", {"status": "ok", "comms": found})
        elif frame.type in ("comm_open", "comm_msg", "comm_close"):
            self.shell.kernel.parent = {"header": content.pop("parent", {})}
            comms.handle(self.comms, frame)
            self.door.reply("comm_reply", {"status": "ok", **self._due()})
        elif frame.type == "idle_request":
            self.idle(content)
        else:
            raise ValueError(f"no request: {frame.type}")


def _inside_door(frame: FrameType | None) -> bool:
    """Is the door at work in this frame, or in one that called it?"""
    while frame is not None:
        if frame.f_globals.get("__name__") == "wasi_agent.door":
            return True
        frame = frame.f_back
    return False


def extend_path(pythonpath: str) -> None:
    """What CPython does with PYTHONPATH at its start: these folders come before its own."""
    folders = [folder for folder in pythonpath.split(":") if folder]
    first = 1 if sys.path[:1] == [""] else 0
    sys.path[first:first] = [folder for folder in folders if folder not in sys.path]


def reseed() -> None:
    """Gives this process randomness of its own: an image has everyone's."""
    import random

    random.seed()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    if "tempfile" in sys.modules:
        sys.modules["tempfile"].__dict__["_name_sequence"] = None
    if "uuid" in sys.modules:
        sys.modules["uuid"].__dict__["_last_timestamp"] = None


def calibrate() -> None:
    """Trips this process's own SIGINT a few times, with the door as wakeup fd.

    The host compares memory at those moments and learns where the flags are; see interrupts.py.
    """
    import _thread

    for _ in range(3):
        signal.set_wakeup_fd(FD, warn_on_full_buffer=False)
        try:
            _thread.interrupt_main()
            for _ in range(100):
                pass
        except KeyboardInterrupt:
            pass
        finally:
            signal.set_wakeup_fd(-1)


def spin(agent: Agent) -> bool:
    """Waits in pure Python for an interrupt; did one come?

    It may come at any moment from the request's arrival on, before there is anything to wait in:
    then it is the agent's handler that takes it. It ends here in any case, or it would be raised
    in the first cell.
    """
    import time

    end = time.monotonic() + 10
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        while not agent.early and time.monotonic() < end:
            pass
    except KeyboardInterrupt:
        return True
    early, agent.early = agent.early, False
    return early


_door = Door()
_agent: list[Agent] = []


def _boot(frame: Frame) -> None:
    content = frame.content
    reply: dict[str, Any] = {"status": "ok"}
    if content["phase"] == "image":
        if content.get("calibrate"):
            calibrate()
        agent = Agent(_door)
        _agent.append(agent)
        sys.path += content.get("path", [])
        agent.preload(content["preload"])
        agent.warm_up(rehearse=bool(content.get("rehearse")))
    elif content["phase"] == "spin":
        reply["interrupted"] = spin(_agent[0])
    elif content["phase"] == "save":
        from wasi_agent import timetravel

        _agent[0].begin_work()
        reply["saved"] = timetravel.take_file(_door, content["path"])
    elif content["phase"] == "look":
        from wasi_agent import variables

        reply["variables"] = variables.describe(_agent[0].shell.user_ns)
    else:
        agent = _agent[0]
        if content["phase"] == "resume":
            agent.learn(content)
            from wasi_agent import timetravel

            reply["closed_files"] = timetravel.close_files(content["fds"])
        else:
            agent.begin_session(content)
        reply["version"] = sys.version.split()[0]
    _door.reply("boot_reply", reply)


def turn() -> bool:
    """Reads one request and answers it; False at the end of all requests."""
    frame = _door.receive()
    if frame is None:
        return False
    _door.request = frame.request
    try:
        if frame.type == "boot_request":
            _boot(frame)
        else:
            _agent[0].answer(frame)
    except BaseException as e:  # noqa: BLE001 - the guest's edge: every request gets an answer
        _failed(frame, e)
    finally:
        if _agent:
            _agent[0].rest()
    return True


def _failed(frame: Frame, error: BaseException) -> None:
    """Answers a request whose handling failed: an interrupt, a memory error, a bug."""
    import traceback

    from wasi_agent.tracebacks import name_of, text_of

    if _agent:
        _agent[0].busy = False

    if isinstance(error, asyncio.CancelledError):
        error = KeyboardInterrupt()
    kind = (
        "comm_reply" if frame.type.startswith("comm_") else frame.type.replace("_request", "_reply")
    )
    if frame.type == "comm_info_request":
        kind = "comm_info_reply"
    lines = traceback.format_exception(error)
    content: dict[str, Any] = {
        "status": "error", "ename": name_of(type(error)), "evalue": text_of(error),
        "traceback": lines,
    }  # fmt: skip
    if kind == "execute_reply":
        _door.send("error", {k: content[k] for k in ("ename", "evalue", "traceback")})
        content |= {
            "execution_count": frame.content.get("execution_count"), "user_expressions": {},
            "payload": [],
        }  # fmt: skip
    _door.reply(kind, content)


def serve() -> None:
    """Answers requests until there are no more; a command build's main loop."""
    while True:
        try:
            if not turn():
                break
        except KeyboardInterrupt:
            continue
