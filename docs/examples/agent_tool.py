"""A tool for an agent: code in, text and plots out, in a sandbox that keeps its variables.

A turn that fails or takes too long leaves nothing behind: what it changed in memory is undone.
Run it with `python agent_tool.py`; docs/embedding.md explains it.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from wasi_kernel import Policy, Sandbox

if TYPE_CHECKING:
    from wasi_kernel import Result

TEXT_CHARACTERS = 4000
"""What a model is told of one turn; more only fills its context."""


@dataclass
class Turn:
    """What one turn gave.

    Attributes:
        text: What was printed, the last value, and the error if there was one.
        failed: Was there an error? Then the variables are those of before the turn.
        plots: PNG files, in the order in which they were shown.
    """

    text: str
    failed: bool
    plots: list[bytes] = field(default_factory=list)


class PythonTool:
    """Runs an agent's code, turn by turn.

    Args:
        policy: What the code may reach; the default grants no host folder and no network.
        deadline_s: Seconds that a turn may take.
    """

    def __init__(self, policy: Policy | None = None, deadline_s: float = 30.0) -> None:
        self._box = Sandbox(policy)
        self._deadline_s = deadline_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._box.close()

    def __call__(self, code: str) -> Turn:
        """One turn; raises nothing for what the code does."""
        result = self._box.run(code, deadline_s=self._deadline_s)
        if result.error is not None and not result.error.lost:  # a lost guest has gone back itself
            self._box.undo()
        return Turn(_told(result), not result.ok, _plots(result))


def _told(result: Result) -> str:
    parts = [result.stdout, result.stderr, result.text or ""]
    if result.error is not None:
        parts.append(f"{result.error.ename}: {result.error.evalue}")
    text = "\n".join(part.rstrip() for part in parts if part)
    if len(text) > TEXT_CHARACTERS:
        text = f"{text[:TEXT_CHARACTERS]}\n[{len(text) - TEXT_CHARACTERS} characters left out]"
    return text


def _plots(result: Result) -> list[bytes]:
    bundles = [*result.displays, result.data]
    return [base64.b64decode(b["image/png"]) for b in bundles if "image/png" in b]


def main() -> None:
    """Five turns as an agent might take them."""
    turns = (
        "sales = {'north': 3, 'south': 5}\nsum(sales.values())",
        "sales.clear()\nsales['east'] / 2",
        "sales",
        "sales.clear()\nwhile True: pass",
        "import matplotlib.pyplot as plt\nplt.bar(list(sales), list(sales.values()))\nplt.show()",
    )
    with PythonTool(deadline_s=2) as tool:
        for code in turns:
            turn = tool(code)
            print(f">>> {code}\n{turn.text}")
            for png in turn.plots:
                print(f"a plot: {png[1:4].decode()}")


if __name__ == "__main__":
    main()
