"""What a display costs the kernel process on its way to the front end: filters, and the rest.

Both sides in this process, on sockets of their own that nobody listens to: ipykernel's display
publisher, and what our kernel does with a guest's frame. Neither makes the table or the plot.
"""

from __future__ import annotations

import base64
import io
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import zmq
from ipykernel.zmqshell import ZMQDisplayPublisher
from jupyter_client.session import Session
from measures import MS, Measure, Samples, add

from wasi_kernel.frames import Frame
from wasi_kernel.frontend import Frontend

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NATIVE, OURS = "ipykernel", "python-wasi"
TABLE, STYLED, PLOT, SCRIPT, TEXT = (
    "DataFrame of 100 rows", "Styler of 100 rows", "plot, PNG", "3 MB of HTML with scripts",
    "a line of text",
)  # fmt: skip
ALONE = f"the filter alone: {TABLE}"
BLOCK = 20
"""So many in a row on one side, then on the other."""


def _bundles() -> dict[str, dict[str, Any]]:
    import matplotlib as mpl
    import numpy as np
    import pandas as pd

    mpl.use("agg")
    from matplotlib import pyplot as plt

    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(100, 6)), columns=list("abcdef"))
    with pd.option_context("display.max_rows", 200):
        table = {"text/html": frame.to_html(notebook=True), "text/plain": repr(frame)}
    figure, axes = plt.subplots()
    axes.plot(frame)
    png = io.BytesIO()
    figure.savefig(png)
    styled = frame.style.background_gradient().format("{:.2f}").to_html()
    script = "<div id=x></div><script>" + "let a = {b: [1, 2]};\n" * 150_000 + "</script>"
    return {
        TABLE: table,
        STYLED: {"text/html": styled, "text/plain": "styler"},
        PLOT: {"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": "figure"},
        SCRIPT: {"text/html": script, "text/plain": "page"},
        TEXT: {"text/plain": "a line of text"},
    }


def _publish(names: tuple[str, ...], count: int, folder: Path) -> Samples:
    samples: Samples = {}
    context = zmq.Context()
    sockets = {}
    for name in (NATIVE, OURS):
        sockets[name] = context.socket(zmq.PUB)
        sockets[name].bind(f"inproc://{name}")
    bundles = _bundles()
    try:
        for what, bundle in bundles.items():
            sides = {
                NATIVE: _by_ipykernel(sockets[NATIVE], bundle),
                OURS: _by_us(sockets[OURS], bundle),
            }
            for _ in range(count):
                for name, publish in sides.items():
                    add(samples, what, name, _ms_each(publish))
        for _ in range(count):
            add(samples, ALONE, OURS, _ms_each(partial(_filter, bundles[TABLE])))
    finally:
        context.destroy(linger=0)
    return samples


def _ms_each(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    for _ in range(BLOCK):
        act()
    return 1000 * (time.perf_counter() - start) / BLOCK


def _filter(bundle: dict[str, Any]) -> object:
    content = {"data": bundle, "metadata": {}, "transient": {}}
    return Frontend().output(Frame("display_data", content, 1), 1)


def _by_ipykernel(socket: Any, bundle: dict[str, Any]) -> Callable[[], object]:
    session = Session(key=b"key")
    publisher = ZMQDisplayPublisher(session=session, pub_socket=socket)
    publisher.set_parent({})
    return lambda: publisher.publish(bundle, {})


def _by_us(socket: Any, bundle: dict[str, Any]) -> Callable[[], object]:
    session = Session(key=b"key")
    content = {"data": bundle, "metadata": {}, "transient": {}}
    numbers = iter(range(1, 1 << 40))

    def publish() -> None:
        frame = Frame("display_data", content, next(numbers))  # of a cell of its own
        frontend = Frontend()
        shown = frontend.output(frame, 1)
        session.send(
            socket, frame.type, shown, parent={}, metadata=frontend.metadata(frame), buffers=[]
        )

    return publish


MEASURES = {
    "publish": Measure(
        _publish,
        10,
        dict.fromkeys((TABLE, STYLED, PLOT, SCRIPT, TEXT, ALONE), MS),
        {},
        {ALONE: 1.0},
    ),
}
"""Name on the command line -> benchmark."""
