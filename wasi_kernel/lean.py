"""Lean imports: our processes without the parts of their libraries that they never use.

Two ways. A package is entered without its own `__init__`, which would import many modules. And a
module that is imported for one or two small things, or for none, has a stand-in that holds these
while the others are imported; afterwards the name stands for the real one again.

Versions of the libraries that want more than is here are imported the usual way.
"""

from __future__ import annotations

import importlib
import os
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Content = dict[str, Any] | Callable[[], dict[str, Any]]

BARE = ("IPython", "IPython.core", "jupyter_client", "ipykernel")
"""Packages of which the kernel process needs a few modules: what their `__init__`s import are
IPython's shell, Jupyter's clients, managers and provisioners."""


class StandIn(types.ModuleType):
    """Stands for a module until more of it is asked for than is here."""

    def __init__(self, name: str, content: Content) -> None:
        super().__init__(name)
        if callable(content):
            self.__late = content
        else:
            self.__dict__.update(content)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if "_StandIn__late" in vars(self):
            vars(self).update(vars(self).pop("_StandIn__late")())
            return getattr(self, name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        found = getattr(importlib.import_module(self.__name__), name)
        setattr(self, name, found)
        return found


def _tzlocal() -> Any:
    """dateutil.tz.tzlocal: of a date that names no time zone, which jupyter_client warns of."""
    from datetime import datetime

    return datetime.now().astimezone().tzinfo


def _isoparse(text: str) -> Any:
    """dateutil.parser.isoparse, of what jupyter_client's ISO8601_PAT lets pass."""
    from datetime import datetime

    return datetime.fromisoformat(text)


def _quote_from_bytes(*args: Any, **options: Any) -> str:
    from urllib.parse import quote_from_bytes

    return quote_from_bytes(*args, **options)


def _loggers() -> dict[str, Any]:
    import logging

    names = {"access_log": "access", "app_log": "application", "gen_log": "general"}
    return {name: logging.getLogger(f"tornado.{logger}") for name, logger in names.items()}


_standing: dict[str, StandIn | None] = {}
"""The stand-ins that are there now."""


def _stand_ins() -> dict[str, Content | None]:
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
        "tornado.log": _loggers,
        # zmq.backend, uuid, wasmtime
        "platform": {
            "python_implementation": lambda: python,
            "system": lambda: os.uname().sysname,
            "machine": lambda: os.uname().machine,
        },
        # dataclasses, whose classes are all documented here
        "inspect": {"get_annotations": lambda cls: dict(vars(cls).get("__annotations__", {}))},
        # pathlib
        "urllib.parse": {"quote_from_bytes": _quote_from_bytes},
        # jupyter_client.connect
        "tempfile": {},
        # ipykernel.parentpoller, for Windows
        "ctypes": {},
    }


def import_lean(*names: str) -> types.ModuleType:
    """The first module of that name, and the others; what they need is imported lean."""
    before = set(sys.modules) - set(_standing)
    stand()
    try:
        _bare(BARE)
        return _first(names)
    except (ImportError, AttributeError, TypeError):  # a version that needs more: the usual way
        leave()
        for known in set(sys.modules) - before:
            del sys.modules[known]
        return _first(names)
    finally:
        leave()


def _first(names: tuple[str, ...]) -> types.ModuleType:
    first, *_ = [importlib.import_module(name) for name in names]
    return first


def _bare(packages: Iterable[str]) -> None:
    import importlib.util

    for name in packages:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.submodule_search_locations is None:
            continue
        module = types.ModuleType(name)
        module.__spec__, module.__file__ = spec, spec.origin
        module.__path__ = list(spec.submodule_search_locations)
        sys.modules[name] = module


def stand() -> None:
    """Puts stand-ins where nothing is yet, until `leave`."""
    for name, content in _stand_ins().items():
        if name not in sys.modules:
            _standing[name] = None if content is None else StandIn(name, content)
            sys.modules[name] = _standing[name]  # type: ignore[assignment]  # None: ImportError


def leave() -> None:
    """Takes the stand-ins away: their names stand for the real modules again."""
    for name, module in _standing.items():
        if sys.modules.get(name, ...) is module:
            del sys.modules[name]
    _standing.clear()
