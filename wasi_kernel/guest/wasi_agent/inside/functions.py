"""`%wasi wat`: the WebAssembly text of one of python.wasm's functions."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from wasi_agent.inside import Arguments
from wasi_agent.inside.objects import WORD, Memory

if TYPE_CHECKING:
    from wasi_agent.inside import WasiMagics

LINES, MAX_LINES = 300, 1_000_000
COMPLETED = 100

M_ML, D_METHOD, D_WRAPPED, W_DESCR = 2 * WORD, 5 * WORD, 6 * WORD, 2 * WORD
ML_NAME, ML_METH = 0, WORD
"""Where PyCFunctionObject has its PyMethodDef, PyMethodDescrObject its own, PyWrapperDescrObject
the C function, a method-wrapper its PyWrapperDescrObject, and PyMethodDef its name and C function
(CPython's Include/cpython/methodobject.h, descrobject.h, Objects/descrobject.c,
Include/methodobject.h). Cython's functions begin as PyCFunctionObject does."""

METHODS = {"builtin_function_or_method": M_ML, "cython_function_or_method": M_ML,
           "method_descriptor": D_METHOD, "classmethod_descriptor": D_METHOD}  # fmt: skip
OTHERS = {"function": "its code is Python's bytecode, which _PyEval_EvalFrameDefault runs",
          "type": "to call one runs several functions in C; take one of its methods"}  # fmt: skip

_OF = re.compile(r"((?:.*\s)?)--of(?:\s+(.*?))?(\s--lines\s+\S+)?")

_COMMENT = re.compile(r"(\(;.*?;\)|;;.*)")


def run(magics: WasiMagics, line: str, cell: str | None) -> Function:
    """Show the WebAssembly text of one function of python.wasm.

        %wasi wat NAME|INDEX [--lines N]
        %wasi wat --of EXPRESSION [--lines N]

    NAME is the C function's (long_add, PyList_Append), INDEX its number in the module. --of takes
    something of Python's that is written in C: ``--of len``, ``--of list.append``,
    ``--of int.__add__``; its code is found through its function pointer. --lines N shows so many
    lines (300).

    Called functions, globals, types and labels are numbers, with their names in comments, so the
    text can be compiled again. In code: ``f = %wasi wat long_add``, then ``f.text`` (all of it),
    ``f.calls``, ``f.to_dict()``. ``%wasi module --find TEXT`` looks for names; Tab completes them.
    """
    del cell
    arguments = Arguments("wat")
    arguments.usage = "%(prog)s NAME|INDEX [--lines N], or %(prog)s --of EXPRESSION [--lines N]"
    arguments.add_argument("name", nargs="*")
    arguments.add_argument("--lines", type=int, default=LINES)
    match = _OF.fullmatch(line)  # an expression is not split into words
    source = None if match is None else match[2] or ""
    options = arguments.of(line if match is None else match[1] + (match[3] or ""))
    name = " ".join(options.name)
    if bool(name) == bool(source):
        arguments.error("say which function: a C function's name, an index, or --of len")
    if not 1 <= options.lines <= MAX_LINES:
        arguments.error(f"--lines is a number from 1 to {MAX_LINES:,}")
    wanted: dict[str, Any] = {"name": name}
    if source:
        wanted = {"slot": _pointer(magics, source)}
    elif name.isascii() and name.isdecimal():
        wanted = {"index": int(name)}
    try:
        said = magics.shell.door.look("function", **wanted)
    except ValueError as e:
        raise UsageError(f"%wasi wat: {e}") from None
    facts = {key: value for key, value in said.content.items() if key != "status"}
    return Function(facts, bytes(said.buffers[0]).decode(), options.lines)


