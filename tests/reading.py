"""Pages of docs/, done as a reader would: files written, commands given to a shell, cells run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from jupyter_client.manager import start_new_kernel

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parents[1] / "docs"
TIMEOUT_S = 100
PROGRAMS = {
    "python": "", "wasi-kernel": "-P -m wasi_kernel", "nbgrader": "-P -m nbgrader",
}  # fmt: skip
"""What a reader has installed, and how this environment's Python runs it."""

_BLOCK = re.compile(r"^```(\w+) ?(.*)\n((?:.*\n)*?)^```$", re.MULTILINE)
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class Block(NamedTuple):
    """A code block: its language, what follows that on its line, its text, where it is."""

    language: str
    about: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    return [
        Block(m[1], m[2], m[3], page.count("\n", 0, m.start()) + 1) for m in _BLOCK.finditer(page)
    ]


def commands(text: str) -> Iterator[tuple[str, str]]:
    """(command, what it prints) of a console block."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed


def agrees(expected: str, said: str) -> bool:
    parts = [re.escape(part) for part in expected.strip().split("...")]
    return re.fullmatch(".*".join(parts), said.strip(), re.DOTALL) is not None


class Reader:
    """Does what a page says, in a home folder of its own."""

    def __init__(self, home: Path) -> None:
        self.cwd, self._home = home, home
        commands = home / ".bin"
        commands.mkdir(parents=True)
        for name, options in PROGRAMS.items():
            (commands / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {options} "$@"\n')
            (commands / name).chmod(0o755)
        self.env = {
            **os.environ, "HOME": str(home), "PATH": f"{commands}:{os.environ['PATH']}",
            "JUPYTER_DATA_DIR": str(home / ".local/share/jupyter"),
            "JUPYTER_PATH": str(home / "hub/share/jupyter"),
        }  # fmt: skip
        self._kernels: dict[tuple[str, Path], tuple[Any, Any]] = {}

    def shell(self, command: str) -> str:
        """What a command prints, as on a terminal; it may change the folder and the environment."""
        after = self._home / ".after"
        script = f'{command}\nstatus=$?; pwd > "{after}"; env -0 > "{after}.env"; exit $status'
        done = subprocess.run(
            ["bash", "--norc", "-c", script], cwd=self.cwd, env=self.env, check=False, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self.cwd = Path(after.read_text().strip())
        pairs = Path(f"{after}.env").read_text().split("\0")
        self.env = dict(pair.split("=", 1) for pair in pairs if pair)
        return done.stdout

    def cell(self, name: str, code: str) -> str:
        """What a cell shows in a notebook in this folder; of an error, its end."""
        if (name, self.cwd) not in self._kernels:
            with pytest.MonkeyPatch.context() as patch:
                for key in ("HOME", "JUPYTER_DATA_DIR", "JUPYTER_PATH"):
                    patch.setenv(key, self.env[key])
                self._kernels[name, self.cwd] = start_new_kernel(
                    kernel_name=name, startup_timeout=TIMEOUT_S, cwd=str(self.cwd)
                )
        _, client = self._kernels[name, self.cwd]
        shown: list[str] = []

        def show(message: dict[str, Any]) -> None:
            content = message["content"]
            if message["msg_type"] == "stream":
                shown.append(content["text"])
            elif message["msg_type"] == "execute_result":
                shown.append(content["data"]["text/plain"])
            elif message["msg_type"] == "error":
                text = _ANSI.sub("", "\n".join(content["traceback"]))
                shown.append(text[text.rindex(f"{content['ename']}: ") :])

        client.execute_interactive(code, timeout=TIMEOUT_S, output_hook=show)
        return "".join(shown)

    def close(self) -> None:
        for manager, client in self._kernels.values():
            client.stop_channels()
            manager.shutdown_kernel(now=True)
