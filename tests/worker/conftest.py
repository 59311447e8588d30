"""Fixtures of the worker tier: small guests in WebAssembly text instead of python.wasm.

`open_guest` makes a real `Guest` with a real `Door` from a module of a few lines, which exports one
function for each WASI call that it imports, so that a test can make any call with any arguments.
Compiled modules go to a private cache.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest
from wasmtime import Module

from wasi_kernel import frames
from wasi_kernel.caches import Cache
from wasi_kernel.frames import Frame
from wasi_kernel.policy import MIB, Limits
from wasi_kernel.worker import engine as engines
from wasi_kernel.worker.door import Door
from wasi_kernel.worker.guest import Guest
from wasi_kernel.worker.preopens import Preopen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from wasmtime import Engine

    from wasi_kernel.worker.usage import Usage

STACK_BYTES = MIB
"""WebAssembly stack of most tests: the main thread's own must be at least 2 MiB larger."""

WASI_CALLS = {
    "clock_time_get": "i32 i64 i32",
    "fd_allocate": "i32 i64 i64",
    "fd_close": "i32",
    "fd_fdstat_get": "i32 i32",
    "fd_fdstat_set_flags": "i32 i32",
    "fd_filestat_get": "i32 i32",
    "fd_filestat_set_size": "i32 i64",
    "fd_pread": "i32 i32 i32 i64 i32",
    "fd_prestat_get": "i32 i32",
    "fd_pwrite": "i32 i32 i32 i64 i32",
    "fd_read": "i32 i32 i32 i32",
    "fd_readdir": "i32 i32 i32 i64 i32",
    "fd_renumber": "i32 i32",
    "fd_seek": "i32 i64 i32 i32",
    "fd_write": "i32 i32 i32 i32",
    "path_create_directory": "i32 i32 i32",
    "path_filestat_get": "i32 i32 i32 i32 i32",
    "path_link": "i32 i32 i32 i32 i32 i32 i32",
    "path_open": "i32 i32 i32 i32 i32 i64 i64 i32 i32",
    "path_remove_directory": "i32 i32 i32",
    "path_rename": "i32 i32 i32 i32 i32 i32",
    "path_symlink": "i32 i32 i32 i32 i32",
    "path_unlink_file": "i32 i32 i32",
    "poll_oneoff": "i32 i32 i32 i32",
    "proc_exit": "i32",
}
"""WASI preview 1: the parameters of each call; all but proc_exit return an errno."""


DIRECTORY = 3  # the first preopen's descriptor


class Kernel:
    """The door's link, whose other end is the test: keeps what is sent, gives what was put in.

    Nothing waits: `wait` notes for how long, and has waited.
    """

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.coming: deque[Frame] = deque()
        self.waited: list[float] = []
        self.interrupted = False

    def send(self, data: bytes) -> None:
        self.sent.append(bytes(data))

    def send_frame(self, frame: Frame) -> None:
        self.send(frames.encode(frame))

    def receive(self, *, interruptible: bool = False) -> Frame | None:
        if interruptible and self.interrupted:
            return None
        return self.coming.popleft()

    def wait(self, duration_s: float) -> bool:
        self.waited.append(duration_s)
        return not self.interrupted

    def wake(self) -> None:
        self.interrupted = True

    def rest(self) -> None:
        self.interrupted = False

    def frames(self) -> list[Frame]:
        """What was sent, decoded: each `send` must have been whole frames."""
        return [f for data in self.sent for f in frames.Decoder().feed(data)]

    def text(self, name: str = "stdout") -> str:
        """All text of one stream."""
        streams = [f.content for f in self.frames() if f.type == "stream"]
        return "".join(c["text"] for c in streams if c["name"] == name)


