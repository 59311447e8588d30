"""Shows what native code can do in a confined worker, and that real workers are so confined.

`natively.py` runs in a worker process that is the product's own up to the guest: the same entry,
boot frame, loading and confinement; then native Python tries, on the guest's thread, what a guest
that got through WebAssembly would try. `EXPECTED` says what each attempt comes to.
"""

from __future__ import annotations

import ast
import errno
import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from wasi_kernel import (
    Policy,
    Sandbox,
    confinement,
    frames,
    landlock,
    launch,
    runtimes,
    seccomp,
    spawn,
)
from wasi_kernel.caches import Cache
from wasi_kernel.errors import ConfinementError, InstallationError
from wasi_kernel.policy import Grant
from wasi_kernel.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator

E = errno
LACKING = "; ".join(confinement.lacking())
whole = pytest.mark.skipif(bool(LACKING), reason=LACKING)

DONE: None = None
NO_FILE, NO_CALL, NO_SUCH_CALL = E.EACCES, E.EPERM, E.ENOSYS

EXPECTED: dict[str, int | str | None] = {
    # what must go on
    "read_granted": DONE,
    "write_granted": DONE,
    "write_own_tmp": DONE,
    "write_own_log": DONE,
    "start_thread": DONE,
    "import_late": DONE,
    "map_memory": DONE,
    "signal_itself": DONE,
    "dump_own_stack": DONE,
    # files
    "read_passwd": NO_FILE,
    "list_home": NO_FILE,
    "list_root": NO_FILE,
    "read_canary": NO_FILE,
    "read_canary_from_below": NO_FILE,
    "read_canary_through_symlink": NO_FILE,
    "read_other_session": NO_FILE,
    "list_cache": NO_FILE,
    "list_modules": NO_FILE,
    "write_image": NO_FILE,
    "write_product": NO_FILE,
    "make_outside": NO_FILE,
    "make_in_read_only": NO_FILE,
    "write_in_read_only": NO_FILE,
    "empty_in_read_only": NO_FILE,
    "remove_in_read_only": NO_FILE,
    "move_out": NO_FILE,
    "link_in": E.EXDEV,
    "link_from_log": NO_FILE,
    "link_into_log": E.EXDEV,
    "make_shared_memory": NO_FILE,
    "truncate_canary": NO_CALL,
    "change_mode": NO_CALL,
    "change_mode_newly": NO_SUCH_CALL,
    "change_owner": NO_CALL,
    "set_attribute": NO_CALL,
    "make_fifo": NO_CALL,
    "make_device": NO_CALL,
    "read_by_handle": NO_CALL,
    "watch_files": NO_CALL,
    # programs and machine code
    "execute": NO_CALL,
    "fork": NO_CALL,
    "fork_and_execute": NO_CALL,
    "execute_from_memory": NO_CALL,
    "load_library": "OSError",
    "load_own_library": "OSError",
    "map_code": NO_CALL,
    "make_memory_code": NO_CALL,
    "write_own_code": NO_FILE,
    "make_memory_code_by_personality": NO_CALL,
    # ways out
    "open_tcp": NO_CALL,
    "open_udp": NO_CALL,
    "open_unix": NO_CALL,
    "open_netlink": NO_CALL,
    "open_pair": NO_CALL,
    "use_io_uring": NO_SUCH_CALL,
    "share_memory": NO_CALL,
    "type_into_terminal": E.ENOTTY,
    # other processes
    "trace_parent": NO_CALL,
    "be_traced": NO_CALL,
    "read_parents_memory": NO_CALL,
    "open_parents_memory": NO_FILE,
    "read_parents_environment": NO_FILE,
    "list_parents_files": NO_FILE,
    "read_through_parent": NO_FILE,
    "signal_parent": NO_CALL,
    "signal_group": NO_CALL,
    "signal_all": NO_CALL,
    "signal_by_descriptor": NO_CALL,
    "signal_by_owner": NO_CALL,
    "limit_parent": NO_CALL,
    "slow_parent": NO_CALL,
    # namespaces and the machine
    "unshare_user": NO_CALL,
    "unshare_network": NO_CALL,
    "clone_user": NO_CALL,
    "clone_newly": NO_SUCH_CALL,
    "enter_namespace": NO_CALL,
    "mount": NO_CALL,
    "change_root": NO_CALL,
    "become_somebody": NO_CALL,
    "raise_limit": NO_CALL,
    "call_by_x32": NO_SUCH_CALL,
    "call_the_future": NO_SUCH_CALL,
}
"""What each attempt comes to: an errno, None if it succeeds, or "OSError" without an errno."""

OPEN_WITHOUT = (
    "read_passwd", "list_home", "read_canary", "make_outside", "make_in_read_only", "open_pair",
    "change_mode", "fork_and_execute", "load_library", "map_code", "signal_parent",
    "read_parents_environment",
)  # fmt: skip
"""These succeed in a worker that is not confined: it is the walls that stop them."""


