"""Fixtures that several tiers share.

Every test uses one cache of compiled runtimes (the user's own, or `$WASI_KERNEL_CACHE`): compiling
takes 40 s. Nothing else of the user's is touched: history and Jupyter's folders are temporary.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from wasi_kernel import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Jupyter's and IPython's folders, and the history, for this run only."""
    home = tmp_path_factory.mktemp("home")
    names = {
        "WASI_KERNEL_HISTORY": str(home / "history.sqlite"),
        "JUPYTER_CONFIG_DIR": str(home / "jupyter-config"),
        "JUPYTER_RUNTIME_DIR": str(home / "jupyter-runtime"),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_PLATFORM_DIRS": "1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in names.items():
            patch.setenv(name, value)
        for name in ("WASI_KERNEL_RUNTIME", "JPY_PARENT_PID"):
            if name in os.environ:
                patch.delenv(name)
        yield


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """A sandbox that the tests of one module share."""
    with Sandbox() as sandbox:
        yield sandbox
