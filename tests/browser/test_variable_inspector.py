"""JupyterLab's variable inspector: its code for IPython's kernels runs in the guest as it is.

The extension is fetched for this module's server alone: it runs code in every kernel that it sees.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

VARIABLES = """\
import numpy as np, pandas as pd
number, text, nothing = 42, 'na\u00efve <b>', None
matrix = np.arange(6).reshape(2, 3)
table = pd.DataFrame({'town': ['Ulm', 'Bonn'], 'people': [129, 336]})
several = list(range(20))"""
SHOWN = {
    "number": ("int", "", "42"),
    "text": ("str", "", "na\u00efve <b>"),
    "nothing": ("NoneType", "", "None"),
    "matrix": ("ndarray", "2 x 3", "array([[0, 1, 2]"),
    "table": ("DataFrame", "2 rows x 2 cols", "Columns: town, people"),
    "several": ("list", "20", "[0, 1, 2"),
}


@pytest.fixture(scope="module")
def lab_extensions() -> tuple[str, ...]:
    return ("lckr-jupyterlab-variableinspector>=3.2.4",)


def row(page: Page, name: str) -> Locator:
    """The inspector's row of one variable."""
    named = page.locator(".jp-VarInspector-varName", has_text=re.compile(rf"^{name}$"))
    return page.locator(".jp-VarInspector-table-row", has=named)


def test_variables_are_listed_shown_and_deleted(open_notebook: Any, page: Page):
    notebook = open_notebook(VARIABLES, "number += 1", "'text' in globals(), number")
    notebook.run(0)
    page.keyboard.press("Control+Shift+C")
    page.keyboard.insert_text("Open Variable Inspector")
    page.keyboard.press("Enter")
    for name, (kind, shape, content) in SHOWN.items():
        for text in (kind, shape, content):
            expect(row(page, name)).to_contain_text(text)
    notebook.run(1)
    expect(row(page, "number")).to_contain_text("43")
    row(page, "matrix").locator(".jp-VarInspector-inspectButton").click()
    expect(page.locator(".lm-DataGrid")).to_be_visible()
    row(page, "text").locator(".jp-VarInspector-deleteButton").click()
    expect(row(page, "text")).to_have_count(0)
    expect(notebook.run(2)).to_have_text("(False, 43)")
    expect(notebook.prompt(2)).to_have_text("[3]:")  # what the inspector runs is not counted
