"""Widgets in JupyterLab, under the default policy: a person moves them, the guest answers."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


def test_a_slider_is_moved_and_the_guest_answers(open_notebook):
    notebook = open_notebook(
        "import ipywidgets as w\n"
        "s, out = w.IntSlider(10, description='many'), w.Output()\n"
        "@out.capture()\n"
        "def moved(change): print('moved to', change['new'])\n"
        "s.observe(moved, 'value')\n"
        "w.VBox([s, out])",
        "s.value",
        "s.value = 77",
    )
    shown = notebook.run(0)
    slider = shown.locator(".widget-slider")
    expect(slider.locator(".widget-label")).to_have_text("many")
    readout = slider.locator(".widget-readout")
    expect(readout).to_have_text("10")
    slider.locator(".noUi-handle").press("ArrowRight")
    expect(readout).to_have_text("11")
    expect(notebook.cell(0).locator(".jp-OutputArea").first).to_contain_text("moved to 11")
    expect(notebook.run(1)).to_have_text("11")
    notebook.run(2)
    expect(readout).to_have_text("77")


def test_interact_with_a_plot(open_notebook):
    notebook = open_notebook(
        "%matplotlib inline\n"
        "import matplotlib.pyplot as plt\n"
        "from ipywidgets import interact\n"
        "@interact(n=(1, 5), word=['one', 'two'])\n"
        "def draw(n=2, word='one'):\n"
        "    plt.plot(range(n + 1)); plt.title(word); plt.show()"
    )
    shown = notebook.run(0)
    image = shown.locator("img")
    expect(image).to_be_visible()
    before = image.get_attribute("src")
    shown.locator("select").select_option("two")
    expect(image).not_to_have_attribute("src", before)
    expect(image).to_have_count(1)


def test_a_button_a_text_and_layout(open_notebook):
    notebook = open_notebook(
        "import ipywidgets as w\n"
        "text, button, label = w.Text('Ada'), w.Button(description='Greet'), w.HTML()\n"
        "def greet(_): label.value = f'<b>Hello {text.value}</b>'\n"
        "button.on_click(greet)\n"
        "w.HBox([text, button, label], layout=w.Layout(border='2px solid red', width='90%'))"
    )
    shown = notebook.run(0)
    box = shown.locator(".widget-hbox")
    assert box.evaluate("e => getComputedStyle(e).borderTopColor") == "rgb(255, 0, 0)"
    shown.locator("input").fill("Grace")
    shown.locator("input").press("Enter")
    shown.locator("button").click()
    expect(shown.locator("b")).to_have_text("Hello Grace")


def test_progress_of_tqdm(open_notebook):
    notebook = open_notebook(
        "from tqdm.notebook import trange\nfor k in trange(20, desc='twenty'): pass"
    )
    shown = notebook.run(0)
    expect(shown).to_contain_text("twenty: 100%")
    expect(shown).to_contain_text("20/20")
    bar = shown.locator(".widget-hprogress .progress-bar")
    expect(bar).to_have_class(re.compile("success"))


def test_widgets_are_there_after_the_page_is_loaded_anew(open_notebook, page):
    notebook = open_notebook(
        "import ipywidgets as w\ns = w.IntSlider(5)\ns.observe(lambda c: None, 'value')\ns",
        "s.value",
    )
    readout = notebook.run(0).locator(".widget-readout")
    expect(readout).to_have_text("5")
    page.keyboard.press("Control+s")
    expect(page.locator(".jp-mod-dirty")).to_have_count(0)
    page.reload()
    notebook.wait_until_usable()
    slider = notebook.output(0).locator(".widget-slider")
    expect(slider.locator(".widget-readout")).to_have_text("5")
    slider.locator(".noUi-handle").press("ArrowRight")
    expect(slider.locator(".widget-readout")).to_have_text("6")
    expect(notebook.run(1)).to_have_text("6")


def test_an_undo_leaves_widgets_that_work(open_notebook):
    notebook = open_notebook(
        "import ipywidgets as w\ns, t = w.IntSlider(5), w.IntSlider(6)\nw.VBox([s, t])",
        "t.close()\ndel s",
        "%undo",
        "s.value, t.value = 42, 43",
    )
    readouts = notebook.run(0).locator(".widget-readout")
    expect(readouts).to_have_text(["5", "6"])
    notebook.run(1)
    expect(readouts).to_have_text(["5"])
    notebook.run(2)
    expect(notebook.run(3)).to_have_count(0)  # what the page has closed stays closed, in silence
    expect(readouts).to_have_text(["42"])
