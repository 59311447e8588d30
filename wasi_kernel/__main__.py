"""`python -m wasi_kernel`: the command `wasi-kernel`, and the kernel that Jupyter starts.

For a kernel the worker is started first; the imports of the Jupyter side run beside it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasi_kernel.launch import Settings
    from wasi_kernel.spawn import Worker

BARE = ("IPython", "IPython.core", "jupyter_client", "ipykernel")
"""Packages of which the kernel process needs a few modules, and whose own __init__ imports many.

A quarter of the modules that a kernel process would load (112 of 422), and of the time that its
imports take (133 ms with, 96 ms without; Python 3.11), come from there: IPython's shell, Jupyter's
clients, managers and provisioners. None is ever used here.
"""


def main() -> None:
    """The command line's entry."""
    if sys.argv[1:2] == ["kernel"]:
        _kernel(sys.argv[2:])
        return
    from wasi_kernel.cli import main as command

    sys.exit(command())


def _kernel(argv: list[str]) -> None:
    import gc

    from wasi_kernel.spawn import spawn

    gc.disable()  # imports make much and free little: 8 ms of 110
    waiting = spawn()

    from pathlib import Path

    from wasi_kernel import launch
    from wasi_kernel.policy import Policy

    settings = launch.settings(Policy(), Path.cwd())
    worker = launch.start(settings, worker=waiting)
    main = _import_kernel()
    gc.enable()
    main(argv, settings, worker)


def _import_kernel() -> Callable[[list[str], Settings, Worker], None]:
    """kernel.main, imported without the packages' own __init__ modules where that works."""
    import importlib.util
    import types

    for name in BARE:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.submodule_search_locations is None:
            continue
        module = types.ModuleType(name)
        module.__spec__, module.__file__ = spec, spec.origin
        module.__path__ = list(spec.submodule_search_locations)
        sys.modules[name] = module
    try:
        from wasi_kernel import kernel
    except (ImportError, AttributeError):  # a version that needs its __init__: the usual way
        for name in [n for n in sys.modules if n.partition(".")[0] in BARE]:
            del sys.modules[name]
        sys.modules.pop("wasi_kernel.kernel", None)
        from wasi_kernel import kernel
    return kernel.main


if __name__ == "__main__":
    main()
