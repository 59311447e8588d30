"""Lean imports: what the kernel process leaves out, that nothing misses it, and the usual way."""

from __future__ import annotations

import subprocess
import sys

import pytest
from dateutil.parser import isoparse

from wasi_kernel import lean

KERNEL = 'lean.import_lean("wasi_kernel.kernel", "tornado.platform.asyncio")'
UNUSED = (
    "IPython.core.interactiveshell", "jupyter_client.manager", "ipykernel.ipkernel", "dateutil",
    "dateutil.parser", "ssl", "html", "curses", "sqlite3", "tornado.log",
    "importlib.metadata", "nh3", "wasmtime", "wasi_kernel.requirements", "wasi_kernel.history",
)  # fmt: skip


def in_a_process_of_its_own(code: str) -> str:
    """What it prints."""
    told = "import sys\nbefore = set(sys.modules)\nfrom wasi_kernel import lean\n" + code
    done = subprocess.run(
        [sys.executable, "-P", "-c", told], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_is_never_used_is_not_imported():
    found = f"[n for n in {UNUSED} if n in set(sys.modules) - before]"
    said = in_a_process_of_its_own(f"{KERNEL}\nprint({found})")
    assert said == "[]"


def test_afterwards_every_name_stands_for_the_real_module():
    said = in_a_process_of_its_own(f"""
{KERNEL}
import dateutil.tz, platform, ssl, tempfile, tornado.log
from jupyter_client import connect
from ipykernel import parentpoller
print(ssl.SSLContext.__name__, tornado.log.LogFormatter.__name__, platform.node() != "")
print(callable(connect.tempfile.mkdtemp), callable(parentpoller.ctypes.sizeof))
""")
    assert said == "SSLContext LogFormatter True\nTrue True"


def test_a_library_that_needs_more_is_imported_the_usual_way():
    said = in_a_process_of_its_own(f"""
lean.BARE = ("traitlets",)
kernel = {KERNEL}
import traitlets
print(kernel.WasiKernel.__name__, traitlets.HasTraits.__name__, "dateutil.parser" in sys.modules)
""")
    assert said == "WasiKernel HasTraits True"


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22T23:25:45.123456Z", "2026-11-22T23:25:45Z", "2026-11-22T23:25:45.5+00:00",
        "2026-11-22T23:25:45.123456-08:30", "2026-11-22T23:25:45+0100", "2026-11-22T23:25:45",
    ],
)  # fmt: skip
def test_dates_of_messages_are_read_as_dateutil_reads_them(text: str):
    ours, theirs = lean._isoparse(text), isoparse(text)
    assert (ours, ours.utcoffset()) == (theirs, theirs.utcoffset())


def test_what_is_no_date_is_refused_as_dateutil_refuses_it():
    for read in (lean._isoparse, isoparse):
        with pytest.raises(ValueError, match=r"\S"):
            read("2026-13-22T23:25:45Z")
