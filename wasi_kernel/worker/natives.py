"""Faults of wasmtime's own WASI, closed by functions that stand before the native ones.

`routes` (switchboard.py) calls `$closed_<name>` wherever it would call a native function that is
in `FAULTY`. What such a function asks of the guest's memory is checked by WebAssembly, as all of
the guest's own accesses are.

Closed here, seen with wasmtime 49.0.0 (advisories.py has the list of what is known):
- `fd_readdir` leaves host bytes in the padding of each entry (GHSA-96f6-r43r-8c24): zeroed;
- `path_rename` follows a symlink whose name ends in a slash, where the host's own call does
  (GHSA-m9f7-9w4p-gv38): it is never given such a name;
- `fd_read`, `fd_write`, `fd_pread` and `fd_pwrite` fail with ENOMEM for a buffer above 128 MiB (the
  most that one call may copy, `hostcall_fuel` in wasmtime's crates/wasi/src/p1.rs): cut to 64 MiB.
  WASI allows that: a read or a write may be short, and the native ones serve one buffer at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

WASI = "wasi_snapshot_preview1"
CUT_BYTES = 64 << 20
ENOTDIR, FOLDER = 54, 3  # errno and filetype, WASI preview 1
FILESTAT_BYTES, FILETYPE = 64, 16  # filestat: its size, and where the type is
DIRENT_BYTES, NAMLEN, PADDING = 24, 16, (21, 22, 23)  # dirent: d_next, d_ino, d_namlen, d_type


def args(n: int) -> str:
    """The first `n` parameters of a function, as its arguments for another one."""
    return " ".join(f"(local.get {k})" for k in range(n))


def _cut(name: str) -> str:
    """A read or a write of at most CUT_BYTES, of the first buffer that is not empty.

    Parameters: 0 fd, 1 iovs, 2 count, and what `name` has behind them. Locals: the buffer's
    length, the errno. The guest's own length is put back. An address that leaves 32 bits must not
    come back at 0: hence offset=4, which WebAssembly adds without wrapping.
    """
    n = 4 if name in {"fd_read", "fd_write"} else 5
    length, errno = n, n + 1
    one = f"(call ${name} {args(n)})".replace("(local.get 2)", "(i32.const 1)")
    return f"""(local i32 i32)
      (block $found (loop $skip
        (br_if $found (i32.le_u (local.get 2) (i32.const 1)))
        (br_if $found (i32.load offset=4 align=1 (local.get 1)))
        (local.set 1 (i32.add (local.get 1) (i32.const 8)))
        (local.set 2 (i32.sub (local.get 2) (i32.const 1)))
        (br $skip)))
      (if (i32.eqz (local.get 2)) (then (return (call ${name} {args(n)}))))
      (local.set {length} (i32.load offset=4 align=1 (local.get 1)))
      (if (i32.le_u (local.get {length}) (i32.const {CUT_BYTES}))
        (then (return (call ${name} {args(n)}))))
      (i32.store offset=4 align=1 (local.get 1) (i32.const {CUT_BYTES}))
      (local.set {errno} {one})
      (i32.store offset=4 align=1 (local.get 1) (local.get {length}))
      (local.get {errno})"""


def _clean(name: str) -> str:
    """fd_readdir with the three padding bytes of every entry set to zero, of a cut one too.

    Parameters: fd, buf, buf_len, cookie, out. Locals: 5 errno, 6 the entry's address, 7 the bytes
    from there on. No address is compared with another: the buffer may end where 32 bits do.
    """
    pads = "".join(
        f"""(br_if $done (i32.le_u (local.get 7) (i32.const {at})))
          (i32.store8 offset={at} (local.get 6) (i32.const 0))
          """
        for at in PADDING
    )
    namlen = f"(i32.load offset={NAMLEN} align=1 (local.get 6))"
    return f"""(local i32 i32 i32)
      (local.set 5 (call ${name} {args(5)}))
      (if (i32.eqz (local.get 5)) (then
        (local.set 6 (local.get 1))
        (local.set 7 (i32.load align=1 (local.get 4)))
        (block $done (loop $next
          {pads}
          (local.set 7 (i32.sub (local.get 7) (i32.const {DIRENT_BYTES})))
          (br_if $done (i32.gt_u {namlen} (local.get 7)))
          (local.set 7 (i32.sub (local.get 7) {namlen}))
          (local.set 6 (i32.add (i32.add (local.get 6) (i32.const {DIRENT_BYTES})) {namlen}))
          (br $next)))))
      (local.get 5)"""


def _bare(name: str) -> str:
    """path_rename without the slashes at the ends of its two names; what has one is a folder.

    Parameters: fd, path, length, and the same of the new name. Locals: 6 and 7 lengths, 8 errno.
    """
    return f"""(local i32 i32 i32)
      (local.set 6 (call $without_slashes (local.get 1) (local.get 2)))
      (local.set 7 (call $without_slashes (local.get 4) (local.get 5)))
      (if (i32.or (i32.ne (local.get 6) (local.get 2)) (i32.ne (local.get 7) (local.get 5)))
        (then
          (local.set 8 (call $is_folder (local.get 0) (local.get 1) (local.get 6)))
          (if (local.get 8) (then (return (local.get 8))))))
      (call ${name} (local.get 0) (local.get 1) (local.get 6)
                    (local.get 3) (local.get 4) (local.get 7))"""


FAULTY: dict[str, Callable[[str], str]] = {
    "fd_read": _cut, "fd_write": _cut, "fd_pread": _cut, "fd_pwrite": _cut,
    "fd_readdir": _clean, "path_rename": _bare,
}  # fmt: skip
"""{native function: the body of the function that stands before it}"""

_RENAME_IMPORTS = f"""
(import "{WASI}" "path_filestat_get"
  (func $filestat_of (param i32 i32 i32 i32 i32) (result i32)))"""

_RENAME_HELPERS = f"""
(memory $kept 1)
(func $without_slashes (param $at i32) (param $length i32) (result i32)
  ;; a name that is not in memory stays as it is: the native call refuses it
  (if (i64.gt_u (i64.add (i64.extend_i32_u (local.get $at)) (i64.extend_i32_u (local.get $length)))
                (i64.shl (i64.extend_i32_u (memory.size)) (i64.const 16)))
    (then (return (local.get $length))))
  (block $done (loop $shorter
    (br_if $done (i32.le_u (local.get $length) (i32.const 1)))
    (br_if $done (i32.ne (i32.const 47)
      (i32.load8_u (i32.sub (i32.add (local.get $at) (local.get $length)) (i32.const 1)))))
    (local.set $length (i32.sub (local.get $length) (i32.const 1)))
    (br $shorter)))
  (local.get $length))
