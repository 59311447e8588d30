"""The corpus of tests/filters/payloads in JupyterLab, in a real browser: nothing of it acts.

A guest that is hostile all through sends each payload by the kernel's own door. Each would call
`top.canary()`, ask for something of canary.invalid or of the server, open, cover or restyle what is
not its own. It is watched from all sides: in the page (canary, elements of the outputs, what lies
on top at many points, styles, prototypes), in the browser (requests, navigation, windows, dialogs,
Chromium's log of its network), and on the server (requests, kernels, terminals, files).
"""

from __future__ import annotations

import itertools
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from playwright.sync_api import Error, expect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import BrowserContext, Frame, Locator, Page, Request, Route

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

FOLDER = Path(__file__).parents[1] / "filters" / "payloads"
FILES: dict[str, list[dict[str, Any]]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted(FOLDER.glob("*.json"))
}
ASKED = ("complete_reply", "inspect_reply", "is_complete_reply", "comm_info_reply",
         "history_reply", "input_request")  # fmt: skip
"""What a guest cannot send by itself: it answers."""

RICH = ("types", "widgets")
SHOWN: dict[str, list[str]] = {"html": [], "rich": [], "texts": []}
"""The payloads that a cell can show, as file/name, by the notebook that shows them."""

for _file, _payloads in FILES.items():
    _notebook = _file if _file == "html" else "rich" if _file in RICH else "texts"
    SHOWN[_notebook] += [f"{_file}/{p['name']}" for p in _payloads if p["type"] not in ASKED]
LAST = "replies/reply-error"  # after a cell with an error JupyterLab runs no other
SHOWN["texts"].sort(key=lambda name: (name.startswith("replies/"), name == LAST))

BATCH = 10
"""Payloads in one cell. An output area shows at most 50 outputs."""

ALONE = ("terminal", "replies")
"""Files whose payloads have a cell each: text joins what is before it, a cell has one reply."""

NUMBERED = re.compile(r"\[\d+\]:")
KERNEL, TRUSTED = "python-wasi", "python-wasi-trusted"

MARK = "payload "
"""With the name of what comes next: an output between the others."""

GUEST = """
import json, pathlib
door = get_ipython().display_pub.door
honest_reply = door.reply
corpus = {
    f"{path.stem}/{payload['name']}": payload
    for path in pathlib.Path("/work").glob("*.json")
    for payload in json.loads(path.read_text(encoding="utf-8"))
}

def renamed(value, ids):
    "The same with its comms' ids made its own."
    if isinstance(value, dict):
        return {ids.get(k, k): renamed(v, ids) for k, v in value.items()}
    if isinstance(value, list):
        return [renamed(v, ids) for v in value]
    return ids.get(value, value) if isinstance(value, str) else value

def send(message, ids):
    kind, content = message["type"], renamed(message["content"], ids)
    if kind == "stream":
        door.put(content["name"], content["text"].encode("utf-8", "surrogatepass"))
    elif kind == "execute_reply":
        def reply(kind, honest):
            door.reply = honest_reply
            honest_reply(kind, {**honest, **content})
        door.reply = reply
    else:
        buffers = tuple(bytes.fromhex(b) for b in message.get("buffers", ()))
        door.send(kind, content, message.get("metadata", {}), buffers)

def answer(kind, name):
    content = corpus[name]["content"]
    door.reply = lambda k, honest: honest_reply(k, {**honest, **content} if k == kind else honest)

def show(bundle):
    door.send("display_data", {"data": bundle, "metadata": {}})

def emit(*names):
    for name in names:
        payload = corpus[name]
        messages = [*payload.get("before", ()), payload]
        models = []
        for message in messages:
            if message["type"] == "comm_open":
                models.append(message["content"]["comm_id"])
            elif message["type"] == "comm_msg":
                models += message["content"]["data"].get("states", ())
        ids = {c: f"{name.partition('/')[2]}-{c}" for c in models if c.replace("-", "").isalnum()}
        ids |= {f"IPY_MODEL_{old}": f"IPY_MODEL_{new}" for old, new in ids.items()}
        show({"text/plain": f"payload {name}"})
        for message in messages:
            send(message, ids)
        for model in dict.fromkeys(models):
            view = {"version_major": 2, "version_minor": 0, "model_id": ids.get(model, model)}
            show({"application/vnd.jupyter.widget-view+json": view, "text/plain": "a widget"})
"""
"""The first cell: what the others call."""

