"""The kernel process: Jupyter's messages on one side, frames on the other.

The only importer of ipykernel. Never imports wasmtime: what runs cells is another process, and
this one survives its deaths. One event loop serves shell and control, so an interrupt or a
shutdown is heard while a cell runs. The module is long because Jupyter's messages are many: one
handler each, and little else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import zmq
from ipykernel.heartbeat import Heartbeat
from ipykernel.iostream import IOPubThread
from ipykernel.kernelbase import Kernel
from ipykernel.parentpoller import ParentPollerUnix
from ipykernel.subshell_manager import UnknownSubshellError
from zmq.eventloop.zmqstream import ZMQStream

from wasi_kernel import __version__, kernelinfo
from wasi_kernel.connection import Connection
from wasi_kernel.errors import GuestLost, WasiKernelError
from wasi_kernel.forkedkernels import ForkedKernels
from wasi_kernel.frontend import Frontend
from wasi_kernel.publisher import Publisher
from wasi_kernel.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from jupyter_client.session import Session as JupyterSession

    from wasi_kernel.frames import Frame
    from wasi_kernel.history import History
    from wasi_kernel.launch import Settings
    from wasi_kernel.spawn import Worker

PARENT_FIELDS = ("msg_id", "msg_type", "session")
"""What the guest learns of a request's header. Not the user's name."""

STATUS_EVERY_S = 1.0
KEPT_S = 10.0
"""How long a restart waits for the last checkpoint, if it is to keep the state."""

VERSION_S = 0.3
"""How long kernel_info waits for a sandbox that is starting."""

NOTED_S = 0.02
"""So long after a cell has begun or ended, the history is written."""

PATIENCE_S = 3.0
"""How long completion and the like wait for a sandbox that is starting."""


class WasiKernel(Kernel):
    """The kernel "Python (WASI)"."""

    implementation = kernelinfo.NAME
    implementation_version = __version__
    language = "python"
    _execute_sleep = 0  # output and reply travel in one ordered stream: nothing to wait for

    def __init__(self, **kwargs: Any) -> None:
        self._settings: Settings = kwargs.pop("settings")
        self._worker: Worker | None = kwargs.pop("worker")
        self._stop: Callable[[], None] = kwargs.pop("stop")
        self._wire: JupyterSession = kwargs["session"]
        super().__init__(**kwargs)
        for kind in ("comm_open", "comm_msg", "comm_close"):
            self.shell_handlers[kind] = self._comm
        policy = self._settings.policy
        self._frontend = Frontend(
            policy.frontend, policy.frontend_mimes, output_characters=policy.limits.output_bytes
        )
        self._publisher = Publisher(
            partial(self._wire.send, self.iopub_socket), self._frontend, self._topic, self.ident
        )
        self._count: int = self._settings.cells + 1
        self._greeted = False
        self._told = ""  # the last problem with checkpoints that the user was told of
        self._arrived = self._abort_until = 0
        self._tasks: set[asyncio.Future[None]] = set()
        self._notes: list[Callable[[], None]] = []
        self._sandbox: Session | None = None
        self._forks = ForkedKernels(self._settings.options)

    @cached_property
    def _history(self) -> History:
        """What was run. Imported at its first use, when the first cell has its answer."""
        from wasi_kernel.history import History

        return History()

    @property
    def sandbox(self) -> Session:
        """The guest's session. It exists from `start` on."""
        if self._sandbox is None:
            raise RuntimeError("the kernel has not started")
        return self._sandbox

    def start(self) -> None:
        """Begins to serve. Called inside the event loop."""
        super().start()
        if self.shell_stream is not None:
            self.shell_stream.on_recv(self._received, copy=False)
        self._sandbox = Session(self._settings, self._worker)
        sweep = threading.Thread(target=self._settings.sweep, daemon=True)  # it may take minutes
        asyncio.get_running_loop().call_later(2.0, sweep.start)

    # -- what ipykernel's base class asks for ------------------------------------------------

    @property
    def execution_count(self) -> int:
        """The number that the next stored cell gets. Ours: the guest has no say in it."""
        return self._count

    @execution_count.setter
    def execution_count(self, value: int) -> None:
        """The base class counts every cell; a cell that is not stored gets no number."""

    @property
    def _python(self) -> str:
        """The guest's Python version, known from its first boot on."""
        version = self._sandbox.facts.get("version", "3") if self._sandbox else "3"
        return self._frontend.note(str(version)[:20])  # a command build's guest says it itself

    @property
    def language_info(self) -> dict[str, object]:  # type: ignore[override]
        """The guest's Python."""
        return kernelinfo.language(self._python)

    @property
    def banner(self) -> str:  # type: ignore[override]
        """What a console shows at its start."""
        return kernelinfo.banner(self._python)

    @property
    def kernel_info(self) -> dict[str, Any]:
        """kernel_info_reply's content."""
        return kernelinfo.content(self._python)

    async def kernel_info_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Answers at once; a sandbox that starts as usual is awaited, for its Python's version."""
        if self.sandbox.state == "starting" and not self.sandbox.facts:
            await self.sandbox.settled(VERSION_S)
        await super().kernel_info_request(stream, ident, parent)

    def pre_handler_hook(self) -> None:
        """No signal handlers: interrupts are messages."""

    def post_handler_hook(self) -> None:
        """No signal handlers: interrupts are messages."""

    def _received(self, msg: Any) -> None:
        """One shell message has arrived; it is handled when those before it are done."""
        self._arrived += 1
        self._later(self._handle(self._arrived, msg))

    async def _handle(self, number: int, msg: Any) -> None:
        idents, parts = self._wire.feed_identities(msg, copy=False)
        try:
            said = self._wire.deserialize(parts, content=False, copy=False)
        except (ValueError, TypeError):
            self.log.exception("an invalid message was dropped")
            return
        wanted = said["header"].get("subshell_id")
        if wanted is not None:
            error = UnknownSubshellError(f"no subshell {wanted!r}: there are none here")
            self._send_unknown_subshell_reply(idents, said, error)
            return
        async with self._main_asyncio_lock:  # first come, first served
            self._aborting = number <= self._abort_until
            await self.dispatch_shell(msg)

    def _abort_queues(self, subshell_id: str | None = None) -> None:
        """After an error: the execute requests that have arrived by now are not run."""
        del subshell_id
        if self.shell_stream is not None:
            self.shell_stream.flush()
        self._abort_until = self._arrived
        if self.stop_on_error_timeout:  # the user's wish: those that arrive a little later too
            self._abort_until = sys.maxsize
            loop = asyncio.get_running_loop()
            loop.call_later(self.stop_on_error_timeout, self._end_abort)

    def _end_abort(self) -> None:
        self._abort_until = self._arrived

    def _note(self, note: Callable[[], None]) -> None:
        """Has something of the history written in a moment: not on the way of a cell."""
        if not self._notes:
            asyncio.get_running_loop().call_later(NOTED_S, self._write_notes)
        self._notes.append(note)

    def _write_notes(self) -> None:
        notes, self._notes = self._notes, []
        for note in notes:
            try:
                note()
            except Exception:  # of one; the others are written
                self.log.exception("a note of the history was not written")

    def _later(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- execute -----------------------------------------------------------------------------

    async def do_execute(
        self,
        code: str,
        silent: bool,
        store_history: bool = True,
        user_expressions: dict[str, Any] | None = None,
        allow_stdin: bool = False,
        *,
        cell_meta: dict[str, Any] | None = None,
        cell_id: str | None = None,
    ) -> dict[str, Any]:
        """Runs a cell; its outputs go out as they come, its reply is the return value."""
        del cell_meta
        count, parent = self._count, self.get_parent("shell")
        store_history = bool(store_history) and not silent
        if store_history:
            self._count += 1
            self._note(lambda: self._history.add(count, code))
        content = {
            "code": code, "silent": silent, "store_history": store_history,
            "user_expressions": user_expressions or {}, "allow_stdin": allow_stdin,
            "execution_count": count, "cell_id": cell_id,
        }  # fmt: skip

        self.sandbox.retry()
        if not silent:
            if self.sandbox.state != "ready":
                await self._show_status(parent)
            if (loss := self.sandbox.take_unreported()) is not None:
                self._publisher.note(f"between cells: {loss.explanation}", parent)
            self.sandbox.idling.on_output = self._shower(
                count, silent=False, store_history=False, allow_stdin=False
            )
        try:
            frame = await self.sandbox.request(
                "execute_request", content, metadata=_header(parent),
                on_output=self._shower(
                    count, silent=silent, store_history=store_history, allow_stdin=allow_stdin
                ),
            )  # fmt: skip
            reply = self._frontend.execute_reply(frame.content, count)
            self._publisher.tell_notes(parent)
            if store_history and isinstance(frame.content.get("ran"), str):
                ran = frame.content["ran"]
                self._note(lambda: self._history.add_run(count, ran))
            self._greet(parent)
            if self.sandbox.fork_wanted is not None:
                await self._fork(self.sandbox.fork_wanted, parent)
        except (WasiKernelError, KeyboardInterrupt) as e:
            reply = self._failure(e, parent, count, silent=silent)
        reply["execution_count"] = self._count - 1
        for payload in reply["payload"]:
            if payload["source"] == "ask_exit" and not payload.get("keepkernel"):
                asyncio.get_running_loop().call_later(0.1, self._stop)
        return reply

    def _shower(
        self, count: int, *, silent: bool, store_history: bool, allow_stdin: bool
    ) -> Callable[[Frame], None]:
        """What shows a cell's output. Made where the request's context is known."""
        parent = self.get_parent("shell")
        ident = self._get_shell_context_var(self._shell_parent_ident)

        def show(frame: Frame) -> None:
            if frame.type == "input_request" and allow_stdin:
                self._later(self._ask(frame, parent, ident))
                return
            if frame.type == "execute_result" and store_history:
                plain = self._frontend.plain_text(frame.content)
                if plain is not None:
                    self._note(lambda: self._history.add_output(count, plain))
            if not (silent and frame.type in ("execute_result", "error")):
                self._publish(frame, count, parent)

        return show

    def _greet(self, parent: dict[str, Any]) -> None:
        """Says once what the user must know about the settings, and about checkpoints."""
        if not self._greeted:
            self._greeted = True
            closed = self.sandbox.closed_files
            files = [f"no longer open: {', '.join(closed)}"] if closed else []
            for notice in (*self._settings.notices, *files):
                self._publisher.note(notice, parent)
        if self.sandbox.problem != self._told:
            self._told = self.sandbox.problem
            if self._told:
                self._publisher.note(self._told, parent)

    def _failure(
        self, error: BaseException, parent: dict[str, Any], count: int, *, silent: bool
    ) -> dict[str, Any]:
        """The reply to a cell that the guest could not answer for."""
        if silent and isinstance(error, GuestLost):
            self.sandbox.leave_unreported(error)
        return self._publisher.failure(*_failure_text(error), parent, count, silent=silent)

    async def _fork(self, name: str, parent: dict[str, Any]) -> None:
        """Starts a second kernel from this moment, and says how to reach it."""
        try:
            self._forks.make_room(name)
            folder = await self.sandbox.forked(name)
        except (WasiKernelError, OSError) as e:
            self._publisher.note(f"there is no fork: {e}", parent)
            return
        file = await self._forks.start(folder, name)
        text = f"The fork {name!r} runs: jupyter console --existing {file}\n"
        self._publisher.send("stream", {"name": "stdout", "text": text}, parent)

    async def _show_status(self, parent: dict[str, Any]) -> None:
        """While the sandbox is being made ready, a line in the cell says what is going on.

        Ends when the sandbox is ready, or never will be, or an interrupt says not to wait.
        """
        shown = False
        while not await self.sandbox.settled(STATUS_EVERY_S, for_cell=True):
            self._publisher.show_line(self.sandbox.status.line, parent, again=shown)
            shown = True
        if shown:
            self._publisher.send("clear_output", {"wait": False}, parent)

    def _publish(self, frame: Frame, count: int, parent: dict[str, Any]) -> None:
        """Publishes what the guest wants to show; answers what is a question."""
        if not self.sandbox.questions.answer_unasked(frame, self._frontend):
            self._publisher.publish(frame, count, parent)

    # -- input -------------------------------------------------------------------------------

    async def _ask(self, frame: Frame, parent: dict[str, Any], ident: Any) -> None:
        """Asks the front end for a line and hands it to the guest."""
        sock = self.stdin_socket
        while sock.poll(0):  # answers to questions that were interrupted
            sock.recv_multipart()
        content = {
            "prompt": self._frontend.prompt(frame.content.get("prompt", "")),
            "password": bool(frame.content.get("password")),
        }
        self._wire.send(sock, "input_request", content, parent, ident=ident)
        sandbox, asked = self.sandbox, frame.request
        while sandbox.current_request == asked:
            if not sock.poll(0):
                await asyncio.sleep(0.01)
                continue
            _, reply = self._wire.recv(sock)
            if reply is not None:
                value = self._frontend.text(reply["content"].get("value", ""))
                await sandbox.questions.answer_input(asked, value)
                return

    # -- other requests ----------------------------------------------------------------------

    async def _ask_guest(self, kind: str, content: dict[str, Any]) -> dict[str, Any] | None:
        """The guest's reply, or None if there is no guest that could answer now."""
        parent = self.get_parent("shell")
        if self.sandbox.state == "starting":
            await self.sandbox.settled(PATIENCE_S)
        if self.sandbox.state != "ready":
            return None
        try:
            frame = await self.sandbox.request(
                kind, content, on_output=lambda f: self._publish(f, self._count, parent)
            )
        except GuestLost as e:
            self.sandbox.leave_unreported(e)
            return None
        except (WasiKernelError, KeyboardInterrupt):
            return None
        return frame.content

    async def do_complete(self, code: str, cursor_pos: int | None) -> dict[str, Any]:
        """Completions; none while the sandbox is not ready."""
        position = len(code) if cursor_pos is None else cursor_pos
        said = await self._ask_guest("complete_request", {"code": code, "cursor_pos": position})
        if said is None:
            said = {"status": "ok", "cursor_start": position, "cursor_end": position}
        return self._frontend.complete_reply(said, len(code))

    async def do_inspect(
        self, code: str, cursor_pos: int | None, detail_level: int = 0, omit_sections: Any = ()
    ) -> dict[str, Any]:
        """What is known about the object at the cursor."""
        content = {
            "code": code,
            "cursor_pos": len(code) if cursor_pos is None else cursor_pos,
            "detail_level": detail_level,
            "omit_sections": sorted(omit_sections),
        }
        said = await self._ask_guest("inspect_request", content)
        return self._frontend.inspect_reply({"status": "ok"} if said is None else said)

    async def do_is_complete(self, code: str) -> dict[str, Any]:
        """Would this code run, or does it want another line?"""
        said = await self._ask_guest("is_complete_request", {"code": code})
        return self._frontend.is_complete_reply({} if said is None else said)

    async def do_history(
        self,
        hist_access_type: str,
        output: bool,
        raw: bool,
        session: int = 0,
        start: int = 1,
        stop: int | None = None,
        n: int | None = None,
        pattern: str | None = None,
        unique: bool = False,
    ) -> dict[str, Any]:
        """What was run before: `raw` as it was typed, else as it was run."""
        self._write_notes()
        history = self._history
        if hist_access_type == "tail":
            rows = history.tail(n, output=output, raw=raw)
        elif hist_access_type == "range":
            session = session if isinstance(session, int) else 0
            rows = history.range(session, start or 0, stop, output=output, raw=raw)
        elif hist_access_type == "search":
            rows = history.search(pattern or "*", n, output=output, unique=unique, raw=raw)
        else:
            rows = []
        return {"status": "ok", "history": list(map(self._frontend.history_row, rows))}

    async def comm_info_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Which comms are open in the guest."""
        said = await self._ask_guest("comm_info_request", dict(parent["content"]))
        content = self._frontend.comm_info_reply({} if said is None else said)
        self._wire.send(stream, "comm_info_reply", content, parent, ident)

    async def _comm(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """comm_open, comm_msg or comm_close of the front end; there is no reply."""
        del stream, ident
        if parent["header"]["msg_type"] == "comm_open":
            self._frontend.comm_opened(parent["content"])
        content = {**parent["content"], "parent": _header(parent)}
        try:
            await self.sandbox.request(
                parent["header"]["msg_type"], content,
                on_output=lambda f: self._publish(f, self._count, parent),
                metadata=parent.get("metadata") or {},
                buffers=tuple(bytes(b) for b in parent.get("buffers") or ()),
            )  # fmt: skip
        except (WasiKernelError, KeyboardInterrupt) as e:
            self._failure(e, parent, self._count, silent=False)

    # -- control -----------------------------------------------------------------------------

    async def interrupt_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Interrupts the cell that runs; at rest, nothing happens."""
        self.sandbox.interrupt()
        self._wire.send(stream, "interrupt_reply", {"status": "ok"}, parent, ident=ident)

    def _refuse_subshell(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        kind = parent["header"]["msg_type"].replace("_request", "_reply")
        content = {
            "status": "error",
            "ename": "SubshellsNotSupported",
            "evalue": "a guest runs one cell at a time",
            "traceback": [],
        }
        self._wire.send(stream, kind, content, parent, ident)

    async def create_subshell_request(self, socket: Any, ident: Any, parent: Any) -> None:
        """Refused."""
        self._refuse_subshell(socket, ident, parent)

    async def delete_subshell_request(self, socket: Any, ident: Any, parent: Any) -> None:
        """Refused."""
        self._refuse_subshell(socket, ident, parent)

    async def list_subshell_request(self, socket: Any, ident: Any, parent: Any) -> None:
        """Refused."""
        self._refuse_subshell(socket, ident, parent)

    async def do_debug_request(self, msg: dict[str, Any]) -> dict[str, Any]:
        """Refused: there is no debugger in the guest."""
        return {
            "type": "response", "request_seq": msg.get("seq", 0), "success": False,
            "command": msg.get("command", ""), "message": "no debugger in the sandbox", "body": {},
        }  # fmt: skip

    async def shutdown_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Ends the guest, then the kernel."""
        restart = bool(parent["content"].get("restart"))
        content = {"status": "ok", "restart": restart}
        await self.close(restart=restart)
        self._wire.send(stream, "shutdown_reply", content, parent, ident=ident)
        self._publisher.send("shutdown_reply", content, parent)
        self._stop()

    async def close(self, *, restart: bool = False) -> None:
        """Ends the guest and closes the history; see `Session.close`."""
        if self._sandbox is not None:
            if restart and self._sandbox.state == "ready" and not self._sandbox.current_request:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._sandbox.kept(), KEPT_S)
            await self._sandbox.close(restart=restart)
        self._forks.end()
        self._write_notes()
        if "_history" in vars(self):
            self._history.close()


def _header(parent: dict[str, Any]) -> dict[str, Any]:
    header = parent.get("header", {})
    return {k: header[k] for k in PARENT_FIELDS if k in header}


def _failure_text(error: BaseException) -> tuple[str, str]:
    """(ename, evalue) of a cell that the guest could not answer for."""
    if isinstance(error, GuestLost):
        return error.ename, error.explanation
    return type(error).__name__, str(error)


async def serve(
    connection: Connection, settings: Settings, worker: Worker, ends: tuple[signal.Signals, ...]
) -> None:
    """Serves the sockets of a connection file until told to stop, or one of the signals `ends`."""
    existing = connection.load()
    sockets = connection.bind(zmq.Context())
    publisher: Any = IOPubThread(sockets["iopub"], session=connection.session)
    publisher.start()
    heart = Heartbeat(
        zmq.Context(), (connection.transport, connection.ip, connection.hb_port),
        curve_publickey=connection.curve_publickey, curve_secretkey=connection.curve_secretkey,
    )  # fmt: skip
    connection.hb_port = heart.port
    heart.start()
    connection.save(existing=existing)
    parent = int(os.environ.get("JPY_PARENT_PID") or 0)
    if parent > 1:
        ParentPollerUnix(parent_pid=parent).start()
    stopped = asyncio.Event()
    streams = [ZMQStream(sockets[name]) for name in ("shell", "control")]
    kernel = WasiKernel(
        parent=connection, session=connection.session, log=connection.log,
        settings=settings, worker=worker, stop=stopped.set,
        shell_stream=streams[0], control_stream=streams[1], stdin_socket=sockets["stdin"],
        iopub_thread=publisher, iopub_socket=publisher.background_socket,
    )  # fmt: skip
    kernel.record_ports(connection.named_ports())
    kernel.start()
    for number in ends:
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    await kernel.close()
    for stream in streams:
        stream.flush(zmq.POLLOUT)
    publisher.stop()
    publisher.close()
    connection.close()


def main(argv: list[str], settings: Settings, worker: Worker, on_terminal: bool = False) -> None:
    """Runs a kernel process; `argv` is what follows `kernel` on the command line.

    `on_terminal`: there is no Jupyter above it, so that Ctrl-C ends it.
    """
    logging.basicConfig(level=logging.WARNING, format="[wasi-kernel] %(levelname)s %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # interrupts are messages
    connection = Connection()
    connection.parse_command_line(argv)
    ends = (signal.SIGTERM, signal.SIGHUP, *([signal.SIGINT] if on_terminal else []))
    asyncio.run(serve(connection, settings, worker, ends))
    sys.stderr.flush()
