"""`wasi-kernel run`, also called `python`: a program in the sandbox, as `python` runs it.

With its arguments, standard streams and exit status; without a program, on a terminal, a prompt.
The program's text is read here and handed over; what it imports comes from the folders that the
guest sees. Bytes go through as they are, but to a terminal, which would obey them: there the
policy's `frontend` decides, as for a notebook.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wasi_kernel import kernelspecs, launch
from wasi_kernel.cli import offers, policies, preparing
from wasi_kernel.errors import GuestLost, ProtocolError
from wasi_kernel.frontend import Frontend
from wasi_kernel.policy import WORK, Policy
from wasi_kernel.session import Session

if TYPE_CHECKING:
    from wasi_kernel.frames import Frame

OUTPUT_BYTES = 4096 << 20
"""What a program may print, unless something else is said: a cell's 32 MiB are for a page."""

INTERRUPTED, TIMED_OUT = 130, 124
"""Exit statuses: as of a shell, and as of coreutils' timeout."""

_STATUS = re.compile(r"exit status (\d+)")


@click.command(
    short_help="Run a Python program in the sandbox, as python would.",
    epilog="\b\n  wasi-kernel run script.py --verbose\n"
    "  wasi-kernel run --grant ./data:/data:rw -c 'print(open(\"/data/a.txt\").read())'",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.option(
    "--kernel",
    metavar="NAME",
    shell_complete=offers.kernelspec_names,
    help="Start from the policy of the kernelspec NAME.",
)
@policies.policy_options
@click.option("-c", "code", metavar="CODE", help="Run this code.")
@click.option("-m", "module", metavar="MODULE", help="Run this module.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[SCRIPT] [ARGS]...")
def run(
    kernel: str | None, code: str | None, module: str | None, arguments: tuple[str, ...],
    **given: Any,
) -> int:  # fmt: skip
    """Run a Python program in the sandbox: a SCRIPT, -c CODE, -m MODULE, or - (standard input).

    It sees this folder, read-only, as /work, and what else you grant. Without a program, and on a
    terminal, it prompts for Python. Ends with the program's exit status, or with 124 if the
    program took longer than it may (--cell-seconds, --cell-cpu-seconds).
    """
    policy = _policy(kernel, given)
    if code is None and module is None and not arguments and sys.stdin.isatty():
        from wasi_kernel.cli.prompt import prompt

        preparing.get_packages(policy, quiet=False)
        return prompt(policy)
    preparing.get_packages(policy, quiet=False)
    program = _program(policy, code, module, arguments)
    return preparing.with_agent(lambda: asyncio.run(_run(policy, program)), quiet=False)


def _policy(kernel: str | None, given: dict[str, Any]) -> Policy:
    if kernel is not None and given["start"] is not None:
        raise click.UsageError("--kernel or --policy, not both: each is where to start from")
    if kernel is not None:
        path = kernelspecs.find(kernel).policy
        given = {**given, "start": None if path is None else str(path)}
    said = policies.data(given)
    policy = policies.check(said, work=Path.cwd())
    limits = policy.limits
    if "output_bytes" not in said.get("limits", {}):
        limits = replace(limits, output_bytes=OUTPUT_BYTES)
    checkpoints = replace(policy.checkpoints, enabled=False)  # a program has no cells to undo
    return replace(policy, limits=limits, checkpoints=checkpoints)


def _program(
    policy: Policy, code: str | None, module: str | None, arguments: tuple[str, ...]
) -> dict[str, Any]:
    """What wasi_agent.script is told to run."""
    about: dict[str, Any] = {"path": "", "ttys": [s.isatty() for s in _streams()]}
    if code is not None:
        return about | {"kind": "code", "source": code, "argv": ["-c", *arguments]}
    if module is not None:
        return about | {"kind": "module", "argv": [module, *arguments]}
    name, *others = arguments or ("-",)
    if name == "-":
        return about | {"kind": "code", "source": sys.stdin.read(), "argv": ["-", *others]}
    path = Path(name)
    try:
        source = path.read_bytes().decode("utf-8-sig")
    except OSError as e:
        raise _unreadable(name, str(e.strerror)) from None
    except UnicodeDecodeError:
        raise _unreadable(name, "it is not UTF-8 text") from None
    folder = _in_guest(policy, path.absolute().parent)
    return about | {"kind": "file", "source": source, "argv": [name, *others], "path": folder}


class _UnreadableError(click.ClickException):
    exit_code = 2  # as python's


def _unreadable(name: str, why: str) -> click.ClickException:
    return _UnreadableError(f"the program {name!r} cannot be read: {why}")


def _streams() -> tuple[Any, Any, Any]:
    return sys.stdin, sys.stdout, sys.stderr


def _in_guest(policy: Policy, folder: Path) -> str:
    """The guest path of a host folder; /work if the guest does not see it."""
    shown = [(Path(g.host_path), g.guest_path) for g in policy.grants]
    if policy.work and policy.work_grant is None:
        shown.append((Path.cwd(), WORK))
    real = folder.resolve()
    for host, guest in sorted(shown, key=lambda pair: -len(str(pair[0].resolve()))):
        with contextlib.suppress(ValueError):
            below = real.relative_to(host.resolve()).as_posix()
            return guest if below == "." else f"{guest}/{below}"
    return WORK


class Streams:
    """The program's standard streams, which are this process's."""

    def __init__(self, policy: Policy, session: Session) -> None:
        self._session = session
        self._frontend = Frontend(policy.frontend, output_characters=policy.limits.output_bytes)
        self._buffers = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}
        self._ttys = {"stdout": sys.stdout.isatty(), "stderr": sys.stderr.isatty()}
        self._reading: asyncio.Task[None] | None = None

    def show(self, frame: Frame) -> None:
        """Prints what the program prints, and answers what it asks."""
        if frame.type == "input_request":
            self._reading = asyncio.get_running_loop().create_task(self._read(frame))
        elif frame.type == "stream":
            self._print(frame)
        else:
            self._session.questions.answer_unasked(frame, self._frontend)

    def _print(self, frame: Frame) -> None:
        name = "stderr" if frame.content.get("name") == "stderr" else "stdout"
        data = b"".join(bytes(b) for b in frame.buffers) or str(frame.content["text"]).encode()
        if self._ttys[name]:
            content = {"name": name, "text": data.decode("utf-8", "replace")}
            shown = self._frontend.output(frame._replace(content=content, buffers=()), 1)
            data = b"" if shown is None else shown["text"].encode()
        try:
            self._buffers[name].write(data)
            self._buffers[name].flush()
        except BrokenPipeError:  # nobody reads on: as for any program
            self._buffers[name] = open(os.devnull, "wb")  # noqa: SIM115 - until this process ends
            self._session.interrupt()

    async def _read(self, frame: Frame) -> None:
        count = frame.content.get("bytes")
        wanted = count if type(count) is int and 0 < count <= 1 << 20 else 1 << 16
        stdin: Any = sys.stdin.buffer
        data = await asyncio.to_thread(stdin.read1, wanted)
        await self._session.questions.answer_bytes(frame.request, data)


