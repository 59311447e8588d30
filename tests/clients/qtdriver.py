"""Uses qtconsole as a person would, on a screen that is not there; prints what happened as JSON.

A program of its own: `python qtdriver.py KERNEL`, with `QT_QPA_PLATFORM=offscreen`. Keys go to the
console's text field; what is looked at is what stands in its window.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from qtconsole.qtconsoleapp import JupyterQtConsoleApp
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

if TYPE_CHECKING:
    from collections.abc import Callable

STEP_S = 60


class Console:
    """The program's window, with one tab.

    Attributes:
        tab: qtconsole's own widget.
    """

    def __init__(self, kernel: str) -> None:
        self._program = JupyterQtConsoleApp()
        self._program.initialize(["--kernel", kernel])
        self._program.window.confirm_exit = False
        self._program.window.show()
        self.tab: Any = self._program.window.active_frontend
        self.tab.confirm_restart = False
        self._answered = 0
        self.tab.executed.connect(self._count)
        self.wait(lambda: self.tab._prompt_html is not None)

    def _count(self, _: object) -> None:
        self._answered += 1

    @property
    def text(self) -> str:
        """All that stands in the window."""
        return str(self.tab._control.toPlainText())

    def wait(self, found: Callable[[], Any]) -> None:
        """Lets the window live until something is so."""
        end = time.monotonic() + STEP_S
        while not found():
            assert time.monotonic() < end, self.text
            QApplication.processEvents()
            time.sleep(0.01)

    def wait_for_ready(self) -> None:
        """Asks a kernel that has just begun until what it publishes arrives, as clients do."""
        heard: list[object] = []
        client = self.tab.kernel_client
        client.iopub_channel.message_received.connect(heard.append)
        asked = time.monotonic()
        client.kernel_info()
        while not heard:
            QApplication.processEvents()
            time.sleep(0.01)
            if time.monotonic() > asked + 0.5:
                client.kernel_info()
                asked = time.monotonic()

    def keys(self, text: str) -> None:
        QTest.keyClicks(self.tab._control, text)

    def key(self, key: Any) -> None:
        QTest.keyClick(self.tab._control, key)

    def begin(self, code: str) -> Callable[[], bool]:
        """Types a cell and Return; tells whether it is over."""
        before = self._answered
        self.keys(code)
        self.key(Qt.Key_Return)
        return lambda: self._answered > before

    def run(self, code: str, shows: str = "") -> str:
        """Runs a cell until the window shows that text for it, and all that it then shows."""
        start = len(self.text)
        self.wait(self.begin(code))
        self.wait(lambda: shows in self.text[start:])
        return self.text[start:]

    def close(self) -> None:
        self._program.window.close()


def use(console: Console) -> dict[str, Any]:
    """What a person does in a first session."""
    seen: dict[str, Any] = {"banner": console.text}
    seen["result"] = console.run("import sys; sys.platform", "Out[1]")
    seen["error"] = console.run("1 / 0", "ZeroDivisionError: ")
    console.run("import matplotlib.pyplot as plt")
    console.run("plt.plot([1, 2]);", "\N{OBJECT REPLACEMENT CHARACTER}")  # an image in the text

    console.keys("sys.getrefc")
    console.key(Qt.Key_Tab)
    console.wait(lambda: "getrefcount" in console.tab.input_buffer)
    seen["completed"] = console.tab.input_buffer
    tip = console.tab._call_tip_widget
    console.keys("(")
    console.wait(tip.isVisible)
    seen["tip"] = tip.text()
    console.tab.input_buffer = ""

    over = console.begin("while True: pass")
    console.key(Qt.Key_Return)  # the first one has only indented
    console.wait(lambda: console.tab._executing)
    console.tab.request_interrupt_kernel()
    console.wait(over)
    console.wait(lambda: "KeyboardInterrupt: " in console.text)

    over = console.begin("name = input('who? ')")
    console.wait(lambda: console.tab._reading)
    console.keys("bob")
    console.key(Qt.Key_Return)
    console.wait(over)
    seen["answered"] = console.run("name", "Out[7]")

    console.tab.restart_kernel("")
    console.wait_for_ready()
    seen["restarted"] = console.run("'name' in dir()", "Out[1]")
    return seen


if __name__ == "__main__":
    window = Console(sys.argv[1])
    told = use(window)
    window.close()
    print(json.dumps(told))
