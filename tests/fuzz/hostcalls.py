"""Makes hostile WASI calls from inside WebAssembly, and checks each: `hostcalls.py SEED CALLS`.

Every function of preview 1 is called with pointers, lengths, counts, names and structures that are
wrong, that overlap, or that are right, from the bottom of the guest's stack and from near its end,
while another thread empties the tray. After each call all of the guest's memory is compared with
what stood there before: only what the call may write may have changed. Beyond that memory lie guard
pages, so a single byte touched there ends this process, which is why it is one of its own
(test_hostcalls.py). The same seed makes the same calls.
"""

from __future__ import annotations

import faulthandler
import os
import random
import resource
import struct
import sys
import tempfile
import threading
from collections import Counter, deque
from pathlib import Path

from wasi_kernel import frames
from wasi_kernel.caches import Cache
from wasi_kernel.errors import GuestLost
from wasi_kernel.frames import Frame
from wasi_kernel.policy import MIB, Limits
from wasi_kernel.worker import engine as engines
from wasi_kernel.worker.door import TRAY, TRAY_HEAD, Door
from wasi_kernel.worker.guest import Guest, Preopen
from wasi_kernel.worker.memory import LinearMemory

STACK_BYTES = MIB
PAGE = 65536
PAGES, MOST_PAGES = 4, 8
OUTPUT_BYTES, MESSAGE_BYTES = 50_000, 5_000
CALLS_OF_A_GUEST, CALLS_OF_A_REQUEST = 2_000, 40
FILE_BYTES = 64 * MIB  # no file grows beyond it: a write there fails with EFBIG
ERRNOS = range(77)  # WASI preview 1 has 0 to 76
LOSSES = frozenset({"GuestExited", "GuestTrapped", "StackExhausted", "GuestAborted"})

P1 = {
    "args_get": "i32 i32", "args_sizes_get": "i32 i32", "clock_res_get": "i32 i32",
    "clock_time_get": "i32 i64 i32", "environ_get": "i32 i32", "environ_sizes_get": "i32 i32",
    "fd_advise": "i32 i64 i64 i32", "fd_allocate": "i32 i64 i64", "fd_close": "i32",
    "fd_datasync": "i32", "fd_fdstat_get": "i32 i32", "fd_fdstat_set_flags": "i32 i32",
    "fd_fdstat_set_rights": "i32 i64 i64", "fd_filestat_get": "i32 i32",
    "fd_filestat_set_size": "i32 i64", "fd_filestat_set_times": "i32 i64 i64 i32",
    "fd_pread": "i32 i32 i32 i64 i32", "fd_prestat_dir_name": "i32 i32 i32",
    "fd_prestat_get": "i32 i32", "fd_pwrite": "i32 i32 i32 i64 i32", "fd_read": "i32 i32 i32 i32",
    "fd_readdir": "i32 i32 i32 i64 i32", "fd_renumber": "i32 i32", "fd_seek": "i32 i64 i32 i32",
    "fd_sync": "i32", "fd_tell": "i32 i32", "fd_write": "i32 i32 i32 i32",
    "path_create_directory": "i32 i32 i32", "path_filestat_get": "i32 i32 i32 i32 i32",
    "path_filestat_set_times": "i32 i32 i32 i32 i64 i64 i32",
    "path_link": "i32 i32 i32 i32 i32 i32 i32",
    "path_open": "i32 i32 i32 i32 i32 i64 i64 i32 i32", "path_readlink": "i32 i32 i32 i32 i32 i32",
    "path_remove_directory": "i32 i32 i32", "path_rename": "i32 i32 i32 i32 i32 i32",
    "path_symlink": "i32 i32 i32 i32 i32", "path_unlink_file": "i32 i32 i32",
    "poll_oneoff": "i32 i32 i32 i32", "proc_exit": "i32", "random_get": "i32 i32",
    "sched_yield": "", "sock_accept": "i32 i32 i32", "sock_recv": "i32 i32 i32 i32 i32 i32",
    "sock_send": "i32 i32 i32 i32 i32", "sock_shutdown": "i32 i32",
}  # fmt: skip
"""WASI preview 1: every function with its parameters; all but proc_exit return an errno."""

