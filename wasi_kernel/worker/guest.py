"""One guest: an instance of python.wasm with its store, from instantiation to its end.

Trap, ExitTrap and WasmtimeError stop here: they become `GuestLost`, and the instance is dead. All
methods run on the one thread that owns the guest, whose stack must be larger than the wasm stack.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from wasmtime import Store, Trap, TrapCode, WasiConfig, WasmtimeError

from wasi_kernel.errors import GuestLost, InstallationError
from wasi_kernel.policy import raising
from wasi_kernel.worker import images
from wasi_kernel.worker.interrupts import Interrupter
from wasi_kernel.worker.memory import LinearMemory, OutOfBoundsError
from wasi_kernel.worker.preopens import Preopen, opened
from wasi_kernel.worker.switchboard import MONOTONIC, Observer, Switchboard
from wasi_kernel.worker.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from wasmtime import Engine, Module

    from wasi_kernel.caches import Cache
    from wasi_kernel.policy import Limits
    from wasi_kernel.worker.door import Door

REACTOR_EXPORTS = frozenset({"turn", "host_alloc", "shutdown"})
SCRATCH = 1024
"""An address for arguments of the host's own WASI calls; what stands there is put back."""

FIRST_FD, OFLAGS_DIRECTORY = 3, 2  # WASI preview 1
CLOCK_MARGIN_NS = 1_000_000
"""What the clock jumps ahead over an image, so that no error of reading it makes it go back."""

CLOCK_READINGS = 20
"""How often the two clocks are read, at most, to know how they differ."""

MEMORY_NEARLY = 0.95
"""A guest whose memory is full: it has this part of its limit, and cannot be expected to go on."""

TRAPPED_NEARLY = 0.85
"""A guest that traps with this part of its memory limit in use is taken to have died of it. A list
of small objects asks for a tenth of all memory when it grows, and CPython 3.15 does not survive it
if `append` fails (github.com/python/cpython/issues/151818; seen at 93 to 96 % of the limit)."""


def is_reactor(module: Module) -> bool:
    """Is the guest at rest between calls (and can be imaged), or does it run `_start` once?"""
    return {e.name for e in module.exports} >= REACTOR_EXPORTS


class _Host:
    """What the switchboard calls: the door, and the ends of a guest."""

    def __init__(self, door: Door, usage: Usage) -> None:
        self._usage = usage
        self.door_read, self.door_write = door.door_read, door.door_write
        self.fdstat_get, self.filestat_get = door.fdstat_get, door.filestat_get
        self.poll_oneoff = door.poll_oneoff
        self.exit_status: int | None = None
        self.failure: BaseException | None = None

    def proc_exit(self, status: int) -> None:
        """The switchboard traps when this returns."""
        self.exit_status = status

    def make_room(self) -> int:
        """1 if there is more room for files than was thought."""
        return int(self._usage.make_room())

    def failed(self, error: BaseException) -> None:
        """A host function failed; the first failure counts."""
        self.failure = self.failure or error


