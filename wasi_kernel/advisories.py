"""Known advisories of wasmtime, and what each means here.

From the release notes of wasmtime 36.0.18, 48.0.9, 49.0.2, 49.0.4, 49.0.5 and 50.0.1 to 50.0.3
(https://github.com/bytecodealliance/wasmtime/releases), from CVE-2026-119134, CVE-2026-119141 and
RUSTSEC-2026-0570, as they stood on CHECKED. What these say was published after 49.0.0 is here, also
what is about parts of wasmtime that nobody here uses. The notes of 49.0.1, 49.0.3 and 49.0.6 were
not to be had: that 49.0.3 has what 36.0.18 has, and 49.0.6 what 50.0.2 has, is taken from the CVE's
and RUSTSEC's entries for one of each. Pure: no I/O, imports nothing of wasmtime.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

CHECKED = "2026-11-22"
State = Literal["closed", "unreachable", "open"]

_COMPONENT = "about the component model, which is not used: a guest is one core module"
_HTTP = "about wasi-http, which no guest is given"
_NO_CODE = "a cell cannot bring WebAssembly code, so only what the runtime's own code does counts"


class Advisory(NamedTuple):
    """One advisory.

    Attributes:
        ident: Its GHSA number, or a CVE's where there is none.
        title: What it is about.
        fixed: The first version without it; of the line before 50 the one of 49.
        state: "closed" here; "unreachable" from a guest; or "open".
        why: How it is closed, why it cannot be reached, or what is left of it.
        shown_by: The test that would show it, as file::function; of all that are closed.
        machine: The only machine that it is about; "" for all.
    """

    ident: str
    title: str
    fixed: str
    state: State
    why: str
    shown_by: str = ""
    machine: str = ""


ADVISORIES = (
    Advisory(
        "GHSA-96f6-r43r-8c24", "fd_readdir copies uninitialized padding into guest memory",
        "49.0.2", "closed", "the padding is zeroed (worker/natives.py)",
        "worker/test_natives.py::"
        "test_padding_of_directory_entries_is_zeroed_wherever_the_buffer_ends",
    ),
    Advisory(
        "GHSA-m9f7-9w4p-gv38", "sandbox escape when renaming symlinks with trailing slashes",
        "49.0.3", "closed", "no name with a slash at its end is renamed (worker/natives.py)",
        "worker/test_natives.py::test_no_name_that_is_renamed_ends_in_a_slash",
    ),
    Advisory(
        "GHSA-gqmc-89g8-p25r", "excessive host memory when guests have no stdio",
        "49.0.2", "closed", "no read or write on fds 0 to 2 gets to native streams; they stay",
        "worker/test_switchboard.py::"
        "test_the_standard_descriptors_go_to_the_host_and_others_do_not",
    ),
    Advisory(
        "GHSA-5m8g-xhq4-4h93", "unbounded host memory by empty writes to AsyncWriteStream",
        "49.0.6", "closed", "the same: native streams are out of reach",
        "worker/test_switchboard.py::"
        "test_the_standard_descriptors_go_to_the_host_and_others_do_not",
    ),
    Advisory(
        "GHSA-cfhf-m2cr-62wj", "mis-typed tag imports can corrupt the GC heap",
        "49.0.2", "closed", "a module that imports anything but functions is refused",
        "worker/test_natives.py::test_a_module_that_imports_a_tag_is_refused",
    ),
    Advisory(
        "GHSA-hw8m-q44c-ggrf", "rooting of GC values across try_call may be missing",
        "49.0.2", "open", f"would corrupt wasmtime's heap of references; {_NO_CODE}",
    ),
    Advisory(
        "GHSA-43j2-gcp4-m22g", "a stale GC heap base lets a guest abort the host process",
        "49.0.6", "open", f"would end the worker process, after which the cell is lost; {_NO_CODE}",
    ),
    Advisory(
        "GHSA-mghf-wjfp-p5xm", "aarch64: a large br_table can jump to a wrong target",
        "49.0.4", "open", f"critical; {_NO_CODE}, but an interpreter may well have such a table",
        machine="aarch64",
    ),
    Advisory(
        "GHSA-j366-h8gg-77pm", "preview 0's poll_oneoff circumvents fuel",
        "49.0.2", "unreachable", "preview 0 is not linked, fuel is not used, poll_oneoff is ours",
    ),
    Advisory(
        "GHSA-mr2v-56j5-cmfc", "panic by a file's time before 1970, on WASI preview 3",
        "49.0.2", "unreachable", "guests have WASI preview 1",
    ),
    Advisory(
        "GHSA-32h6-97mm-8q3c", "stack overflow by a component's asynchronous callback",
        "49.0.2", "unreachable", _COMPONENT,
    ),
    Advisory("GHSA-w4qr-p94g-mjhv", "wasi:http panics with a zero timeout",
             "49.0.2", "unreachable", _HTTP),
    Advisory("GHSA-q554-3cjc-rx7p", "component handle tables are charged to no limit",
             "49.0.3", "unreachable", _COMPONENT),
    Advisory("CVE-2026-119141", "panic by calling the host from a component's realloc",
             "49.0.3", "unreachable", _COMPONENT),
    Advisory("GHSA-5qpp-g3j2-8frx", "absolute-form HTTP requests to other hosts",
             "49.0.3", "unreachable", _HTTP),
    Advisory("GHSA-r8xh-cgf7-392j", "conflicting content lengths in HTTP messages",
             "49.0.4", "unreachable", _HTTP),
    Advisory("GHSA-jxcf-8qw5-5c33", "forwarded HTTP trailers are not checked",
             "49.0.4", "unreachable", _HTTP),
    Advisory("GHSA-9prg-84vf-g5fc", "wrong content length of spliced HTTP bodies",
             "49.0.4", "unreachable", _HTTP),
    Advisory("GHSA-9pvw-hwfg-92h5", "panic lowering a component's stream of another type",
             "49.0.4", "unreachable", _COMPONENT),
    Advisory("GHSA-hmmr-87qq-258j", "UDP to addresses that are not permitted",
             "49.0.5", "unreachable", "guests have no sockets: preview 1 cannot open one"),
    Advisory("GHSA-qw58-7h65-crq2", "type confusion of struct types that the host makes",
             "49.0.5", "unreachable", "the host makes no struct types"),
    Advisory("GHSA-3982-jqvv-277m", "panic with typed functions of i31 or nullref",
             "49.0.5", "unreachable", "host functions have numbers only"),
    Advisory("GHSA-6fr9-xmw9-5352", "unchecked memory for borrowed component resources",
             "49.0.5", "unreachable", _COMPONENT),
    Advisory("GHSA-h4wp-g4x3-7398", "content length of HTTP messages, preview 2",
             "49.0.5", "unreachable", _HTTP),
    Advisory("GHSA-xrvr-8678-5wp8", "panic cancelling a component's stream at the wrong end",
             "49.0.6", "unreachable", _COMPONENT),
    Advisory("GHSA-hj27-mpw9-ff4c", "panic in Caller::get_module_export outside WebAssembly",
             "49.0.6", "unreachable", "not used, and native functions are called by modules only"),
    Advisory("GHSA-wvgq-g5hf-6gm6", "abort if a GC heap's reservation is no whole page",
             "49.0.6", "unreachable", "the reservation is wasmtime's own default"),
    Advisory("GHSA-rc4p-x33f-vpr2", "abort in builds without the gc feature",
             "49.0.6", "unreachable", "wasmtime-py's library has it"),
    Advisory("GHSA-2674-w29h-wqvj", "abort in builds without the threads feature",
             "49.0.6", "unreachable", "wasmtime-py's library has it"),
    Advisory("GHSA-f8mm-ggr3-89wh", "unbounded memory by empty HTTP/2 bodies",
             "49.0.6", "unreachable", _HTTP),
    Advisory("GHSA-f2pq-268w-886c", "Windows: escape by a component with a drive's letter",
             "50.0.3", "unreachable", "Windows is not supported: workers need POSIX"),
)  # fmt: skip
"""What was published after 49.0.0, those that matter first."""

LATER = {"49.0.6": "50.0.2", "49.0.5": "50.0.1"}
"""{the version of 49 that closed some: the one of 50 that did}; 50.0.0 has what came before."""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


def affects(advisory: Advisory, version: str, machine: str) -> bool:
    """Is it about this version of wasmtime, such as "49.0.0", on such a machine ("x86_64")?

    A version before 49 is taken to be affected, whatever it was patched with.
    """
    if advisory.machine not in {"", machine}:
        return False
    found = _numbers(version)
    later = LATER.get(advisory.fixed)
    if later is not None and found[:1] == _numbers(later)[:1]:
        return found < _numbers(later)
    return found < _numbers(advisory.fixed)


def known(version: str, machine: str) -> list[Advisory]:
    """The advisories that are about this version of wasmtime, on such a machine."""
    return [a for a in ADVISORIES if affects(a, version, machine)]
