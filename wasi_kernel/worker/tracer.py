"""The tracer: notes each WASI call of a cell, with what it said and the Python line it came from.

On between `begin` and `end`, and no longer than the request: the server stops it at each turn's
end. While it is off, the guest's calls do not come here at all (Switchboard.observe). What is kept
is bounded; calls beyond that are counted and not looked at.

Durations are those of the call itself, with one way to this module and back (microseconds).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from wasi_kernel.worker import looks, wasicalls
from wasi_kernel.worker.looks import Refusal, Sight
from wasi_kernel.worker.pyframes import FrameReader, Place, TornError, UnreadableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasi_kernel.worker.guest import Guest
    from wasi_kernel.worker.memory import LinearMemory

MAX_CALLS, DEFAULT_CALLS = 20_000, 5_000
MAX_BYTES = 8 << 20
"""Text of all calls that are kept, and of their values."""

LAST = 20
"""Calls that are told of a guest that has died."""

MAX_FILTERS, MAX_WORD = 50, 40
FDS = frozenset({"path_open", "fd_close", "fd_renumber", "sock_accept"})
"""Calls that are always noted, shown or not: they say what an fd stands for."""
STREAMS = {0: "door", 1: "stdout", 2: "stderr"}
MAX_PATHS = 4096
"""Fds whose paths are remembered."""


class Trace:
    """The calls of one cell.

    Args:
        memory: The guest's.
        reader: Of its frames; None: they cannot be read.
        shown: Names of the calls to show.
        paths: What fds stand for at the beginning; changed as the cell opens and closes.
        file: The name under which the cell is compiled.
        most: So many calls are kept.
        is_read: Has the guest read all that is there for it? Before, its calls are the magic's own.
    """

    def __init__(
        self,
        memory: LinearMemory,
        reader: FrameReader | None,
        *,
        shown: frozenset[str],
        paths: dict[int, str],
        file: str,
        most: int,
        is_read: Callable[[], bool],
    ) -> None:
        self._memory, self._reader, self._shown = memory, reader, shown
        self._paths, self._file, self._most = paths, file, most
        self._calls: list[dict[str, Any]] = []
        self._totals: dict[str, list[int]] = {}
        self._bytes = self._dropped = 0
        self._name, self._args = "", ()  # type: tuple[str, tuple[int, ...]]
        self._pending: dict[str, Any] | None = None
        self._own = self._answered = False
        self._is_read = is_read
        self._began_ns = 0

    def before(self, name: str, args: tuple[int, ...]) -> None:
        """A call is about to be made."""
        self._name, self._args, self._pending, self._own = name, args, None, False
        if name in self._shown:
            if len(self._calls) < self._most and self._bytes < MAX_BYTES:
                self._pending = self._noted(name, args)
            else:
                self._dropped += 1
        self._began_ns = time.perf_counter_ns()

    def after(self, errno: int) -> None:
        """It has come back."""
        ns = time.perf_counter_ns() - self._began_ns
        name, pending = self._name, self._pending
        self._name, self._pending = "", None
        errno &= 0xFFFF
        given: dict[str, Any] = {}
        if pending is not None or name in FDS:
            given = {} if errno else wasicalls.results(name, self._args, self._memory)
            if not errno:
                self._follow(name, given)
        if self._own or name not in self._shown:
            return
        total = self._totals.setdefault(name, [0, 0, 0])
        total[0] += 1
        total[1] += errno != 0
        total[2] += ns
        if pending is not None:
            error = wasicalls.errno_name(errno) if errno else None
            pending.update(errno=errno, error=error, result=given, ns=ns)
            self._keep(pending)

    def to_dict(self) -> dict[str, Any]:
        """What was seen; a call that is being made now is not counted."""
        if self._name in self._shown and self._pending is None and not self._own:
            self._dropped -= 1  # the one that asks
        return {
            "calls": self._calls,
            "totals": self._totals,
            "dropped": max(0, self._dropped),
            "lines": self._reader is not None,
        }

    def last_words(self) -> str | None:
        """The last calls of a guest that is no more, as text; None: it made none."""
        calls = self._calls if self._pending is None else [*self._calls, self._pending]
        if not calls:
            return None
        made = len(calls) + max(0, self._dropped)
        calls_made = f"{made:,} call{'s' * (made != 1)}"
        kept = f" of the first {len(calls):,}" * (self._dropped > 0)
        lines = [f"the trace of this cell ends here, after {calls_made}; the last{kept}:"]
        for call in calls[-LAST:]:
            over = "?" if call is self._pending else call["error"] or "ok"
            where = "" if call["cell"] is None else f"  # line {call['cell']} of the cell"
            lines.append(f"{call['call']}({call['text']}) = {over}{where}")
        return "\n".join(lines)

    def _noted(self, name: str, args: tuple[int, ...]) -> dict[str, Any] | None:
        at, cell = self._place()
        if cell is None and self._reader is not None and name in ("fd_read", "fd_write"):
            self._own = args[0] == 0 and at is not None  # the question that began this
        if not self._answered:  # what comes first is the reading of that question's answer
            self._answered = self._is_read()
            self._own = self._own or not self._answered
        if self._own:
            return None
        said = wasicalls.arguments(name, args, self._memory, self._paths)
        return {
            "call": name,
            "args": {a.name: a.value for a in said},
            "text": ", ".join(a.text if a.name == "fd" else f"{a.name}={a.text}" for a in said),
            "at": None if at is None else [at.file, at.line, at.function],
            "cell": cell,
            "errno": None, "error": None, "result": {}, "ns": 0,
        }  # fmt: skip

    def _place(self) -> tuple[Place | None, int | None]:
        """The innermost line, and the cell's own line that led there."""
        if self._reader is None:
            return None, None
        try:
            stack = self._reader.stack()
        except TornError:
            return None, None
        cell = next((p.line for p in stack if p.file == self._file), None)
        return (stack[0] if stack else None), cell

    def _keep(self, call: dict[str, Any]) -> None:
        values = [*call["args"].values(), *call["result"].values()]
        self._bytes += len(call["text"]) + sum(len(w) for w in (call["at"] or ["", 0, ""])[::2])
        self._bytes += sum(len(str(value)) for value in values)
        self._calls.append(call)

    def _follow(self, name: str, given: dict[str, Any]) -> None:
        """Keeps what fds stand for."""
        fd = self._args[0] & 0xFFFFFFFF if self._args else 0
        made = wasicalls.opened_fd(name, given)
        if made is not None and len(self._paths) < MAX_PATHS:
            said = wasicalls.arguments(name, self._args, self._memory, self._paths)
            path = next((str(a.value) for a in said if a.name == "path"), "a connection")
            folder = self._paths.get(fd, "?")
            whole = path if path.startswith("/") else f"{folder.rstrip('/')}/{path}"
            self._paths[made] = whole[-wasicalls.MAX_PATH :]
        elif name == "fd_close":
            self._paths.pop(fd, None)
        elif name == "fd_renumber":
            moved = self._paths.pop(fd, None)
            self._paths.pop(self._args[1] & 0xFFFFFFFF, None)
            if moved is not None:
                self._paths[self._args[1] & 0xFFFFFFFF] = moved


