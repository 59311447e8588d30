"""A Jupyter kernel whose cells run in CPython compiled to WebAssembly, in a sandbox.

The public API: `Sandbox` runs code without Jupyter, `Policy` (with `Grant`, `Limits` and
`CheckpointLimits`) says what it may reach. Importing this module imports none of them; they are
loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wasi_kernel.policy import CheckpointLimits, Grant, Limits, Policy
    from wasi_kernel.results import Result
    from wasi_kernel.sandbox import Sandbox

__version__ = "0.1.0"
__all__ = [
    "CheckpointLimits", "Grant", "Limits", "Policy", "Result", "Sandbox", "__version__",
]  # fmt: skip

_HOMES = {
    "CheckpointLimits": "policy", "Grant": "policy", "Limits": "policy", "Policy": "policy",
    "Result": "results", "Sandbox": "sandbox",
}  # fmt: skip


def __getattr__(name: str) -> object:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"wasi_kernel.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
