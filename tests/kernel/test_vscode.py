"""VS Code's Jupyter extension, replayed: the messages that it sends, in its order.

VS Code itself is not run. What it sends was read in vscode-jupyter at commit 3d24702 (2026-07-24),
and is said here in our own words:

- src/kernels/raw/session/rawKernelConnection.node.ts: kernel_info on control and shell at once,
  until anything comes on IOPub; the interrupt, which is a message where the kernelspec says so;
- src/kernels/kernel.ts (`initializeAfterStart`): the version of ipywidgets, then its setup code as
  one cell, then kernel_info;
- src/kernels/helpers.ts (`executeSilently`): how such cells are asked for: not silent, but without
  history and with `stop_on_error` off;
- src/platform/common/constants.ts, src/kernels/chat/generator.ts,
  pythonFiles/vscode_datascience_helpers/kernel/addRunCellHook.py: what the setup code does;
- src/platform/interpreter/variableScriptGenerator.ts, src/standalone/variables/: the variable
  views;
- src/standalone/api/kernels/backgroundExecution.ts and src/standalone/intellisense/: completions,
  documentation and the notebook's variable view, each computed in a thread of a cell.

The extension's own scripts, taken from there, were run by hand on 2026-11-23 with the same outcome.
"""

from __future__ import annotations

import json
import textwrap

import pytest

OWN = {
    "silent": False, "store_history": False, "stop_on_error": False, "allow_stdin": True,
}  # fmt: skip
"""How cells of the extension's own are asked for."""

SETUP = """
%config Completer.use_jedi = False
__vsc_ipynb_file__ = "/home/ana/a.ipynb"
def __VSCODE_inject():
    import sys, types
    sys.modules["vscode"] = types.ModuleType("vscode")
__VSCODE_inject()
del __VSCODE_inject
import matplotlib
%matplotlib inline
__saved_style = dict(matplotlib.rcParams)
matplotlib.rcParams.update(__saved_style)
"""

HOOK = """
import os, types
from IPython import get_ipython
def __wrapped(wanted):
    inner = wanted.__func__
    def run_cell(*args, **kwargs):
        if kwargs["store_history"]:
            os.environ["IPYKERNEL_CELL_NAME"] = "<ipython-input-%d>" % args[0].execution_count
        return inner(*args, **kwargs)
    return types.MethodType(run_cell, wanted.__self__)
get_ipython().run_cell = __wrapped(get_ipython().run_cell)
"""

MIME = "application/vnd.vscode.bg.execution.{}"

BACKGROUND = """
def __jupyter_exec_background__():
    from IPython.display import display
    from threading import Thread
    from traceback import format_exc
    shown = display({{"{mime}": ""}}, raw=True, display_id=True)
    def wanted():
{code}
    def main():
        try:
            shown.update({{"{mime}.result": wanted()}}, raw=True)
        except Exception:
            shown.update({{"{mime}.error": format_exc()}}, raw=True)
    Thread(target=main, daemon=True).start()
__jupyter_exec_background__()
del __jupyter_exec_background__
"""


class Extension:
    """The extension's side of one kernel."""

    def __init__(self, kernel):
        self.kernel, self._count = kernel, 0

    def own(self, code):
        answer = self.kernel.run(code, **OWN)
        assert answer.content["status"] == "ok", answer.content
        return answer

    def background(self, code):
        """(was it a result?, its value) of code that is run in a thread of a cell."""
        mime, self._count = MIME.format(self._count), self._count + 1
        answer = self.own(BACKGROUND.format(mime=mime, code=textwrap.indent(code, " " * 8)))
        (first,), (then,) = answer.of("display_data"), answer.of("update_display_data")
        assert first["data"] == {mime: ""}
        assert first["transient"]["display_id"] == then["transient"]["display_id"]
        ((kind, value),) = then["data"].items()
        return kind == f"{mime}.result", value


@pytest.fixture
def extension(kernel):
    return Extension(kernel)


def test_it_starts(start_kernel):
    kernel = start_kernel(ready=False)
    asked = (
        kernel.send("kernel_info_request", channel="control"),
        kernel.send("kernel_info_request"),
    )
    control, shell = kernel.reply(asked[0], "control"), kernel.reply(asked[1])
    assert control["content"] == shell["content"]
    assert shell["content"]["language_info"]["name"] == "python"
    for each in asked:
        kernel.published(each)
    extension = Extension(kernel)
    said = extension.own("import ipywidgets as w\nprint('version', w.__version__)\ndel w").text()
    assert said.startswith("version 8.")
    extension.own(SETUP)
    extension.own(HOOK)
    assert kernel.ask("kernel_info_request")["status"] == "ok"
    kernel.answer(kernel.send("complete_request", {"code": "__file__.", "cursor_pos": 9}))
    answer = kernel.run("import os; os.environ['IPYKERNEL_CELL_NAME']")
    assert answer.content["execution_count"] == 1  # nothing before was a cell of the user's
    assert answer.result == "'<ipython-input-1>'"
    assert kernel.run("get_ipython().Completer.use_jedi").result == "False"
    assert kernel.run("import vscode; __vsc_ipynb_file__").result == "'/home/ana/a.ipynb'"


