"""Voila shows a notebook's widgets in a page of their own, and they are alive in this kernel.

The real Voila renders the page; what the page's scripts then do through the websocket (ask which
widgets there are, move a slider) is done here by the same messages.
"""

from __future__ import annotations

import json
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

CODE = """
import ipywidgets as w
slider = w.IntSlider(3, description='n')
label = w.Label('three')
def moved(change):
    label.value = f"now {change['new']}"
slider.observe(moved, 'value')
w.VBox([slider, label])
"""
CONFIG = re.compile(r'<script id="jupyter-config-data"[^>]*>(.*?)</script>', re.DOTALL)
OUTPUT = re.compile(
    r'<script type="application/vnd.voila.cell-output\+json">(.*?)</script>', re.DOTALL
)
VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def api(serve, tmp_path_factory):
    spec = {"name": "python-wasi", "display_name": "Python (WASI)", "language": "python"}
    cells = [
        new_markdown_cell("# Move it"), new_code_cell(CODE),
        new_code_cell("import sys\nprint('runs on', sys.platform)"),
    ]  # fmt: skip
    path = tmp_path_factory.mktemp("voila") / "moved.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": spec}), path)
    return serve(
        "-m", "voila", str(path), "--no-browser", prefix="Voila", token="Voila.token"  # noqa: S106
    )  # fmt: skip


def _model(messages, name):
    """(comm_id, state) of the model of that name among the answers to requests for states."""
    return next((i, state) for i, state in messages.items() if state["_model_name"] == name)


def test_a_page_is_rendered_and_its_widgets_are_alive(api):
    async def run():
        page = await api.page("/")
        assert "Move it" in page
        assert "runs on wasi" in page
        assert "observe(moved" not in page  # Voila shows no sources
        (output,) = OUTPUT.findall(page)
        shown = json.loads(output)["data"][VIEW]["model_id"]

        channels = await api.channels(json.loads(CONFIG.search(page)[1])["kernelId"])
        asked = await channels.send("comm_info_request", {"target_name": "jupyter.widget"})
        *_, reply = await channels.until(asked, lambda m: m["msg_type"] == "comm_info_reply")
        states = {}
        for comm_id in reply["content"]["comms"]:
            data = {"method": "request_state"}
            asked = await channels.send("comm_msg", {"comm_id": comm_id, "data": data})
            found = await channels.until(asked, lambda m: m["msg_type"] == "comm_msg")
            states[comm_id] = found[-1]["content"]["data"]["state"]
        assert states[shown]["_model_name"] == "VBoxModel"
        slider, state = _model(states, "IntSliderModel")
        label, _ = _model(states, "LabelModel")
        assert (state["value"], states[label]["value"]) == (3, "three")

        data = {"method": "update", "state": {"value": 7}, "buffer_paths": []}
        asked = await channels.send("comm_msg", {"comm_id": slider, "data": data})
        idle = "idle"
        found = await channels.until(asked, lambda m: m["content"].get("execution_state") == idle)
        updates = [
            (m["content"]["comm_id"], m["content"]["data"]["state"])
            for m in found
            if m["msg_type"] == "comm_msg" and m["content"]["data"]["method"] == "update"
        ]
        assert (label, {"value": "now 7"}) in updates

    api.run(run())