class Tracer:
    """At most one trace of the present guest; answers `%%wasi trace`.

    Args:
        guest: Gives the present guest.
    """

    def __init__(self, guest: Callable[[], Guest]) -> None:
        self._guest = guest
        self._runtime: int | None = None
        self._traced: tuple[Guest, Trace] | None = None

    def begin(self, question: dict[str, Any]) -> Sight:
        """Notes calls from now on. On the guest's thread, as all here."""
        most = looks.number(question, "most", least=1, most=MAX_CALLS, default=DEFAULT_CALLS)
        file = looks.text(question, "file", most=500)
        if self._traced is not None:
            raise Refusal("this cell is being traced already")
        guest = self._guest()
        shown = _chosen(question.get("filter"), guest.wasi_calls)
        trace = Trace(
            guest.memory, self._reader(guest.memory), shown=shown,
            paths={**STREAMS, **guest.preopened()}, file=file, most=most,
            is_read=lambda: guest.door.is_read,
        )  # fmt: skip
        guest.observe(trace, shown | FDS)
        self._traced = guest, trace
        return Sight({"calls": len(shown)})

    def end(self, question: dict[str, Any]) -> Sight:
        """What was seen."""
        del question
        if self._traced is None:
            raise Refusal("nothing is being traced")
        seen = self._traced[1].to_dict()
        self.stop()
        return Sight(seen)

    def last_words(self) -> str | None:
        """What is to be told of a trace whose guest has died; None if there is none."""
        return None if self._traced is None else self._traced[1].last_words()

    def stop(self) -> None:
        """Ends what a request has begun and not ended."""
        traced, self._traced = self._traced, None
        if traced is not None:
            traced[0].observe(None)

    def _reader(self, memory: LinearMemory) -> FrameReader | None:
        try:
            reader = FrameReader(memory, self._runtime)
        except UnreadableError:
            return None
        self._runtime = reader.runtime
        return reader


def _chosen(words: Any, names: frozenset[str]) -> frozenset[str]:
    """The calls that a filter names: each a call, or the first word of some."""
    if words is None or words == []:
        return names
    if not isinstance(words, list) or len(words) > MAX_FILTERS:
        raise Refusal(f"filter is no list of at most {MAX_FILTERS} names")
    chosen: set[str] = set()
    for word in words:
        if not isinstance(word, str) or len(word) > MAX_WORD:
            raise Refusal("filter has something that is no name")
        found = {n for n in names if n == word or n.startswith(f"{word}_")}
        if not found:
            kinds = sorted({n.partition("_")[0] for n in names})
            raise Refusal(
                f"no call of this guest is named {word!r}; there are {', '.join(kinds)} "
                f"(each a group), and {', '.join(sorted(names))}"
            )
        chosen |= found
    return frozenset(chosen)
