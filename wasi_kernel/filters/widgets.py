"""Comms that are ipywidgets' core widgets and nothing else.

Pure; what it knows of a session is which comm is which model. A comm can hand any module's code to
the page (anywidget's `_esm`, a `target_module`, a `_view_module` that a manager loads from a CDN),
so only the models of the core packages pass, each with its own view and at known versions, and
their traits that become HTML, styles, classes or addresses are cleaned, whichever way they are set:
comm_open, update, echo_update, update_states, and links between models in the browser.

What a trait is called decides what it may hold, whosoever's it is, but for `value`: a page that was
reconnected to another guest sets what that one says of an id (`update_states`) on the model that
it has of that id, whatever that is. There a text must be harmless as HTML, too.

A text in an exception is dangerous as well: the view of a widget that could not be made writes the
exception's message into the page as HTML (packages/base's errorwidget.ts).

Sources: ipywidgets 8.1 (packages/schema's list of models; packages/base, controls and base-manager
for what becomes of a trait; python/jupyterlab_widgets' output.ts, which trusts outputs). Not 7,
whose descriptions are HTML. `description_allow_html` is always off: the sanitizer behind it puts
math back after cleaning, with its quotes (base-manager's latex.ts), so that a title can end its
attribute.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from wasi_kernel.filters import css, latex

if TYPE_CHECKING:
    from collections.abc import Callable

TARGET = "jupyter.widget"
BASE, CONTROLS, OUTPUT = (f"@jupyter-widgets/{name}" for name in ("base", "controls", "output"))
VERSIONS = {
    BASE: "2.0.0",
    CONTROLS: "2.0.0",
    OUTPUT: "1.0.0",
}
"""Of ipywidgets 8."""

_VIEWED = (
    "Accordion Audio Box Button Checkbox ColorPicker ColorsInput Combobox Controller"
    " ControllerAxis ControllerButton DatePicker Datetime Dropdown FileUpload FloatLogSlider"
    " FloatRangeSlider FloatSlider FloatText FloatsInput GridBox HBox HTML HTMLMath Image"
    " IntRangeSlider IntSlider IntText IntsInput Label Password Play RadioButtons Select"
    " SelectMultiple SelectionRangeSlider SelectionSlider Stack Tab TagsInput Text Textarea Time"
    " ToggleButton ToggleButtons VBox Valid Video"
)
_STYLES = (
    "Button Checkbox Description HTML HTMLMath Label Progress Slider Text ToggleButton"
    " ToggleButtons"
)
MODELS: dict[tuple[str, str], tuple[str, str | None]] = {
    (BASE, "LayoutModel"): (BASE, "LayoutView"),
    (OUTPUT, "OutputModel"): (OUTPUT, "OutputView"),
    **{(CONTROLS, f"{n}Model"): (CONTROLS, f"{n}View") for n in _VIEWED.split()},
    **{(CONTROLS, f"{n}StyleModel"): (BASE, "StyleView") for n in _STYLES.split()},
    (CONTROLS, "BoundedFloatTextModel"): (CONTROLS, "FloatTextView"),
    (CONTROLS, "BoundedIntTextModel"): (CONTROLS, "IntTextView"),
    (CONTROLS, "FloatProgressModel"): (CONTROLS, "ProgressView"),
    (CONTROLS, "IntProgressModel"): (CONTROLS, "ProgressView"),
    (CONTROLS, "NaiveDatetimeModel"): (CONTROLS, "DatetimeView"),
    (CONTROLS, "LinkModel"): (CONTROLS, None),
    (CONTROLS, "DirectionalLinkModel"): (CONTROLS, None),
}
"""(module, name) of every model that passes, and of its one view."""

_STYLED = frozenset(("LayoutModel", *(f"{name}StyleModel" for name in _STYLES.split())))
_LINKS = frozenset(("LinkModel", "DirectionalLinkModel"))
_MEDIA = frozenset(("ImageModel", "AudioModel", "VideoModel"))
_HTML = frozenset(("HTMLModel", "HTMLMathModel"))
_TEXTS = _HTML | {"LabelModel"}
_UNLINKED = _HTML | _MEDIA | _LINKS | {"OutputModel"}

_CLEANED = frozenset((
    "_dom_classes", "background", "description", "description_allow_html", "format", "icon",
    "icons", "outputs", "readout_format", "source", "target",
))  # fmt: skip
"""Traits that are cleaned in any model."""

LINKABLE = frozenset((
    "value", "index", "max", "min", "step", "disabled", "selected_index", "lower", "upper",
    "_playing", "button_color", "text_color", "bar_color", "handle_color",
))  # fmt: skip
"""Traits that may be linked in the browser: what a link writes there is seen by nobody else."""

MAX_MODELS = 100_000
"""At one time, at 220 bytes each: a bar of tqdm.notebook has eleven, and closes none."""

MAX_REFUSED = 1000
"""Of which it is known why."""

_PROTOTYPE = frozenset(("__proto__", "constructor", "prototype"))
_ID = re.compile(r"(?!(?:__proto__|constructor|prototype)\Z)[\w-]{1,128}")
_FORMAT = re.compile(r"(?!url\Z)[a-z0-9.-]{1,20}", re.IGNORECASE)
"""Of a picture, sound or film. No `svg+xml`, nor XML of another kind: it is shown from a blob, and
a blob that is opened in a tab of its own runs its scripts as the page."""

_NUMBERS = re.compile(
    r"(?:[^<>&\"'`]?[<>=^])?[-+( ]?[$#]?0?\d{0,3},?(?:\.\d{1,2})?~?[a-z%]?", re.IGNORECASE
)
"""How numbers are written (d3-format's specifier). It says of any other what it was."""

_MARKUP = re.compile(r"<[A-Za-z/!?]")
_TOKEN = re.compile(r"(?!Toastify|maplibregl|mapboxgl|xterm)[^\s<>\"'&=`]+")
"""A class that an exception may name, and none of those by which JupyterLab's and plotly's parts
stand upon the page (a widget is not contained in its output, as HTML is)."""


class Widgets:
    """Which comms of a session are which models, and what may be said to them.

    Args:
        html: Gives harmless HTML for any, or None.
        output: Gives a harmless output (as nbformat has it) for any, or None.
        hold: Gets what was changed or refused.
        most: How many models there may be.
    """

    def __init__(
        self,
        html: Callable[[str], str | None],
        output: Callable[[dict[str, Any]], dict[str, Any] | None],
        hold: Callable[[str], None],
        *,
        most: int = MAX_MODELS,
    ) -> None:
        self._html, self._output, self._hold = html, output, hold
        self._most = most
        self._models: dict[str, str] = {}
        self._refused: dict[str, str] = {}
        self._fresh: set[str] = set()  # those whose model the front end has made anew

    def opened(self, content: dict[str, Any]) -> None:
        """The front end has opened a comm, with this content: what is said on it may pass."""
        comm_id, data = content.get("comm_id"), content.get("data")
        state = _state(data) if isinstance(data, dict) else {}
        model, why = self._model(content.get("target_name"), state)
        if not why and isinstance(comm_id, str) and _ID.fullmatch(comm_id):
            self._models.setdefault(comm_id, model)

    def refusal(self, comm_id: str) -> str:
        """Why there is no model with this id in the front end, "" if it was not refused."""
        if not _ID.fullmatch(comm_id):
            return "a widget whose id is none"
        return self._refused.get(comm_id, "")

    def open(self, content: dict[str, Any], buffers: int) -> dict[str, Any] | None:
        """A comm_open's content, None if it is refused."""
        comm_id, data = content["comm_id"], content["data"]
        if not _ID.fullmatch(comm_id) or comm_id in self._models:
            self._hold("a comm whose id is taken, or none: refused")
            return None
        state = _state(data)
        model, why = self._model(content.get("target_name"), state)
        paths = _paths(data, state, buffers)
        if not why and (paths is None or not self._may_be_buffers(model, paths)):
            why = "a widget with misplaced buffers"
        if why or paths is None:
            self._refuse(comm_id, f"{why}: refused")
            return None
        self._refused.pop(comm_id, None)
        self._models[comm_id] = model
        self._fresh.add(comm_id)
        shown = {"state": self._cleaned(model, state), "buffer_paths": paths}
        return {"comm_id": comm_id, "target_name": TARGET, "data": shown}

    def _model(self, target: Any, state: dict[str, Any]) -> tuple[str, str]:
        """(the name of the model that a state describes, why it is refused)."""
        if target != TARGET:
            return "", f"a comm with the target {str(target)[:60]!r}"
        module, name = state.get("_model_module"), state.get("_model_name")
        known = MODELS.get((str(module), str(name)))
        if known is None:
            return "", f"the widget {str(module)[:60]}/{str(name)[:60]}, which is not a core widget"
        view = (state.get("_view_module"), state.get("_view_name"))
        if view not in (known, (CONTROLS, None), (BASE, None)):
            return "", f"a {name} with the view {str(view)[:80]}"
        for part in ("_model_module", "_view_module"):
            if state.get(f"{part}_version") != VERSIONS.get(str(state.get(part))):
                return "", f"a {name} of an unknown version"
        if len(self._models) >= self._most:
            return "", f"more than {self._most} widgets"
        return str(name), ""

    def _refuse(self, comm_id: str, why: str) -> None:
        self._hold(why)
        if len(self._refused) >= MAX_REFUSED:
            del self._refused[next(iter(self._refused))]
        self._refused[comm_id] = why

    def close(self, content: dict[str, Any]) -> dict[str, Any] | None:
        """A comm_close's content, None if it is refused."""
        if not _ID.fullmatch(content["comm_id"]):
            return None
        self._models.pop(content["comm_id"], None)
        self._fresh.discard(content["comm_id"])
        self._refused.pop(content["comm_id"], None)
        return {"comm_id": content["comm_id"], "data": {}}

    def message(self, content: dict[str, Any], buffers: int) -> dict[str, Any] | None:
        """A comm_msg's content, None if it is refused."""
        comm_id, data = content["comm_id"], content["data"]
        method = data.get("method")
        if not _ID.fullmatch(comm_id):
            shown = None
        elif method == "update_states" and comm_id not in self._models:
            shown = self._states(data, buffers)
        elif method in ("update", "echo_update"):
            shown = self._update(comm_id, data, buffers)
        elif method == "custom" and comm_id in self._models and buffers == 0:
            shown = _custom(data)
        else:
            shown = None
        if shown is None:
            if comm_id in self._refused:
                return None
            if method in ("update", "echo_update") and comm_id not in self._models:
                self._hold("an update of a widget that the page has not: left out")
            else:
                self._hold(f"a message {str(method)[:40]!r} that core widgets have not: refused")
            return None
        return {"comm_id": comm_id, "data": shown}

    def _update(self, comm_id: str, data: dict[str, Any], buffers: int) -> dict[str, Any] | None:
        state = _state(data)
        model = self._models.get(comm_id)
        if model is None or any(key.startswith(("_model_", "_view_m")) for key in state):
            # The whole state, as a front end asks for it after a reload: by it a model is known.
            said, why = self._model(TARGET, state)
            if why or model not in (None, said) or not _ID.fullmatch(comm_id):
                return None
            model = self._models[comm_id] = said
        elif "_view_name" in state:
            return None
        paths = _paths(data, state, buffers)
        if paths is None or not self._may_be_buffers(model, paths):
            return None
        shown = {"state": self._cleaned(model, state), "buffer_paths": paths}
        return {"method": data["method"], **shown}

    def _states(self, data: dict[str, Any], buffers: int) -> dict[str, Any] | None:
        """All models' states at once, as the control comm brings them."""
        states = data.get("states")
        paths = _paths(data, states if isinstance(states, dict) else {}, buffers)
        if not isinstance(states, dict) or paths is None:
            return None
        places: dict[Any, list[list[Any]]] = {}
        for path in paths:
            places.setdefault(path[0], []).append(path[2:] if path[1:2] == ["state"] else [])
        known = {}
        for comm_id, about in states.items():
            state = _state(about) if isinstance(about, dict) else {}
            why = self._learn(comm_id, state, places.get(comm_id, []))
            if why:
                self._hold(f"{why}: refused")
            else:
                known[comm_id] = state
        shown = {
            comm_id: {
                "model_name": self._models[comm_id],
                "model_module": state["_model_module"],
                "model_module_version": state["_model_module_version"],
                "state": self._restored(comm_id, state),
            }
            for comm_id, state in known.items()
        }
        paths = [path if path[0] in shown else ["-"] for path in paths]  # as many as buffers
        return {"method": "update_states", "states": shown, "buffer_paths": paths}

    def _learn(self, comm_id: str, state: dict[str, Any], places: list[list[Any]]) -> str:
        """Why a model with this whole state and buffers in these places is refused."""
        model, why = self._model(TARGET, state)
        if why:
            return why
        if not _ID.fullmatch(comm_id) or self._models.get(comm_id, model) != model:
            return f"a {model} with the id of another widget"
        if not self._may_be_buffers(model, places):
            return "a widget with misplaced buffers"
        self._models[comm_id] = model
        return ""

    def _restored(self, comm_id: str, state: dict[str, Any]) -> dict[str, Any]:
        """A model's whole state, for a page that may have another model with this id."""
        model = self._models[comm_id]
        found = self._cleaned(model, state)
        if comm_id in self._fresh:
            return found
        if model in _HTML:
            found.setdefault("value", "")
        elif isinstance(found.get("value"), str) and _MARKUP.search(found["value"]):
            self._hold(f"{model} value, of another session, with HTML: left out")
            del found["value"]
        return found

    # -- traits ------------------------------------------------------------------------------

    @staticmethod
    def _may_be_buffers(model: str, places: list[list[Any]]) -> bool:
        """May these places hold binary data? Where text is cleaned, they may not."""
        for place in places:
            name = place[0] if place else None  # None: not in a trait at all
            if not isinstance(name, str) or name.startswith("_") or model in _STYLED | _LINKS:
                return False
            if name in _CLEANED or (name == "value" and model in _TEXTS):
                return False
        return True

    def _cleaned(self, model: str, state: dict[str, Any]) -> dict[str, Any]:
        """A model's traits, with those that become HTML, styles, classes or addresses cleaned."""
        found = {}
        for name, value in state.items():
            safe = self._trait(model, name, value)
            if safe is None and value is not None:
                self._hold(f"{model} {name[:40]}: left out")
            else:
                found[name] = safe
        return found

    def _trait(self, model: str, name: str, value: Any) -> Any:
        """What a trait may be set to, None if it is to be left out."""
        if name in _CLEANED:
            return self._known(model, name, value)
        if name == "value" and model in _TEXTS:
            return self._text(model, value) if isinstance(value, str) else None
        if model in _STYLED and not name.startswith("_"):
            return _styled(value)
        return value

    def _known(self, model: str, name: str, value: Any) -> Any:
        """The same for one of `_CLEANED`."""
        if name == "description_allow_html":
            return False
        if name == "outputs":
            return self._outputs(value)
        if name in ("source", "target"):
            return self._linked(value)
        if name == "background":
            return _styled(value)
        if name in ("_dom_classes", "icons"):
            return _class_list(value, apart=name == "_dom_classes")
        if not isinstance(value, str):
            return None
        if name == "icon":
            return _classes(value)
        if name == "description":  # it is typeset
            return latex.disarmed(value)
        pattern = _FORMAT if name == "format" and model in _MEDIA else _NUMBERS
        return value if pattern.fullmatch(value) else None

    def _text(self, model: str, value: str) -> str | None:
        return latex.disarmed(value) if model == "LabelModel" else self._html(value)

    def _linked(self, value: Any) -> Any:
        """One end of a link: [reference to a model, trait]."""
        if not isinstance(value, list) or len(value) != 2 or not _are_texts(*value):
            return None
        reference, trait = value
        model = self._models.get(reference.removeprefix("IPY_MODEL_"))
        if model is None or trait not in LINKABLE or (trait == "value" and model in _UNLINKED):
            return None
        return value

    def _outputs(self, value: Any) -> Any:
        if not isinstance(value, list):
            return None
        shown = [self._output(output) for output in value if isinstance(output, dict)]
        return [output for output in shown if output is not None]


def _state(data: dict[str, Any]) -> dict[str, Any]:
    state = data.get("state")
    return state if isinstance(state, dict) else {}


def _are_texts(*values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


def _classes(names: str) -> str:
    """Class names, each such that an exception may name it."""
    names = css.classes(names)
    found = names.split()
    if all(map(_TOKEN.fullmatch, found)):
        return names
    return " ".join(filter(_TOKEN.fullmatch, found))


def _class_list(value: Any, *, apart: bool) -> Any:
    """A list of them; each stands `apart`, or all have their places."""
    if not isinstance(value, (list, tuple)) or not _are_texts(*value):
        return None
    return [c for n in value for c in _classes(n).split()] if apart else list(map(_classes, value))


def _styled(value: Any) -> Any:
    if isinstance(value, str):
        return css.value(value)
    return value if value is None or isinstance(value, (bool, int, float)) else None


def _custom(data: dict[str, Any]) -> dict[str, Any] | None:
    """The one custom message that core widgets understand: take the focus, or give it up."""
    content = data.get("content")
    does = content.get("do") if isinstance(content, dict) else None
    if does not in ("focus", "blur"):
        return None
    return {"method": "custom", "content": {"do": does}}


def _paths(data: dict[str, Any], state: dict[str, Any], buffers: int) -> list[list[Any]] | None:
    """Where the buffers belong in a state, None if a front end could not put them there."""
    paths = data.get("buffer_paths", [])
    if not isinstance(paths, list) or len(paths) != buffers:
        return None
    return paths if all(_leads_somewhere(path, state) for path in paths) else None


def _leads_somewhere(path: Any, state: dict[str, Any]) -> bool:
    if not isinstance(path, list) or not path:
        return False
    place: Any = state
    for key in path[:-1]:
        known = isinstance(place, dict) and isinstance(key, str) and key in place
        if not known and not (isinstance(place, list) and _is_index(key, len(place))):
            return False
        place = place[key]
    last = path[-1]
    if isinstance(place, list):
        return _is_index(last, len(place) + 1)
    return isinstance(place, dict) and isinstance(last, str) and last not in _PROTOTYPE


def _is_index(key: Any, length: int) -> bool:
    return type(key) is int and 0 <= key < length
