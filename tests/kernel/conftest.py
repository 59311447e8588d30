"""A kernel as a front end has it: a process of its own, reached by Jupyter's messages only."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from queue import Empty
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from jupyter_client.manager import KernelManager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    Message = dict[str, Any]

NAME = "python-wasi"
TIMEOUT_S = 30.0
"""After this long without the message that is waited for, a test fails."""
PREPARING_S = 110.0
"""The same for a kernel's first cell, which may have to wait until the runtime is compiled."""


@dataclass
class Answer:
    """What one request brought.

    Attributes:
        reply: The reply; empty for requests that have none (comm messages).
        published: Everything on IOPub with the request as parent, from busy to idle.
    """

    reply: Message
    published: list[Message] = field(default_factory=list)

    @property
    def content(self) -> dict[str, Any]:
        """The reply's content."""
        return self.reply["content"]

    @property
    def kinds(self) -> list[str]:
        """What was published, in order: message types, and "busy" and "idle" for status."""
        return [
            m["content"]["execution_state"] if m["msg_type"] == "status" else m["msg_type"]
            for m in self.published
        ]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The contents of the published messages of one type."""
        return [m["content"] for m in self.published if m["msg_type"] == kind]

    def text(self, name: str = "stdout") -> str:
        """All text of one stream."""
        return "".join(c["text"] for c in self.of("stream") if c["name"] == name)

    @property
    def result(self) -> str | None:
        """The execute_result's plain text."""
        found = self.of("execute_result")
        return found[0]["data"]["text/plain"] if found else None

    @property
    def flow(self) -> list[tuple[str, str]]:
        """(stream's name or message type, plain text) of all outputs; what belongs to one stream
        and was not interrupted by something else is one entry, however it was cut."""
        found: list[tuple[str, str]] = []
        for message in self.published:
            content, kind = message["content"], message["msg_type"]
            if kind == "stream":
                name = content["name"]
                if found and found[-1][0] == name:
                    found[-1] = (name, found[-1][1] + content["text"])
                else:
                    found.append((name, content["text"]))
            elif "data" in content:
                found.append((kind, content["data"].get("text/plain", "")))
        return found