async def _run(policy: Policy, program: dict[str, Any]) -> int:
    """Runs a program in a guest of its own; its exit status."""
    session = Session(launch.settings(policy, Path.cwd()))
    streams = Streams(policy, session)
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ValueError, NotImplementedError):
        loop.add_signal_handler(signal.SIGINT, session.interrupt)
    call = f"__import__('wasi_agent.script').script.run({json.dumps(program)!r})"
    content = {
        "code": "", "silent": True, "store_history": False, "allow_stdin": True,
        "execution_count": 1, "user_expressions": {"status": call}, "raw": program["ttys"],
    }  # fmt: skip
    try:
        reply = await session.request("execute_request", content, on_output=streams.show)
    except GuestLost as e:
        status = _STATUS.fullmatch(e.detail)
        if e.ename == "GuestExited" and status is not None:
            return int(status[1])
        click.echo(f"wasi-kernel: {e}", err=True)
        return TIMED_OUT if e.ename == "TimeLimitExceeded" else 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except ProtocolError as e:
        click.echo(f"wasi-kernel: {e}", err=True)
        return 1
    finally:
        await session.close()
    passed = session.passed is not None
    if passed:
        click.echo(f"wasi-kernel: {session.passed}", err=True)
    found = reply.content.get("user_expressions", {}).get("status", reply.content)
    try:
        ended = int(found["data"]["application/json"]["value"])
    except (KeyError, TypeError, ValueError):
        if passed:
            return TIMED_OUT
        click.echo(f"wasi-kernel: {found.get('ename')}: {found.get('evalue')}", err=True)
        return INTERRUPTED if found.get("ename") == "KeyboardInterrupt" else 1
    return TIMED_OUT if passed and ended == INTERRUPTED else ended