HONEST = """
from IPython.display import HTML
HTML("<div class=honest><p>Text <a>a</a> <b>b</b> <code>c</code></p>"
     "<pre>p</pre><ul><li>i</li></ul><table><caption>c</caption><tr><th>h</th><td>d</td></tr>"
     "</table><details>d</details></div>")
"""
"""The second cell, whose output no other may change."""

CANARY = """
if (top === self) {
    self.canaries = 0;
    self.canary = () => { self.canaries += 1; };
}
"""

STATE = """
() => {
    const SIZES = /^(width|height|(block|inline)-size|(perspective|transform)-origin)$/;
    const styles = {};
    const places = ['body', '#jp-top-panel', '#jp-menu-panel', '#jp-left-stack',
        '#jp-main-dock-panel', '.jp-NotebookPanel', '.honest', '.honest *'];
    for (const place of places) {
        document.querySelectorAll(place).forEach((element, k) => {
            const style = getComputedStyle(element);
            for (const name of style)
                if (!SIZES.test(name)) styles[`${place} ${k} ${name}`] = style[name];
        });
    }
    const prototypes = {};
    for (const kind of [Object, Array, Function, String, Promise, Element, Node, EventTarget])
        prototypes[kind.name] = Object.getOwnPropertyNames(kind.prototype).sort().join();
    return {
        ...styles, ...prototypes,
        canary: self.canaries,
        title: document.title,
        dialogs: document.querySelectorAll('.jp-Dialog').length,
        tabs: [...document.querySelectorAll('#jp-main-dock-panel .lm-TabBar-tab')].map(
            tab => tab.textContent).join(),
    };
}
"""
"""What must stay as it is in the page."""

SETTLED = """
async () => {
    const images = [...document.querySelectorAll('.jp-OutputArea-output img')];
    await Promise.all(images.map(image => image.decode().catch(() => {})));
    for (let k = 0; k < 3; k++)
        await new Promise(done =>
            requestAnimationFrame(() => requestIdleCallback(done, {timeout: 500})));
}
"""

OUTPUTS = """
(root, mark) => {
    const FORBIDDEN = new Set(['SCRIPT', 'FORM', 'OBJECT', 'EMBED', 'APPLET', 'BASE', 'LINK',
        'META', 'FRAME', 'FRAMESET', 'PORTAL', 'FENCEDFRAME', 'DIALOG']);
    const ADDRESSES = ['href', 'xlink:href', 'src', 'srcset', 'action', 'formaction', 'data',
        'poster', 'background', 'ping', 'cite'];
    // What the programs that draw charts and widgets bring along themselves
    const OWN = '.js-plotly-plot, .vega-bindings, .vega-actions';
    const OWN_ID = /^(wasi-|MJX-|[0-9a-f-]{36}$)/;
    const wrongs = [];
    const shown = {};
    let name = '';
    function look(element, bad) {
        const tag = element.tagName.toUpperCase();
        const given = key => element.getAttribute(key) ?? '';
        if (FORBIDDEN.has(tag)) bad(`<${tag}>`);
        if (tag === 'IFRAME' && (given('sandbox') !== 'allow-scripts' || given('src')
            || given('allow') || !given('srcdoc').includes("default-src 'none'")))
            bad('a frame that is not ours');
        if (element.id && !OWN_ID.test(element.id)) bad(`id ${element.id}`);
        for (const {name: key, value} of element.attributes) {
            if (/^on|^data-commandlinker/.test(key)) bad(`${tag} ${key}`);
            if (!ADDRESSES.includes(key) || value.startsWith('#')) continue;
            const url = new URL(value, location.href);
            const link = tag === 'A' && key !== 'ping';
            // JupyterLab makes links of addresses in text, a browser follows none to a file
            const plain = link && element.closest('pre') && url.protocol === 'file:';
            const fine = link ? /^(https?|mailto):$/.test(url.protocol)
                : /^(data|blob):$/.test(url.protocol);
            if (!plain && !(fine && url.host !== location.host))
                bad(`${tag} ${key}=${value.slice(0, 80)}`);
        }
    }
    for (const child of root.querySelectorAll('.jp-Cell-outputArea > .jp-OutputArea-child')) {
        const output = child.querySelector('.jp-OutputArea-output');
        if (output === null) continue;
        const said = output.textContent.trim();
        if (said.startsWith(mark)) {
            name = said.slice(mark.length);
            shown[name] = [];
            continue;
        }
        if (name === '') continue;
        child.dataset.payload = name;
        const bad = what => wrongs.push([name, what]);
        for (const element of output.querySelectorAll('*'))
            if (element.closest(OWN) === null) look(element, bad);
        const frames = [...output.querySelectorAll('iframe')].map(frame => frame.srcdoc);
        const text = output.cloneNode(true);
        for (const set of text.querySelectorAll('mjx-container')) set.remove();  // bit by bit
        shown[name].push([output.dataset.mimeType ?? '', text.textContent.trim(), frames]);
    }
    return {wrongs, shown};
}
"""
"""What is in the outputs: [payload, what must not be there], and what there is, by payload."""