class Kernel:
    """A running kernel and one client of it, whose messages are sorted by their request.

    Args:
        cwd: The kernel's folder.
        env: Environment variables beside this process's own.
        ready: Wait for the sandbox too, not only for the kernel.
        options: The kernel's options beside those of its kernelspec.
        traits: What the KernelManager is configured with.
    """

    def __init__(
        self, *, cwd: str, env: dict[str, str] | None = None, ready: bool = True,
        options: Sequence[str] = (), **traits: Any,
    ) -> None:  # fmt: skip
        self.manager = KernelManager(kernel_name=NAME, **traits)
        self.manager.start_kernel(
            env={**os.environ, **(env or {})}, cwd=cwd, extra_arguments=list(options)
        )
        try:
            self._open_client()
            if ready:
                waiting = self.execute("", silent=True)
                assert self.reply(waiting, timeout_s=PREPARING_S)["content"]["status"] == "ok"
                self.published(waiting)
        except BaseException:
            self.close()
            raise

    def _open_client(self) -> None:
        self._published: dict[str, list[Message]] = defaultdict(list)
        self._replies: dict[str, Message] = {}
        self._open: set[str] = set()
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=TIMEOUT_S)

    # -- the processes -----------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The kernel process."""
        return self.manager.provisioner.pid

    def workers(self) -> list[psutil.Process]:
        """The processes that the kernel process has started."""
        return psutil.Process(self.pid).children(recursive=True)

    @property
    def at_rest(self) -> bool:
        """Is the kernel alive, and has it answered every request?"""
        return not self._open and self.manager.is_alive()

    def restart(self) -> None:
        """Restarts the kernel politely and connects anew."""
        self.client.stop_channels()
        self.manager.restart_kernel()
        self._open_client()

    def close(self) -> None:
        """Ends the kernel, and everything that this object holds."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=not self.manager.is_alive())

    # -- requests ----------------------------------------------------------------------------

    def send(
        self,
        kind: str,
        content: dict[str, Any] | None = None,
        *,
        channel: str = "shell",
        buffers: list[bytes] | None = None,
        metadata: dict[str, Any] | None = None,
        **header: Any,
    ) -> str:
        """Sends any message; `header` is added to its header. Returns its msg_id."""
        message = self.client.session.msg(kind, content or {}, metadata=metadata)
        message["header"].update(header)
        message["buffers"] = buffers or []
        getattr(self.client, f"{channel}_channel").send(message)
        msg_id = str(message["header"]["msg_id"])
        self._open.add(msg_id)
        return msg_id

    def execute(self, code: str, **options: Any) -> str:
        """Sends an execute_request; `options` go into its content."""
        content = {
            "code": code, "silent": False, "store_history": True, "user_expressions": {},
            "allow_stdin": False, "stop_on_error": True,
        }  # fmt: skip
        return self.send("execute_request", content | options)

    def published(self, msg_id: str) -> list[Message]:
        """What a request has brought on IOPub, up to idle."""
        self.until(msg_id, lambda m: m["content"].get("execution_state") == "idle")
        self._open.discard(msg_id)
        return self._published[msg_id]

    def until(self, msg_id: str, wanted: Callable[[Message], bool]) -> Message:
        """The first message published for a request that is `wanted`."""
        known = self._published[msg_id]
        seen = 0
        while True:
            while seen < len(known):
                if wanted(known[seen]):
                    return known[seen]
                seen += 1
            message = self.client.get_iopub_msg(timeout=TIMEOUT_S)
            self._published[message["parent_header"].get("msg_id", "")].append(message)

    def until_text(self, msg_id: str, text: str) -> None:
        """Waits until a request's stdout contains `text`."""
        shown = ""

        def complete(message: Message) -> bool:
            nonlocal shown
            if message["msg_type"] == "stream":
                shown += message["content"]["text"]
            return text in shown

        self.until(msg_id, complete)

    def reply(self, msg_id: str, channel: str = "shell", timeout_s: float = TIMEOUT_S) -> Message:
        """The reply to a request.

        Raises:
            queue.Empty: No reply in time.
        """
        get = getattr(self.client, f"get_{channel}_msg")
        while msg_id not in self._replies:
            message = get(timeout=timeout_s)
            self._replies[message["parent_header"].get("msg_id", "")] = message
        return self._replies[msg_id]

    def answer(self, msg_id: str, channel: str = "shell") -> Answer:
        """Waits for a request's reply and its idle status."""
        reply = self.reply(msg_id, channel)
        return Answer(reply, self.published(msg_id))

    def run(self, code: str, **options: Any) -> Answer:
        """Executes a cell and waits for its end."""
        return self.answer(self.execute(code, **options))

    def ask(
        self, kind: str, content: dict[str, Any] | None = None, channel: str = "shell"
    ) -> dict[str, Any]:
        """The content of the reply to a request."""
        return self.answer(self.send(kind, content, channel=channel), channel).content

    def question(self) -> Message:
        """The next input_request."""
        return self.client.get_stdin_msg(timeout=TIMEOUT_S)

    def interrupt(self) -> None:
        """What a front end's stop button does."""
        self.manager.interrupt_kernel()

    def interrupt_until_reply(self, msg_id: str) -> Message:
        """Interrupts again and again, as an impatient user would, until the cell has ended."""
        for _ in range(20):
            self.interrupt()
            try:
                return self.reply(msg_id, timeout_s=1.2)
            except Empty:
                continue
        raise TimeoutError("the cell goes on")


class _Shared:
    """The kernel that the tests of a module share; replaced when a test has left it unusable."""

    def __init__(self, start: Callable[[], Kernel]) -> None:
        self._start = start
        self._kernel: Kernel | None = None

    def get(self) -> Kernel:
        if self._kernel is None:
            self._kernel = self._start()
        return self._kernel

    def check(self) -> None:
        if self._kernel is not None and not self._kernel.at_rest:
            self.close()

    def close(self) -> None:
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None


@pytest.fixture(scope="module")
def options() -> list[str]:
    """The options of the kernel that a module's tests share; a module may have its own."""
    return []


@pytest.fixture(scope="module")
def _shared(
    own_folders: None, options: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[_Shared]:
    folder = tmp_path_factory.mktemp("notebooks")
    (folder / "numbers.csv").write_text("a,b\n1,2\n3,4\n")
    shared = _Shared(lambda: Kernel(cwd=str(folder), options=options))
    yield shared
    shared.close()


@pytest.fixture
def kernel(_shared: _Shared) -> Iterator[Kernel]:
    """A kernel that the module's tests share; its folder holds numbers.csv."""
    yield _shared.get()
    _shared.check()


def _starting(folder: str) -> Iterator[Callable[..., Kernel]]:
    started: list[Kernel] = []

    def start(**options: Any) -> Kernel:
        kernel = Kernel(**{"cwd": folder} | options)
        started.append(kernel)
        return kernel

    yield start
    for kernel in started:
        kernel.close()


@pytest.fixture
def start_kernel(tmp_path: Path) -> Iterator[Callable[..., Kernel]]:
    """Starts kernels that belong to one test; the arguments are those of `Kernel`."""
    yield from _starting(str(tmp_path))


@pytest.fixture(scope="module")
def start_module_kernel(
    own_folders: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Kernel]]:
    """Starts kernels that belong to one test module."""
    yield from _starting(str(tmp_path_factory.mktemp("notebooks")))
