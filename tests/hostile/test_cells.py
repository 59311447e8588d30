"""No cell can kill the session, reach what was not granted, or leave the host changed.

The cases are data; what each of them must leave as it was is in conftest.py.
"""

from __future__ import annotations

from wasi_kernel import caches

GROUPS = ("exits", "recursion", "memory")


SEARCH = """
import numpy as np
from wasi_agent import agent
size = agent._door.ask("info_request", {{}}).content["memory_bytes"]
class All:
    __array_interface__ = {{
        "data": (1024, False), "shape": (size - 1024,), "typestr": "|u1", "version": 3,
    }}
memory = np.asarray(All())
for shifted in {shifted!r}:
    wanted = [code - 1 for code in shifted]
    at = np.flatnonzero(memory[: -len(wanted)] == wanted[0])
    for k, code in enumerate(wanted):
        at = at[memory[at + k] == code]
    print(len(at))
"""


def memory_searched(stage, case):
    """Looks for the host's words, which the cell itself has only with each byte one up."""
    world = stage.world
    words = ("IPython.core", world.secret, str(world.folder), str(caches.default_path()), "CANARY")
    shifted = [[code + 1 for code in word.encode()] for word in words]
    answer = stage.run(SEARCH.format(shifted=shifted))
    text = "".join(m["content"]["text"] for m in answer.published if m["msg_type"] == "stream")
    there, *others = map(int, text.split())
    assert there > 0, "the guest's own words are not found either"
    assert others == [0] * 4
    return answer


ACTS = {"memory_searched": memory_searched}


def test_case(hostile, case):
    hostile.check(case, ACTS)