class Probe:
    """One guest made of WebAssembly text, and what a test wants to do with it."""

    IOVS, OUT, DATA = 2048, 2040, 8192
    """Guest addresses for a call's iovecs, its result, and bytes."""

    def __init__(self, guest: Guest, kernel: Kernel) -> None:
        self.guest, self.door, self.memory, self.kernel = guest, guest.door, guest.memory, kernel

    def call(self, export: str, *args: int) -> int:
        """Calls an export; its result as the errno that it is."""
        return self.guest._call(export, *args)

    def u32(self, at: int) -> int:
        return self.memory.u32(at).value

    def iovecs(self, *vectors: tuple[int, int]) -> tuple[int, int]:
        """(address, count) of iovecs put into memory."""
        self.memory.write(self.IOVS, b"".join(struct.pack("<II", *v) for v in vectors))
        return self.IOVS, len(vectors)

    def write(self, fd: int, data: bytes) -> int:
        """fd_write of `data` at `DATA`."""
        self.memory.write(self.DATA, data)
        return self.call("fd_write", fd, *self.iovecs((self.DATA, len(data))), self.OUT)

    def send(self, kind: str, content: dict[str, Any], request: int = 0) -> int:
        """One frame through fd 0."""
        return self.write(0, frames.encode(Frame(kind, content, request)))

    def read(self, fd: int, length: int) -> tuple[int, bytes]:
        """fd_read: (errno, what was read)."""
        errno = self.call("fd_read", fd, *self.iovecs((self.DATA, length)), self.OUT)
        return errno, self.memory.read(self.DATA, self.u32(self.OUT)) if errno == 0 else b""

    def open_file(self, name: bytes) -> int:
        """The descriptor of a file below the first preopen, for reading."""
        self.memory.write(512, name)
        rights = 1 << 1 | 1 << 2 | 1 << 5  # fd_read, fd_seek, fd_tell
        errno = self.call("path_open", DIRECTORY, 0, 512, len(name), 0, rights, 0, 0, 768)
        assert errno == 0
        return self.u32(768)

    def command(self, number: int) -> int:
        """One door command."""
        return self.write(0, struct.pack("<II", 0, number))


def guest_wat(extra: str = "", *, pages: int = 4, calls: Any = tuple(WASI_CALLS)) -> str:
    """A module that imports WASI calls, exports each again, and a memory of `pages` 64 KiB."""
    types = {
        name: f"(param {WASI_CALLS[name]})" + ("" if name == "proc_exit" else " (result i32)")
        for name in calls
    }
    imports = "".join(
        f'(import "wasi_snapshot_preview1" "{name}" (func ${name} {t}))\n'
        for name, t in types.items()
    )
    funcs = "".join(
        f'(func (export "{name}") {t} (call ${name} '
        + " ".join(f"(local.get {k})" for k in range(len(WASI_CALLS[name].split())))
        + "))\n"
        for name, t in types.items()
    )
    return f'(module {imports}(memory (export "memory") {pages})\n{funcs}{extra})'


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """A private cache, shared by the tests of this tier."""
    return Cache(tmp_path_factory.mktemp("cache") / "c")


@pytest.fixture(scope="session")
def engine() -> Engine:
    return engines.make_engine(STACK_BYTES)


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def wat() -> Callable[..., str]:
    return guest_wat


@pytest.fixture
def open_guest(engine: Engine, cache: Cache, kernel: Kernel) -> Iterator[Callable[..., Probe]]:
    """Makes a guest from WebAssembly text; closed when the test ends."""
    opened: list[Guest] = []

    def make(
        text: str | None = None,
        *,
        preopens: tuple[tuple[Path, str, bool], ...] = (),
        output_bytes: int = MIB,
        message_bytes: int = MIB,
        limits: Limits | None = None,
        on: Engine = engine,
        usage: Usage | None = None,
    ) -> Probe:
        door = Door(kernel, output_bytes=output_bytes, message_bytes=message_bytes)
        module = engines.small_module(on, cache, guest_wat() if text is None else text)
        guest = Guest(
            on, cache, module, door,
            preopens=[Preopen(str(host), path, writable) for host, path, writable in preopens],
            env={"A": "b"}, argv=["guest"],
            limits=Limits(stack_bytes=STACK_BYTES) if limits is None else limits,
            usage=usage,
        )  # fmt: skip
        opened.append(guest)
        return Probe(guest, kernel)

    yield make
    for guest in opened:
        guest.close()


@pytest.fixture
def wasm(engine: Engine, tmp_path: Path) -> Callable[[str], Path]:
    """Writes WebAssembly text as a binary file."""
    from wasmtime import wat2wasm

    def make(text: str) -> Path:
        path = tmp_path / "module.wasm"
        path.write_bytes(wat2wasm(text))
        Module.validate(engine, path.read_bytes())
        return path

    return make
