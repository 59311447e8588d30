"""Images: a resting guest's linear memory, kept in a file and put back.

Between two turns of a reactor no WebAssembly frame is live, so linear memory is the whole
interpreter. A base image is that memory after the agent has booted; a new instance maps the file
privately over its own memory, which copies nothing: clean pages are shared by all processes.

What is not in memory: open files, host files, and the origin of WASI's monotonic clock (the
switchboard's clock offset makes up for that one).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from wasi_kernel.worker.memory import LinearMemory

CHUNK = 1 << 16
MAP_PRIVATE_FIXED = 0x02 | 0x10  # the same numbers on Linux and macOS


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
        if not can_map():
            for at in range(0, size, CHUNK):
                memory.write(at, os.pread(f.fileno(), CHUNK, at))
            return
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = (
            ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int,
            ctypes.c_long,
        )  # fmt: skip
        prot = mmap.PROT_READ | mmap.PROT_WRITE
        address = memory.address(0, size)
        if libc.mmap(address, size, prot, MAP_PRIVATE_FIXED, f.fileno(), 0) != address:
            raise OSError(ctypes.get_errno(), "mmap over linear memory")
