"""`python -m wasi_kernel`: the command `wasi-kernel`, and the kernel that Jupyter starts.

For a kernel the worker is started first; the imports of the Jupyter side run beside it.
"""

from __future__ import annotations

import sys


def main() -> None:
    """The command line's entry."""
    if sys.argv[1:2] == ["kernel"]:
        _kernel(sys.argv[2:])
        return
    from wasi_kernel.cli import main as command

    sys.exit(command())


def _kernel(argv: list[str]) -> None:
    from pathlib import Path

    from wasi_kernel import launch
    from wasi_kernel.policy import Policy

    settings = launch.settings(Policy(), Path.cwd())
    worker = launch.start(settings)

    from wasi_kernel import kernel

    kernel.main(argv, settings, worker)


if __name__ == "__main__":
    main()
