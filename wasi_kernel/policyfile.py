"""Policy files: a policy as TOML, as it lies beside a kernelspec's kernel.json.

The keys are those of `Policy`, with these conveniences, which the host resolves when a kernel
starts:

- a grant may be one string, `"HOST:GUEST"` or `"HOST:GUEST:rw"` (default `ro`, read-only);
- host paths may begin with `~` and contain `${VARIABLE}`; relative ones lie in the notebook's
  folder, which is `.`;
- a `runtime` without a `/` is the name of an added one (`./name` is a path in any case);
- sizes may have a unit (`"512 MiB"`, `"2GB"`);
- `pass_env` names variables of the host that the guest gets, if they are set.

What is wrong is collected, not raised, so that `Policy.load` can say all of it at once.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from wasi_kernel import plainfiles, runtimestore
from wasi_kernel.errors import PolicyError, PolicyFileError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

FILE = "policy.toml"
HEAD = "# What kernels of this kernelspec may reach. See: wasi-kernel install --help\n"

LEVELS = 20
"""How many tables and arrays may be in one another; a policy needs three."""

MODES = {"ro": False, "rw": True}
SIZES = ("memory_bytes", "stack_bytes", "output_bytes", "message_bytes", "written_bytes")
"""Keys of `limits` that may have a unit; and `bytes` of `checkpoints`."""

GRANT_FORM = """\
A table (`[[grants]]`) with the keys below, or one text: `"HOST:GUEST"`, which is read-only, or
`"HOST:GUEST:rw"`. Host paths may begin with `~` and contain `${VARIABLE}`; relative ones lie in the
notebook's folder, which is `.`. They are resolved when a kernel starts.
"""

FILE_ONLY = {
    "pass_env": (
        "list of text", "`[]`", "each: a name of an environment variable",
        "Variables of the host that the guest gets, if they are set; `env` goes before them.",
    ),
}  # fmt: skip
"""Keys that only files have: {key: (form, default, what is allowed, effect)}, for the reference."""

_FORM = "a table, or HOST:GUEST or HOST:GUEST:rw, with an absolute GUEST"
_SIZE = "a whole number of bytes, or one with a unit (KiB, MiB, GiB, kB, MB, GB)"
_NAMES = "names of the host's environment variables"
_UNITS = {
    "": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "kb": 10**3, "mb": 10**6,
    "gb": 10**9,
}  # fmt: skip
_NUMBER = re.compile(r"\s*(\d{1,20}(?:\.\d{1,20})?)\s*([a-z]*)\s*", re.IGNORECASE)
_GRANT = re.compile(r"(?P<host>.+?):(?P<guest>/[^:]*)(?::(?P<mode>[^:/]*))?")
_VARIABLE = re.compile(r"\$\{([^}]*)\}")


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a file says, as it is written.

    Raises:
        PolicyFileError: It cannot be read, or is no TOML.
    """
    import tomllib

    try:
        return _checked(tomllib.loads(plainfiles.read(path).decode("utf-8")))
    except OSError as e:
        raise PolicyFileError(str(path), f"cannot be read: {e.strerror}") from e
    except (ValueError, RecursionError) as e:  # no TOML, no UTF-8, a number too long, too deep
        raise PolicyFileError(str(path), f"is not TOML: {e}") from e


def _checked(data: dict[str, Any]) -> dict[str, Any]:
    """`data`, if its tables are not too deep to be shown in an error.

    Raises:
        ValueError: They are.
    """
    level: list[Any] = [data]
    for _ in range(LEVELS):
        level = [v for each in level if isinstance(each, (dict, list))
                 for v in (each.values() if isinstance(each, dict) else each)]  # fmt: skip
    if level:
        raise ValueError(f"tables are in one another more than {LEVELS} times")
    return data


def text(data: dict[str, Any]) -> str:
    """A file that says `data`."""
    return HEAD + toml(data)


def toml(data: dict[str, Any]) -> str:
    """`data` as TOML."""
    import tomli_w

    return tomli_w.dumps(data)


def is_absolute(written: str) -> bool:
    """Does a host path mean the same in every folder?"""
    return written.startswith(("/", "~", "${"))


