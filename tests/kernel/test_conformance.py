"""The kernel passes jupyter_kernel_test, with every sample that its example for ipykernel has."""

from __future__ import annotations

import unittest

import jupyter_kernel_test as conformance

DISPLAY = "from IPython.display import HTML, Math, clear_output, display; "


class TestKernel(conformance.KernelTests):
    """The samples of the example; a few of our own beside them."""

    kernel_name = "python-wasi"
    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples = [  # noqa: RUF012 - how the base class declares it
        {"text": "zi", "matches": {"zip"}},
        {
            "text": "import sys; sys.set_coroutine_o",
            "matches": {"set_coroutine_origin_tracking_depth"},
        },
    ]
    complete_code_samples = ["1", "print('hello, world')", "def f(x):\n  return x*2\n\n\n"]  # noqa: RUF012
    incomplete_code_samples = ["print('''hello", "def f(x):\n  x*2", "a = [1,\n2,"]  # noqa: RUF012
    invalid_code_samples = ["import = 7q", "raise = 2"]  # noqa: RUF012
    code_page_something = "zip?"
    code_generate_error = "raise"
    code_execute_result = [  # noqa: RUF012
        {"code": "1+2+3", "result": "6"},
        {"code": "[n*n for n in range(1, 4)]", "result": "[1, 4, 9]"},
    ]
    code_display_data = [  # noqa: RUF012
        {"code": DISPLAY + "display(HTML('<b>test</b>'))", "mime": "text/html"},
        {"code": DISPLAY + r"display(Math('\frac{1}{2}'))", "mime": "text/latex"},
    ]
    code_history_pattern = "1?2*"
    supported_history_operations = ("tail", "range", "search")
    code_inspect_sample = "zip"
    code_clear_output = DISPLAY + "clear_output()"

    @classmethod
    def setUpClass(cls):
        """The kernel's first cell would show the preparation, if there is any to be done."""
        super().setUpClass()
        cls.kc.execute_interactive("", silent=True, timeout=110)


class TestWelcome(conformance.IopubWelcomeTests):
    kernel_name = "python-wasi"
    support_iopub_welcome = True


def test_every_test_has_its_sample():
    """A test without a sample would be skipped: none may be."""
    loader = unittest.TestLoader()
    for case in (TestKernel, TestWelcome):
        assert loader.getTestCaseNames(case)
        empty = [
            name
            for name in vars(case.__mro__[1])
            if name.startswith(("code_", "completion_", "support", "language_", "file_"))
            if not getattr(case, name)
        ]
        assert empty == []
