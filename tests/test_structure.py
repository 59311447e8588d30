"""Shows that the package's import statements keep to the rules of its design.

The rules are literal tables here; `violations` reads sources and names each statement that breaks
one. The last tests hand it made-up sources that do, so that it is known to see them.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import wasi_kernel

ROOT = Path(wasi_kernel.__file__).parent

LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "errors",
        "alternatives",
        "frames",
        "history",
        "records",
        "trees",
        "plainfiles",
        "filters",
        "layouts",
        "advisories",
    ),
    (
        "folders",
        "installed",
        "ladder",
        "losses",
        "starts",
        "results",
        "calls",
        "spreading",
        "ownfiles",
        "loopthread",
        "segments",
        "forkedkernels",
        "kernelinfo",
        "lean",
    ),
    ("spawn", "caches", "pagelog", "requirements", "contents", "resolver", "landlock", "seccomp"),
    ("archives", "shared"),
    ("runtimestore",),
    ("policyfile",),
    ("policy", "kernelspecs", "wheels"),
    ("runtimes", "environments", "grants", "timeline", "sessionfile", "frontend", "confinement"),
    ("chosen", "resolution", "publisher"),
    ("launch", "timelimits", "idling", "pip", "upkeep", "link"),
    ("questions", "forking"),
    ("session", "sessions", "connection", "packages"),
    ("sandbox", "kernel", "installing"),
    ("probes",),
    ("doctor",),
    ("cli",),
    ("__main__",),
)
"""Modules of the host side, lowest first. A module imports only what stands below it."""

FILTER_LAYERS: tuple[tuple[str, ...], ...] = (
    ("css", "terminal", "latex", "charts", "vega", "shapes"),
    ("addresses", "enclosure", "svg", "widgets"),
    ("nesting", "markdown"),
    ("markup",),
    ("bundles",),
)
"""Modules of filters/, lowest first. Of the package they import each other and `frames`."""

WORKER_LAYERS: tuple[tuple[str, ...], ...] = (
    ("memory", "link", "engine", "natives", "preopens", "confine", "capture", "binary", "heap"),
    ("cursor", "opcodes"),
    ("sections",),
    ("looks", "pyframes", "wasicalls", "disassembly"),
    ("modules", "anatomy"),
    ("door", "interrupts", "images", "travel"),
    ("usage", "progress", "running", "profiler"),
    ("counting", "granted"),
    ("switchboard",),
    ("guest", "dirty"),
    ("prepare", "checkpoints", "tracer"),
    ("keeper",),
    ("memorymap",),
    ("server",),
    ("tasks",),
    ("__main__",),
    ("nursery",),
)
"""Modules of worker/, lowest first. They import each other, and the modules of `WORKER_MAY`."""

WORKER_MAY = frozenset({
    "errors", "frames", "policy", "caches", "runtimes", "environments", "runtimestore", "layouts",
    "records", "segments", "pagelog", "timeline", "sessionfile", "confinement", "landlock",
    "seccomp", "lean", "shared",
})  # fmt: skip

OWNERS: dict[str, tuple[str, ...]] = {
    "wasmtime": ("wasi_kernel.worker.",),
    "ipykernel": ("wasi_kernel.kernel",),
    "jupyter_client": ("wasi_kernel.connection", "wasi_kernel.kernel", "wasi_kernel.__main__"),
    "IPython": ("wasi_agent.",),
    "nh3": ("wasi_kernel.filters.markup",),
}
"""Outside packages and the only modules (or, with a dot at the end, packages) that import them."""

STDLIB_ONLY = ("wasi_kernel.alternatives", "wasi_kernel.frames", "wasi_kernel.records")
FACE = "wasi_kernel"
"""The package itself: its public names are imported by users, not from within."""


def sources() -> dict[str, str]:
    """{module: source} of the package; the guest's modules under the name they have there."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names = parts[1:] if parts[0] == "guest" else ("wasi_kernel", *parts)
        name = ".".join(names).removesuffix(".__init__")
        found[name] = path.read_text(encoding="utf-8")
    return found


