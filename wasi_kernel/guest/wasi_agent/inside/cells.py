"""The code of a cell that a subcommand runs itself."""

from __future__ import annotations

import ast
import inspect
from typing import TYPE_CHECKING

from IPython.core.error import UsageError

if TYPE_CHECKING:
    from types import CodeType

    from wasi_agent.inside import WasiMagics


def compiled(magics: WasiMagics, source: str, name: str) -> tuple[CodeType, CodeType | None]:
    """The code, and that of its last line if it is an expression to be shown.

    Raises:
        UsageError: It awaits outside of a function; `name` is the subcommand's.
    """
    shell = magics.shell
    # What IPython writes other code for (magics, !) is code of one line for one line.
    text = shell.transform_cell(source.lstrip("\n"))
    text = "\n" * (len(source) - len(source.lstrip("\n"))) + text
    history = shell.history_manager  # of the cell's number: the shell's count is ahead by one
    number = shell.execution_count if history is None else len(history.input_hist_parsed) - 1
    file = shell.compile.cache(text, number, raw_code=source)
    tree = ast.parse(text, file)
    tree = shell.transform_ast(tree)
    last = None
    flags = shell.compile.flags | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    expression = tree.body[-1] if tree.body else None
    if isinstance(expression, ast.Expr) and not text.rstrip().endswith(";"):
        tree.body.pop()
        last = compile(ast.Expression(expression.value), file, "eval", flags)
    body = compile(tree, file, "exec", flags)
    if any(code is not None and code.co_flags & inspect.CO_COROUTINE for code in (body, last)):
        raise UsageError(
            f"%wasi {name} takes no `await` outside of a function, since its cell runs within "
            f"another one: put it into a coroutine and {name} what runs that"
        )
    return body, last
