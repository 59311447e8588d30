"""Where results are kept for readers: the part of a Markdown file between two markers. Pure, but
for `machine`, which looks at this one."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import psutil

BEGIN, END = "<!-- results -->", "<!-- end of results -->"


def put(text: str, results: str) -> str:
    """A document with its results replaced.

    Raises:
        ValueError: It has not one pair of markers.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"the document must have {BEGIN} and, after it, {END}, once each")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{results.strip()}\n\n{rest[rest.index(END) :]}"


def machine() -> str:
    """This machine in a line: processor, cores, memory, system."""
    model = platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists() and (m := re.search(r"model name\s*: (.*)", info.read_text("utf-8"))):
        model = m[1]
    version = ".".join(platform.release().split(".")[:2])
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{model}, {platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB of memory, "
        f"{platform.system()} {version}"
    )
