"""Kernelspecs: what tells Jupyter how to start a kernel (kernel.json in a folder of that name).

https://jupyter-client.readthedocs.io/en/stable/kernels.html#kernel-specs

Ours may have a policy beside it (policyfile.py). Only kernelspecs that start this kernel are listed
or touched.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wasi_kernel import plainfiles, policyfile
from wasi_kernel.errors import KernelspecError

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
DEFAULT = "python-wasi"
"""The kernelspec that comes with the installation; its logos are everyone's."""

MODULE = "wasi_kernel"
WITH_POLICY = ("--policy", "{resource_dir}/" + policyfile.FILE)
"""Jupyter puts the kernelspec's own folder there."""


@dataclass(frozen=True)
class Kernelspec:
    """One that starts this kernel.

    Attributes:
        name: By which Jupyter knows it.
        display_name: As the launcher shows it.
        folder: Where it is.
        options: Options of `wasi-kernel kernel` in it, but for its policy.
        policy: Its policy file, None if it has none.
        python: What its kernels are started with.
    """

    name: str
    display_name: str
    folder: Path
    options: tuple[str, ...]
    policy: Path | None
    python: str


def places() -> list[Path]:
    """The folders in which Jupyter looks for kernelspecs, first the one that it prefers."""
    from jupyter_core.paths import jupyter_path

    return [Path(path) for path in jupyter_path("kernels")]


def user_place() -> Path:
    """The folder of this user's own kernelspecs."""
    from jupyter_core.paths import jupyter_data_dir

    return Path(jupyter_data_dir()) / "kernels"


def prefix_place(prefix: str | Path) -> Path:
    """The folder of the kernelspecs of everyone who uses the environment at `prefix`."""
    return Path(prefix).absolute() / "share" / "jupyter" / "kernels"


def install(
    name: str,
    display_name: str,
    options: Sequence[str] = (),
    *,
    place: Path | None = None,
    policy: dict[str, Any] | None = None,
    replace: bool = False,
) -> Path:
    """Writes a kernelspec, whole or not at all; its folder.

    Args:
        name: By which Jupyter knows it: letters, digits and `.`, `_`, `-`.
        display_name: As the launcher shows it.
        options: Options of `wasi-kernel kernel`.
        place: The folder of kernelspecs to write it to; default: this user's own.
        policy: What its policy file says, if it is to have one.
        replace: May it take the place of one of ours that has this name and lies there?

    Raises:
        KernelspecError: The name cannot be used, or is taken.
        OSError: The folder cannot be written.
    """
    place = user_place() if place is None else place
    folder = place / name
    check_name(name, folder, replace=replace)
    options = (*options, *(WITH_POLICY if policy is not None else ()))
    spec = {
        "argv": [
            sys.executable, "-P", "-m", MODULE, "kernel", "-f", "{connection_file}", *options,
        ],
        "display_name": display_name,
        "language": "python",
        "interrupt_mode": "message",
        "metadata": {"debugger": False, "supported_encryption": ["curve"]},
        "kernel_protocol_version": "5.5",
    }  # fmt: skip
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=place) as scratch:
        new = Path(scratch) / name
        new.mkdir()
        (new / "kernel.json").write_text(json.dumps(spec, indent=1) + "\n")
        if policy is not None:
            (new / policyfile.FILE).write_text(policyfile.text(policy))
        for logo in _logos():
            shutil.copyfile(logo, new / logo.name)
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        new.rename(folder)
    return folder


def check_name(name: str, folder: Path, *, replace: bool) -> None:
    """Checks that a kernelspec of this name may be written to `folder`.

    Raises:
        KernelspecError: The name cannot be used, or is taken.
    """
    if not NAME.fullmatch(name):
        raise KernelspecError(name, "letters (small ones), digits and . _ - only")
    for path in dict.fromkeys([folder.absolute(), *(p.absolute() / name for p in places())]):
        if not path.exists():
            continue
        if path != folder.absolute():  # one of the two would be hidden
            raise KernelspecError(name, f"{path} is there already; choose another name")
        if not replace:
            why = f"{path} is there already; choose another name, or say that it is to be replaced"
            raise KernelspecError(name, why)
        if _read(path) is None:
            raise KernelspecError(name, f"{path} starts another kernel, and is not replaced")


def _logos() -> list[Path]:
    for path in places():
        if found := sorted((path / DEFAULT).glob("logo-*")):
            return found
    return []


def installed() -> list[Kernelspec]:
    """All of ours that Jupyter finds, by name."""
    found: dict[str, Kernelspec | None] = {}
    for place in places():
        with contextlib.suppress(OSError):
            for folder in place.iterdir():
                found.setdefault(folder.name, _read(folder))
    return sorted((spec for spec in found.values() if spec is not None), key=lambda s: s.name)


def in_places(given: Sequence[Path]) -> list[Kernelspec]:
    """All of ours in these folders, also those that others hide."""
    found: dict[Path, Kernelspec | None] = {}
    for place in given:
        with contextlib.suppress(OSError, ValueError):  # ValueError: a path with a NUL
            found |= {folder: _read(folder) for folder in place.iterdir()}
    return [spec for spec in found.values() if spec is not None]


def find(name: str) -> Kernelspec:
    """The one of ours that Jupyter finds under this name.

    Raises:
        KernelspecError: There is none; says which there are.
    """
    ours = {spec.name: spec for spec in installed()}
    if name not in ours:
        known = ", ".join(ours) or "none"
        raise KernelspecError(
            name, f"no kernelspec of this kernel has this name; there are: {known}"
        )
    return ours[name]


def remove(spec: Kernelspec) -> None:
    """Removes a kernelspec and its policy.

    Raises:
        OSError: It cannot be removed.
    """
    if spec.folder.is_symlink():
        spec.folder.unlink()
    else:
        shutil.rmtree(spec.folder)


def _read(folder: Path) -> Kernelspec | None:
    """The kernelspec in a folder if it starts this kernel."""
    try:
        said = json.loads(plainfiles.read(folder / "kernel.json"))
        argv = [str(word) for word in said["argv"]]
        at = argv.index(MODULE)
        if argv[at - 1] != "-m" or argv[at + 1] != "kernel":
            return None
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None
    options = argv[at + 2 :]
    for given in ("-f", WITH_POLICY[0]):
        if given in options:
            del options[(k := options.index(given)) : k + 2]
    policy = folder / policyfile.FILE
    has_policy = any(word == WITH_POLICY[1] for word in argv)
    display = str(said.get("display_name", folder.name))
    return Kernelspec(
        folder.name, display, folder, tuple(options), policy if has_policy else None, argv[0]
    )