OFTEN = ("fd_read", "fd_write", "poll_oneoff", "fd_readdir", "path_open", "fd_renumber") * 6
"""Called more often than the others: what this project has code of its own for."""

WRITES: dict[str, tuple[tuple[int, int], ...]] = {
    "args_get": ((0, 4), (1, 6)), "args_sizes_get": ((0, 4), (1, 4)), "clock_res_get": ((1, 8),),
    "clock_time_get": ((2, 8),), "environ_get": ((0, 4), (1, 4)),
    "environ_sizes_get": ((0, 4), (1, 4)), "fd_fdstat_get": ((1, 24),),
    "fd_filestat_get": ((1, 64),), "fd_pread": ((4, 4),), "fd_prestat_get": ((1, 8),),
    "fd_pwrite": ((4, 4),), "fd_read": ((3, 4),), "fd_readdir": ((4, 4),), "fd_seek": ((3, 8),),
    "fd_tell": ((1, 8),), "fd_write": ((3, 4),), "path_filestat_get": ((4, 64),),
    "path_open": ((8, 4),), "path_readlink": ((5, 4),), "poll_oneoff": ((3, 4),),
    "sock_accept": ((2, 4),), "sock_recv": ((4, 4), (5, 4)), "sock_send": ((4, 4),),
}  # fmt: skip
"""{function: (parameter that is a pointer, bytes that may be written there)}"""

FILLS = {
    "fd_prestat_dir_name": (1, 2, 1), "fd_readdir": (1, 2, 1), "path_readlink": (3, 4, 1),
    "random_get": (0, 1, 1), "poll_oneoff": (1, 2, 32),
}  # fmt: skip
"""{function: (parameter that is a pointer, parameter that counts, bytes of each)}"""

INTO_BUFFERS = {"fd_read": True, "fd_pread": True, "sock_recv": True, "fd_write": False,
                "fd_pwrite": False}  # fmt: skip
"""{function whose parameters 1 and 2 are buffers and their count: is the first one filled?}"""

NAMES = (
    b"a", b"b", b"dir", b"dir/", b"dir/c", b"link", b"link/", b"link/secret", b"up", b"up/x",
    b"loop", b"../canary", b"/etc/passwd", b"dir/../..", b".", b"..", b"", b"/", b"a\0b", b"\xff",
    b"x" * 300, b"d/" * 2500, b"dir//c", b"./a", "é".encode(), b"dangling", b"dangling/",
)  # fmt: skip


def guest_wat() -> str:
    """A module that makes each call (`NAME`) that many stack frames deeper than its caller.

    The arguments stand in a memory of its own, "plan", 8 bytes each: so one call from Python costs
    no more for nine arguments than for one.
    """
    imports, funcs = [], []
    for name, kinds in P1.items():
        param, types = f"(param {kinds})" if kinds else "", kinds.split()
        result = "" if name == "proc_exit" else "(result i32)"
        imports.append(
            f'(import "wasi_snapshot_preview1" "{name}" (func ${name} {param} {result}))'
        )
        args = " ".join(f"({t}.load $plan (i32.const {8 * k}))" for k, t in enumerate(types))
        funcs.append(
            f"""(func $at_{name} (export "{name}") (param i32) {result}
              (if {result} (i32.eqz (local.get 0))
                (then (call ${name} {args}))
                (else (call $at_{name} (i32.sub (local.get 0) (i32.const 1))))))"""
        )
    grow = '(func (export "grow") (result i32) (memory.grow (i32.const 1)))'
    memories = f"""(memory (export "memory") {PAGES} {MOST_PAGES})
      (memory $plan (export "plan") 1)"""
    return f"(module {' '.join(imports)} {memories} {' '.join(funcs)} {grow})"