def paths(folder: Path) -> dict[str, str]:
    """The folders that the attempts are about."""
    for name in ("outside", "read_only", "writable", "other_session"):
        (folder / name).mkdir()
    (folder / "outside" / "canary").write_text("canary")
    (folder / "read_only" / "file").write_text("given")
    (folder / "writable" / "file").write_text("given")
    (folder / "other_session" / "000001.pages").write_text("somebody's")
    library = next(Path(json.__file__).parent.parent.glob("lib-dynload/_*.so"))
    shutil.copyfile(library, folder / "read_only" / "library.so")
    return {name: str(folder / name) for name in os.listdir(folder)}


def tried(folder: Path, confine: str) -> dict[str, Any]:
    """What `natively.py` says of a worker with this policy."""
    given = paths(folder)
    grants = (
        Grant(given["read_only"], "/ro"),
        Grant(given["writable"], "/rw", writable=True),
    )
    settings = launch.settings(Policy(confine=confine, grants=grants), None)
    here = str(Path(__file__).parent)
    code = f"import sys; sys.path.insert(0, {here!r}); import natively; natively.main"
    requests, theirs = spawn.socket.socketpair()
    control, their_control = spawn.socket.socketpair()
    with requests, control, theirs, their_control:
        for sock in (theirs, their_control):
            sock.set_inheritable(True)
        pid = spawn._python(f"{code}({theirs.fileno()}, {their_control.fileno()})")
        theirs.close()
        their_control.close()
        boot = settings.boot("serve")
        given |= {
            "cache": str(settings.cache),
            "scratch": str(settings.scratch.path),
            "session": str(settings.checkpoints.path) if settings.checkpoints else "",
            "home": str(Path.home()),
            "image": str(next((settings.cache / "images").glob("*.image"))),
        }
        boot.content["given"] = {**given, "only": OPEN_WITHOUT}
        requests.sendall(frames.encode(boot))
        decoder, said = frames.Decoder(), []
        while data := requests.recv(1 << 20):
            said += decoder.feed(data)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    settings.release()
    assert [f.type for f in said] == ["stream"], said
    return dict(json.loads(said[0].content["text"]))


@pytest.fixture(scope="module")
def prepared() -> None:
    """Everything is prepared, for a policy with the grants of `tried`."""
    grants = (Grant("/usr", "/ro"), Grant("/usr", "/rw"))
    with Sandbox(Policy(grants=grants)):
        pass


@pytest.fixture(scope="module")
def found(prepared: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What was tried behind all walls."""
    return tried(tmp_path_factory.mktemp("walled"), "require")


@whole
def test_every_attempt_is_in_the_table(found: dict[str, Any]):
    assert found["outcomes"].keys() == EXPECTED.keys()


@whole
@pytest.mark.parametrize("name", EXPECTED)
def test_an_attempt_comes_to_what_the_table_says(found: dict[str, Any], name: str):
    assert found["outcomes"][name] == EXPECTED[name]


@whole
def test_every_denied_call_is_denied(found: dict[str, Any]):
    expected = dict.fromkeys(found["numbers"], E.EPERM)
    expected |= {name: E.ENOSYS for name in seccomp.ABSENT if name in expected}
    assert found["numbers"] == expected


def test_without_confinement_there_is_nothing_to_stop_them(prepared: None, tmp_path: Path):
    said = tried(tmp_path, "off")
    assert {name: said["outcomes"][name] for name in OPEN_WITHOUT} == dict.fromkeys(OPEN_WITHOUT)
    assert said["confined"]["wanted"] == "off"
    assert not said["confined"]["landlock"]


# -- real workers ----------------------------------------------------------------------------

FDS = re.compile(r"socket:|pipe:|anon_inode:\[event(fd|poll)\]|/dev/null|/proc/\d+/(pagemap|fd)$")
"""What a worker has open beside files of its session, its cache and its standard error."""


def status(pid: int) -> list[dict[str, str]]:
    """What Linux says of each thread of a process."""
    texts = [p.read_text() for p in Path(f"/proc/{pid}/task").glob("*/status")]
    return [dict(line.split(":\t", 1) for line in text.splitlines()) for text in texts]


def links(pid: int) -> list[str]:
    """What the descriptors of a process are, the standard ones left out."""
    folder = Path(f"/proc/{pid}/fd")
    return [str(p.readlink()) for p in folder.iterdir() if int(p.name) > 2]


def worker_of(box: Sandbox) -> int:
    return box._session.worker_pid


def check(pid: int, own: tuple[str, ...]) -> None:
    """A worker has given up what it should, in each of its threads."""
    threads = status(pid)
    assert len(threads) > 1
    for thread in threads:
        assert thread["NoNewPrivs"] == "1"
        assert thread["Seccomp"] == "2"
        assert int(thread["CapEff"], 16) & ~0b1110 == 0
        assert int(thread["CapPrm"], 16) & ~0b1110 == 0
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert re.search(r"Max core file size +0 +0 ", limits)
    assert re.search(r"Max open files +(\d+) +\1 ", limits)
    environ = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    assert {line.partition("=")[0] for line in environ if line} <= set(spawn.KEPT)
    runtime = str(runtimes.find(None, Cache()).wasm)  # which %wasi memory reads
    for link in links(pid):
        assert FDS.match(link) or link == runtime or link.startswith(own), link


@pytest.fixture
def leaked(tmp_path: Path) -> Iterator[Path]:
    """A file that this process has open, and that whatever it starts inherits."""
    path = tmp_path / "leaked"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.set_inheritable(fd, True)
    yield path
    os.close(fd)


@whole
def test_a_real_worker_is_so_confined(leaked: Path):
    with Sandbox() as box:
        own = (str(box._settings.cache), str(box._settings.scratch.path))
        assert box.run("x = 1; x").text == "1"
        check(worker_of(box), own)
        with box.fork() as fork:  # born of a nursery, and over the same files
            assert fork.run("x").text == "1"
            check(worker_of(fork), (own[0], str(fork._settings.scratch.path)))
        assert not box.run("import os; os._exit(1)").ok
        assert box.run("x").text == "1"  # in a new worker
        check(worker_of(box), own)


def test_descriptors_of_others_are_closed(leaked: Path):
    """The kernel process has what its server left open for it; a worker has nothing of that."""
    with Sandbox(Policy(confine="off")) as box:
        assert box.run("1").ok
        assert str(leaked) not in links(worker_of(box))
        with box.fork() as fork:
            assert fork.run("1").ok
            assert str(leaked) not in links(worker_of(fork))


@whole
def test_preparing_is_confined_as_well(tmp_path: Path):
    """Preloading runs the packages' code; compiling, which cannot be confined, runs none."""
    (tmp_path / "ro").mkdir()
    seen: list[tuple[str, list[dict[str, str]]]] = []

    def report(what: str) -> None:
        seen.append((what, status(worker_of(boxes[0])) if boxes else []))

    boxes: list[Any] = []
    made = Session.__init__

    def noted(self: Session, *args: Any) -> None:
        made(self, *args)
        boxes.append(type("Box", (), {"_session": self}))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "__init__", noted)
        guest_path = f"/seen-{os.getpid()}"  # a new base image
        policy = Policy(grants=(Grant(str(tmp_path / "ro"), guest_path),), preload=("json",))
        with Sandbox(policy, on_status=report) as box:
            assert box.run("1").ok
    booted = [threads for what, threads in seen if what.startswith("starting Python once")]
    assert booted
    assert {thread["Seccomp"] for threads in booted for thread in threads} == {"2"}


