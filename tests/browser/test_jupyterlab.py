"""What a person sees and does in JupyterLab with "Python (WASI)", in a real browser."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

PIXELS = """async (image, colour) => {
    await image.decode();
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0);
    const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
    const count = {all: data.length / 4, colour: 0, dark: 0};
    for (let k = 0; k < data.length; k += 4) {
        const [r, g, b] = data.slice(k, k + 3);
        count.colour += r === colour[0] && g === colour[1] && b === colour[2];
        count.dark += data[k + 3] === 255 && r + g + b < 120;
    }
    return count;
}"""
"""How many pixels an image has, in all, of one colour, and nearly black."""


def test_launcher_offers_the_kernel_and_starts_it(page, notebook):
    page.goto("/lab?reset")
    cards = page.locator(".jp-LauncherCard", has_text="Python (WASI)")
    expect(cards).to_have_count(2)  # as a notebook, and as a console
    for card in cards.all():
        logo = card.locator("img")
        expect(logo).to_have_attribute("src", re.compile(r"/python-wasi/logo-svg\.svg"))
        assert logo.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0

    cards.first.click()
    expect(notebook.toolbar).to_contain_text("Python (WASI)")
    notebook.wait_until_usable()
    notebook.edit(0)
    page.keyboard.insert_text("print('hello')\n6 * 7")
    shown = notebook.run(0)
    expect(shown).to_have_text(["hello", "42"])
    expect(notebook.prompt(0)).to_have_text("[1]:")


def test_print_data_frame_and_a_file_beside_the_notebook(open_notebook, server):
    (server.folder / "towns.csv").write_text("town,people\nUlm,129\nBonn,336\n")
    notebook = open_notebook(
        "import pandas as pd\n"
        "print('two rows')\n"
        "pd.DataFrame({'name': ['Ada', '<b>Bob</b>'], 'age': [36, 41]})",
        "pd.read_csv('towns.csv')",
    )
    shown = notebook.run(0)
    expect(shown.first).to_have_text("two rows")
    table = shown.last.locator("table.dataframe")
    expect(table.locator("thead th")).to_have_text(["", "name", "age"])
    expect(table.locator("tbody tr").nth(1).locator("th, td")).to_have_text(
        ["1", "<b>Bob</b>", "41"]
    )
    towns = notebook.run(1).locator("tbody tr").nth(1).locator("th, td")
    expect(towns).to_have_text(["1", "Bonn", "336"])


def test_plot_is_drawn(open_notebook):
    notebook = open_notebook(
        "import matplotlib.pyplot as plt\n"
        "plt.fill_between([0, 1, 2], [1, 3, 2], color='#c00040')\n"
        "plt.title('Drawn in WebAssembly')\n"
        "plt.show()"
    )
    image = notebook.run(0).locator("img")
    expect(image).to_have_attribute("src", re.compile("^data:image/png;base64,"))
    expect(image).to_be_visible()
    count = image.evaluate(PIXELS, [0xC0, 0x00, 0x40])
    assert count["all"] > 100_000
    assert count["colour"] > count["all"] / 10  # the area
    assert count["dark"] > 1000  # the frame, the ticks and the title


def test_error_shows_a_coloured_traceback(open_notebook):
    notebook = open_notebook("def ratio(a, b):\n    return a / b\n\nratio(1, 0)", "'still here'")
    notebook.run(0)
    shown = notebook.cell(0).locator('[data-mime-type="application/vnd.jupyter.stderr"]')
    expect(shown).to_contain_text("Traceback (most recent call last)")
    expect(shown).to_contain_text("----> 4 ratio(1, 0)")
    expect(shown).to_contain_text("ZeroDivisionError: division by zero")
    expect(shown).not_to_contain_text("[39m")
    expect(shown.locator(".ansi-red-fg").last).to_have_text("ZeroDivisionError")
    expect(notebook.run(1)).to_have_text("'still here'")


def test_tab_completes_and_shift_tab_explains(open_notebook):
    notebook = open_notebook(
        'def area(width: float, height: float) -> float:\n    """What a rectangle covers."""',
        "area",
        "import math",
        "math.is",
    )
    notebook.run(0)
    notebook.edit(1)
    notebook.page.keyboard.press("Shift+Tab")
    tooltip = notebook.page.locator(".jp-Tooltip")
    expect(tooltip).to_contain_text("area(width: float, height: float) -> float")
    expect(tooltip).to_contain_text("What a rectangle covers.")
    expect(tooltip).not_to_contain_text("[31m")

    notebook.run(2)
    notebook.edit(3)
    notebook.page.keyboard.press("Tab")
    popup = notebook.page.locator(".jp-Completer")
    expect(popup).to_be_visible()
    item = popup.locator(".jp-Completer-item", has_text="isclose")
    expect(item).to_contain_text("function")
    item.click()
    expect(popup).to_be_hidden()
    expect(notebook.cell(3).locator(".cm-content")).to_have_text("math.isclose")


def test_interrupt_button_ends_a_loop_and_keeps_variables(open_notebook):
    notebook = open_notebook("kept = 41", "print('looping')\nwhile True:\n    pass", "kept + 1")
    notebook.run(0)
    shown = notebook.start(1)
    expect(shown).to_have_text("looping")  # while it runs
    expect(notebook.prompt(1)).to_have_text("[*]:")
    notebook.toolbar.locator('[data-command="notebook:interrupt-kernel"]').click()
    expect(shown.last).to_contain_text(re.compile(r"KeyboardInterrupt:?\s*$"))
    expect(shown.last).to_contain_text(re.compile("----> [23]"))  # where it was
    expect(shown.last).not_to_contain_text("wasi_agent")
    expect(notebook.prompt(1)).to_have_text("[2]:")
    expect(notebook.run(2)).to_have_text("42")


def test_input_is_asked_for_and_answered(open_notebook):
    notebook = open_notebook(
        "name = input('Your name? ')\nprint(f'Hello {name}!')",
        "import getpass\nprint(len(getpass.getpass('Secret: ')))",
    )
    shown = notebook.start(0)
    expect(notebook.cell(0).locator(".jp-Stdin-prompt")).to_have_text("Your name?")
    notebook.cell(0).locator("input.jp-Stdin-input").fill("Zoë")
    notebook.page.keyboard.press("Enter")
    expect(shown.last).to_have_text("Hello Zoë!")

    shown = notebook.start(1)
    secret = notebook.cell(1).locator("input.jp-Stdin-input")
    expect(secret).to_have_attribute("type", "password")
    secret.fill("hunter2")
    notebook.page.keyboard.press("Enter")
    expect(shown.last).to_have_text("7")
    expect(notebook.cell(1)).not_to_contain_text("hunter2")


def test_restart_from_the_menu_forgets_variables(open_notebook):
    notebook = open_notebook("gone = 1", "gone", "print('gone' in globals())")
    notebook.run(0)
    expect(notebook.run(1)).to_have_text("1")

    page = notebook.page
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name=re.compile("^Restart Kernel…")).click()
    with page.expect_response(re.compile(r"/api/kernels/[^/]+/restart")) as response:
        page.locator(".jp-Dialog").get_by_role("button", name="Confirm Kernel Restart").click()
    assert response.value.ok
    expect(notebook.run(2)).to_have_text("False")
    expect(notebook.prompt(2)).to_have_text("[1]:")


def test_wasi_magic_shows_what_is_granted(open_notebook):
    table = open_notebook("%wasi").run(0).locator("table")
    expect(table).to_have_count(3)
    expect(table.locator("caption")).to_have_text(
        ["WASI sandbox", re.compile("^Granted folders"), re.compile("^Limits")]
    )
    rows = table.locator("tr")
    expect(rows.filter(has_text="/work")).to_contain_text("read only")
    expect(rows.filter(has_text="/home/wasi")).to_contain_text("read and write")
    expect(rows.filter(has_text="network")).to_contain_text("none")
