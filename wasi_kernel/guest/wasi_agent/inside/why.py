"""`%wasi why`: what the sandbox has to do with an error or a path, and what would allow it.

paths.py knows why a path cannot be used, errors.py what lies behind an error; here is what was
asked, and how the answer looks.
"""

from __future__ import annotations

import ast
import os
import sys
import textwrap
from typing import TYPE_CHECKING, Any

from wasi_agent.inside import errors, grants, paths
from wasi_agent.tables import Table
from wasi_agent.tracebacks import name_of, shortened, text_of

if TYPE_CHECKING:
    from wasi_agent.inside import WasiMagics
    from wasi_agent.inside.grants import Folder
    from wasi_agent.inside.paths import Reason

WIDTH = 100
"""Characters of a line of the answer as text."""

TITLE_CHARACTERS = 300

NEVER = (
    "the root of the disk, /proc, /sys, /dev, /run, a home folder as a whole, and Jupyter's own "
    "folders; folders with keys, such as ~/.ssh, only with --force"
)
"""What the host refuses to grant, whatever a policy says."""

HOST = "HOST is the folder of the host that is to be seen there"


class Explanation(Table):
    """The answer: a table whose text is wrapped."""

    def __repr__(self) -> str:
        lines = [self._title, "-" * min(len(self._title), WIDTH)]
        width = max(len(row[0]) for row in self._rows)
        for name, text in self._rows:
            wrapped = textwrap.wrap(
                text, WIDTH - width - 2, break_long_words=False, break_on_hyphens=False
            )
            for k, line in enumerate(wrapped or [""]):
                lines.append(f"{name if k == 0 else '':<{width}}  {line}".rstrip())
        return "\n".join(lines)


def run(magics: WasiMagics, line: str, cell: str | None) -> Explanation:
    """Explain an error, or why a path cannot be used: ``%wasi why [PATH|EXPRESSION]``.

    ``%wasi why`` explains the last error that was shown. ``%wasi why /etc/passwd`` explains a
    path, ``%wasi why error`` an exception that a variable holds, and ``%wasi why open("x", "w")``
    or ``%wasi why import torch`` what comes of running that. Says what of the policy is behind it:
    the line that would allow it, and the option of ``wasi-kernel install`` for it; or what no
    policy allows, and what there is instead. ``why = %wasi why`` and ``why.to_dict()["reason"]``
    are for programs.
    """
    del cell
    folders = grants.folders(magics)
    asked = _asked(magics, line)
    if asked is None:
        what = f"no error came of {line}" if line else "no error was shown in this session"
        reason = paths.Reason("nothing", what, "%wasi why PATH explains a path")
        return _shown("Why: nothing to explain", None, "", reason, folders)
    if isinstance(asked, str):
        return _shown(f"Why: {asked}", None, asked, paths.why(asked, folders), folders)
    surroundings = errors.Surroundings(
        folders, magics.facts, magics.shell.door.limits, errors.reached_by(magics.shell, asked)
    )
    error, reason = errors.why(asked, surroundings)
    title = f"Why: {name_of(type(error))}: {shortened(text_of(error), TITLE_CHARACTERS)}"
    return _shown(" ".join(title.split()), error, errors.path_of(error), reason, folders)


def _asked(magics: WasiMagics, line: str) -> BaseException | str | None:
    """An error or a path; None: there is nothing to be explained."""
    shell = magics.shell
    if not line:
        last = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
        shown = shell.last_shown
        return shown if shown is not None else last
    if line[:1] in "/~" or os.path.lexists(line):
        return line
    try:
        tree = ast.parse(line)
    except (SyntaxError, ValueError):
        return _unquoted(line)
    plain = all(
        isinstance(node, (ast.Module, ast.Expr, ast.Name, ast.Attribute, ast.expr_context,
                          ast.Constant))
        for node in ast.walk(tree)
    )  # fmt: skip
    value = _value(shell, tree, line)
    if isinstance(value, BaseException):
        if plain and isinstance(value, (NameError, AttributeError)):
            return _of_name(line)
        return value
    if isinstance(value, (str, bytes, os.PathLike)):
        return os.fsdecode(value)
    return line if plain else None


def _value(shell: Any, tree: ast.Module, line: str) -> Any:
    """What running `line` gives: its value, or the error that it raises."""
    try:
        if len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr):
            return eval(compile(line, "<%wasi why>", "eval"), shell.user_ns)  # noqa: S307 - the user's own
        exec(compile(tree, "<%wasi why>", "exec"), shell.user_ns)  # noqa: S102 - the user's own
    except KeyboardInterrupt:
        raise
    except BaseException as e:  # noqa: BLE001 - it is what was asked for
        return e
    return None


def _of_name(line: str) -> BaseException | str:
    """A word that is no variable: a module, if it is known as one that is not here, or a path."""
    if line.isidentifier() and errors.is_known_module(line):
        return ModuleNotFoundError(f"No module named {line!r}", name=line)
    return line


def _unquoted(line: str) -> str:
    quoted = len(line) > 1 and line[0] == line[-1] and line[0] in "'\""
    return line[1:-1] if quoted else line


def _shown(
    title: str, error: BaseException | None, path: str, reason: Reason, folders: list[Folder]
) -> Explanation:
    rows = [("because", reason.text)]
    about_paths = reason.code in ("not-granted", "climbs", "link-outside")
    if about_paths:
        rows.append(("granted", _granted(folders)))
    if reason.exists and reason.code in ("not-granted", "climbs", "missing", "link-dangling"):
        rows.append(("there is", reason.exists))
    if reason.nearest:
        rows.append(("do you mean", ", ".join(reason.nearest)))
    if reason.do:
        rows.append(("what to do", reason.do))
    if reason.line:
        rows.append(("the policy", " ".join(reason.line.splitlines())))
        rows.append(("or, on the host", f"wasi-kernel install --name NAME {reason.option}"))
        if "HOST:" in reason.line:
            rows.append(("", HOST))
            rows.append(("never granted", NEVER))
    data = {
        "error": None if error is None else name_of(type(error)),
        "message": None if error is None else text_of(error),
        "path": path or None,
        "reason": reason.code,
        "text": reason.text,
        "do": reason.do,
        "policy": reason.line or None,
        "option": reason.option or None,
        "exists": reason.exists or None,
        "nearest": list(reason.nearest),
        "limit": reason.limit or None,
        "grants": grants.plain(folders),
    }
    return Explanation(title, rows, data)


def _granted(folders: list[Folder]) -> str:
    own = [f for f in folders if not f.guest_path.startswith(("/usr/", "/opt/"))]
    return ", ".join(f"{f.guest_path} ({grants.MODES[f.writable]})" for f in own)