# -- machines that lack something ------------------------------------------------------------

TOLD = "import json; json.dumps(get_ipython().run_line_magic('wasi', '').to_dict())"


def told(policy: Policy) -> tuple[dict[str, Any], str]:
    """(what `%wasi` knows of the confinement, what it shows)."""
    with Sandbox(policy) as box:
        data = json.loads(ast.literal_eval(str(box.run(TOLD).text)))["confinement"]
        shown = str(box.run("%wasi").text)
        line = next(line for line in shown.splitlines() if line.startswith("confinement"))
    return data, line.removeprefix("confinement").strip()


@whole
def test_the_sandbox_says_how_it_is_confined():
    data, line = told(Policy())
    assert data == {
        "wanted": "auto", "landlock": landlock.abi(), "seccomp": True, "missing": []
    }  # fmt: skip
    assert line == f"Landlock {landlock.abi()} and seccomp"


def test_what_is_switched_off_is_said():
    data, line = told(Policy(confine="off"))
    assert (data["wanted"], data["landlock"], data["seccomp"]) == ("off", 0, False)
    assert line.startswith("off: the worker process can do what its user can")


LACKS = {
    "Landlock": ((landlock.CREATE,), "no Landlock", {"landlock": 0, "seccomp": True}),
    "seccomp": (seccomp.SECCOMP, "no seccomp", {"landlock": landlock.abi(), "seccomp": False}),
}


@whole
@pytest.mark.parametrize("what", LACKS)
def test_what_a_machine_lacks_is_said_and_done_without(lacking: Any, what: str):
    numbers, said, expected = LACKS[what]

    def run() -> None:
        data, line = told(Policy())
        assert {key: data[key] for key in expected} == expected
        assert [said in one for one in data["missing"]] == [True]
        assert data["missing"][0] in line

    lacking(numbers, run)


@whole
@pytest.mark.parametrize("what", LACKS)
def test_a_policy_that_requires_it_refuses_to_start_without(lacking: Any, what: str):
    numbers, said, _ = LACKS[what]

    def run() -> None:
        with pytest.raises(ConfinementError, match=f"cannot be confined: .*{said}.*doctor") as e:
            Sandbox(Policy(confine="require")).close()
        assert len(e.value.missing) == 1

    lacking(numbers, run)


@whole
def test_what_is_there_and_fails_stops_the_start(lacking: Any):
    """Half a confinement that nobody knows of would be worse than none."""

    def run() -> None:
        with pytest.raises(InstallationError, match="Landlock is there, but failed"):
            Sandbox(Policy(confine="auto")).close()

    lacking((landlock.RESTRICT,), run)
