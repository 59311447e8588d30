"""Servers of kernels, in processes of their own, and a client of their REST and websocket API."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import websocket_connect
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

START_S, STEP_S = 60, 60
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")


class Channels:
    """A websocket to one kernel's channels; Jupyter Server's form without a subprotocol: JSON."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._session = socket, uuid.uuid4().hex

    async def send(self, kind: str, content: dict[str, Any], channel: str = "shell") -> str:
        """Sends a message; its msg_id."""
        header = {
            "msg_id": uuid.uuid4().hex, "msg_type": kind, "session": self._session,
            "username": "", "version": "5.4", "date": "2026-01-01T00:00:00Z",
        }  # fmt: skip
        message = {
            "header": header, "parent_header": {}, "metadata": {}, "content": content,
            "buffers": [], "channel": channel,
        }  # fmt: skip
        await self._socket.write_message(json.dumps(message))
        return str(header["msg_id"])

    async def receive(self) -> dict[str, Any]:
        """The next message, of whatever channel."""
        data = await asyncio.wait_for(self._socket.read_message(), STEP_S)
        assert data is not None, "the server has closed the channels"
        return dict(json.loads(data))

    async def execute(self, code: str) -> str:
        """Sends a cell; its msg_id."""
        content = {
            "code": code, "silent": False, "store_history": True, "user_expressions": {},
            "allow_stdin": False, "stop_on_error": True,
        }  # fmt: skip
        return await self.send("execute_request", content)

    async def until(
        self, asked: str, wanted: Callable[[dict[str, Any]], bool]
    ) -> list[dict[str, Any]]:
        """What comes for a message, up to one that is wanted."""
        found = []
        while not found or not wanted(found[-1]):
            message = await self.receive()
            if message["parent_header"].get("msg_id") == asked:
                found.append(message)
        return found

    async def run(self, code: str) -> tuple[dict[str, Any], str]:
        """Runs a cell: (reply, all text that it has shown)."""
        return await self.answer(await self.execute(code))

    async def answer(self, asked: str) -> tuple[dict[str, Any], str]:
        """A cell's reply and text, once both are there and it is idle."""
        reply: dict[str, Any] = {}
        idle, text = False, ""
        while not reply or not idle:
            message = await self.receive()
            if message["parent_header"].get("msg_id") != asked:
                continue
            content = message["content"]
            idle = idle or content.get("execution_state") == "idle"
            if message["msg_type"] == "execute_reply":
                reply = content
            text += content.get("text", "") or content.get("data", {}).get("text/plain", "")
        return reply, text

    async def close(self) -> None:
        """Ends the connection; the kernel goes on."""
        if self._socket.protocol is None:
            return  # closed already
        self._socket.close()
        while await asyncio.wait_for(self._socket.read_message(), STEP_S) is not None:
            pass


class Api:
    """A running server's kernels.

    Attributes:
        url: Its address, without a slash at the end.
        runtime: The folder of its kernels' connection files.
        kernel: The kernelspec that is started.
    """

    def __init__(
        self, url: str, token: str, runtime: Path, kernel: str, env: dict[str, str]
    ) -> None:  # fmt: skip
        self.url, self._headers = url, {"Authorization": f"token {token}"}
        self.runtime, self.kernel, self._env = runtime, kernel, env
        self._opened: list[Channels] = []

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Runs a test's coroutine; then its connections are closed."""

        async def whole() -> None:
            try:
                await coroutine
            finally:
                opened, self._opened = self._opened, []
                for channels in opened:
                    await channels.close()

        asyncio.run(whole())

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's JSON; None if there is none."""
        request = HTTPRequest(
            f"{self.url}{path}", method=method, headers=self._headers, request_timeout=STEP_S,
            body=None if body is None else json.dumps(body), allow_nonstandard_methods=True,
        )  # fmt: skip
        answer = await AsyncHTTPClient().fetch(request)
        return json.loads(answer.body) if answer.body else None

    async def page(self, path: str) -> str:
        """A page's text."""
        request = HTTPRequest(f"{self.url}{path}", headers=self._headers, request_timeout=STEP_S)
        return (await AsyncHTTPClient().fetch(request)).body.decode()

    async def start(self) -> str:
        """A new kernel's id."""
        body = {"name": self.kernel} | ({"env": self._env} if self._env else {})
        return str((await self.ask("POST", "/api/kernels", body))["id"])

    async def channels(self, kernel: str) -> Channels:
        """A connection to it."""
        address = f"{self.url.replace('http', 'ws')}/api/kernels/{kernel}/channels"
        request = HTTPRequest(
            address, headers=self._headers, connect_timeout=STEP_S, request_timeout=STEP_S
        )
        channels = Channels(await websocket_connect(request, max_message_size=1 << 28))
        self._opened.append(channels)
        return channels


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def _free() -> int:
    """A port that nobody listens at now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Api]]:
    """Starts a server: (arguments of python, without those that say where and for whom).

    `python` is another environment's, which has the server and only a kernelspec of this kernel's;
    `env` is what a request for a kernel names, as Enterprise Gateway's clients do.
    """
    processes: list[subprocess.Popen[str]] = []

    def start(
        *arguments: str, prefix: str, token: str,
        python: str = sys.executable, kernel: str = "python-wasi",
        env: dict[str, str] | None = None,
    ) -> Api:  # fmt: skip
        home: Path = tmp_path_factory.mktemp("server")
        secret = secrets.token_hex(16)
        (home / "notebooks").mkdir()
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "JPY"))}
        process = subprocess.Popen(
            [
                python, *arguments, f"--{token}={secret}", f"--{prefix}.ip=127.0.0.1",
                f"--{prefix}.port={_free()}",
            ],
            env=inherited | {
                "JUPYTER_CONFIG_DIR": str(home / "config"), "JUPYTER_DATA_DIR": str(home / "data"),
                "JUPYTER_RUNTIME_DIR": str(home / "runtime"), "JUPYTER_PREFER_ENV_PATH": "1",
                "JUPYTER_PLATFORM_DIRS": "1", "PYTHONUNBUFFERED": "1",
            },
            cwd=home / "notebooks", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        processes.append(process)
        said: list[str] = []
        there = threading.Event()

        def read() -> None:
            assert process.stdout is not None
            for text in process.stdout:
                said.append(text)
                if ADDRESS.search(text):
                    there.set()
            there.set()

        threading.Thread(target=read, daemon=True).start()
        there.wait(START_S)
        found = [m[0] for text in said for m in ADDRESS.finditer(text)]
        assert found, "it did not start:\n" + "".join(said)
        port = int(found[0].rpartition(":")[2])
        eventually(lambda: _listens(port))  # it says so a moment before
        return Api(found[0], secret, home / "runtime", kernel, env or {})

    yield start
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(START_S)
        assert process.stdout is not None
        process.stdout.close()
