"""Images: a resting guest's linear memory, kept in a file and put back.

Between two turns of a reactor no WebAssembly frame is live, so linear memory is the whole
interpreter. A base image is that memory after the agent has booted; a new instance maps the file
privately over its own memory, which copies nothing: clean pages are shared by all processes.

What is not in memory: open files, host files, and the origin of WASI's monotonic clock (the
switchboard's clock offset makes up for that one).
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from wasi_kernel.worker.memory import LinearMemory

CHUNK = 1 << 16
MAP_PRIVATE_FIXED = 0x02 | 0x10  # the same numbers on Linux and macOS
MAP_SHARED_FIXED = 0x01 | 0x10
MADV_DONTNEED = 4  # Linux: what was written is forgotten, the pages are zero again


def can_map() -> bool:
    """Can a file be mapped over linear memory here? Otherwise it is copied."""
    return sys.platform in ("linux", "darwin") and mmap.PAGESIZE <= CHUNK


def save(memory: LinearMemory, path: Path) -> int:
    """Writes all of `memory` to the file at `path`, zeros as holes; returns its size in bytes."""
    size = memory.size()
    zero = bytes(CHUNK)
    with path.open("r+b") as f:
        f.truncate(size)
        for at in range(0, size, CHUNK):
            data = memory.read(at, min(CHUNK, size - at))
            if data != zero:
                os.pwrite(f.fileno(), data, at)
    return size


def restore(memory: LinearMemory, path: Path, size: int) -> None:
    """Makes `memory`, which must be no larger than the image, what the image is.

    Raises:
        OSError: The image cannot be read or mapped.
        ValueError: The memory is larger than the image: it cannot shrink.
    """
    if memory.size() > size:
        raise ValueError(f"memory of {memory.size()} bytes, image of {size}")
    memory.grow_to(size)
    with path.open("rb") as f:
        if os.fstat(f.fileno()).st_size < size:
            raise OSError(f"image {path} is shorter than its {size} bytes")
        put = map_file if can_map() else copy_file
        put(memory, 0, size, f.fileno(), 0)


def map_file(memory: LinearMemory, at: int, length: int, fd: int, offset: int) -> None:
    """Maps part of a file privately over memory; all in bytes, at page boundaries.

    Raises:
        OSError: It cannot be mapped; memory is as it was.
    """
    _map(memory, at, length, fd, offset, MAP_PRIVATE_FIXED)


def share_page(memory: LinearMemory, at: int, fd: int) -> None:
    """Maps the first page of a file over memory: what is written there is written to the file.

    Raises:
        OSError: It cannot be mapped; memory is as it was.
    """
    _map(memory, at, mmap.PAGESIZE, fd, 0, MAP_SHARED_FIXED)


def _map(memory: LinearMemory, at: int, length: int, fd: int, offset: int, flags: int) -> None:
    address = memory.address(at, length)
    prot = mmap.PROT_READ | mmap.PROT_WRITE
    if _libc().mmap(address, length, prot, flags, fd, offset) != address:
        raise OSError(ctypes.get_errno(), "mmap over linear memory")


def copy_file(memory: LinearMemory, at: int, length: int, fd: int, offset: int) -> None:
    """Copies part of a file to memory."""
    for done in range(0, length, CHUNK):
        memory.write(at + done, os.pread(fd, min(CHUNK, length - done), offset + done))


def forget(memory: LinearMemory, at: int, length: int) -> None:
    """Frees the host's pages under memory that is all zero and not mapped from a file."""
    _libc().madvise(memory.address(at, length), length, MADV_DONTNEED)


def address_of(buffer: Any) -> int:
    """Where a writable buffer of the host's lies."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


@functools.cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    )  # fmt: skip
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return libc
