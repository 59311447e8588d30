"""Magics for a session's past: %undo, %redo, %checkpoint, %checkpoints, %restore, %diff, ...

What they do is done by the host, when the guest is at rest: a cell that goes to another state ends
right there, and this interpreter with it. The state it goes to knows nothing of the cell.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_magic, magics_class

from wasi_agent import variables
from wasi_agent.tables import Table, mib

if TYPE_CHECKING:
    from wasi_agent.door import Door
    from wasi_agent.shell import ZMQInteractiveShell

NOT_RUN = "[wasi-kernel] what follows in this cell was not run: put it into a cell of its own"
SWITCH = {"on": True, "off": False}
UNTRACKED_NAMES = 20


def clock(time_s: float | None) -> str:
    """A time of day, of the guest's clock."""
    import time

    return "" if time_s is None else time.strftime("%H:%M:%S", time.localtime(time_s))


def state_of(row: dict[str, Any]) -> str:
    """What a checkpoint is of, in words."""
    if row["kind"] == "start":
        return "before the first cell"
    line = row["line"] if len(row["line"]) <= 60 else row["line"][:59] + "…"
    return f"after cell [{row['cell']}]" + (f": {line}" if line else "")


def cells(numbers: list[int]) -> str:
    """Some cells, in words."""
    listed = ", ".join(f"[{n}]" for n in numbers)
    return f"cell {listed}" if len(numbers) == 1 else f"cells {listed}"