def imports(module: str, source: str, known: frozenset[str]) -> set[str]:
    """All modules that `source` imports, at whatever place: late ones and those for types too.

    `from a import b` is an import of `a.b` where that is a module of the package.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")[: -node.level]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                name = f"{base}.{alias.name}"
                found.add(name if name in known else base)
                if base == FACE and name not in known and alias.name != "__version__":
                    found.add(f"{FACE}:{alias.name}")
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            called = node.func.id if isinstance(node.func, ast.Name) else called
            first = node.args[0] if node.args else None
            if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
                found.add(str(first.value))
    return found


def rank(layers: tuple[tuple[str, ...], ...], name: str) -> int | None:
    return next((k for k, layer in enumerate(layers) if name in layer), None)


def _layering(module: str, target: str) -> str | None:
    """Why `module` of the package must not import `target` of the package."""
    mine, theirs = module.split(".")[1:], target.split(".")[1:]
    if mine[:1] == ["worker"]:
        if theirs[:1] != ["worker"]:
            return None if theirs and theirs[0] in WORKER_MAY else "is not for the worker"
        here, there = rank(WORKER_LAYERS, mine[-1]), rank(WORKER_LAYERS, theirs[-1])
        if theirs == ["worker"]:
            return None
    elif mine[:1] == ["filters"] == theirs[:1]:
        if theirs == ["filters"]:
            return None
        here, there = rank(FILTER_LAYERS, mine[-1]), rank(FILTER_LAYERS, theirs[-1])
    elif (mine[:1] == ["filters"] and theirs == ["frames"]) or mine[:1] == theirs[:1] == ["cli"]:
        return None
    else:
        if theirs[:1] == ["worker"]:
            return "is imported by nobody outside worker/"
        here, there = rank(LAYERS, mine[0]), rank(LAYERS, theirs[0])
    if here is None or there is None:
        return "has no place in the table of layers"
    return None if there < here else "does not stand below"


def violations(given: dict[str, str]) -> list[str]:
    """Every import in `given` that breaks a rule, as "module: imported: why"."""
    known = frozenset(given)
    found = []
    for module, source in given.items():
        for target in sorted(imports(module, source, known)):
            top, why = target.split(".")[0].split(":")[0], None
            if ":" in target:
                why = "take it from its own module" if module != FACE else None
            elif top in OWNERS and not any(
                module == o or (o.endswith(".") and module.startswith(o)) for o in OWNERS[top]
            ):
                why = f"only {', '.join(OWNERS[top])} may"
            elif module in STDLIB_ONLY and top not in sys.stdlib_module_names:
                why = "standard library only"
            elif top == "wasi_agent" and not module.startswith("wasi_agent"):
                why = "the agent runs in the guest"
            elif top == FACE and module.startswith("wasi_agent"):
                why = "the guest has nothing of the host"
            elif top == FACE and target != FACE and module not in (FACE, f"{FACE}.worker"):
                why = _layering(module, target)
            if why is not None:
                found.append(f"{module}: {target}: {why}")
    return found


def test_the_package_keeps_to_the_rules():
    assert violations(sources()) == []


def test_every_module_has_its_place():
    names = {n.removeprefix("wasi_kernel.") for n in sources() if n.startswith("wasi_kernel.")}
    host = {n for n in names if not n.startswith(("worker", "filters.", "cli."))}
    filters = {n.removeprefix("filters.") for n in names if n.startswith("filters.")}
    worker = {n.removeprefix("worker.") for n in names if n.startswith("worker.")}
    assert host == {n for layer in LAYERS for n in layer}
    assert filters == {n for layer in FILTER_LAYERS for n in layer}
    assert worker == {n for layer in WORKER_LAYERS for n in layer}


def test_the_public_names_are_loaded_late():
    face = sources()[FACE]
    statements = [n for n in ast.parse(face).body if isinstance(n, (ast.Import, ast.ImportFrom))]
    assert [ast.unparse(s) for s in statements] == [
        "from __future__ import annotations",
        "from typing import TYPE_CHECKING",
    ]


@pytest.mark.parametrize(
    ("module", "statement", "target"),
    [
        ("wasi_kernel.session", "import wasmtime", "wasmtime"),
        ("wasi_kernel.caches", "from wasmtime import Engine", "wasmtime"),
        ("wasi_agent.agent", "import wasmtime.loader", "wasmtime.loader"),
        ("wasi_kernel.session", "from ipykernel.kernelbase import Kernel", "ipykernel.kernelbase"),
        ("wasi_kernel.cli", "def f():\n    import jupyter_client", "jupyter_client"),
        ("wasi_kernel.environments", "import IPython", "IPython"),
        ("wasi_kernel.launch", "from wasi_kernel.worker import door", "wasi_kernel.worker.door"),
        ("wasi_kernel.launch", "import wasi_kernel.worker.door", "wasi_kernel.worker.door"),
        ("wasi_kernel.launch", "from .worker import door", "wasi_kernel.worker.door"),
        ("wasi_kernel.launch", "from .worker.door import Door", "wasi_kernel.worker.door"),
        (
            "wasi_kernel.kernel",
            "import importlib\nimportlib.import_module('wasi_kernel.worker.door')",
            "wasi_kernel.worker.door",
        ),
        ("wasi_kernel.kernel", "__import__('wasmtime')", "wasmtime"),
        ("wasi_kernel.kernel", "import wasi_agent.agent", "wasi_agent.agent"),
        ("wasi_kernel.worker.door", "from wasi_agent import agent", "wasi_agent.agent"),
        ("wasi_agent.agent", "from wasi_kernel import frames", "wasi_kernel.frames"),
        ("wasi_kernel.frames", "import numpy", "numpy"),
        ("wasi_kernel.frames", "from wasi_kernel import errors", "wasi_kernel.errors"),
        ("wasi_kernel.policy", "from wasi_kernel import launch", "wasi_kernel.launch"),
        (
            "wasi_kernel.policy",
            "if TYPE_CHECKING:\n    from wasi_kernel.session import Session",
            "wasi_kernel.session",
        ),
        ("wasi_kernel.kernel", "from wasi_kernel import cli", "wasi_kernel.cli"),
        ("wasi_kernel.kernel", "from wasi_kernel import Sandbox", "wasi_kernel:Sandbox"),
        (
            "wasi_kernel.worker.memory",
            "from wasi_kernel.worker import door",
            "wasi_kernel.worker.door",
        ),
        ("wasi_kernel.worker.door", "from wasi_kernel import session", "wasi_kernel.session"),
        ("wasi_kernel.worker.door", "import wasi_kernel.filters.css", "wasi_kernel.filters.css"),
        ("wasi_kernel.filters.css", "from wasi_kernel import policy", "wasi_kernel.policy"),
        (
            "wasi_kernel.filters.css",
            "from wasi_kernel.filters import markup",
            "wasi_kernel.filters.markup",
        ),
        ("wasi_kernel.newcomer", "from wasi_kernel import errors", "wasi_kernel.errors"),
    ],
)
def test_an_offending_import_is_seen(module: str, statement: str, target: str):
    given = sources()
    given[module] = given.get(module, "") + "\n" + statement
    assert [v.rsplit(": ", 1)[0] for v in violations(given)] == [f"{module}: {target}"]


def test_an_import_that_is_allowed_is_not_reported():
    given = sources()
    given["wasi_kernel.session"] += "\nfrom wasi_kernel import __version__, policy\nimport json"
    given["wasi_kernel.worker.server"] += "\nimport wasmtime\nfrom wasi_kernel import runtimes"
    given["wasi_agent.agent"] += "\nfrom wasi_agent import door\nimport IPython"
    assert violations(given) == []