def resolve(
    data: dict[str, Any], *, work: Path, environ: Mapping[str, str]
) -> tuple[dict[str, Any], list[PolicyError]]:
    """(what a file means on this host, as `Policy.from_dict` takes it; what is wrong with it).

    Args:
        data: What the file says.
        work: Where relative host paths lie: the notebook's folder.
        environ: The host's environment.
    """
    host = _Host(work, environ)
    found = {key: value for key, value in data.items() if key != "pass_env"}
    if isinstance(found.get("grants"), list):
        found["grants"] = host.grants(found["grants"])
    if isinstance(found.get("runtime"), str) and not runtimestore.is_name(found["runtime"]):
        found["runtime"] = host.path("runtime", found["runtime"])
    for name, keys in (("limits", SIZES), ("checkpoints", ("bytes",))):
        if isinstance(found.get(name), dict):
            found[name] = host.sizes(name, found[name], keys)
    passed = host.passed(data.get("pass_env", []))
    if isinstance(found.setdefault("env", {}), dict):
        found["env"] = passed | found["env"]
    return found, host.problems


class _Host:
    """Resolves what a policy file says of this host; keeps what is wrong with it."""

    def __init__(self, work: Path, environ: Mapping[str, str]) -> None:
        self._work, self._environ = work, environ
        self.problems: list[PolicyError] = []

    def path(self, key: str, written: str) -> str | None:
        """The absolute host path that is meant; None if something is wrong with it."""
        if "\0" in written:
            self.problems.append(PolicyError(key, written, "a path without NUL characters"))
            return None
        missing = [n for n in _VARIABLE.findall(written) if n not in self._environ]
        if missing:
            allowed = f"a path; the host's environment has no {', '.join(missing)}"
            self.problems.append(PolicyError(key, written, allowed))
            return None
        path = _VARIABLE.sub(lambda m: self._environ[m[1]], written)
        path = os.path.expanduser(path)
        if path.startswith("~"):
            self.problems.append(PolicyError(key, written, "a path; there is no such home folder"))
            return None
        return os.path.normpath(self._work / path)

    def grants(self, given: list[Any]) -> list[dict[str, Any]]:
        """The grants as tables; none of them if something is wrong with one."""
        before = len(self.problems)
        found = [self._grant(f"grants[{k}]", grant) for k, grant in enumerate(given)]
        return found if len(self.problems) == before else []

    def _grant(self, key: str, given: Any) -> dict[str, Any]:
        grant = table(given) if isinstance(given, str) else given
        if not isinstance(grant, dict):
            self.problems.append(PolicyError(key, given, _FORM))
            return {}
        if isinstance(grant.get("host_path"), str):
            return {**grant, "host_path": self.path(f"{key}.host_path", grant["host_path"])}
        return dict(grant)

    def sizes(self, name: str, given: dict[str, Any], keys: Collection[str]) -> dict[str, Any]:
        """A table whose sizes are numbers; without those that are none."""
        found = {}
        for key, value in given.items():
            number = size(value) if key in keys and isinstance(value, str) else value
            if number is None:
                self.problems.append(PolicyError(f"{name}.{key}", value, _SIZE))
            else:
                found[key] = number
        return found

    def passed(self, names: Any) -> dict[str, str]:
        """The host's variables of these names, as far as they are set."""
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            self.problems.append(PolicyError("pass_env", names, _NAMES))
            return {}
        return {name: self._environ[name] for name in names if name in self._environ}


def table(grant: str) -> dict[str, Any] | None:
    """A grant that is written as HOST:GUEST or HOST:GUEST:MODE, None if it is not."""
    match = _GRANT.fullmatch(grant)
    mode = "" if match is None else match["mode"] or "ro"
    if match is None or mode not in MODES:
        return None
    return {
        "host_path": match["host"], "guest_path": match["guest"], "writable": MODES[mode],
    }  # fmt: skip


def size(written: str) -> int | None:
    """The bytes that a size means, None if it is none."""
    match = _NUMBER.fullmatch(written)
    if match is None or match[2].lower() not in _UNITS:
        return None
    return int(float(match[1]) * _UNITS[match[2].lower()])
