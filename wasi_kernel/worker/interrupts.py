"""Interrupts: KeyboardInterrupt in an unmodified CPython, by writing its own signal flags.

CPython's SIGINT handler in C sets `handlers[SIGINT].tripped`, `is_tripped` and an evaluation
breaker bit; the interpreter looks at them between bytecodes, and so do `re`, `time.sleep` and
others. A host thread that sets the same words while the guest runs interrupts it; while no one
does, nothing costs anything.

Which words they are is found once per build: the guest sets its signal wakeup fd to the door and
calls `_thread.interrupt_main()`, which trips SIGINT and then writes one byte to that fd; memory at
that moment is compared with memory just before. The wakeup fd itself changes from -1 to 0 in the
same static structure (`signals.wakeup.fd` in `_PyRuntime`; `is_tripped` stands two words behind
it), and only words near it count: the C stack and the heap change as well, and writing those
would corrupt the guest.
"""

from __future__ import annotations

import contextlib
import struct
import threading
import time
from typing import TYPE_CHECKING

from wasi_kernel.worker.memory import OutOfBoundsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wasi_kernel.worker.memory import LinearMemory

DOOR_FD = 0
UNSET = 0xFFFFFFFF  # wakeup fd -1
PAGE = 4096
NEAR = 1 << 20
"""Bytes around `wakeup.fd` in which a flag may lie: `_PyRuntime`, with the main interpreter and
main thread in it. The words found in CPython 3.15 lie 181 KiB apart."""

REPOKE_S = 0.02

HANDLERS_BYTES = 1024
"""The handlers, each with its `tripped`, lie right below `wakeup.fd` and `is_tripped`, 8 bytes for
each signal (CPython's pycore_signal.h, struct _signals_runtime_state)."""


class CalibrationError(Exception):
    """No flags were found: this build cannot be interrupted softly."""


class Finder:
    """Watches one guest trip its own SIGINT a few times; then `words` are the flags.

    Attributes:
        words: {guest address: bits that the handler sets}.
        is_tripped: Address of the flag that the guest clears when it has seen the interrupt.
    """

    def __init__(self) -> None:
        self._before = b""
        self._rounds = 0
        self.words: dict[int, int] = {}
        self.is_tripped = 0

    def flags_are_down(self, memory: LinearMemory) -> None:
        """The guest is about to set its wakeup fd."""
        self._before = memory.read(0, memory.size())

    def flags_are_up(self, memory: LinearMemory) -> None:
        """The wakeup byte: the flags are up right now."""
        before, now = self._before, memory.read(0, memory.size())
        changed = {
            at: (struct.unpack_from("<I", before, at)[0], struct.unpack_from("<I", now, at)[0])
            for page in range(0, min(len(before), len(now)), PAGE)
            if before[page : page + PAGE] != now[page : page + PAGE]
            for at in range(page, page + PAGE, 4)
            if before[at : at + 4] != now[at : at + 4]
        }
        anchors = [
            at
            for at, (old, new) in changed.items()
            if (old, new) == (UNSET, DOOR_FD) and changed.get(at + 8) == (0, 1)
        ]
        self._rounds += 1
        if len(anchors) != 1:
            self.words = {}
            return
        anchor = anchors[0]
        self.is_tripped = anchor + 8
        up = {
            at: new
            for at, (old, new) in changed.items()
            if abs(at - anchor) < NEAR and old == 0 and new in (1, 2)
        }
        if self._rounds == 1:
            self.words = up
        else:
            self.words = {at: v for at, v in self.words.items() if up.get(at) == v}

    def found(self) -> dict[int, int]:
        """The flags.

        Raises:
            CalibrationError: They were not found.
        """
        if self._rounds < 2 or len(self.words) < 2 or self.is_tripped not in self.words:
            raise CalibrationError(f"{self._rounds} rounds, {len(self.words)} words")
        return self.words


class Interrupter:
    """Interrupts one guest, from any thread, until `close`.

    After `close` the guest's memory may be freed; one lock over both makes sure that nothing is
    written there any more.
    """

    def __init__(self, memory: LinearMemory, words: dict[int, int], is_tripped: int) -> None:
        self._memory, self._words, self._is_tripped = memory, words, is_tripped
        near = [at for at, bits in words.items() if 0 < is_tripped - at < HANDLERS_BYTES]
        self._tripped = near[0] if len(near) == 1 else None
        self._lock = threading.Lock()
        self._open = True

    def trip(self) -> bool:
        """Sets the flags; False if the guest is closed.

        `is_tripped` comes after `tripped`, or the guest would look for a signal and find none; and
        the evaluation breaker after `is_tripped`. Once that is set, `tripped` is not set again: it
        may have been taken already, and a handler that raises has the guest look a second time.
        """
        with self._lock:
            if not self._open:
                return False
            try:
                self._set_others()
                self._memory.u32(self._is_tripped).value |= self._words[self._is_tripped]
                self._set_others(breaker_only=True)
            except OutOfBoundsError:
                return False
            return True

    def _set_others(self, *, breaker_only: bool = False) -> None:
        for at, bits in self._words.items():
            if at != self._is_tripped and not (breaker_only and at == self._tripped):
                self._memory.u32(at).value |= bits

    def _remind(self) -> None:
        """Sets the evaluation breaker again.

        Not the other two: if the guest has just cleared them, that would be a second interrupt.
        """
        with self._lock:
            if self._open:
                self._set_others(breaker_only=True)

    def seen(self) -> bool:
        """Has the guest taken notice (cleared the flag of the signal), or is it closed?"""
        flag = self._is_tripped if self._tripped is None else self._tripped
        with self._lock:
            try:
                return not self._open or self._memory.u32(flag).value == 0
            except OutOfBoundsError:
                return True

    def unseen(self) -> bool:
        """Does an interrupt stand that the guest has not seen yet?"""
        return not self.seen()

    def watch(self, grace_s: float, still_wanted: Callable[[], bool]) -> bool:
        """Waits until the guest has seen the interrupt; False if it has not in time.

        Setting a bit is no atomic operation: the guest may clear its own bits of the same word
        at that moment and with them ours. So it is reminded while `is_tripped` stands.
        """
        end = time.monotonic() + grace_s
        pause_s = 0.001
        while not self.seen():
            if not still_wanted():
                return True
            if time.monotonic() > end:
                return False
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, REPOKE_S)
            self._remind()
        return True

    def withdraw(self) -> None:
        """Clears the flags of an interrupt that came when nothing ran any more."""
        with self._lock:
            if not self._open:
                return
            with contextlib.suppress(OutOfBoundsError):
                for at, bits in self._words.items():
                    self._memory.u32(at).value &= ~bits & 0xFFFFFFFF

    @contextlib.contextmanager
    def still(self) -> Iterator[None]:
        """While its body runs, no thread writes flags."""
        with self._lock:
            yield

    def close(self) -> None:
        """Nothing is written from here on."""
        with self._lock:
            self._open = False
