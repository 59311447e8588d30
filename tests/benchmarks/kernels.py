"""Kernels as a front end sees them: real processes, Jupyter's own client, and a clock.

Knows nothing of either kernel but its name. Imports nothing of wasi_kernel.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import zmq
from jupyter_client.manager import KernelManager

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT_S = 120.0

RECONNECT_MS = 1
"""A client that connects before the kernel listens tries again every 100 ms by ZMQ's default, which
would round start times up on both sides."""

NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"

KERNELS = "JUPYTER_PATH"


class KernelFailedError(Exception):
    """A kernel did not do what was asked, so there is nothing to measure."""


@dataclass(frozen=True)
class Executed:
    """One cell as it was seen from outside.

    Attributes:
        reply: The execute_reply's content.
        outputs: What it showed, as (message type, content).
        seconds: From sending the request until both its reply and its idle status were here.
    """

    reply: dict[str, Any]
    outputs: list[tuple[str, dict[str, Any]]]
    seconds: float

    @property
    def text(self) -> str:
        """All that was printed."""
        return "".join(content["text"] for kind, content in self.outputs if kind == "stream")


@dataclass(frozen=True)
class Memory:
    """A kernel's memory, in bytes.

    Attributes:
        uss: What no other process has, of all its processes.
        pss: That, and its share of what it has together with others.
        first_pss: How much of `pss` the process has that Jupyter started.
    """

    uss: int
    pss: int
    first_pss: int


class Kernel:
    """A kernel process that has been started and asked for kernel_info; use `started`.

    Attributes:
        info_s: Seconds from just before the process was made until kernel_info_reply.
    """

    def __init__(self, manager: KernelManager, client: Any, began_s: float) -> None:
        self._manager, self._client, self._began_s = manager, client, began_s
        client.kernel_info()
        while not client.shell_channel.socket.poll(100):
            if not self._lives() or self.age_s() > TIMEOUT_S:
                raise KernelFailedError("a kernel did not start; was one of its ports taken?")
        client.get_shell_msg(timeout=TIMEOUT_S)
        self.info_s = self.age_s()

    def age_s(self) -> float:
        """Seconds since just before the process was made."""
        return time.perf_counter() - self._began_s

    def evaluate(self, expression: str) -> str:
        """The plain text of an expression's value, taken from the reply itself.

        Raises:
            KernelFailedError: It has no value.
        """
        self._client.execute("", user_expressions={"value": expression})
        reply = self._client.get_shell_msg(timeout=TIMEOUT_S)["content"]
        value = reply.get("user_expressions", {}).get("value", {})
        if value.get("status") != "ok":
            raise KernelFailedError(f"{expression} gave {reply}")
        return str(value["data"]["text/plain"])

    def wait_for_iopub(self) -> None:
        """Returns when this client's subscription is in effect, and nothing is on the way."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            request = self._client.kernel_info()
            self._client.get_shell_msg(timeout=TIMEOUT_S)
            if self._idle_within(request, 0.2):
                return
        raise KernelFailedError("no status arrives on iopub")

    def _idle_within(self, request: str, seconds: float) -> bool:
        while self._client.iopub_channel.socket.poll(int(1000 * seconds)):
            message = self._client.get_iopub_msg(timeout=TIMEOUT_S)
            if _ends(message, request):
                return True
        return False

    def execute(self, code: str) -> Executed:
        """Runs a cell and waits for its end.

        Raises:
            KernelFailedError: The cell failed.
        """
        start = time.perf_counter()
        done = self._collect(self._client.execute(code), start)
        if done.reply["status"] != "ok":
            raise KernelFailedError(f"{code!r} gave {done.reply}")
        return done

    def interrupt(self, code: str) -> float:
        """Seconds from interrupting a cell, which displays something once it runs, until its end.

        Raises:
            KernelFailedError: The cell did not end with KeyboardInterrupt.
        """
        request = self._client.execute(code)
        while True:
            message = self._client.get_iopub_msg(timeout=TIMEOUT_S)
            if _answers(message, request) and message["msg_type"] == "display_data":
                break
        start = time.perf_counter()
        self._manager.interrupt_kernel()
        done = self._collect(request, start)
        if done.reply.get("ename") != "KeyboardInterrupt":
            raise KernelFailedError(f"an interrupt of {code!r} gave {done.reply}")
        return done.seconds

    def die(self, code: str) -> float:
        """Seconds from sending a cell that ends the interpreter until the kernel can work again.

        One whose process ends is restarted at once.

        Raises:
            KernelFailedError: The cell did not end it.
        """
        start = time.perf_counter()
        request = self._client.execute(code)
        while self._lives():
            if self._client.shell_channel.socket.poll(1):
                reply = self._client.get_shell_msg(timeout=TIMEOUT_S)
                if not _answers(reply, request) or reply["content"]["status"] != "error":
                    raise KernelFailedError(f"{code!r} gave {reply['content']}")
                return time.perf_counter() - start
        self._manager.restart_kernel(now=True)
        request = self._client.kernel_info()
        while not self._client.shell_channel.socket.poll(10):  # lost, if sent to the old one
            request = self._client.kernel_info()
        self._client.get_shell_msg(timeout=TIMEOUT_S)
        seconds = time.perf_counter() - start
        self.wait_for_iopub()
        return seconds

    def _lives(self) -> bool:
        process = psutil.Process(self._pid)
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)

    def _collect(self, request: str, start_s: float) -> Executed:
        outputs = []
        while not _ends(message := self._client.get_iopub_msg(timeout=TIMEOUT_S), request):
            if _answers(message, request) and message["msg_type"] not in (
                "status",
                "execute_input",
            ):
                outputs.append((message["msg_type"], message["content"]))
        reply = self._client.get_shell_msg(timeout=TIMEOUT_S)
        while not _answers(reply, request):
            reply = self._client.get_shell_msg(timeout=TIMEOUT_S)
        return Executed(reply["content"], outputs, time.perf_counter() - start_s)

    def complete(self, code: str) -> float:
        """Seconds until the completions of `code` at its end are here.

        Raises:
            KernelFailedError: There are none.
        """
        start = time.perf_counter()
        self._client.complete(code)
        reply = self._client.get_shell_msg(timeout=TIMEOUT_S)
        seconds = time.perf_counter() - start
        if not reply["content"].get("matches"):
            raise KernelFailedError(f"no completions of {code!r}")
        return seconds

    def inspect(self, code: str) -> float:
        """Seconds until the documentation of the name at the end of `code` is here.

        Raises:
            KernelFailedError: There is none.
        """
        start = time.perf_counter()
        self._client.inspect(code)
        reply = self._client.get_shell_msg(timeout=TIMEOUT_S)
        seconds = time.perf_counter() - start
        if not reply["content"].get("found"):
            raise KernelFailedError(f"nothing known of {code!r}")
        return seconds

    @property
    def _pid(self) -> int:
        provisioner = self._manager.provisioner
        if provisioner is None:
            raise KernelFailedError("the kernel has no process")
        return int(provisioner.pid)

    def memory(self) -> Memory:
        """What the kernel's process and all its descendants have together."""
        first = psutil.Process(self._pid)
        infos = [p.memory_full_info() for p in (first, *first.children(recursive=True))]
        return Memory(
            sum(info.uss for info in infos), sum(info.pss for info in infos), infos[0].pss
        )


