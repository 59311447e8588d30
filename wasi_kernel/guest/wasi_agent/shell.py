"""IPython's shell, with the door where ipykernel has its sockets.

One small subclass per extension point of IPython; each sends Jupyter's message of that name.
"""

from __future__ import annotations

import ast
import asyncio
import base64
import contextlib
import inspect
import io
import os
import re
import sys
from typing import TYPE_CHECKING, Any

from IPython.core import page
from IPython.core.autocall import ZMQExitAutocall
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.text import SList
from traitlets import Any as AnyTrait
from traitlets import CBool, Instance, Type, default

from wasi_agent import tracebacks
from wasi_agent.explain import explanation, limit_of
from wasi_agent.tracebacks import name_of, text_of

if TYPE_CHECKING:
    from types import TracebackType

    from wasi_agent.door import Door

NO_PROCESSES = (
    "there are no processes in the sandbox: {} cannot run; use Python instead (pathlib, shutil, os)"
)

_PIP = re.compile(
    r"\s*(?:(?:[\w./{}]*python[\d.]*|%python)\s+-m\s+|uv\s+)?pip[\d.]*(?:\s+(.*))?", re.DOTALL
)
"""A command line that is pip's; its arguments."""


def encode_bytes(data: dict[str, Any]) -> dict[str, Any]:
    """A mime bundle with its binary values in base64, as Jupyter wants them."""
    return {
        mime: base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value
        for mime, value in data.items()
    }


class GuestDisplayPublisher(DisplayPublisher):
    """display() and clear_output()."""

    door: Any = AnyTrait()

    def publish(  # type: ignore[override]
        self,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        *,
        transient: dict[str, Any] | None = None,
        update: bool = False,
        **_: Any,
    ) -> None:
        """Sends display_data, or update_display_data."""
        metadata = {} if metadata is None else metadata
        self._validate_data(data, metadata)
        content = {
            "data": encode_bytes(data),
            "metadata": metadata,
            "transient": transient or {},
        }
        self.door.send("update_display_data" if update else "display_data", content)

    def clear_output(self, wait: bool = False) -> None:
        """Sends clear_output, unless there is nothing to clear."""
        self.door.clear(wait=bool(wait))


class GuestDisplayHook(DisplayHook):
    """The value of a cell's last expression, as execute_result."""

    door: Any = AnyTrait()
    _result: dict[str, Any] | None = None

    def start_displayhook(self) -> None:
        """Begins a result."""
        self._result = {}

    def write_output_prompt(self) -> None:
        """Numbers the result."""
        if self._result is not None:
            self._result["execution_count"] = self.prompt_count

    def write_format_data(self, format_dict: dict[str, Any], md_dict: Any = None) -> None:
        """Fills in the mime bundle."""
        if self._result is not None:
            self._result["data"] = encode_bytes(format_dict)
            self._result["metadata"] = md_dict or {}

    def finish_displayhook(self) -> None:
        """Sends the result, if it has any form."""
        result, self._result = self._result, None
        if result and result.get("data"):
            self.door.send("execute_result", result)

    @property
    def formatting(self) -> bool:
        """Is a result being formatted right now?"""
        return self._result is not None