(func $is_folder (param $fd i32) (param $at i32) (param $length i32) (result i32)
  ;; errno: 0 of a folder, not of a symlink to one. What stands at 0 is put back.
  (local $errno i32)
  (memory.copy $kept 0 (i32.const 0) (i32.const 0) (i32.const {FILESTAT_BYTES}))
  (local.set $errno (call $filestat_of (local.get $fd) (i32.const 0) (local.get $at)
                                       (local.get $length) (i32.const 0)))
  (if (i32.eqz (local.get $errno)) (then
    (if (i32.ne (i32.load8_u (i32.const {FILETYPE})) (i32.const {FOLDER}))
      (then (local.set $errno (i32.const {ENOTDIR}))))))
  (memory.copy 0 $kept (i32.const 0) (i32.const 0) (i32.const {FILESTAT_BYTES}))
  (local.get $errno))"""


def call(name: str, n: int) -> str:
    """The call of a native function with `n` parameters, through what closes its fault."""
    return f"(call ${'closed_' if name in FAULTY else ''}{name} {args(n)})"


def imports(names: set[str]) -> str:
    """What the functions for these native ones import, to stand among a module's imports."""
    return _RENAME_IMPORTS if "path_rename" in names else ""


def functions(signatures: dict[str, str]) -> str:
    """The functions before those native ones, in WebAssembly text.

    Args:
        signatures: {native function: its type, such as ` (param i32) (result i32)`}.
    """
    found = [
        f"(func $closed_{name}{sig} {FAULTY[name](name)})"
        for name, sig in signatures.items()
        if name in FAULTY
    ]
    return "\n".join([*found, _RENAME_HELPERS if "path_rename" in signatures else ""])