POINTS = """
cells => cells.flatMap(cell => {
    cell.scrollIntoView({block: 'center'});
    const found = [];
    const notebook = document.querySelector('.jp-NotebookPanel-notebook').getBoundingClientRect();
    for (let x = 12; x < innerWidth; x += 100) {
        for (let y = 8; y < innerHeight; y += 70) {
            const element = document.elementFromPoint(x, y);
            const output = element?.closest('.jp-OutputArea-child');
            if (!output) continue;
            const inside = [output.getBoundingClientRect(), notebook].every(box =>
                x > box.left - 1 && x < box.right + 1 && y > box.top - 1 && y < box.bottom + 1);
            if (!inside) found.push(`${element.tagName} lies on top at ${x}, ${y}`);
        }
    }
    return found.slice(0, 3);
})
"""
"""Where something of an output lies upon what is not its own."""


CLICKABLE = ".jp-OutputArea-output :is(a, button, summary, input, label, select, area, image)"
NOT_OURS = ".modebar *, .vega-actions *"
"""What charts bring along themselves."""

CLICK_ALL = """
() => {
    for (const element of document.querySelectorAll('*'))
        for (const kind of ['pointerover', 'mouseover', 'mousemove', 'focus', 'toggle'])
            element.dispatchEvent(new MouseEvent(kind, {bubbles: true}));
    const CLICKED = 'a, area, button, input, summary, details, label, form, [onclick], [href]';
    for (const element of document.querySelectorAll(CLICKED)) {
        if (element.requestSubmit) element.requestSubmit();
        if (element.click) element.click();
        else element.dispatchEvent(new MouseEvent('click', {bubbles: true}));
    }
}
"""
"""For the inside of a frame."""

PLACE = """
(element, notOurs) => {
    element.scrollIntoView({block: 'center'});
    const box = element.getBoundingClientRect();
    const name = element.closest('.jp-OutputArea-child')?.dataset.payload ?? '';
    const theirs = box.width * box.height > 0 && !element.matches(notOurs);
    return [theirs ? name : '', box.x + box.width / 2, box.y + box.height / 2];
}
"""
"""Whose element it is, if it is to be clicked, and where it is once scrolled to."""

OWN_REQUESTS = (
    r"GET (?:/lab/extensions|/static|/kernelspecs|/lsp)/[\w/@.-]+|GET /lab/api/[\w/@:.-]+"
    r"|GET /api/(?:kernels|sessions|terminals|kernelspecs|contents|me|nbconvert|config/\w+)"
    r"|GET /api/resolvePath"  # for all that looks like a path in a traceback
    r"|PUT /lab/api/workspaces/[\w-]+"
    r"|(?:GET|PUT) /api/contents/{name}|(?:GET|POST) /api/contents/{name}/checkpoints"
)
"""What JupyterLab asks of its server while a notebook is open in it."""

