"""Kernelspecs: what tells Jupyter how to start a kernel (kernel.json in a folder of that name).

https://jupyter-client.readthedocs.io/en/stable/kernels.html#kernel-specs
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from wasi_kernel.errors import KernelspecError

NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


def install(name: str, display_name: str, options: list[str]) -> Path:
    """Writes a kernelspec for this user; its folder.

    Args:
        name: By which Jupyter knows it: letters, digits and `.`, `_`, `-`.
        display_name: As the launcher shows it.
        options: Options of `wasi-kernel kernel`.

    Raises:
        KernelspecError: The name cannot be used, or is taken.
        OSError: The folder cannot be written.
    """
    from jupyter_core.paths import jupyter_data_dir, jupyter_path

    if not NAME.fullmatch(name):
        raise KernelspecError(name, "letters (small ones), digits and . _ - only")
    folder = Path(jupyter_data_dir()) / "kernels" / name
    for path in map(Path, jupyter_path("kernels")):
        if (path / name).exists():
            raise KernelspecError(name, f"{path / name} is there already; choose another name")
    spec = {
        "argv": [
            sys.executable, "-P", "-m", "wasi_kernel", "kernel", "-f", "{connection_file}",
            *options,
        ],
        "display_name": display_name,
        "language": "python",
        "interrupt_mode": "message",
        "metadata": {"debugger": False},
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps(spec, indent=1))
    return folder
