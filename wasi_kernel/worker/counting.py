"""Counting: the WebAssembly code around calls that write, make or open files.

Text only: the switchboard puts it together. What counts, and where the counts are kept, is said in
usage.py.

It is counted before the native call, so that a worker that is killed in the middle has counted too
much rather than too little; what was not done is taken back afterwards. How long a file is has only
to be asked when a write could leave a gap: not when it begins where the last one ended, nor within
what is known to be there. After any file was cut nothing is known: another fd may stand behind its
end. Addresses that the native call would end the guest for, after it has written, give EFAULT here.
"""

from __future__ import annotations

from wasi_kernel.worker import usage

WASI = "wasi_snapshot_preview1"
LEDGER_BYTES = 1 << 16
"""The ledger has a byte for each fd below this: OPENED if the guest has opened it, or GONE."""

OPENED, GONE = 1, 2

ROWS, ROW_BYTES = LEDGER_BYTES, 24
"""From here on the same memory has a row for each of these fds, and one more for all others: what
is known of its file. Each cut of any file begins a new epoch.

 0  u32: in this epoch, its position is in the file or at its end
 4  u32: in this epoch, the next two hold
 8  u64: so long is the file, at least
16  u64: there the position is; -1: not known
"""

USAGE = (ROWS + ROW_BYTES * (LEDGER_BYTES + 1) + 0xFFFF) & ~0xFFFF
"""Where the counts of usage.py are in the same memory."""

LOCALS = {
    **dict.fromkeys(("fd_close", "fd_renumber", "fd_seek", "fd_fdstat_set_flags"), "i32"),
    **dict.fromkeys(("path_create_directory", "path_symlink", "path_link"), "i32"),
    **dict.fromkeys(("path_unlink_file", "path_remove_directory", "path_rename"), "i32"),
    **dict.fromkeys(("fd_filestat_set_size", "fd_allocate"), "i32 i64 i64"),
    **dict.fromkeys(("fd_write", "fd_pwrite"), "i32 i32 i64 i64"),
    "path_open": "i32 i32",
}
"""Their locals, after the parameters."""

CREAT, DIRECTORY, EXCL, TRUNC = 1, 2, 4, 8  # oflags, WASI preview 1
SET, END = 0, 2  # whence, WASI preview 1
EFAULT, EMFILE, ENOENT, ENOSPC = 21, 33, 44, 51  # errno, WASI preview 1


def note(fd: str, value: str) -> str:
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
        {note("(local.get 10)", "(i32.const 1)")}
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
        (call $off (local.get 0)) {note("(local.get 0)", "(i32.const 0)")} {_LOOSEN}))
      (local.get 1)"""


def _renumbering(native: str) -> str:
    """fd_renumber(from, to) that moves the ledger's entry too. Local 2 is the errno."""
    return f"""(local.set 2 {native})
      (if (i32.and (i32.eqz (local.get 2)) (i32.ne (local.get 0) (local.get 1))) (then
        (call $off (local.get 0)) (call $off (local.get 1))
        (global.set $open (i32.add (global.get $open) (i32.const 1)))
        (memory.fill $ledger (call $row (local.get 1)) (i32.const 0) (i32.const {ROW_BYTES}))
        {note("(local.get 1)", "(i32.const 1)")}
        {note("(local.get 0)", "(i32.const 0)")} {_LOOSEN}))
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
    """fd_write(fd, iovs, count, out) within the limit. Locals: 4 to 7, see `_paid`."""
    begin, gap = "(call $next (local.get 0))", "(call $gap (local.get 0))"
    return _paid(native, begin, gap, "$wrote", 3, 4)


def _writing_at(native: str) -> str:
    """fd_pwrite(fd, iovs, count, offset, out); the same. Locals: 5 to 8."""
    begin = "(call $place (local.get 0) (local.get 3))"
    gap = "(call $gap_at (local.get 0) (local.get 3))"
    return _paid(native, begin, gap, "$known (local.get 3)", 4, 5)


def _paid(native: str, begin: str, gap: str, told: str, out: int, first: int) -> str:
    """A write that begins at `begin` and leaves `gap` bytes before it, if there is room.

    All of it counts, also over what is there already; only if there is no room for that, what the
    file grows by. It is a write of the first buffer that is not empty, as of the native call.
    `told` is a function that is told what was written, as its last argument. `out` is the parameter
    that says where the number of bytes goes, `first` the first of the four locals: where the buffer
    is described, errno, its length, the cost.
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
          (call {told} (local.get 0) {written})))
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

COUNTING = f"""
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
        (call $inside (local.get $iovs)
          (i64.shl (i64.extend_i32_u (local.get $count)) (i64.const 3)))
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

SHAPES = {
    "path_open": _opening,
    "fd_close": _closing,
    "fd_renumber": _renumbering,
    "fd_seek": _seeking,
    "fd_fdstat_set_flags": _flagging,
    "fd_write": _writing,
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
"""Calls that are counted -> what makes the code of each, of that of the native call."""