Problems = dict[str, list[str]]


class Watch:
    """What a browser does that no output may bring it to do.

    Attributes:
        web: May links open windows towards the web?
        windows: Those that are open.
        names: The notebooks that were opened.
    """

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.web = False
        self.windows: list[Page] = []
        self._context, self._url = context, url
        self._seen: list[str] = []
        self._name = ""
        self.names: set[str] = set()
        self._ours: list[Page] = []
        self._opening = False
        context.add_init_script(CANARY)
        context.on("requestfinished", lambda request: self._asked(request, ""))
        context.on("requestfailed", lambda request: self._asked(request, request.failure or ""))
        context.on("dialog", self._dialog)
        context.on("page", self._window)

    def new_page(self, name: str) -> Page:
        """A page of our own, for the notebook of that name."""
        self._opening, self._name = True, name
        self.names.add(name)
        page = self._context.new_page()
        self._opening = False
        self._ours.append(page)
        page.on("framenavigated", lambda frame: self._navigated(page, frame))
        page.on("download", lambda download: self._seen.append(f"download {download.url}"))
        return page

    def take(self) -> list[str]:
        """What was seen since the last time."""
        seen, self._seen = self._seen, []
        return list(dict.fromkeys(seen))

    def is_own(self, method: str, path: str) -> bool:
        """Does JupyterLab itself ask its server for that?"""
        pattern = OWN_REQUESTS.replace("{name}", re.escape(self._name))
        return re.fullmatch(pattern, f"{method} {path}") is not None

    def _asked(self, request: Request, failure: str) -> None:
        url = request.url
        if failure == "csp" or url.startswith(("data:", f"blob:{self._url}")):
            return  # a policy has refused it, so nothing was sent; or nothing is to be sent
        path = url.removeprefix(self._url).partition("?")[0]
        if url.startswith(self._url) and self.is_own(request.method, path):
            return
        if request.is_navigation_request():
            if request.frame.page in self._ours and url.startswith(self._url):
                return  # see _navigated
            if self.web and request.frame.page in self.windows:
                return
        self._seen.append(f"{request.method} {url} {failure}")

    def _dialog(self, dialog: Any) -> None:
        self._seen.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _window(self, page: Page) -> None:
        if self._opening:
            return
        self.windows.append(page)
        if not self.web:
            self._seen.append(f"window {page.url}")

    def _navigated(self, page: Page, frame: Frame) -> None:
        place = re.sub(r"/workspaces/[\w-]+|[?#].*", "", frame.url)  # for a second page at once
        if frame == page.main_frame and place != f"{self._url}/lab/tree/{self._name}":
            self._seen.append(f"navigation to {frame.url}")


def _batches(names: list[str]) -> Iterator[list[str]]:
    """The names, as they share cells."""
    for file, group in itertools.groupby(names, key=lambda name: name.partition("/")[0]):
        together = list(group)
        step = 1 if file in ALONE else BATCH
        for k in range(0, len(together), step):
            yield together[k : k + step]