@magics_class
class TimeMagics(Magics):
    """The magics.

    Attributes:
        undo_errors: Does a failing cell leave no trace?
    """

    shell: ZMQInteractiveShell
    undo_errors = False

    def _ask(self, operation: str, **more: Any) -> dict[str, Any]:
        content = {"op": operation, **more}
        said: dict[str, Any] = self.shell.door.ask("checkpoint_request", content).content
        if said.get("status") != "ok":
            raise UsageError(str(said.get("evalue")))
        return said

    def _travel(self, text: str) -> None:
        print(text)
        if self.shell.is_more_to_come():
            print(NOT_RUN, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # this interpreter ends here; the host goes on with the other one

    @line_magic
    def undo(self, line: str) -> None:
        """Undo the last cell, or the last N: ``%undo [N]``.

        Everything in memory is as it was before those cells, exactly: variables, open generators,
        imported modules, random state. Files that they wrote stay. What follows in the same cell is
        not run.

        ``%undo --on-error on`` makes every cell that ends in an error leave no trace; ``off`` ends
        that, and ``%undo --on-error`` says what holds.
        """
        words = line.split()
        if words[:1] == ["--on-error"]:
            self._on_error(words[1:])
            return
        said = self._ask("undo", cells=_count("undo", words))
        self._travel(f"Undone: {cells(said['undone'])}. Now {state_of(said)}")

    def _on_error(self, words: list[str]) -> None:
        if words:
            if len(words) != 1 or words[0] not in SWITCH:
                raise UsageError("it is %undo --on-error on, or off")
            self._ask("list")  # refuses where there are no checkpoints
            self.undo_errors = SWITCH[words[0]]
        print(
            "A cell that ends in an error leaves no trace."
            if self.undo_errors
            else "A cell that ends in an error leaves what it did before the error."
        )

    @line_magic
    def redo(self, line: str) -> None:
        """Do again what was undone, one cell or N: ``%redo [N]``.

        Works until something new has run. Nothing is executed: the state after the cell comes back.
        """
        said = self._ask("redo", cells=_count("redo", line.split()))
        self._travel(f"Now {state_of(said)}")

    @line_magic
    def restore(self, line: str) -> None:
        """Go to a checkpoint: ``%restore NAME``, or ``%restore CELL`` for the state after a cell.

        ``%checkpoints`` lists them.
        """
        wanted = line.strip()
        if not wanted:
            raise UsageError("%restore wants a name or the number of a cell; see %checkpoints")
        said = self._ask("restore", to=wanted)
        self._travel(f"Now {state_of(said)}")

    @line_magic
    def checkpoint(self, line: str) -> None:
        """Name the state after this cell: ``%checkpoint NAME``; ``%restore NAME`` goes there.

        A named state is kept for as long as the session. ``%checkpoint --delete NAME`` takes the
        name away.
        """
        name = line.strip()
        if name.startswith("--delete"):
            name = name.removeprefix("--delete").strip()
            self._ask("unname", name=name)
            print(f"The name {name!r} is gone.")
            return
        if not name:
            raise UsageError("%checkpoint wants a name: %checkpoint NAME")
        self._ask("name", name=name)
        print(f"The state after this cell is called {name!r}; %restore {name} goes there.")

    @line_magic
    def checkpoints(self, line: str) -> Table:
        """List the states that can be gone to: cell, first line, when, pages written, size.

        The value can be used: ``c = %checkpoints`` and ``c.to_dict()``.
        """
        if line.strip():
            raise UsageError("%checkpoints takes no arguments")
        said = self._ask("list")
        rows = [("cell", "first line", "when", "pages", "size", "")]
        for row in said["rows"]:
            marks = [row["where"]] if row["where"] != "past" else []
            rows.append((
                f"[{row['cell']}]" if row["kind"] in ("cell", "aside") else row["kind"],
                row["line"], clock(row["time_s"]), str(row["pages"]), mib(row["bytes"]),
                ", ".join([*map(repr, row["names"]), *marks]),
            ))  # fmt: skip
        title = f"Checkpoints, {mib(said['bytes'])} on disk"
        return Table(title, rows, {"checkpoints": said["rows"], "bytes": said["bytes"]}, head=True)

    @line_magic
    def diff(self, line: str) -> Table:
        """Variables that differ between a checkpoint and now: ``%diff [CELL or NAME]``.

        Without an argument: what has changed since the last cell. Shows what was added, removed
        and changed, with types, shapes and sizes.
        """
        said = self._ask("look", to=line.strip())
        found = variables.compare(said["variables"], variables.describe(self.shell.user_ns))
        rows = [("", "variable", "before", "now")]
        rows += [(d["change"], d["name"], d["before"], d["now"]) for d in found]
        if len(rows) == 1:
            rows.append(("", "(no variable differs)", "", ""))
        return Table(f"Differences, {state_of(said)}", rows, {"differences": found}, head=True)

    @line_magic
    def save_session(self, line: str) -> None:
        """Save the session, as it is after this cell, to a file: ``%save_session PATH``.

        A kernel can be started from it, with all variables: ``wasi-kernel session resume PATH``.
        Files of the session's own /tmp and home are not in it, nor are open files.
        """
        path = line.strip()
        if not path:
            raise UsageError("%save_session wants a path: %save_session /tmp/work.session")
        path = os.path.abspath(os.path.expanduser(path))
        fd, new = _new_beside(path)  # can it be written? an error is better told now
        os.close(fd)
        os.remove(new)
        self._ask("save", path=path)

    @line_magic
    def fork(self, line: str) -> None:
        """Start a second kernel with the state after this cell: ``%fork NAME``.

        From there on the two go separate ways. It is reached with the command that is printed, and
        ends with this kernel. ``wasi-kernel session list`` shows it.
        """
        name = line.strip()
        if not name:
            raise UsageError("%fork wants a name: %fork NAME")
        self._ask("fork", name=name)


def _count(magic: str, words: list[str]) -> int:
    if not words:
        return 1
    if len(words) == 1 and words[0].isdecimal() and int(words[0]) > 0:
        return int(words[0])
    raise UsageError(f"%{magic} takes a number of cells: %{magic} 2")


def install(shell: ZMQInteractiveShell) -> TimeMagics:
    """Registers the magics, and completion of what they take."""
    magics = TimeMagics(shell=shell)
    shell.register_magics(magics)

    def names(_shell: Any, _event: Any) -> list[str]:
        said = shell.door.ask("checkpoint_request", {"op": "list"}).content
        rows = said.get("rows", [])
        found = [name for row in rows for name in row["names"]]
        return found + [str(row["cell"]) for row in rows if row["kind"] == "cell"]

    def options(_shell: Any, event: Any) -> list[str]:
        return ["on", "off"] if "--on-error" in event.line else ["--on-error"]

    for name in ("restore", "diff"):
        shell.set_hook("complete_command", names, str_key=f"%{name}")
    shell.set_hook("complete_command", options, str_key="%undo")

    def deletable(_shell: Any, event: Any) -> list[str]:
        return names(_shell, event) if "--delete" in event.line else ["--delete"]

    shell.set_hook("complete_command", deletable, str_key="%checkpoint")
    return magics


def _new_beside(path: str) -> tuple[int, str]:
    """(descriptor, path) of a new file in the folder of `path`."""
    import tempfile

    return tempfile.mkstemp(prefix=".saving-", dir=os.path.dirname(path) or ".")


def take_file(door: Door, path: str) -> int:
    """Writes the file that the host hands over to `path`, whole or not at all; its bytes."""
    fd, new = _new_beside(path)
    written = 0
    try:
        with os.fdopen(fd, "wb") as f:
            while data := door.ask("checkpoint_request", {"op": "take"}).buffers[0]:
                written += f.write(data)
        os.replace(new, path)
    except BaseException:  # raised again: nothing half written is left behind
        with contextlib.suppress(OSError):
            os.remove(new)
        raise
    return written


def pad_history(shell: ZMQInteractiveShell, count: int) -> None:
    """Makes `In[count]` the next entry: cells that were undone have numbers, but no entry."""
    manager: Any = shell.history_manager
    for entries in (manager.input_hist_parsed, manager.input_hist_raw):
        entries.extend([""] * (count - len(entries)))


FONTS = "/matplotlib/mpl-data/fonts/"


def close_files(fds: list[int]) -> list[str]:
    """Closes the files that were open on these fds in the state that was restored; their names.

    The host has put an empty folder on each fd. Python's own files are closed, which frees the fd;
    one that C code holds (SQLite's) keeps it, so that it fails instead of meeting another file.
    Fonts are not named: matplotlib opens them anew.
    """
    left, names = set(fds), []
    for each in gc.get_objects():
        if issubclass(type(each), io.FileIO):
            try:
                fd = each.fileno()
            except (ValueError, OSError):
                continue
            if fd in left:
                left.discard(fd)
                name = str(getattr(each, "name", fd))
                names += [name] if FONTS not in name else []
                try:
                    each.close()
                except OSError:
                    continue
    names += [f"fd {fd}" for fd in sorted(left)[:UNTRACKED_NAMES]]
    _forget_fonts()
    return names


def _forget_fonts() -> None:
    """Has matplotlib open its fonts anew, which it keeps open (its font_manager.get_font)."""
    fonts = sys.modules.get("matplotlib.font_manager")
    mathtext = sys.modules.get("matplotlib.mathtext")
    parser = getattr(mathtext, "MathTextParser", None)
    for cached in (getattr(fonts, "_get_font", None), getattr(parser, "_parse_cached", None)):
        clear = getattr(cached, "cache_clear", None)
        if clear is not None:
            clear()
