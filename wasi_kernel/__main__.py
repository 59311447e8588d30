"""`python -m wasi_kernel`: the command `wasi-kernel`, and the kernel that Jupyter starts.

For a kernel the worker is started first; the imports of the Jupyter side run beside it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wasi_kernel.policy import Policy


def main() -> None:
    """The command line's entry."""
    if sys.argv[1:2] == ["kernel"]:
        from wasi_kernel.errors import WasiKernelError

        try:
            _kernel(sys.argv[2:])
        except WasiKernelError as e:
            sys.exit(f"wasi-kernel: {e}")
        return
    from wasi_kernel.cli import main as command

    sys.exit(command())


def _kernel(argv: list[str]) -> None:
    import gc

    from wasi_kernel.spawn import spawn

    gc.disable()  # imports make much and free little: 8 ms of 110
    waiting = spawn()

    from wasi_kernel import lean

    lean.stand()

    from pathlib import Path

    from wasi_kernel import launch
    from wasi_kernel.errors import WasiKernelError

    given, argv = _options(argv)
    connection = _value(argv, "-f")
    begin = launch.FRESH
    if "--resume" in given:
        begin = launch.Start(file=Path(given["--resume"]).absolute())
    elif "--take-up" in given:
        begin = launch.Start(folder=given["--take-up"])
    try:
        policy = _policy(given)
        begin = launch.restarted(policy, connection) or begin
        settings = launch.settings(policy, Path.cwd(), begin, may_fork="--name" not in given)
        kept = [(name, given[name]) for name in POLICY_OPTIONS if given.get(name)]
        settings = settings._replace(options=tuple(word for pair in kept for word in pair))
    except WasiKernelError as e:
        if "--on-terminal" in given:
            raise
        # Who opens the notebook sees it in its cells, not in the server's log alone.
        print(f"wasi-kernel: {e}", file=sys.stderr)
        settings = launch.refused(e)
    settings.introduce({"connection_file": connection, "name": given.get("--name", "")})
    if settings.policy.restart_keeps_state:
        settings.keep_for(connection)
    if settings.refusal is None:
        waiting = launch.start(settings, worker=waiting)
    kernel = lean.import_lean("wasi_kernel.kernel", "tornado.platform.asyncio")
    gc.freeze()  # what is imported stays: the first collection need not look at it
    gc.enable()
    kernel.main(argv, settings, waiting, "--on-terminal" in given)


def _policy(given: dict[str, str]) -> Policy:
    """The policy file's, or the default one, as the other options change it."""
    from dataclasses import replace

    from wasi_kernel.policy import Policy

    policy = Policy.load(given["--policy"]) if "--policy" in given else Policy()
    changes: dict[str, Any] = {}
    if "--restart-keeps-state" in given:
        changes["restart_keeps_state"] = True
    if "--frontend" in given:
        changes["frontend"] = given["--frontend"]
    if "--frontend-mimes" in given:
        changes["frontend_mimes"] = tuple(filter(None, given["--frontend-mimes"].split(",")))
    return replace(policy, **changes) if changes else policy


POLICY_OPTIONS = ("--policy", "--frontend", "--frontend-mimes")
"""Those of `OPTIONS` that a fork must have as well."""

OPTIONS = {
    "--resume": 1, "--take-up": 1, "--name": 1, "--restart-keeps-state": 0, "--on-terminal": 0,
    **dict.fromkeys(POLICY_OPTIONS, 1),
}  # fmt: skip
"""What `kernel` takes beside Jupyter's own options, and how many values follow."""


def _options(argv: list[str]) -> tuple[dict[str, str], list[str]]:
    """({option: value} of our own, all others). By hand: this is on the start path."""
    given, others, at = {}, [], 0
    while at < len(argv):
        name, _, value = argv[at].partition("=")
        at += 1
        if name not in OPTIONS:
            others.append(argv[at - 1])
            continue
        if OPTIONS[name] and not value:
            if at == len(argv):
                sys.exit(f"wasi-kernel: {name} wants a value")
            value, at = argv[at], at + 1
        given[name] = value
    return given, others


def _value(argv: list[str], name: str) -> str:
    """What follows `name` in `argv`, "" if it is not there."""
    return argv[argv.index(name) + 1] if name in argv[:-1] else ""


if __name__ == "__main__":
    main()
