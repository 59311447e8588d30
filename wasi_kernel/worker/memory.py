"""Linear memory as the host sees it: every access checked against its size.

What a pointer or a length says comes from the guest, so it is hostile. The base address never
changes (engine.py forbids moving), the size only grows.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wasmtime import Store

WASM_PAGE = 65536


class OutOfBoundsError(Exception):
    """The guest gave a pointer or a length that leaves its memory."""


class LinearMemory:
    """Checked access to one instance's memory. Not usable after its store is closed."""

    def __init__(self, store: Store, memory: Any) -> None:
        self._store, self._memory = store, memory
        self.base = ctypes.addressof(memory.data_ptr(store).contents)
        self._known = memory.data_len(store)

    def size(self) -> int:
        """Bytes of memory now."""
        self._known = self._memory.data_len(self._store)
        return int(self._known)

    def grow_to(self, size: int) -> None:
        """Makes the memory at least `size` bytes, a multiple of 64 KiB."""
        missing = size - self.size()
        if missing > 0:
            self._memory.grow(self._store, missing // WASM_PAGE)

    def address(self, at: int, length: int) -> int:
        """The host address of `length` bytes at `at`.

        Raises:
            OutOfBoundsError: They are not all inside.
        """
        if at < 0 or length < 0:
            raise OutOfBoundsError
        if at + length > self._known and at + length > self.size():
            raise OutOfBoundsError
        return self.base + at

    def read(self, at: int, length: int) -> bytes:
        """A copy of `length` bytes at `at`."""
        return ctypes.string_at(self.address(at, length), length)

    def view(self) -> memoryview:
        """All bytes themselves, not a copy; they change as the guest runs."""
        return memoryview((ctypes.c_char * self.size()).from_address(self.base)).cast("B")

    def write(self, at: int, data: bytes) -> None:
        """Puts `data` at `at`."""
        ctypes.memmove(self.address(at, len(data)), data, len(data))

    def u32(self, at: int) -> ctypes.c_uint32:
        """The word at `at`, to read and to set."""
        return ctypes.c_uint32.from_address(self.address(at, 4))