def test_the_panel_of_variables(kernel, extension):
    kernel.run("import numpy as np, pandas as pd\nframe = pd.DataFrame({'a': [1, 2]})\nn = 5")
    told = extension.own(
        "def __types(names):\n"
        "    import json\n"
        "    print(json.dumps([{'name': n, 'type': type(globals()[n]).__name__} for n in names]))\n"
        "__rwho = %who_ls\n__types(__rwho)\ndel __types, __rwho"
    ).text()
    assert {"name": "frame", "type": "DataFrame"} in json.loads(told)
    found = kernel.ask("inspect_request", {"code": "n", "cursor_pos": 0, "detail_level": 0})
    assert "int" in found["data"]["text/plain"]
    rows = extension.own("print(frame.iloc[0:2].to_json(orient='split', date_format='iso'))").text()
    assert json.loads(rows)["data"] == [[1], [2]]
    assert kernel.run("'__rwho' in dir()").result == "False"


def test_the_notebooks_view_of_variables(kernel, extension):
    kernel.run("shown_here = [1, 2, 3]")
    code = (
        "import json\nnames = %who_ls\n"
        "return json.dumps([[n, repr(globals()[n])] for n in names if n == 'shown_here'])"
    )
    assert extension.background(code) == (True, '[["shown_here", "[1, 2, 3]"]]')


def test_completions_and_documentation(kernel, extension):
    kernel.run("class Ship:\n    '''Sails.'''\n    anchors = 2\nship = Ship()")
    found, reply = extension.background('return get_ipython().kernel.do_complete("ship.anch", 9)')
    assert found
    own = kernel.ask("complete_request", {"code": "ship.anch", "cursor_pos": 9})
    assert reply == own
    assert (reply["matches"], reply["cursor_start"]) == (["anchors"], 5)
    found, reply = extension.background('return get_ipython().kernel.do_inspect("Ship", 4, 0)')
    assert found
    assert "Sails." in reply["data"]["text/plain"]


def test_an_error_in_the_background_is_an_answer(extension):
    found, text = extension.background("return 1 / 0")
    assert not found
    assert "ZeroDivisionError" in text


def test_the_interrupt_is_a_message_and_own_cells_go_on(kernel, extension):
    assert kernel.manager.kernel_spec.interrupt_mode == "message"
    cell = kernel.execute("print('begun')\nwhile True: pass")
    kernel.until_text(cell, "begun")
    assert kernel.ask("interrupt_request", channel="control") == {"status": "ok"}
    assert kernel.answer(cell).content["ename"] == "KeyboardInterrupt"
    assert extension.background("return 'still here'") == (True, "still here")


def test_a_users_own_thread_is_refused(kernel, extension):
    """Only the extension's cells run threads in place: a user's is meant to run beside the rest."""
    start = (
        "import threading\nt = threading.Thread(target=print, args=('ran',), daemon=True)\n"
        "t.start()"
    )
    answer = kernel.run(start)
    assert answer.content["status"] == "error"
    assert "no threads here" in answer.content["traceback"][-1]
    assert extension.own(start + "\nt.join()\nprint(t.is_alive())").text() == "ran\nFalse\n"
    again = kernel.run(start + "\nt.start()", **OWN)
    assert again.content["evalue"] == "threads can only be started once"


def test_a_failing_thread_says_so_and_the_cell_goes_on(extension):
    answer = extension.own(
        "import threading\nthreading.Thread(target=lambda: 1 / 0, daemon=True).start()\n"
        "threading.Thread(target=exit, args=(0,), daemon=True).start()\nprint('after')"
    )
    assert "ZeroDivisionError" in answer.text("stderr")
    assert answer.text() == "after\n"


def test_what_only_the_extension_reads_passes_and_its_chat_does_not(extension):
    """A chat message would have VS Code's language model asked in the user's name."""
    bundle = '{"application/vnd.vscode.chat_message": "x", "text/plain": "seen"}'
    (shown,) = extension.own(f"display({bundle}, raw=True)").of("display_data")
    assert shown["data"] == {"text/plain": "seen"}
