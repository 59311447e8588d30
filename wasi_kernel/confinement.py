"""Confinement: what this machine has to confine a worker process with, and what it lacks.

The worker does it (worker/confine.py); here it is only asked, for a policy that requires it and for
`wasi-kernel doctor`. Never imports wasmtime or anything of Jupyter.
"""

from __future__ import annotations

import sys

from wasi_kernel import landlock, seccomp
from wasi_kernel.errors import ConfinementError

TRUNCATE_ABI = 3
"""Below this version of Landlock, files that can only be read can be cut to nothing."""


def lacking() -> tuple[str, ...]:
    """What this machine lacks of a whole confinement, one line each; empty if nothing."""
    if sys.platform != "linux":
        return (f"there is neither Landlock nor seccomp on {sys.platform}",)
    found = []
    version = landlock.abi()
    if not version:
        found.append("this Linux kernel has no Landlock, or it is switched off (lsm=)")
    elif version < TRUNCATE_ABI:
        found.append(f"Landlock {version} lets files be emptied that may only be read")
    if not seccomp.available():
        found.append("this Linux kernel or machine has no seccomp filters that are known here")
    return tuple(found)


def require() -> None:
    """Checks that nothing is lacking.

    Raises:
        ConfinementError: Something is; says what.
    """
    if missing := lacking():
        raise ConfinementError(missing)