def complete(shell: Any, event: Any) -> list[str]:
    """Names of functions that begin as the last word does, and options; of --of what Python has."""
    words = event.line.split()
    last = "" if event.line.endswith(" ") else words[-1]
    if "--of" in words[:-1] or (words[-1] == "--of" and not last):
        found = shell.Completer
        known = found.attr_matches if "." in last else found.global_matches
        return sorted(set(known(event.symbol)))
    if not last or last.startswith("-"):
        return [option for option in ("--of", "--lines") if option.startswith(last)]
    if event.symbol != last:  # such as C++'s a::b, of which only the end would be completed
        return []
    try:
        said = shell.door.look("functions", prefix=last, most=COMPLETED)
    except ValueError:
        return []
    return list(said.content["names"])


class Function:
    """A function of the module: its text, what it takes, what it calls.

    Attributes:
        text: All of its text.
        calls: {function that it calls: in how many places}; by name, or by index without one.
        index: Its number in the module.
        name: Its name, "" without one.
    """

    def __init__(self, facts: dict[str, Any], text: str, lines: int) -> None:
        """Takes what the host says, and how many lines are shown."""
        self._facts, self._shown = facts, lines
        self.text = text
        self.index: int = facts["index"]
        self.name: str = facts["name"]
        self.calls = {each["name"] or each["index"]: each["count"] for each in facts["calls"]}

    def to_dict(self) -> dict[str, Any]:
        """What is known of it, and its text."""
        return {**self._facts, "text": self.text}

    def _lines(self) -> list[str]:
        lines = self.text.split("\n")
        if len(lines) <= self._shown:
            return lines
        left = len(lines) - self._shown
        return [
            *lines[: self._shown],
            f";; {left:,} lines more: --lines {len(lines)}, or the value's .text",
        ]

    def __repr__(self) -> str:
        return "\n".join(self._lines())

    def _repr_html_(self) -> str:
        return f"<pre>{chr(10).join(map(_line, self._lines()))}</pre>"


def _line(line: str) -> str:
    """A line in HTML: the instruction's name in bold, comments in italics."""
    parts = _COMMENT.split(line)  # code and comments in turn
    word = parts[0].split(maxsplit=1)[0] if parts[0].strip() else ""
    indent, _, behind = parts[0].partition(word) if word else (parts[0], "", "")
    shown = [indent, f"<b>{escape(word, quote=False)}</b>" if word else ""]
    for k, part in enumerate([behind, *parts[1:]]):
        text = escape(part, quote=False)
        shown.append(f"<i>{text}</i>" if k % 2 else text)
    return "".join(shown)


# -- Python's own functions ----------------------------------------------------------------------


def _pointer(magics: WasiMagics, source: str) -> int:
    """The C function pointer of what an expression gives: an index in the module's table.

    Raises:
        UsageError: It is no expression, or nothing that is one C function.
    """
    try:
        code = compile(source, "<%wasi wat>", "eval")
    except (SyntaxError, ValueError) as e:
        raise UsageError(f"%wasi wat --of: {source!r} is no expression ({_wrong(e)})") from None
    value = eval(code, magics.shell.user_ns)  # noqa: S307 - the user's own
    memory = Memory(magics.shell.door)
    kind = type(value).__name__
    if kind in ("wrapper_descriptor", "method-wrapper"):
        at = id(value) if kind == "wrapper_descriptor" else memory.word(id(value) + W_DESCR)
        return memory.word(at + D_WRAPPED)
    if kind not in METHODS:
        why = OTHERS.get(kind, "take one like len, list.append or int.__add__")
        raise UsageError(
            f"%wasi wat --of: {source} is a {kind}, which is not one C function; {why}"
        )
    method = memory.word(id(value) + METHODS[kind])
    name = value.__name__.encode()
    try:
        known = memory.read(memory.word(method + ML_NAME), len(name) + 1) == name + b"\0"
    except UsageError:  # outside of memory
        known = False
    if not known:
        raise UsageError(f"%wasi wat --of: the C function of {source} is not where it should be")
    return memory.word(method + ML_METH)


def _wrong(error: SyntaxError | ValueError) -> str:
    return error.msg if isinstance(error, SyntaxError) else str(error)
