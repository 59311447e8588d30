"""Lean imports: the kernel process without the parts of its libraries that it never uses.

Two ways. A package is entered without its own `__init__`, which would import many modules. And a
module that is imported for one or two small things, or for none, has a stand-in that holds these
while the others are imported; afterwards the name stands for the real one again.

Versions of the libraries that want more than is here are imported the usual way.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

BARE = ("IPython", "IPython.core", "jupyter_client", "ipykernel")
"""Packages of which the kernel process needs a few modules: what their `__init__`s import are
IPython's shell, Jupyter's clients, managers and provisioners."""


class StandIn(types.ModuleType):
    """Stands for a module until more of it is asked for than is here."""

    def __init__(self, name: str, content: dict[str, Any]) -> None:
        super().__init__(name)
        self.__dict__.update(content)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def _tzlocal() -> Any:
    """dateutil.tz.tzlocal: of a date that names no time zone, which jupyter_client warns of."""
    from datetime import datetime

    return datetime.now().astimezone().tzinfo


def _isoparse(text: str) -> Any:
    """dateutil.parser.isoparse, of what jupyter_client's ISO8601_PAT lets pass."""
    from datetime import datetime

    return datetime.fromisoformat(text)


def _loggers() -> dict[str, Any]:
    import logging

    names = {"access_log": "access", "app_log": "application", "gen_log": "general"}
    return {name: logging.getLogger(f"tornado.{logger}") for name, logger in names.items()}


def _stand_ins() -> dict[str, dict[str, Any] | None]:
    """{module: what of it is asked for while others are imported; None: it is not there}."""
    python = {"cpython": "CPython", "pypy": "PyPy"}.get(sys.implementation.name, "")
    return {
        # asyncio does without; there is no TLS in this process
        "ssl": None,
        # jupyter_client.jsonutil, for the dates in messages' headers
        "dateutil": {"__path__": []},
        "dateutil.parser": {"isoparse": _isoparse},
        "dateutil.tz": {"tzlocal": _tzlocal},
        # tornado; the real one imports html, curses and the handlers of log files
        "tornado.log": _loggers(),
        # zmq.backend, uuid
        "platform": {"python_implementation": lambda: python, "system": lambda: os.uname().sysname},
        # jupyter_client.connect
        "tempfile": {},
        # ipykernel.parentpoller, for Windows
        "ctypes": {},
    }


def import_lean(*names: str) -> types.ModuleType:
    """The first module of that name, and the others; what they need is imported lean."""
    before = set(sys.modules)
    standing = _stand(_stand_ins())
    try:
        _bare(BARE)
        return _first(names)
    except (ImportError, AttributeError, TypeError):  # a version that needs more: the usual way
        _leave(standing)
        for known in set(sys.modules) - before:
            del sys.modules[known]
        return _first(names)
    finally:
        _leave(standing)


def _first(names: tuple[str, ...]) -> types.ModuleType:
    first, *_ = [importlib.import_module(name) for name in names]
    return first


def _bare(packages: Iterable[str]) -> None:
    for name in packages:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.submodule_search_locations is None:
            continue
        module = types.ModuleType(name)
        module.__spec__, module.__file__ = spec, spec.origin
        module.__path__ = list(spec.submodule_search_locations)
        sys.modules[name] = module


def _stand(wanted: dict[str, dict[str, Any] | None]) -> dict[str, StandIn | None]:
    """Puts stand-ins where nothing is yet; which ones."""
    standing: dict[str, StandIn | None] = {}
    for name, content in wanted.items():
        if name not in sys.modules:
            standing[name] = None if content is None else StandIn(name, content)
            sys.modules[name] = standing[name]  # type: ignore[assignment]  # None: ImportError
    return standing


def _leave(standing: dict[str, StandIn | None]) -> None:
    """Takes the stand-ins away."""
    for name, module in standing.items():
        if sys.modules.get(name, ...) is module:
            del sys.modules[name]