class Bench:
    """JupyterLab, in which payloads are shown and poked at.

    Attributes:
        watch: What looks at the browser meanwhile.
    """

    def __init__(self, watch: Watch, server: Any, notebook_in: Any, pictures: Path) -> None:
        self.watch = watch
        self._server, self._notebook_in, self._pictures = server, notebook_in, pictures

    def open(self, path: str, batches: list[list[str]], *more: str, kernel: str = KERNEL) -> Any:
        """A new notebook with a cell for each batch of payloads, and more; they are not run."""
        cells = [
            "emit(\n" + "".join(f"    {name!r},\n" for name in names) + ")" for names in batches
        ]
        notebook = self._notebook_in(self.watch.new_page(path))
        notebook.open(self._server, path, GUEST, HONEST, *cells, *more, kernel=kernel)
        expect(notebook.run(0)).to_have_count(0)
        expect(notebook.run(1).locator(".honest")).to_be_visible()
        return notebook

    def show_all(self, title: str, names: list[str]) -> tuple[Problems, dict[str, Any]]:
        """What is wrong with payloads, and what they show, in a notebook that is saved."""
        notebook = self.open(f"{title}.ipynb", list(_batches(names)))
        before = self.state(notebook)
        notebook.run_all()
        wrong, problems, shown = self.check(notebook, before)
        self._save(notebook, f"payloads-{title}.png")
        if wrong:  # whose doing is it?
            cells = self.show_each(f"{title}-cells.ipynb", list(_batches(names)))
            guilty = [[name] for names, found in cells for name in names if found]
            for [name], found in self.show_each(f"{title}-each.ipynb", guilty):
                problems[name] = [*problems.get(name, ()), *found]
            if not any(problems.values()):
                problems = {name: [f"with the others: {w}" for w in wrong] for name in names}
        return problems, shown

    def show_each(
        self, path: str, batches: list[list[str]], kernel: str = KERNEL
    ) -> list[tuple[list[str], list[str]]]:
        """Each batch of payloads with what is wrong, shown one after the other."""
        notebook = self.open(path, batches, kernel=kernel)
        found = []
        for k, names in enumerate(batches):
            before = self.state(notebook)
            prompt = notebook.prompt(2 + k)
            prompt.click()  # selects the cell, whose editor could lose the focus to an output
            notebook.page.keyboard.press("Shift+Enter")
            expect(prompt).to_have_text(NUMBERED)
            wrong, problems, _ = self.check(notebook, before, notebook.cell(2 + k))
            found.append((names, [*wrong, *itertools.chain(*problems.values())]))
        notebook.page.close()
        return found

    def reopen(self, path: str) -> Any:
        """A notebook that was saved."""
        notebook = self._notebook_in(self.watch.new_page(path))
        notebook.go_to(path)
        expect(notebook.panel.locator(".honest")).to_be_visible()
        return notebook

    def _save(self, notebook: Any, picture: str) -> None:
        notebook.page.screenshot(path=self._pictures / picture)
        notebook.save()
        notebook.page.close()

    # -- looking -----------------------------------------------------------------------------

    def state(self, notebook: Any) -> dict[str, Any]:
        """What is to stay as it is."""
        self.watch.take()
        return notebook.page.evaluate(STATE)

    def check(
        self,
        notebook: Any,
        before: dict[str, Any],
        cell: Locator | None = None,
        *,
        points: bool = True,
    ) -> tuple[list[str], Problems, dict[str, Any]]:
        """(what is wrong with the page, and with the payloads' outputs; what these show)."""
        page = notebook.page
        for frame in page.frames:
            frame.wait_for_load_state("load")
        page.evaluate(SETTLED)
        after = page.evaluate(STATE)
        wrong = [
            f"{key}: {before.get(key)} became {after.get(key)}"[:300]
            for key in before | after
            if before.get(key) != after.get(key)
        ]
        if points:
            wrong += (cell or notebook.panel.locator(".jp-CodeCell")).evaluate_all(POINTS)
        outputs = (cell or notebook.panel).evaluate(OUTPUTS, MARK)
        problems: Problems = {}
        for name, what in outputs["wrongs"]:
            problems.setdefault(name, []).append(what)
        return wrong + self.watch.take(), problems, outputs["shown"]

    # -- poking ------------------------------------------------------------------------------

    def poke(self, notebook: Any) -> Problems:
        """What is wrong once all in the outputs was hovered over and clicked, and scripts run."""
        page = notebook.page
        found: Problems = {}
        for element in page.locator(CLICKABLE).element_handles():
            name, x, y = element.evaluate(PLACE, NOT_OURS)
            if name:
                page.mouse.move(x, y)
                page.mouse.click(x, y)
                found.setdefault(name, []).extend(self._after_click(page))
        for frame in page.frames:
            start = frame.locator("#bar button")
            if frame.parent_frame == page.main_frame and start.count():
                start.dispatch_event("click")
                frame.child_frames[0].wait_for_load_state("load")
        page.evaluate(SETTLED)
        found[""] = self._after_click(page)
        for frame in page.frames:
            if frame.parent_frame is None or frame.child_frames:
                continue
            name = ""
            try:
                outer = frame.parent_frame if frame.parent_frame.parent_frame else frame
                name = outer.frame_element().evaluate(
                    "e => e.closest('.jp-OutputArea-child')?.dataset.payload ?? ''"
                )
                frame.evaluate(CLICK_ALL)
            except Error:  # its page is gone by a click, and nothing has come in its place
                pass
            found.setdefault(name, []).extend(self._after_click(page))
        return {name: problems for name, problems in found.items() if problems}

    def _after_click(self, page: Page) -> list[str]:
        hits, dialogs = page.evaluate(
            "() => [self.canaries, document.querySelectorAll('.jp-Dialog').length]"
        )
        found = ["the canary was called"] * hits + ["a dialog is open"] * dialogs
        if hits:
            page.evaluate("() => { self.canaries = 0; }")
        for window in self.watch.windows:
            window.wait_for_load_state()
            if not re.match(r"https?://(?!127\.0\.0\.1)", window.url):
                found.append(f"a window with {window.url}")
            window.close()
        self.watch.windows.clear()
        return found + self.watch.take()