class Guest:
    """An instance that has not run yet, or is at rest, or is dead.

    Attributes:
        memory: Its linear memory.
        door: Its fd 0.
        missing: Guest paths of folders that were granted and are not there any more.

    Raises:
        InstallationError: On construction: a folder cannot be opened, or the module does not fit
            the limits.
    """

    def __init__(
        self,
        engine: Engine,
        cache: Cache,
        module: Module,
        door: Door,
        *,
        preopens: Iterable[Preopen],
        env: dict[str, str],
        argv: list[str],
        limits: Limits,
        usage: Usage | None = None,
    ) -> None:
        """Counts in `usage`, which the caller keeps; without it, in one of its own."""
        self.door = door
        self._limits = limits
        preopens = list(preopens)
        self._owns_usage = usage is None
        if usage is None:
            usage = Usage(limits, [p.host_path for p in preopens if p.writable])
        self._usage = usage
        self._host = _Host(door, self._usage)
        self._interrupter: Interrupter | None = None
        self._store = Store(engine)
        self._root_fd = FIRST_FD + len(preopens) - 1
        try:
            wasi = WasiConfig()
            wasi.argv, wasi.env = argv, list(env.items())
            with opened(preopens) as (found, self.missing):
                self._preopened = {FIRST_FD + k: p.guest_path for k, (_, p) in enumerate(found)}
                for host_path, p in found:
                    wasi.preopen_dir(host_path, p.guest_path, p.writable)
            self._store.set_wasi(wasi)
            self._store.set_limits(memory_size=limits.memory_bytes)
            self._switchboard = Switchboard(engine, cache, self._store, module, self._host)
            self.memory = LinearMemory(self._store, self._switchboard.memory)
            door.attach(self.memory)
            self._usage.count_at(*self._switchboard.counts())
            self._clock_origin_ns = self._calibrate_clock()
        except (WasmtimeError, Trap, KeyError, UnicodeError, OSError) as e:
            self._free()
            lines = str(e).splitlines() or [repr(e)]
            reason = lines[-1].strip() if isinstance(e, Trap) else lines[0]
            what = "it lacks " if isinstance(e, KeyError) else ""
            raise InstallationError(f"the guest cannot start: {what}{reason}") from e
        except OutOfBoundsError as e:
            self._free()
            raise InstallationError("the guest cannot start: its memory is too small") from e
        door.monotonic_ns = self.monotonic_ns

    # -- clocks ------------------------------------------------------------------------------

    def _calibrate_clock(self) -> int:
        """Host monotonic time at which the guest's own native monotonic clock was zero.

        This process may be put aside between the readings of the two clocks (6 ms were seen), so
        the guest's is read between two readings of the host's, and again unless these are close.
        """
        kept = self.memory.read(SCRATCH, 8)
        best = (sys.maxsize, 0)
        for _ in range(CLOCK_READINGS):
            before = time.monotonic_ns()
            self._switchboard.call("clock_time_get", MONOTONIC, 0, SCRATCH)
            width = time.monotonic_ns() - before
            guest_ns = int.from_bytes(self.memory.read(SCRATCH, 8), "little")
            best = min(best, (width, before + width // 2 - guest_ns))
            if width < CLOCK_MARGIN_NS // 4:
                break
        self.memory.write(SCRATCH, kept)
        return best[1]

    def monotonic_ns(self) -> int:
        """The guest's monotonic clock now."""
        return time.monotonic_ns() - self._clock_origin_ns + self._switchboard.clock_offset_ns

    # -- images ------------------------------------------------------------------------------

    def save_image(self, path: Path) -> dict[str, Any]:
        """Writes this resting guest to `path`; returns the notes that `wake` needs."""
        self.door.drain()
        return {"bytes": images.save(self.memory, path), **self.notes()}

    def notes(self) -> dict[str, Any]:
        """What has to be kept with this resting guest's memory, for `wake`."""
        return {
            "tray": self.door.tray,
            "stream": self.door.stream,
            "clock_ns": self.monotonic_ns(),
            "fds": (found := self._switchboard.open_fds())[0],
            "gone": found[1],
        }

    def wake(self, fill: Callable[[LinearMemory], None], notes: dict[str, Any]) -> None:
        """Makes this new instance the guest whose memory `fill` puts there.

        Files that were open are not any more. Their fds are taken by an empty folder, so that
        using them fails (EBADF) instead of meeting a file that is opened later.

        Raises:
            InstallationError: The memory does not fit.
        """
        try:
            fill(self.memory)
            self.door.adopt(notes["tray"], notes["stream"])
            ahead_ns = notes["clock_ns"] + CLOCK_MARGIN_NS - self.monotonic_ns()
            self._switchboard.clock_offset_ns = ahead_ns
            with self._usage.unlimited():
                self._occupy(notes["fds"])
        except (OSError, ValueError, WasmtimeError, OutOfBoundsError) as e:
            raise InstallationError(f"the image does not fit: {e}") from e

    def _occupy(self, fds: list[int]) -> None:
        """Opens the guest's root folder on each of these fds."""
        wanted = {fd for fd in fds if fd > self._root_fd}
        kept = self.memory.read(SCRATCH, 8)
        extra, occupied = [], []
        while wanted:
            self.memory.write(SCRATCH, b".")
            out = SCRATCH + 4
            errno = self._switchboard.call(
                "path_open", self._root_fd, 0, SCRATCH, 1, OFLAGS_DIRECTORY, 0, 0, 0, out
            )
            fd = self.memory.u32(out).value
            if errno or fd > max(wanted):  # they are not given out in order: nothing to gain
                break
            if fd in wanted:
                wanted.discard(fd)
                occupied.append(fd)
            else:
                extra.append(fd)
        for fd in extra:
            self._switchboard.call("fd_close", fd)
        self._switchboard.mark_gone(occupied)
        self.memory.write(SCRATCH, kept)

    @property
    def open_files(self) -> int:
        """How many files it has open."""
        return self._switchboard.open_count

    # -- observing ---------------------------------------------------------------------------

    @property
    def wasi_calls(self) -> frozenset[str]:
        """The WASI calls that it can make."""
        return self._switchboard.names

    def observe(self, observer: Observer | None, names: frozenset[str] = frozenset()) -> None:
        """Tells `observer` of these WASI calls from now on; None ends that."""
        self._switchboard.observe(observer, names)

    def preopened(self) -> dict[int, str]:
        """The folders that it has from the beginning: fd -> guest path."""
        return dict(self._preopened)

    # -- interrupts --------------------------------------------------------------------------

    def make_interruptible(self, words: dict[int, int], is_tripped: int) -> Interrupter:
        """From now on the guest can be interrupted from other threads."""
        self._interrupter = Interrupter(self.memory, words, is_tripped)
        return self._interrupter

    # -- running -----------------------------------------------------------------------------

    def turn(self, source: str) -> int:
        """Runs `source` in the reactor's `__main__`; 0 if it ended without an exception.

        Raises:
            GuestLost: The guest is dead.
        """
        data = source.encode()
        at = self._call("host_alloc", len(data)) & 0xFFFFFFFF
        if at == 0:
            raise GuestLost("MemoryError", "no memory for a turn")
        try:
            self.memory.write(at, data)
        except OutOfBoundsError:
            raise GuestLost("GuestDesynchronized", "a turn's place lies outside memory") from None
        status = self._call("turn", at, len(data))
        if status == -1:
            raise GuestLost("GuestDesynchronized", "the interpreter did not take the turn")
        return status

    def run_command(self) -> int:
        """Runs a command build's `_start` to its end; its exit status."""
        try:
            self._call("_start")
        except GuestLost:
            if self._host.exit_status is None:
                raise
            return self._host.exit_status
        return 0

    def _call(self, export: str, *args: int) -> int:
        try:
            func: Any = self._switchboard.exports[export]
        except KeyError:
            raise InstallationError(f"this module is no CPython: it lacks {export}") from None
        try:
            result = func(self._store, *args)
        except (Trap, WasmtimeError) as e:
            raise self._loss(e) from None
        if self._host.failure is not None:
            raise GuestLost("WorkerFailed", f"a host function failed: {self._host.failure!r}")
        return int(result or 0)

    def _loss(self, error: Trap | WasmtimeError) -> GuestLost:
        if self._host.failure is not None:
            return GuestLost("WorkerFailed", f"a host function failed: {self._host.failure!r}")
        if self._host.exit_status is not None:
            return GuestLost("GuestExited", f"exit status {self._host.exit_status}")
        code = error.trap_code if isinstance(error, Trap) else None
        if code == TrapCode.STACK_OVERFLOW:
            most = f"more than {self._limits.stack_bytes >> 20} MiB"
            return GuestLost("StackExhausted", f"{most}; {raising('stack_bytes')}")
        used = self.memory.size()
        if used > TRAPPED_NEARLY * self._limits.memory_bytes:
            return GuestLost(
                "MemoryError",
                f"{used >> 20} MiB in use of {self._limits.memory_bytes >> 20} MiB; "
                + raising("memory_bytes"),
            )
        reason = _last_line(str(error))
        if code == TrapCode.UNREACHABLE:
            return GuestLost("GuestAborted", reason)
        return GuestLost("GuestTrapped", reason)

    def close(self) -> None:
        """Frees the instance. Interrupts that come later do nothing."""
        if self._interrupter is not None:
            self._interrupter.close()
        self.door.detach()
        self._free()

    def _free(self) -> None:
        self._store.close()
        if self._owns_usage:
            self._usage.close()


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"
