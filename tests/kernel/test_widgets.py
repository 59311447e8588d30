"""ipywidgets under the default policy: what a front end gets, and callbacks that run in the guest.

At the level of messages; tests/browser shows the same in JupyterLab.
"""

from __future__ import annotations

import ast
import json
import uuid

import pytest


class Front:
    """A front end's side of the widgets: the models that it was told of, and their states."""

    def __init__(self, kernel):
        self._kernel = kernel
        self._held_before = self._held()
        self.states = {}

    def _held(self):
        found = self._kernel.run(
            "w = %wasi frontend\nprint([h for h in w.to_dict()['held'] if 'comm' in h[1]])"
        )
        return ast.literal_eval(found.text())

    @property
    def held(self):
        """What was held back of comms since this front end is there."""
        return self._held()[len(self._held_before) :]

    def see(self, published):
        """Takes note of what was published; returns the outputs that belong to no widget."""
        others = []
        for message in published:
            content = message["content"]
            if message["msg_type"] == "comm_open":
                assert content["target_name"] == "jupyter.widget"
                assert message["metadata"]["version"].startswith("2.")
                binary = dict.fromkeys(path[0] for path in content["data"]["buffer_paths"])
                self.states[content["comm_id"]] = content["data"]["state"] | binary
            elif message["msg_type"] == "comm_msg":
                if content["data"]["method"] == "update":
                    self.states[content["comm_id"]] |= content["data"]["state"]
            elif message["msg_type"] == "comm_close":
                del self.states[content["comm_id"]]
            elif message["msg_type"] not in ("status", "execute_input"):
                others.append((message["msg_type"], content))
        return others

    def run(self, code):
        answer = self._kernel.run(code)
        assert answer.content["status"] == "ok", answer.content
        return self.see(answer.published)

    def of(self, model):
        """The ids of the models of that name, in the order of their making."""
        return [i for i, s in self.states.items() if s["_model_name"] == model]

    def set(self, comm_id, **traits):
        """What the browser sends when the user has moved something; returns what that brought."""
        data = {"method": "update", "state": traits, "buffer_paths": []}
        content = {"comm_id": comm_id, "data": data}
        return self.see(self._kernel.published(self._kernel.send("comm_msg", content)))

    def custom(self, comm_id, **content):
        data = {"method": "custom", "content": content}
        message = {"comm_id": comm_id, "data": data}
        return self.see(self._kernel.published(self._kernel.send("comm_msg", message)))


@pytest.fixture
def front(kernel):
    """A front end with an empty page; what it brings is closed at the end."""
    kernel.run("from ipywidgets import *")
    yield Front(kernel)
    kernel.run("Widget.close_all()")


def test_a_slider_and_its_callback(kernel, front):
    (shown,) = front.run(
        "s = IntSlider(3, description='n')\n"
        "s.observe(lambda change: print('now', change['new']), 'value')\ndisplay(s)"
    )
    view = shown[1]["data"]["application/vnd.jupyter.widget-view+json"]
    (slider,) = front.of("IntSliderModel")
    assert view["model_id"] == slider
    assert front.states[slider]["value"] == 3
    assert front.states[slider]["description"] == "n"
    assert front.set(slider, value=7) == [("stream", {"name": "stdout", "text": "now 7\n"})]
    assert kernel.run("s.value").result == "7"
    front.run("s.value = 9")
    assert front.states[slider]["value"] == 9
    assert front.held == []


def test_a_button(front):
    front.run("b = Button(description='Go', icon='check')\nb.on_click(lambda b: print('clicked'))")
    front.run("display(b)")
    (button,) = front.of("ButtonModel")
    assert front.states[button]["icon"] == "check"
    assert front.custom(button, event="click") == [
        ("stream", {"name": "stdout", "text": "clicked\n"})
    ]


def test_every_core_widget_passes_unchanged(kernel, front):
    """But for descriptions as HTML, which is switched off for all of them."""
    front.run(
        "import ipywidgets, datetime\n"
        "made = []\n"
        "for name, cls in sorted(vars(ipywidgets).items()):\n"
        "    if not (isinstance(cls, type) and issubclass(cls, DOMWidget)): continue\n"
        "    if cls in (DOMWidget, ValueWidget, Output, CoreWidget, GridspecLayout): continue\n"
        "    options = {'options': ['a', 'b']} if hasattr(cls, 'options') else {}\n"
        "    try: made.append(cls(**options))\n"
        "    except TypeError: pass\n"
        "box = VBox(made)\ndisplay(box)"
    )
    count = int(kernel.run("len(made)").result)
    assert count > 45
    said = kernel.run(
        "import json\nprint(json.dumps({w.comm.comm_id: list(w.get_state()) for w in made}))"
    ).text()
    for comm_id, traits in json.loads(said).items():
        assert set(front.states[comm_id]) == set(traits), front.states[comm_id]["_model_name"]
    assert front.held == []


def test_interact(kernel, front):
    shown = front.run("@interact(n=(0, 5), word=['a', 'b'])\ndef f(n=2, word='a'): print(word * n)")
    (slider,), (output,) = front.of("IntSliderModel"), front.of("OutputModel")
    assert any("application/vnd.jupyter.widget-view+json" in s[1].get("data", {}) for s in shown)
    assert ("stream", {"name": "stdout", "text": "aa\n"}) in shown
    assert front.states[output]["msg_id"] == ""  # the front end was told which cell's it takes
    shown = front.set(slider, value=4)
    assert ("stream", {"name": "stdout", "text": "aaaa\n"}) in shown
    assert ("clear_output", {"wait": True}) in shown


