"""What a kernel says of itself: the content of kernel_info_reply. Pure."""

from __future__ import annotations

from typing import Any

from wasi_kernel import __version__

PROTOCOL = "5.5"
NAME = "wasi-kernel"
HELP = {
    "Python": "https://docs.python.org/3",
    "IPython": "https://ipython.readthedocs.io/en/stable/",
    "NumPy": "https://numpy.org/doc/stable/reference/",
    "pandas": "https://pandas.pydata.org/docs/reference/",
    "Matplotlib": "https://matplotlib.org/stable/api/",
    "SciPy": "https://docs.scipy.org/doc/scipy/reference/",
}


def language(version: str) -> dict[str, object]:
    """language_info, of a guest's Python with that version."""
    return {
        "name": "python",
        "version": version,
        "mimetype": "text/x-python",
        "codemirror_mode": {"name": "ipython", "version": 3},
        "pygments_lexer": "ipython3",
        "nbconvert_exporter": "python",
        "file_extension": ".py",
    }


def banner(version: str) -> str:
    """What a console shows at its start."""
    return (
        f"Python {version} in WebAssembly (WASI), wasi-kernel {__version__}\n"
        "%wasi shows what this sandbox may reach.\n"
    )


def content(version: str) -> dict[str, Any]:
    """kernel_info_reply's content, of a guest's Python with that version."""
    return {
        "protocol_version": PROTOCOL,
        "implementation": NAME,
        "implementation_version": __version__,
        "language_info": language(version),
        "banner": banner(version),
        "help_links": [{"text": f"{name} Reference", "url": url} for name, url in HELP.items()],
        "supported_features": [],  # no subshells, and no debugger in the guest
    }
