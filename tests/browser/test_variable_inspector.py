"""JupyterLab's variable inspector: its code for IPython's kernels runs in the guest as it is.

The extension is fetched for this module's server alone: it runs code in every kernel that it sees.
"""

from __future__ import annotations

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
    rows = page.locator(".jp-VarInspector").get_by_role("row")
    return rows.filter(has=page.get_by_role("gridcell", name=name, exact=True))


def turn_to(page: Page, title: str) -> None:
    """Brings a tab to the front."""
    page.locator(".lm-DockPanel-tabBar").get_by_role("tab", name=title).click()


def test_variables_are_listed_and_shown(open_notebook: Any, page: Page):
    forget = "_jupyterlab_variableinspector_deletevariable('text')\n'text' in globals(), number"
    notebook = open_notebook(VARIABLES, "number += 1", forget)
    notebook.run(0)
    page.keyboard.press("Control+Shift+C")
    page.keyboard.insert_text("Open Variable Inspector")
    page.keyboard.press("Enter")
    for name, texts in SHOWN.items():
        for text in texts:
            expect(row(page, name)).to_contain_text(text)
    turn_to(page, "test_variables")
    notebook.run(1)
    turn_to(page, "Variable Inspector")
    expect(row(page, "number")).to_contain_text("43")
    row(page, "matrix").get_by_role("gridcell", name="View Contents").get_by_role("button").click()
    expect(page.locator(".lm-DataGrid")).to_be_visible()
    turn_to(page, "test_variables")
    expect(notebook.run(2)).to_have_text("(False, 43)")
    expect(notebook.prompt(2)).to_have_text("[3]:")  # what the inspector runs is not counted
    turn_to(page, "Variable Inspector")
    expect(row(page, "number")).to_be_visible()
    expect(row(page, "text")).to_have_count(0)