# -- what is run -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lab_settings(lab_settings: dict[str, Any]) -> dict[str, Any]:
    """All outputs are in the page at once, also those that no user sees without scrolling."""
    return lab_settings | {"@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"}}


@pytest.fixture(scope="module")
def bench(server: Any, browser: BrowserContext, notebook_in: Any, screenshots: Path) -> Bench:
    """The files of payloads in JupyterLab's folder, and a browser that is watched."""
    server.add_kernel(TRUSTED, "--frontend", "trusted")
    for path in FOLDER.glob("*.json"):
        (server.folder / path.name).write_bytes(path.read_bytes())
    return Bench(Watch(browser, server.url), server, notebook_in, screenshots)


@pytest.fixture(scope="module")
def live(bench: Bench, request: pytest.FixtureRequest) -> tuple[Problems, dict[str, Any]]:
    """What is wrong with each payload, and what each shows; of those that are asked for."""
    items = [item for item in request.session.items if item.module is request.module]
    asked = {item.callspec.params.get("name") for item in items if hasattr(item, "callspec")}
    everything = len(asked - {None}) == 0 or any(not hasattr(item, "callspec") for item in items)
    problems: Problems = {}
    shown: dict[str, Any] = {}
    for title, names in SHOWN.items():
        chosen = [name for name in names if everything or name in asked]
        if chosen:
            found, seen = bench.show_all(title, chosen)
            problems |= found
            shown |= seen
    return problems, shown


@pytest.mark.parametrize("name", [name for names in SHOWN.values() for name in names])
def test_nothing_of_it_acts(live: tuple[Problems, dict[str, Any]], name: str):
    problems, shown = live
    assert name in shown
    assert problems.get(name, []) == []


@pytest.fixture(scope="module")
def clicks(live: Any, bench: Bench, browser: BrowserContext, server: Any) -> float:
    """When links began to be clicked, which may lead to the web; what is there is a blank page."""
    bench.watch.web = True

    def answer(route: Route) -> None:
        if route.request.is_navigation_request():
            route.fulfill(body="the web", content_type="text/plain")
        else:
            route.abort()

    browser.route(lambda url: not url.startswith(server.url), answer)
    return time.time()


DRAWN = ("widgets/", "types/json-plotly", "types/json-vega")
"""What a program draws some time after the page is there, or what was gone with its comms."""


