"""`%wasi profile`: where a cell's time goes, seen from outside by looks at its stack."""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.display import display

from wasi_agent.inside import Arguments
from wasi_agent.inside.cells import compiled
from wasi_agent.profiles import Profile

if TYPE_CHECKING:
    from types import CodeType

    from wasi_agent.inside import WasiMagics

HZ = 200


def run(magics: WasiMagics, line: str, cell: str | None) -> Profile | None:
    """Show where the time of a cell (%%wasi profile) or of `EXPR` goes.

    The host looks at the guest's stack from outside, many times a second; nothing in the guest is
    changed or slowed for it. It is on for that cell only. Shown are the functions by the part of
    the looks that met them (self: as the innermost Python function, whose C calls count for it;
    total: with what they called; waiting: while the guest was on no processor), and a flame graph.

        %%wasi profile [--hz N] [--lines] [--all]
        %wasi profile [--hz N] [--lines] [--all] EXPR
        %wasi profile --last [--lines] [--all]

    --hz N   looks in a second, 1 to 1000 (200)
    --lines  by line instead of by function
    --all    with what stands below the cell: IPython and the agent
    --last   the last one again, or that of a cell which ended with an error

    The value `p`: p.to_dict(), p.functions(), p.lines(), p.flame(), p.collapsed() (text for other
    programs that draw flame graphs).
    """
    arguments = Arguments("profile")
    arguments.add_argument("--hz", type=int, default=HZ)
    arguments.add_argument("--lines", action="store_true")
    arguments.add_argument("--all", action="store_true")
    arguments.add_argument("--last", action="store_true")
    words, code = _split(line)
    options = arguments.of(words)
    if cell is not None and code:
        arguments.error(f"{code!r} stands beside the cell: write options there, code below")
    if options.last:
        if cell is not None or code:
            arguments.error("--last takes no code")
        last: Profile | None = magics.last_profile
        if last is None:
            arguments.error("there is none yet")
        return last.shown(by_line=options.lines, whole=options.all)
    __tracebackhide__ = True  # an error's traceback shows the cell's own lines
    if cell is None and not code:
        arguments.error("what? Code follows, or write %%wasi profile above a cell")
    source = code if cell is None else "\n" + cell  # lines as they are in the whole cell
    return _profile(magics, source, options)


def _split(line: str) -> tuple[str, str]:
    """The options in front, and the code behind them as it is."""
    rest, words = line.strip(), []
    while rest.startswith("--"):
        word, _, rest = rest.partition(" ")
        words.append(word)
        rest = rest.lstrip()
        if word == "--hz":
            value, _, rest = rest.partition(" ")
            words.append(value)
            rest = rest.lstrip()
    return " ".join(words), rest


def _profile(magics: WasiMagics, source: str, options: Any) -> Profile:
    __tracebackhide__ = True
    shell = magics.shell
    body, last = compiled(magics, source, "profile")
    sampling = _Sampling(magics, options)
    try:
        value = sampling.run(body, last, shell.user_ns)
    except BaseException:
        with contextlib.suppress(Exception):  # what the cell raised is what counts
            display(sampling.profile())
        raise
    profile = sampling.profile()
    if value is not None:
        display(value)
    return profile


class _Sampling:
    """One run of code while the host looks."""

    def __init__(self, magics: WasiMagics, options: Any) -> None:
        self._magics, self._options = magics, options
        self._depth = 0
        self._profile: Profile | None = None

    def run(self, body: CodeType, last: CodeType | None, namespace: dict[str, Any]) -> Any:
        """The last expression's value; whatever happens, the looks end."""
        __tracebackhide__ = True
        door = self._magics.shell.door
        self._depth = _depth()
        try:
            door.look("profile_begin", hz=self._options.hz)
        except ValueError as e:
            raise UsageError(f"%wasi profile: {e}") from None
        try:
            exec(body, namespace)  # noqa: S102 - the user's own code
            return None if last is None else eval(last, namespace)  # noqa: S307 - as well
        finally:
            seen = door.look("profile_end").content
            self._profile = Profile(
                seen, self._depth, body.co_filename, self._options.hz,
                self._magics.shell.compile.format_code_name,
            )  # fmt: skip
            self._magics.last_profile = self._profile

    def profile(self) -> Profile:
        """What was seen.

        Raises:
            UsageError: The host does not look.
        """
        if self._profile is None:
            raise UsageError("%wasi profile: there is nothing to show")
        return self._profile.shown(by_line=self._options.lines, whole=self._options.all)


def _depth() -> int:
    """How many Python frames there are, the caller's the last."""
    count, frame = 0, inspect.currentframe()
    while frame is not None:
        count, frame = count + 1, frame.f_back
    return count - 1