class Kernel:
    """The other end of the door: answers what it has been given, and never waits."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.coming: deque[Frame] = deque()
        self.interrupted = False

    def send(self, data: bytes) -> None:
        self.sent.append(bytes(data))

    def receive(self, *, interruptible: bool = False) -> Frame | None:
        if interruptible and self.interrupted:
            return None
        if not self.coming:
            self.interrupted = True
            return None
        return self.coming.popleft()

    def wait(self, duration_s: float) -> bool:
        assert duration_s >= 0
        return not self.interrupted


class WrongError(AssertionError):
    """A call did what no call may do."""


class Fuzz:
    """One run. `done` counts what came of the calls, by errno or loss."""

    def __init__(self, seed: int, calls: int, folder: Path) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - a seed, not a secret
        self.calls, self.folder = calls, folder
        self.done: Counter[str] = Counter()
        self.cache = Cache(folder / "cache")
        self.engine = engines.make_engine(STACK_BYTES)
        self.module = engines.small_module(self.engine, self.cache, guest_wat())
        self.kernel = Kernel()
        self._lay_out()

    def _lay_out(self) -> None:
        """What the guest is granted, what it may only read, and what it must never reach."""
        self.granted, self.read_only = self.folder / "granted", self.folder / "read"
        for granted in (self.granted, self.read_only):
            (granted / "dir").mkdir(parents=True)
            for name in ("a", "dir/c"):
                (granted / name).write_bytes(b"content " * 500)
            (granted / "link").symlink_to(self.folder / "outside")
            (granted / "up").symlink_to("..")
            (granted / "loop").symlink_to("loop")
            (granted / "dangling").symlink_to("nothing")
        (self.folder / "outside").mkdir()
        (self.folder / "outside" / "secret").write_bytes(b"secret")
        (self.folder / "canary").write_bytes(b"canary")

    def untouchable(self) -> dict[str, bytes]:
        """All that no call may have changed, by its path."""
        kept = [self.folder / "canary", *(self.folder / "outside").rglob("*")]
        kept += self.read_only.rglob("*")
        return {str(p): os.readlink(p).encode() if p.is_symlink() else p.read_bytes()
                for p in kept if p.is_symlink() or p.is_file()}  # fmt: skip

    # -- hostile arguments -------------------------------------------------------------------

    def number(self) -> int:
        """32 bits: a flag or two, a place inside memory, or the edges of memory and of 32 bits."""
        rng, size = self.rng, self.size
        what = rng.random()
        if what < 0.35:
            return rng.choice((0, 0, 0, 1, 1, 2, 3, 4, 8))
        if what < 0.85:
            return rng.randrange(0, size, rng.choice((8, 8, 8, 1)))
        if what < 0.97:
            edge = rng.choice((0, size, self.door.tray, 1 << 31, 1 << 32, self.at))
            return (edge + rng.choice((-64, -48, -8, -4, -3, -1, 0, 1, 4, 8, 16))) & 0xFFFFFFFF
        return rng.randrange(1 << 32)

    def length(self) -> int:
        rng = self.rng
        return rng.choice(
            (0, 1, 2, 3, 8, 24, 25, 64, 300, 4096, rng.randrange(70_000), self.number())
        )

    def long(self) -> int:
        rng = self.rng
        if rng.random() < 0.6:
            return rng.choice((0, 0, 1, 2, 66, rng.randrange(5000)))
        return rng.choice((2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1))

    def fd(self, *, keep: bool = False) -> int:
        """A descriptor, which may be none; with `keep` hardly ever one of the granted folders'."""
        rng = self.rng
        if keep and rng.random() < 0.98:
            return rng.choice((0, 1, 2, 5, 6, 7, 8, 9, 10, 11))
        return rng.choice((0, 0, 1, 2, 3, 3, 3, 3, 4, 5, 6, 7, 8, self.number()))

    def structure(self) -> bytes:
        """Something to point at: buffers, a name, subscriptions, a frame, a command, a tray."""
        rng = self.rng
        kind = rng.randrange(6)
        if kind == 0:
            vectors = [(self.number(), self.length()) for _ in range(rng.randrange(1, 5))]
            return b"".join(struct.pack("<II", *v) for v in vectors)
        if kind == 1:
            return rng.choice(NAMES)
        if kind == 2:
            return b"".join(
                struct.pack("<QBxxxxxxxIxxxxQQHxxxxxx", k, rng.choice((0, 0, 1, 2, 255)),
                            rng.choice((0, 1, 2, 3, 2**31)), self.long(), self.long(),
                            rng.choice((0, 1, 65535)))
                for k in range(rng.randrange(1, 4))
            )  # fmt: skip
        if kind == 3:
            frame = Frame(rng.choice(frames.TYPES), {"a": "é"}, rng.choice((0, 7)), {}, (b"xyz",))
            data = bytearray(frames.encode(frame))
            for _ in range(rng.choice((0, 0, 0, 1, 2))):
                data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0xFF))
            return bytes(data)
        if kind == 4:
            return struct.pack("<II", 0, rng.choice((1, 2, 3, 4, 5, 6, 2**32 - 1)))
        capacity = rng.choice((8, 100, 4096, self.number()))
        head = struct.pack("<IIIII", 0, TRAY, capacity, self.length(), 1)
        return head.ljust(TRAY_HEAD + 100, b"t")

    def prepare(self, name: str) -> list[int]:
        """Writes structures into memory; the arguments of a call, some of which point at them."""
        rng = self.rng
        for _ in range(rng.choice((0, 1, 1, 2))):
            data = self.structure()
            self.at = rng.randrange(0, self.size - len(data), rng.choice((8, 8, 8, 1)))
            self.put(self.at, data)
            self.wrote = len(data)
        args = [self.long() if t == "i64" else self.number() for t in P1[name].split()]
        if args and name.startswith(("fd_", "path_", "sock_")) and name != "path_symlink":
            args[0] = self.fd(keep=name in ("fd_close", "fd_renumber"))
        if name in ("fd_read", "fd_write", "fd_pread", "fd_pwrite") and rng.random() < 0.7:
            self._aim(args, name)
        elif name.startswith("path_") and rng.random() < 0.8:
            self._name(args, name)
        elif name == "fd_renumber":
            args[1] = self.fd(keep=True)
        elif name == "poll_oneoff" and rng.random() < 0.7:
            args[0], args[2] = self.at, rng.choice((1, 2, 3, 4096, 4097))
        elif name == "fd_readdir" and rng.random() < 0.8:
            args[1:4] = rng.randrange(self.size), self.length(), rng.choice((0, 1, 2, self.long()))
        return args

    def _aim(self, args: list[int], name: str) -> None:
        """Buffers that are a frame, a command or a tray in one piece or in several."""
        rng, at = self.rng, self.at
        pieces = rng.choice((1, 1, 1, 2, 3))
        cuts = sorted(rng.randrange(self.wrote + 1) for _ in range(pieces - 1))
        ends = zip([0, *cuts], [*cuts, self.wrote], strict=True)
        vectors = [(at + a, b - a) for a, b in ends]
        if rng.random() < 0.2:
            vectors[rng.randrange(pieces)] = (self.number(), self.length())
        where = rng.randrange(0, self.size - 8 * pieces, rng.choice((8, 8, 8, 1)))
        self.put(where, b"".join(struct.pack("<II", *v) for v in vectors))
        args[1:3] = where, rng.choice((pieces, pieces, pieces, 0, 1024, 1025, self.number()))
        if rng.random() < 0.8:
            args[-1] = rng.randrange(0, self.size, 4)

    def _name(self, args: list[int], name: str) -> None:
        """Names from `NAMES` where the function wants them, and flags that it may accept."""
        rng = self.rng
        spots = {
            "path_symlink": ((0, 1), (3, 4)), "path_rename": ((1, 2), (4, 5)),
            "path_link": ((2, 3), (5, 6)), "path_create_directory": ((1, 2),),
            "path_remove_directory": ((1, 2),), "path_unlink_file": ((1, 2),),
            "path_readlink": ((1, 2),),
        }.get(name, ((2, 3),))  # fmt: skip
        for at, length in spots:
            text = rng.choice(NAMES)
            args[at], args[length] = rng.randrange(self.size - len(text)), len(text)
            self.put(args[at], text)
        if name in {"path_filestat_get", "path_filestat_set_times", "path_link"}:
            args[1] = rng.choice((0, 1, 1, args[1]))
        for fd in {"path_symlink": (2,), "path_rename": (3,), "path_link": (4,)}.get(name, ()):
            args[fd] = self.fd()
        if name == "path_open":
            args[1], args[4], args[7] = rng.randrange(2), rng.randrange(16), rng.randrange(32)
            args[5], args[6], args[8] = rng.choice((0, 2, 66, 2**64 - 1)), 0, self.number()
            if rng.random() < 0.8:
                args[1], args[4], args[7] = 1, rng.choice((0, 1, 2, 9)), rng.choice((0, 1, 4))
                args[8] = rng.randrange(0, self.size, 4)

    # -- memory ------------------------------------------------------------------------------

    def put(self, at: int, data: bytes) -> None:
        """Writes to the guest's memory, and to what is expected there."""
        with self.door.still():
            self.memory.write(at, data)
        self.expected[at : at + len(data)] = data

    def u32(self, at: int) -> int:
        return int.from_bytes(self.expected[at : at + 4], "little")

    def writable(self, name: str, args: list[int]) -> list[tuple[int, int]]:
        """(address, length) of what the call may write; `if_lost` may be so if it ends the guest.

        That is the length of a buffer, which is cut for the native call and then put back.
        """
        found = [(args[k], n) for k, n in WRITES.get(name, ())]
        if name in FILLS:
            at, count, each = FILLS[name]
            found.append((args[at], args[count] * each))
        self.if_lost = []
        if name in INTO_BUFFERS:
            iovs = args[1]
            for _ in range(min(args[2], 1 << 16)):
                if iovs + 8 > self.size:
                    break
                if self.u32(iovs + 4) or args[0] == 0:
                    if INTO_BUFFERS[name]:
                        found.append((self.u32(iovs), self.u32(iovs + 4)))
                    self.if_lost = [(iovs + 4, 4)]
                    break
                iovs += 8
        return found

    def check(self, name: str, args: list[int], trays: set[int]) -> None:
        """Compares all memory with what may stand there now."""
        with self.door.still():
            now = self.memory.read(0, self.size)
            for at, n in self.allowed + [(tray + 12, 12) for tray in trays if tray]:
                end = min(at + n, self.size)
                if at < end:
                    self.expected[at:end] = now[at:end]
            if now == self.expected:
                return
            wrong = [k for k in range(self.size) if now[k] != self.expected[k]]
        raise WrongError(f"wrote outside: {len(wrong)} bytes from {wrong[0]} to {wrong[-1]}")

    # -- running -----------------------------------------------------------------------------

    def open(self) -> None:
        """A new guest, whose memory is a pattern."""
        self.kernel = Kernel()
        self.door = Door(self.kernel, output_bytes=OUTPUT_BYTES, message_bytes=MESSAGE_BYTES)
        preopens = [
            Preopen(str(self.granted), "/w", writable=True),
            Preopen(str(self.read_only), "/r", writable=False),
        ]
        self.guest = Guest(
            self.engine, self.cache, self.module, self.door, preopens=preopens, env={"A": "b"},
            argv=["guest"], limits=Limits(stack_bytes=STACK_BYTES),
        )  # fmt: skip
        board = self.guest._switchboard
        self.memory, self.plan = (
            self.guest.memory,
            LinearMemory(board._store, board.exports["plan"]),
        )
        self.size, self.at, self.wrote = PAGES * PAGE, 4096, 8
        self.expected = bytearray(self.rng.randbytes(self.size))
        self.memory.write(0, bytes(self.expected))

    def grow(self) -> None:
        if self.guest._call("grow") != 0xFFFFFFFF and self.memory.size() > self.size:
            self.expected += bytes(self.memory.size() - self.size)
            self.size = self.memory.size()

    def one(self, name: str) -> None:
        """One call, and what must hold after it."""
        args = self.prepare(name)
        self.allowed, before = self.writable(name, args), self.door.tray
        self.last = (name, args)
        depth = self.rng.randrange(20_000) if self.rng.random() < 0.02 else 0
        self.plan.write(0, struct.pack(f"<{len(args)}Q", *args))
        try:
            outcome = self.guest._call(name, depth)
            if outcome not in ERRNOS:
                raise WrongError(f"errno {outcome}")
            self.done[f"{'ok' if outcome == 0 else 'errno'}"] += 1
        except GuestLost as e:
            if e.ename not in LOSSES:
                raise WrongError(f"{e.ename}: {e}") from None
            self.done[e.ename] += 1
            self.allowed += self.if_lost
        if self.guest._host.failure is not None:
            raise WrongError(f"a host function raised {self.guest._host.failure!r}")
        self.guest._host.exit_status = None
        self.check(name, args, {before, self.door.tray})

    def between(self, k: int) -> None:
        """What the kernel does meanwhile: requests, answers, interrupts, and growing memory."""
        rng = self.rng
        if k % CALLS_OF_A_REQUEST == 0:
            self.door.end()
            self.audit()
            self.door.begin(Frame("execute_request", {"code": "x"}, 7))
            self.kernel.interrupted = rng.random() < 0.2
            kind = rng.choice(list(frames.QUESTIONS.values()))
            self.kernel.coming.append(Frame(kind, {"value": "v" * rng.randrange(50)}, 7))
        if rng.random() < 0.001:
            self.grow()

    def audit(self) -> None:
        """What was sent in one request is whole frames, and not more than allowed."""
        sent = sum(map(len, self.kernel.sent))
        if sent > OUTPUT_BYTES + 2 * MESSAGE_BYTES:
            raise WrongError(f"{sent} bytes of output")
        for data in self.kernel.sent:
            decoder = frames.Decoder()
            decoder.feed(data)
            if decoder._pending:
                raise WrongError("half a frame was sent")
        self.kernel.sent.clear()

    def close(self) -> None:
        """The ledger says what is open; then the guest goes."""
        for fd in self.guest._switchboard.open_fds()[0]:
            if fd > 2 and self.guest._switchboard.call("fd_fdstat_get", fd, 0):
                raise WrongError(f"fd {fd} is on the ledger and not open")
        self.guest.close()

    def run(self) -> None:
        """All calls, with a thread beside them that empties the tray."""
        kept = self.untouchable()
        names, stop = [*P1, *OFTEN], threading.Event()
        self.open()

        def drain() -> None:
            while not stop.wait(0.001):
                self.door.drain()

        drainer = threading.Thread(target=drain)
        drainer.start()
        try:
            for k in range(self.calls):
                if k and k % CALLS_OF_A_GUEST == 0:
                    self.close()
                    self.open()
                self.between(k)
                try:
                    self.one(self.rng.choice(names))
                except WrongError as e:
                    raise WrongError(f"call {k}, {self.last}: {e}") from None
        finally:
            stop.set()
            drainer.join()
        self.close()
        if self.untouchable() != kept:
            raise WrongError("files outside, or granted for reading, have changed")


def main() -> None:
    seed, calls = int(sys.argv[1]), int(sys.argv[2])
    faulthandler.enable()
    soft = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, soft))
    print(f"seed {seed}, {calls} calls", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        fuzz = Fuzz(seed, calls, Path(folder))
        fuzz.run()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"outcomes {dict(sorted(fuzz.done.items()))}, {peak} MiB at most")


if __name__ == "__main__":
    main()