def test_an_output_widget_takes_a_cells_output(kernel, front):
    front.run("out = Output()\ndisplay(out)")
    (output,) = front.of("OutputModel")
    cell = kernel.execute("with out:\n    print('inside')")
    answer = kernel.answer(cell)
    claims = [
        m["content"]["data"]["state"]["msg_id"]
        for m in answer.published
        if m["msg_type"] == "comm_msg" and "msg_id" in m["content"]["data"]["state"]
    ]
    assert claims == [cell, ""]
    front.see(answer.published)
    front.run("out.append_stdout('more\\n'); out.append_display_data({'text/html': '<b>x</b>'})")
    front.run("out.outputs = ({'output_type': 'display_data', 'metadata': {}, 'data': "
              "{'text/html': '<script>top.canary()</script>'}},)")  # fmt: skip
    (shown,) = front.states[output]["outputs"]
    assert shown["data"]["text/html"].startswith('<div style="height')


def test_a_page_that_is_loaded_anew_gets_all_states(kernel, front):
    front.run("s = IntSlider(5); h = HTML('<b>bold</b>'); box = VBox([s, h]); display(box)")
    before = dict(front.states)
    known = kernel.ask("comm_info_request", {"target_name": "jupyter.widget"})["comms"]
    assert set(before) <= set(known)
    comm_id = uuid.uuid4().hex
    content = {"comm_id": comm_id, "target_name": "jupyter.widget.control", "data": {}}
    message = kernel.send("comm_open", content, metadata={"version": "1.0.0"})
    assert [m["msg_type"] for m in kernel.published(message)] == ["status", "status"]
    content = {"comm_id": comm_id, "data": {"method": "request_states"}}
    published = kernel.published(kernel.send("comm_msg", content))
    (answer,) = (m["content"] for m in published if m["msg_type"] == "comm_msg")
    assert answer["data"]["method"] == "update_states"
    states = {i: s["state"] for i, s in answer["data"]["states"].items()}
    assert {i: states[i] for i in before} == before


def test_widgets_of_unknown_modules_are_refused_with_one_line(kernel, front):
    answer = kernel.run(
        "import traitlets as t\n"
        "class Evil(DOMWidget):\n"
        "    _model_name = t.Unicode('AnyModel').tag(sync=True)\n"
        "    _model_module = t.Unicode('anywidget').tag(sync=True)\n"
        "    _view_name = t.Unicode('AnyView').tag(sync=True)\n"
        "    _view_module = t.Unicode('anywidget').tag(sync=True)\n"
        "    _esm = t.Unicode('export default {render() { top.canary() }}').tag(sync=True)\n"
        "e = Evil(); display(e); e._esm = 'top.canary(2)'"
    )
    assert "canary" not in str([m["content"] for m in answer.published
                                if m["msg_type"] != "execute_input"])  # fmt: skip
    (line,) = [x for x in answer.text("stderr").splitlines() if x]
    assert "anywidget/AnyModel" in line
    (shown,) = answer.of("display_data")
    assert set(shown["data"]) == {"text/plain"}


def test_html_is_cleaned_however_it_is_set(front):
    front.run("h = HTML('<b onclick=\"top.canary()\">x</b>'); display(h)")
    (html,) = front.of("HTMLModel")
    assert "srcdoc" in front.states[html]["value"]
    front.run("h.value = '<img src=x onerror=top.canary()>'")
    assert "srcdoc" in front.states[html]["value"]
    front.run("h.value = '<i>fine</i>'")
    assert front.states[html]["value"] == "<i>fine</i>"


def test_progress_of_tqdm(kernel, front):
    front.run("from tqdm.notebook import tqdm\nfor _ in tqdm(range(50), desc='work'): pass")
    (bar,) = front.of("FloatProgressModel")
    assert front.states[bar]["value"] == 50
    assert front.states[bar]["bar_style"] == "success"
    texts = [front.states[i]["value"] for i in front.of("HTMLModel")]
    assert any("50/50" in text for text in texts)
    assert texts[0].startswith("work")
    assert front.held == []


def test_a_plot_that_follows_a_slider(front):
    shown = front.run(
        "%matplotlib inline\nimport matplotlib.pyplot as plt\n"
        "@interact(n=(1, 3))\ndef plot(n=1):\n    plt.plot([0, n]); plt.show()"
    )
    (slider,) = front.of("IntSliderModel")
    first = [s[1]["data"]["image/png"] for s in shown if "image/png" in s[1].get("data", {})]
    again = [
        s[1]["data"]["image/png"]
        for s in front.set(slider, value=3)
        if "image/png" in s[1].get("data", {})
    ]
    assert len(first) == len(again) == 1
    assert first != again


def test_links_in_the_browser(front):
    front.run("a, b = IntSlider(1), IntSlider(2)\nl = jslink((a, 'value'), (b, 'value'))")
    (link,) = front.of("LinkModel")
    ends = front.states[link]["source"], front.states[link]["target"]
    assert [end[1] for end in ends] == [
        "value", "value",
    ]  # fmt: skip


def test_widgets_outlive_an_undo(kernel, front):
    front.run("s = IntSlider(1); s.observe(lambda c: print('saw', c['new']), 'value'); display(s)")
    (slider,) = front.of("IntSliderModel")
    kernel.run("del s; Widget.close_all" + "\nx = 1")
    kernel.run("%undo")
    assert front.set(slider, value=4) == [("stream", {"name": "stdout", "text": "saw 4\n"})]
    assert kernel.run("s.value").result == "4"
