"""Pip: what the cells of a session may install, and its way from a cell's question to a folder.

The guest's `%pip install` asks the kernel process (a pip_request); here the question is judged by
the policy, and a process of its own (installing.py) does what it wants. A guest is hostile: its
requirements are names with versions, no options, paths or addresses; how many, how often and how
much is bounded here; and what went wrong is told to the user, not to the guest, since it may name
folders and indexes of the host.

Never imports wasmtime or anything of Jupyter.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import TYPE_CHECKING, Any

from wasi_kernel import installed, runtimes
from wasi_kernel.errors import PackageError, RequirementError
from wasi_kernel.policy import INSTALLED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wasi_kernel.policy import Policy

    Say = Callable[[str, str], None]
    """Shows (name of a stream, text) to the user, in the cell that asks."""

MODULE = "wasi_kernel.installing"
REQUIREMENTS = 200
"""So many one request may name."""

REQUESTS = 200
"""So many requests a session may make: each may ask an index and download."""

LINE_BYTES = 1 << 20
"""The longest line that the other process may say."""

_PYTHON = re.compile(r"(3\.\d{1,2})\.\S{1,20}")


class _ToldError(PackageError):
    """An error of the other process, by its name there."""

    def __init__(self, ename: str, evalue: str) -> None:
        super().__init__(evalue)
        self.ename = ename


class Pip:
    """One session's installer.

    Args:
        policy: Whose `pip` decides, and whose packages are there already.
        cache: The cache folder.
        base: The session's folder, see installed.py.
    """

    def __init__(self, policy: Policy, cache: Path, base: Path) -> None:
        self._policy, self._cache, self._base = policy, cache, base
        self._requests = 0

    async def answer(self, asked: dict[str, Any], version: str, say: Say) -> dict[str, Any]:
        """The answer to what a guest asks; shows the user what is being done, and what is wrong.

        Cancelling it ends what it has begun; then nothing is installed.

        Args:
            asked: `requirements`: a list of texts; `upgrade`, `quiet`; `sets`: keys of those that
                are on its path, the first one first.
            version: The guest's Python, "3.15.0".
            say: Shows text.
        """
        quiet = asked.get("quiet") is True
        try:
            said = await self._install(
                asked, version, lambda t: None if quiet else say("stdout", t)
            )
        except PackageError as e:
            say("stderr", f"[wasi-kernel] {e}\n")
            return {
                "status": "error",
                "ename": e.ename if isinstance(e, _ToldError) else type(e).__name__,
            }
        for note in said.pop("notes"):
            say("stderr", f"[wasi-kernel] {note}.\n")
        return said

    async def _install(
        self, asked: dict[str, Any], version: str, say: Callable[[str], None]
    ) -> dict[str, Any]:
        texts = self._wanted(asked.get("requirements"))
        known = installed.load(self._base)
        sets = asked.get("sets")
        sets = [key for key in sets if key in known] if isinstance(sets, list) else []
        python = _PYTHON.fullmatch(version)
        if python is None:
            raise PackageError(f"the guest's Python calls itself {version[:40]!r}")
        left = installed.BYTES - sum(about["bytes"] for about in known.values())
        if len(known) >= installed.SETS or left <= 0:
            raise PackageError("this session has installed all that it may; restart the kernel")
        task = {
            "cache": str(self._cache), "base": str(self._base),
            "runtime": runtimes.named(self._policy.runtime),
            "packages": list(self._policy.packages), "python": python[1], "requirements": texts,
            "upgrade": asked.get("upgrade") is True, "sets": sets[: installed.SETS],
            "most_bytes": left,
        }  # fmt: skip
        said = await _run(task, say)
        if said.get("status") != "ok":
            raise _ToldError(str(said.get("ename")), str(said.get("evalue")))
        key, size = said.pop("key"), said.pop("bytes")
        if key and key not in known:
            installed.store(
                self._base, {**known, key: {"bytes": size, "packages": said["packages"]}}
            )
        return {**said, "path": f"{INSTALLED}/{key}" if key else ""}

    def _wanted(self, texts: Any) -> list[str]:
        """The texts, if all of them are requirements that the policy allows.

        Raises:
            PackageError: One is not, or there are too many.
        """
        allowed = self._policy.pip
        if not allowed:
            raise PackageError("the policy allows cells to install nothing (pip)")
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise PackageError("these are no requirements")
        if not 0 < len(texts) <= REQUIREMENTS:
            raise PackageError(f"one request names 1 to {REQUIREMENTS} requirements")
        from wasi_kernel import requirements  # not on the start path

        self._requests += 1
        if self._requests > REQUESTS:
            raise PackageError(f"this session has asked for packages {REQUESTS} times; restart")
        for text in texts:
            wanted = requirements.parse_foreign(text)
            if isinstance(allowed, bool) or wanted.name in map(_plain, allowed):
                continue
            reason = f"the policy lets cells install only {', '.join(allowed)} (pip = [...])"
            raise RequirementError(text, reason)
        return texts


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


async def _run(task: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """Has the other process do `task`; what it says at its end.

    Raises:
        PackageError: It cannot be started, or ended without a word.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", MODULE, limit=LINE_BYTES, start_new_session=True,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
    except OSError as e:
        raise PackageError(f"no process can be started: {e.strerror}") from None
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None and stdout is not None  # noqa: S101, PT018 - both are pipes
    try:
        stdin.write(json.dumps(task).encode() + b"\n")
        while line := await stdout.readline():
            said: dict[str, Any] = json.loads(line)
            if "say" not in said:
                return said
            say(f"{said['say']}\n")
    except (OSError, ValueError):
        pass  # it has ended
    finally:
        stdin.close()  # which ends it, and all that it has started
        await process.wait()
    raise PackageError("the process that installs ended without a word; see the server's log")
