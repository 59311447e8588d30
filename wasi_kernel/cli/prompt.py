"""The prompt of `wasi-kernel run` on a terminal: cells in, outputs out; history and completion."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wasi_kernel import __version__, caches
from wasi_kernel.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prompt_toolkit.completion import Completer, Completion

    from wasi_kernel.policy import Policy

HISTORY = "prompt-history"
LEAVES = ("exit", "quit", "exit()", "quit()")


def prompt(policy: Policy) -> int:
    """Runs a prompt until the end of the input; the exit status."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory

    cache = caches.Cache(caches.default_path())
    with Sandbox(policy, work=Path.cwd(), on_output=_show) as box:
        click.echo(f"Python {box.python} in WebAssembly (WASI), wasi-kernel {__version__}")
        click.echo("%wasi shows what this sandbox may reach; Ctrl-D or exit ends it.")
        cells: Any = PromptSession(
            history=FileHistory(str(cache.folder("history") / HISTORY)),
            completer=_completer(box),
            complete_while_typing=False,
        )
        lines: Any = PromptSession()
        count = 1
        while (code := _cell(cells, box, count)) is not None and code.strip() not in LEAVES:
            try:
                box.run(code, input=lambda text, hidden: lines.prompt(text, is_password=hidden))
            except KeyboardInterrupt:
                click.echo("KeyboardInterrupt", err=True)
            count += 1
    return 0


def _completer(box: Sandbox) -> Completer:
    from prompt_toolkit.completion import Completer, Completion

    class Guest(Completer):
        """What the guest's Python completes."""

        def get_completions(self, document: Any, complete_event: Any) -> Iterator[Completion]:
            del complete_event
            said = box.complete(document.text, document.cursor_position)
            start = said["cursor_start"] - document.cursor_position
            yield from (Completion(match, start) for match in said["matches"])

    return Guest()


def _show(output: dict[str, Any]) -> None:
    if output["type"] == "stream":
        stream = sys.stderr if output["name"] == "stderr" else sys.stdout
        stream.write(output["text"])
        stream.flush()
    elif output["type"] == "error":
        print("\n".join(output["traceback"]), file=sys.stderr)
    elif "data" in output:
        print(output["data"].get("text/plain", ""))


def _cell(cells: Any, box: Sandbox, count: int) -> str | None:
    """Lines until they are a whole cell; None at the end of the input."""
    code, indent = "", ""
    while True:
        try:
            line = cells.prompt("...: " if code else f"[{count}]: ", default=indent)
        except EOFError:
            return None
        except KeyboardInterrupt:
            code, indent = "", ""
            continue
        code = f"{code}\n{line}" if code else str(line)
        said = box.is_complete(code)
        if code.strip() and (said["status"] != "incomplete" or not line.strip()):
            return code
        code, indent = (code, str(said.get("indent", ""))) if code.strip() else ("", "")