def _answers(message: dict[str, Any], request: str) -> bool:
    return bool(message["parent_header"].get("msg_id") == request)


def _ends(message: dict[str, Any], request: str) -> bool:
    return (
        _answers(message, request)
        and message["msg_type"] == "status"
        and message["content"]["execution_state"] == "idle"
    )


@contextlib.contextmanager
def started(name: str, folder: Path, sockets: str | None = None) -> Iterator[Kernel]:
    """A new kernel `name` that works in `folder`; it ends with the block.

    Args:
        name: Its kernelspec.
        folder: Where it works.
        sockets: What the paths of its sockets begin with; by default it listens on TCP ports, which
            another program may take before it does.

    Raises:
        KernelFailedError: It did not start.
    """
    where = {} if sockets is None else {"transport": "ipc", "ip": sockets}
    manager = KernelManager(kernel_name=name, **where)
    manager.kernel_spec  # noqa: B018 - looks for the kernelspec, which is no part of the start
    with zmq.Context() as context:
        context.reconnect_ivl = RECONNECT_MS
        began_s = time.perf_counter()
        manager.start_kernel(cwd=str(folder), extra_arguments=["--log-level=CRITICAL"])
        client = manager.client(context=context)
        client.start_channels(hb=False)
        try:
            yield Kernel(manager, client, began_s)
        finally:
            manager.shutdown_kernel()
            client.stop_channels()


def specify(name: str, argv: list[str]) -> None:
    """Makes a kernelspec, for the time of `own_folders`."""
    folder = Path(os.environ[KERNELS].split(os.pathsep)[0], "kernels", name)
    folder.mkdir(parents=True)
    spec = {"argv": argv, "display_name": name, "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")


@contextlib.contextmanager
def own_folders() -> Iterator[Path]:
    """A folder to work in; Jupyter's and IPython's folders and the history are beside it.

    To be entered before the first kernel is started. Kernels keep their bytecode, as installed ones
    have it: a checkout would be compiled at each start otherwise.
    """
    with tempfile.TemporaryDirectory(prefix="wasi-kernel-benchmark-") as home:
        folders = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "IPYTHONDIR": "ipython",
            "WASI_KERNEL_HISTORY": "history.sqlite",
        }
        before = {name: os.environ.get(name) for name in (*folders, NO_BYTECODE, KERNELS)}
        os.environ.pop(NO_BYTECODE, None)
        os.environ[KERNELS] = os.pathsep.join([f"{home}/share", os.environ.get(KERNELS, "")])
        os.environ.update({name: os.path.join(home, path) for name, path in folders.items()})
        try:
            work = Path(home, "work")
            work.mkdir()
            yield work
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