class ZMQInteractiveShell(InteractiveShell):
    """The guest's shell.

    It bears the name of ipykernel's class, by which libraries (tqdm, rich, plotly, ...) recognize
    a notebook.
    """

    door: Any = AnyTrait()
    kernel: Any = AnyTrait()
    display_pub_class = Type(GuestDisplayPublisher)
    displayhook_class = Type(GuestDisplayHook)
    readline_use = CBool(False)
    autoindent = CBool(False)
    exiter = Instance(ZMQExitAutocall)
    keepkernel_on_exit: bool | None = None
    interrupted = False
    cell_text = ""
    last_error: BaseException | None = None
    last_shown: BaseException | None = None
    reached: dict[str, Any] | None = None
    failed_display = False
    _shown = False

    @default("exiter")
    def _default_exiter(self) -> ZMQExitAutocall:
        return ZMQExitAutocall(self)

    def connect(self, door: Door) -> None:
        """Names the door that everything goes out by."""
        self.door = door
        publisher: Any = self.display_pub
        hook: Any = self.displayhook
        publisher.door = hook.door = door

    @property
    def last_traceback(self) -> list[str]:
        """Lines of the cell's error, empty if it had none."""
        return self._last_traceback or []

    @property
    def payloads(self) -> Any:
        """What the next execute_reply takes along (IPython's payload manager)."""
        return self.payload_manager

    def init_environment(self) -> None:
        """No terminal, no pager program: nothing to set."""

    def init_hooks(self) -> None:
        """The pager is the front end's."""
        super().init_hooks()
        self.set_hook("show_in_pager", page.as_hook(self.page), 99)

    def page(self, text: Any, start: int = 0, screen_lines: int = 0, pager_cmd: Any = None) -> None:
        """Shows a text or mime bundle in the front end's pager."""
        del screen_lines, pager_cmd
        data = text if isinstance(text, dict) else {"text/plain": text}
        payload = {"source": "page", "data": data, "start": max(0, start)}
        self.payloads.write_payload(payload)

    def set_next_input(self, text: str, replace: bool = False) -> None:
        """Puts `text` into the front end's next cell."""
        payload = {"source": "set_next_input", "text": text, "replace": replace}
        self.payloads.write_payload(payload)

    def ask_exit(self) -> None:
        """Asks the kernel to end."""
        payload = {"source": "ask_exit", "keepkernel": bool(self.keepkernel_on_exit)}
        self.payloads.write_payload(payload)

    def enable_gui(self, gui: Any = None) -> None:
        """There is no screen; only no GUI at all can be enabled."""
        if gui not in (None, "inline"):
            raise UsageError(
                f"there is no screen in the sandbox: the GUI {gui!r} cannot run; "
                "plots appear in the notebook with %matplotlib inline"
            )

    def enable_matplotlib(self, gui: Any = None) -> Any:
        """Plots are pictures in the notebook; backends that need more say so."""
        try:
            return super().enable_matplotlib(gui)
        except (ImportError, RuntimeError) as e:
            raise UsageError(
                f"%matplotlib {gui} cannot work here: there is no screen, and this backend is not "
                f"installed ({e}); %matplotlib inline draws plots in the notebook"
            ) from None

    def system(self, cmd: str) -> None:
        """There are no processes; pip is %pip."""
        if (pip := _PIP.fullmatch(cmd)) is not None:
            self.run_line_magic("pip", pip[1] or "")
            return
        raise UsageError(NO_PROCESSES.format(f"!{cmd}"))

    system_piped = system_raw = system

    def getoutput(self, cmd: str, split: bool = True, depth: int = 0) -> Any:
        """There are no processes; pip is %pip."""
        del depth
        if (pip := _PIP.fullmatch(cmd)) is not None:
            with contextlib.redirect_stdout(io.StringIO()) as out:
                self.run_line_magic("pip", pip[1] or "")
            return SList(out.getvalue().splitlines()) if split else out.getvalue()
        raise UsageError(NO_PROCESSES.format(f"!{cmd}"))

    def run_cell(self, *args: Any, **kwargs: Any) -> Any:
        """Runs a cell; see IPython."""
        self._begin_cell()
        return super().run_cell(*args, **kwargs)

    async def run_cell_async(self, *args: Any, **kwargs: Any) -> Any:
        """Runs a cell that awaits; see IPython."""
        self._begin_cell()
        return await super().run_cell_async(*args, **kwargs)

    def is_more_to_come(self) -> bool:
        """Is there more in the present cell than has been run up to now?"""
        frame: Any = inspect.currentframe()
        line = 0
        while frame is not None:
            name = frame.f_code.co_name
            if frame.f_globals is self.user_ns and name.startswith(("<module>", "<cell line")):
                line = frame.f_lineno
                break  # further out, the turn itself runs in this namespace
            frame = frame.f_back
        try:
            tree = ast.parse(self.cell_text)
        except SyntaxError:
            return False
        loops = (ast.For, ast.AsyncFor, ast.While)
        return any(
            node.lineno > line
            or (isinstance(node, loops) and node.lineno <= line <= (node.end_lineno or 0))
            for node in ast.walk(tree)
            if isinstance(node, ast.stmt)
        )

    def _begin_cell(self) -> None:
        self._last_traceback: list[str] | None = None
        self.last_error = None
        self.failed_display = False

    def forget(self) -> None:
        """Nothing has run yet."""
        self._begin_cell()
        self.last_shown = self.reached = None
        self.last_execution_result, self.last_execution_succeeded = None, True
        hook: Any = self.displayhook
        hook.exec_result = None
        hook.start_displayhook()
        hook.finish_displayhook()  # of one that was left half way
        for kept in ("outputs", "output_hist_reprs", "exceptions"):  # by what can be shown again
            getattr(self.history_manager, kept, {}).clear()

    # -- errors ------------------------------------------------------------------------------

    def showtraceback(self, exc_tuple: Any = None, *args: Any, **kwargs: Any) -> None:
        """Shows the exception that was raised; an awaited cell's cancellation by its cause.

        Whatever the error is, it is shown, and nothing but an interrupt is raised.
        """
        etype, value, tb = self._get_exc_info(exc_tuple)
        self._shown = False
        try:
            cut_own_frames(tb)
            if self.interrupted and etype is not None and issubclass(etype, asyncio.CancelledError):
                value = KeyboardInterrupt().with_traceback(tb)
                etype, exc_tuple = KeyboardInterrupt, (KeyboardInterrupt, value, tb)
            if not tracebacks.is_plain(value):
                super().showtraceback(exc_tuple, *args, **kwargs)
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001, S110 - code of the error itself, such as its __str__
            pass
        if not self._shown and etype is not UsageError:  # which IPython prints
            self._showtraceback(etype, value, tracebacks.plain(value, etype, tb))

    def show_what_was_not(self, error: BaseException | None) -> None:
        """Shows the error that ended a cell, if an interrupt kept it from being shown."""
        if error is not None and self._last_traceback is None and type(error) is not UsageError:
            lines = tracebacks.plain(error, type(error), error.__traceback__)
            self._showtraceback(type(error), error, lines)

    def init_traceback_handlers(self, custom_exceptions: Any) -> None:
        """IPython's own form of a traceback, or the plain one where making it fails."""
        super().init_traceback_handlers(custom_exceptions)
        form: Any = self.InteractiveTB
        usual = form.structured_traceback

        def structured_traceback(etype: Any, value: Any, tb: Any, **options: Any) -> Any:
            try:
                return usual(etype, value, tb, **options)
            except KeyboardInterrupt:
                raise
            except BaseException:  # noqa: BLE001 - code of the error itself, or no memory
                return tracebacks.plain(value, etype, tb)

        form.structured_traceback = structured_traceback

    def _granted(self) -> dict[str, bool]:
        """{guest path: may it be changed?} of the granted folders, as far as they are known."""
        magics: Any = self.magics_manager.registry.get("WasiMagics")
        rows = magics.facts.get("grants", []) if magics else []
        return {row["guest_path"]: row["writable"] for row in rows}

    def _format_exception_for_storage(self, exception: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """What IPython's history keeps of an error: what was shown of it."""
        return {
            "ename": name_of(type(exception)), "evalue": text_of(exception),
            "traceback": self.last_traceback,
        }  # fmt: skip

    def _showtraceback(self, etype: Any, evalue: Any, stb: list[str]) -> None:
        stb = tracebacks.readable(list(stb))
        real = issubclass(type(evalue), BaseException)  # its __class__ may say anything
        with contextlib.suppress(Exception):
            self.reached = limit_of(evalue, self.door.limits) if real else None
            said = explanation(evalue, self.reached, self._granted()) if real else None
            if said is not None:
                stb.append(said)
        self.last_error = evalue if real else None
        self.last_shown = self.last_error
        hook: Any = self.displayhook
        if hook.formatting:
            self.failed_display = True
        content = {"ename": name_of(etype), "evalue": text_of(evalue), "traceback": stb}
        self.door.send("error", content)
        self._last_traceback = stb
        self._shown = True


def cut_own_frames(tb: TracebackType | None) -> None:
    """Ends a traceback where it enters this agent (its input(), its signal handler)."""
    last = tb
    while tb is not None:
        if not str(tb.tb_frame.f_globals.get("__name__", "")).startswith("wasi_agent."):
            last = tb
        tb = tb.tb_next
    if last is not None:
        last.tb_next = None


def make_shell(door: Door) -> ZMQInteractiveShell:
    """The shell, with `__main__` as its user module."""
    from IPython.paths import get_ipython_dir
    from traitlets.config import Config

    # Where it is not there, IPython makes it and copies a file into it, with its mode: chmod() is
    # not implemented in some builds (CPython 3.11 with a libc of 2026: ENOSYS).
    os.makedirs(os.path.join(get_ipython_dir(), "profile_default", "startup"), exist_ok=True)
    config = Config()
    config.HistoryManager.hist_file = ":memory:"
    config.InteractiveShell.banner1 = ""
    config.IPKernelApp.tqdm = "how tqdm recognizes a notebook"
    shell = ZMQInteractiveShell.instance(config=config, user_module=sys.modules["__main__"])
    shell.connect(door)
    complete_zipped_modules()
    use_interruptible_debugger()
    return shell


def use_interruptible_debugger() -> None:
    """Makes pdb, breakpoint() and %debug end on an interrupt instead of asking again."""
    import pdb  # noqa: T100 - the module, not a breakpoint

    from IPython.core import debugger

    replaced: Any = (debugger, pdb)
    for module in replaced:
        module.Pdb = debugger.InterruptiblePdb
    pdb.set_trace = debugger.set_trace


def complete_zipped_modules() -> None:
    """Makes `import <Tab>` offer what lies in a zip of bytecode, as this runtime's library does.

    IPython's own listing finds only source files in a zip.
    """
    import pkgutil

    from IPython.core import completerlib

    listed = completerlib.module_list

    def module_list(path: str) -> list[str]:
        if path.endswith(".zip"):
            return [m.name for m in pkgutil.iter_modules([path])]
        return list(listed(path))

    completerlib.module_list = module_list