def _harm(bench: Bench, notebook: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(What is wrong with an open notebook before and after all is clicked, what it shows)."""
    before = bench.state(notebook)
    wrong, problems, shown = bench.check(notebook, before)
    clicked = bench.poke(notebook)
    after, _, _ = bench.check(notebook, before, points=False)
    notebook.page.close()
    found = {"page": wrong, "outputs": problems, "clicks": clicked, "page then": after}
    return {where: what for where, what in found.items() if what}, shown


@pytest.mark.parametrize("title", SHOWN)
def test_opened_again_it_shows_the_same_and_clicks_do_no_harm(live, clicks, bench, title):
    _, shown = live
    harm, again = _harm(bench, bench.reopen(f"{title}.ipynb"))
    assert harm == {}
    same = [name for name in SHOWN[title] if not name.startswith(DRAWN)]
    assert {name: again[name] for name in same} == {name: shown[name] for name in same}


@pytest.mark.parametrize("title", SHOWN)
def test_in_a_notebook_that_is_not_trusted_nothing_acts_either(live, clicks, bench, server, title):
    content = nbformat.read(server.folder / f"{title}.ipynb", as_version=4)
    content.metadata["copied"] = True  # so that its signature is not known
    nbformat.write(content, server.folder / f"{title}-copy.ipynb")
    harm, _ = _harm(bench, bench.reopen(f"{title}-copy.ipynb"))
    assert harm == {}


# -- what a guest answers --------------------------------------------------------------------------


CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")


@pytest.fixture
def asked(bench: Bench) -> Iterator[Any]:
    """A notebook whose guest has a hostile answer to each question; nothing of it acts."""
    notebook = bench.open(
        "asked.ipynb",
        [],  # no payloads of its own
        "input(corpus['replies/reply-prompt']['content']['prompt'])",
        "said = corpus['replies/reply-complete-escape']['content']\n"
        "more = {'start': 0, 'end': 1, 'text': 'about', 'type': '\\x1b[2J<b>', 'signature': ''}\n"
        "said['metadata']['_jupyter_types_experimental'].append(more)\n"
        "said['matches'].append('about')\n"
        "answer('complete_reply', 'replies/reply-complete-escape')",
        "a",
        "answer('inspect_reply', 'replies/reply-inspect-html')",
        "answer('inspect_reply', 'replies/reply-inspect-javascript')",
        "answer('comm_info_reply', 'replies/reply-comm-info')",
    )
    before = bench.state(notebook)
    yield notebook
    wrong, _, _ = bench.check(notebook, before)
    notebook.page.close()
    assert wrong == []


def test_answers_of_a_hostile_guest(clicks, bench, asked):
    page = asked.page
    asked.start(2)
    prompt = asked.cell(2).locator(".jp-Stdin-prompt")
    expect(prompt).to_contain_text("Jupyter token:")
    assert not CONTROLS.search(prompt.inner_text())
    page.keyboard.press("Enter")
    expect(asked.prompt(2)).to_have_text(NUMBERED)

    asked.run(3)
    asked.edit(4)
    page.keyboard.press("Tab")
    proposed = page.locator(".jp-Completer-item")
    expect(proposed.filter(has_text="about")).to_be_visible()
    expect(proposed).to_have_count(2)  # of five
    assert not CONTROLS.search("".join(proposed.all_inner_texts()))
    page.keyboard.press("Escape")
    expect(proposed.first).to_be_hidden()

    for index in (5, 6):
        asked.run(index)
        asked.edit(4)
        page.keyboard.press("Shift+Tab")
        tooltip = page.locator(".jp-Tooltip")
        expect(tooltip).to_be_visible()
        assert tooltip.locator("script, [onerror]").count() == 0
        page.keyboard.press("Escape")
        expect(tooltip).to_be_hidden()

    asked.run(7)
    asked.save()
    again = bench.reopen("asked.ipynb")  # the widgets' manager asks for open comms
    before = bench.state(again)
    wrong, _, _ = bench.check(again, before)
    assert wrong == []
    again.page.close()


# -- the server, the network, and what is seen without filters -------------------------------------

SERVER_REQUESTS = (
    rf"{OWN_REQUESTS}|GET /lab(?:(?:/workspaces/auto-\w+)?/tree/{{name}})?|POST /api/sessions"
    r"|PATCH /api/sessions/[\w-]+|GET /api/kernels/[\w-]+/channels|GET /api/events/subscribe"
)


def test_the_server_was_asked_for_nothing_that_jupyterlab_does_not_ask(clicks, bench, server):
    names = "|".join(re.escape(name) for name in bench.watch.names)
    pattern = re.compile(SERVER_REQUESTS.replace("{name}", f"(?:{names})"))
    strange = []
    for method, uri, _, about in server.requests:
        path = uri.partition("?")[0]
        said = about["Sec-Fetch-Dest"]
        kind = "document" if "/tree/" in path else "empty" if path.startswith("/api/") else said
        if not pattern.fullmatch(f"{method} {path}") or said not in ("", kind):
            strange.append(f"{method} {uri} as {said or 'anything'}")
    assert not strange, "\n".join(strange)


def test_the_server_has_no_new_kernel_terminal_or_file(clicks, bench, server, browser):
    headers = {"Authorization": f"token {server.token}"}
    found = {
        what: browser.request.get(f"/api/{what}", headers=headers).json()
        for what in ("sessions", "kernels", "terminals")
    }
    assert found["terminals"] == []
    assert sorted(session["path"] for session in found["sessions"]) == sorted(bench.watch.names)
    assert len(found["kernels"]) == len(found["sessions"])
    assert {session["kernel"]["name"] for session in found["sessions"]} == {KERNEL}
    files = {path.name for path in server.folder.iterdir()}
    payloads = {path.name for path in FOLDER.glob("*.json")}
    assert files == payloads | bench.watch.names | {".ipynb_checkpoints"}


CONTROL = {
    "html/script": "canary",
    "html/img-onerror": "canary",
    "html/img-remote": "http://canary.invalid/x.png",
    "markdown/markdown-img-onerror": "canary",
    "types/json-javascript": "canary",
    "types/json-plotly-image": "http://canary.invalid/x.png",
    "widgets/widget-html-open": "canary",
    "html/overlay-fixed": "lies on top",
}
"""What is seen of a payload that nothing filters."""


def test_the_same_without_the_filter_is_seen_to_act(clicks, bench, browser):
    browser.unroute_all()
    found = bench.show_each("control.ipynb", [[name] for name in CONTROL], TRUSTED)
    unseen = {
        name: seen for [name], seen in found if not any(CONTROL[name] in what for what in seen)
    }
    assert unseen == {}
    ((_, seen),) = bench.show_each("control-style.ipynb", [["html/style-page"]], TRUSTED)
    assert "body 0 display: block became none" in seen


def test_clicks_without_the_filter_are_seen_to_act(clicks, bench):
    names = ["html/a-javascript", "html/command-linker"]  # the second hides the page
    notebook = bench.open("control-clicks.ipynb", [[name] for name in names], kernel=TRUSTED)
    for k in range(2):
        notebook.run(2 + k)
    harm, _ = _harm(bench, notebook)
    # JupyterLab opens links in new windows, whose canary is their own; maybe after the next click
    assert {"the canary was called", "a window with about:blank"} & set(_texts(harm))
    assert any("POST" in what and "/api/terminals" in what for what in _texts(harm))


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = list(value.values())
    return [text for v in value for text in _texts(v)] if isinstance(value, list) else [value]


CHROMIUMS_OWN = re.compile(r"^(?:127\.0\.0\.1|localhost|.*\.(?:google|googleapis|gvt1)\.com)$")
"""Names that it asks for by itself: forms to fill, components to load."""


@pytest.fixture(scope="module")
def network(browser: BrowserContext, net_log: Path) -> list[tuple[float, str]]:
    """(When, what) Chromium did about any name or address; it is closed for that."""
    browser.browser.close()
    log = json.loads(net_log.read_text(encoding="utf-8"))
    offset = int(log["constants"]["timeTickOffset"])
    return [
        ((int(event["time"]) + offset) / 1000, json.dumps(event["params"]))
        for event in log["events"]
        if "params" in event
    ]


def test_no_name_was_looked_up_and_nothing_sent_but_to_the_server(clicks, network):
    named = re.compile(r'"(?:(?:host|hostname|qname)": "(?:\w+://)?|url": "\w+://)([\w.-]+)')
    asked = {
        m[1]: time.strftime("%X", time.localtime(when))
        for when, what in network
        for m in named.finditer(what)
        if when < clicks and not CHROMIUMS_OWN.search(m[1])
    }
    assert asked == {}
    control = [what for when, what in network if when > clicks and "canary.invalid" in what]
    assert control  # so such a thing is in this log
