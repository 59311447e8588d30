"""The driver of the hostile corpus: what each case must leave as it was.

A case is a table of `cases/<group>.toml`. Its cells run in a real kernel, reached by Jupyter's
messages only, which all cases with the same policy share: no cell may take it down. Keys of a case
(a file's own `policy` is that of all its cases, and its `defaults` are keys that they all have):

    name, why       what it is, and what would be wrong if it failed
    code            the cell; or `cells`, several: all but the last must succeed
    policy          a table as in a policy file, laid over the file's; {world} in its grants is the
                    folder of `World`
    ename           the last cell's `ename`, one for all runs; left out: no error
    shows, hides    texts that must, must not appear in what the last cell publishes or replies
    restored        true: variables went back, and the user is told; false: nothing was restored;
                    left out: either, but a restore is announced
    undo            the cell leaves its interpreter damaged, or full: `%undo` must heal it
    input           answers to what the cell asks (allow_stdin)
    interrupt       {after = text printed, times = 1, every_s = 0.01, until_reply = false}
    act             the name of a function of the test module that does the attack itself
    disk_mib        what the case may leave on the disk, if that is more than DISK_MIB: its
                    checkpoints, and its files in the session's own folders

`Hostile.check` runs a case and asserts everything that the corpus promises, whatever the case:
see `Stage.settle`. Budgets are the constants below.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import subprocess
import sys
import threading
import time
import tomllib
from collections import defaultdict
from dataclasses import dataclass, field, fields
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import zmq
from jupyter_client.jsonutil import json_default
from jupyter_client.manager import KernelManager

import wasi_kernel
from wasi_kernel import caches, folders, launch
from wasi_kernel.errors import LOSSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Message = dict[str, Any]
    Act = Callable[["Stage", "Case"], "Answer"]

CASES = Path(__file__).parent / "cases"
MIB = 1 << 20

TIMEOUT_S = 60.0
"""A case that takes longer than this for one cell fails."""
PREPARING_S = 110.0
HEARTBEAT_S = 1.0
"""The longest that a heartbeat may wait for its answer, at any time."""
CONTROL_S = 5.0
"""The longest that a message on the control channel may wait: the interrupt button works."""

KERNEL_BYTES = 192 * MIB
"""Resident memory of the kernel process after any case; 75 MiB at its start."""
WORKER_BYTES = 192 * MIB
"""Resident memory of the worker after any case, beside the policy's `limits.memory_bytes`."""
DESCRIPTORS, THREADS = 12, 5
"""More open descriptors and threads than after the kernel's start, at most: pyzmq opens 7 and
starts 3 with the first message of more than 64 KiB, and keeps them."""
DISK_MIB = 96
"""What a case may leave on the disk: checkpoints in <cache>/sessions, /tmp and home in
<cache>/scratch, files in the host's TMPDIR, the history in its home. A checkpoint holds each page
that its cell has written, freed or not: 4 to 5 MiB for the smallest cell, and a case is five or six
of them; and the log may be rewritten meanwhile (50 MiB were usual at most, 84 were seen). A case
that writes more says how much (`disk_mib`)."""
LOG_SLACK_BYTES = 16 * MIB
"""All checkpoints of a session together, beside the policy's `checkpoints.bytes`: the newest is
written before the oldest go."""
LOG_BYTES = 16 << 10
"""What the kernel process may write to its own standard error in one case."""

CHECKPOINTS = {"bytes": 384 * MIB}
ANNOUNCED = re.compile(r"[Vv]ariables are as they were|All variables are lost|leaves no trace")


@dataclass(frozen=True)
class Case:
    """One case; the attributes are the keys above."""

    group: str
    name: str
    why: str
    cells: tuple[str, ...] = ()
    policy: dict[str, Any] = field(default_factory=dict)
    ename: str = "ok"
    shows: tuple[str, ...] = ()
    hides: tuple[str, ...] = ()
    restored: bool | None = None
    undo: bool = False
    input: tuple[str, ...] = ()
    interrupt: dict[str, Any] | None = None
    act: str = ""
    disk_mib: int = DISK_MIB

    @classmethod
    def of(cls, group: str, table: dict[str, Any], policy: dict[str, Any]) -> Case:
        """The case that a table says; a key that is not known is an error."""
        said = dict(table)
        if "code" in said:
            said["cells"] = said.pop("code")
        unknown = set(said) - {f.name for f in fields(cls)}
        if unknown or not said.get("why") or not (said.get("cells") or said.get("act")):
            raise ValueError(f"{group}: {said.get('name')}: {unknown or 'no why, no code'}")
        for key in ("cells", "shows", "hides", "input"):
            if key in said:
                said[key] = (said[key],) if isinstance(said[key], str) else tuple(said[key])
        said["policy"] = merged(policy, said.get("policy", {}))
        return cls(group, **said)


def merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Two policies, the second laid over the first, table by table."""
    found = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = merged(found[key], value) if both else value
    return found


def cases(group: str) -> list[Case]:
    """The cases of a group, those with the same policy side by side."""
    data = tomllib.loads((CASES / f"{group}.toml").read_text(encoding="utf-8"))
    usual = data.get("defaults", {})
    found = [Case.of(group, usual | table, data.get("policy", {})) for table in data["case"]]
    names = [case.name for case in found]
    if len(set(names)) != len(names):
        raise ValueError(f"{group}: two cases have one name")
    order = [_key(case.policy) for case in found]
    return sorted(found, key=lambda case: order.index(_key(case.policy)))


def _key(policy: dict[str, Any]) -> str:
    return json.dumps(policy, sort_keys=True)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `case` runs once for each case of its module's GROUPS."""
    if "case" in metafunc.fixturenames:
        found = [case for group in metafunc.module.GROUPS for case in cases(group)]
        metafunc.parametrize("case", found, ids=[f"{c.group}-{c.name}" for c in found])


# -- what was said -------------------------------------------------------------------------------


@dataclass
class Answer:
    """What one execute_request brought: its reply and all that was published for it."""

    msg_id: str
    reply: dict[str, Any]
    published: list[Message]

    @property
    def ename(self) -> str:
        """The reply's; "ok" or another status where it has none."""
        return str(self.reply.get("ename", self.reply["status"]))

    @property
    def kinds(self) -> list[str]:
        """Message types in order; for status, the state."""
        return [
            m["content"]["execution_state"] if m["msg_type"] == "status" else m["msg_type"]
            for m in self.published
        ]

    @property
    def text(self) -> str:
        """Everything in it that a reader may see, as text."""
        said = [as_text(m["content"]) for m in self.published if m["msg_type"] != "execute_input"]
        return "\n".join([*said, as_text(self.reply)])

    @property
    def result(self) -> str | None:
        """The execute_result's plain text."""
        found = [m for m in self.published if m["msg_type"] == "execute_result"]
        return found[0]["content"]["data"]["text/plain"] if found else None


def as_text(content: Any) -> str:
    """All strings in `content`, keys too, one in a line."""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        return "\n".join(as_text(part) for pair in content.items() for part in pair)
    if isinstance(content, (list, tuple)):
        return "\n".join(map(as_text, content))
    return repr(content)


class Recorder(threading.Thread):
    """Reads IOPub all the time, so that nothing is dropped, and sorts it by request.

    Attributes:
        late: Messages that came for a request after its idle status.
        said: Everything since `take_all`.
    """

    def __init__(self, manager: KernelManager, client: Any) -> None:
        super().__init__(daemon=True)
        self._session, self._asking = manager.session.clone(), client.session.session
        self._socket = manager.context.socket(zmq.SUB)
        self._socket.linger = 0
        self._socket.rcvhwm = 0  # or what comes while this thread has no turn would be dropped
        self._socket.connect(f"{manager.transport}://{manager.ip}:{manager.iopub_port}")
        self._socket.subscribe(b"")
        self._ending = threading.Event()
        self._changed = threading.Condition()
        self._by_request: dict[str, list[Message]] = defaultdict(list)
        self._idle: set[str] = set()
        self.late: list[Message] = []
        self._said: list[Message] = []

    def run(self) -> None:
        """Reads until `end`."""
        while not self._ending.is_set():
            if not self._socket.poll(100):
                continue
            _, message = self._session.recv(self._socket)
            with self._changed:
                self._sort(message)
                self._changed.notify_all()

    def _sort(self, message: Message) -> None:
        parent = message["parent_header"].get("msg_id", "")
        self._said.append(message)
        if message["parent_header"].get("session") != self._asking:
            return  # for another client
        if parent in self._idle:
            self.late.append(message)
        self._by_request[parent].append(message)
        if message["content"].get("execution_state") == "idle":
            self._idle.add(parent)

    def connected(self) -> bool:
        """Has anything come in a while? What is published before that is lost to it."""
        with self._changed:
            return self._changed.wait_for(lambda: self._said, 0.5)

    def end(self) -> None:
        """Ends the thread."""
        self._ending.set()
        self.join()
        self._socket.close()

    def wait_for(self, msg_id: str, wanted: Callable[[list[Message]], bool]) -> list[Message]:
        """What was published for a request, as soon as it is `wanted`."""
        with self._changed:
            found = self._by_request[msg_id]
            assert self._changed.wait_for(lambda: wanted(found), TIMEOUT_S), (
                f"after {TIMEOUT_S:g} s there are {len(found)} messages, the last: {found[-1:]}"
            )
            return list(found)

    def until_idle(self, msg_id: str) -> list[Message]:
        """All that was published for a request."""
        return self.wait_for(msg_id, lambda _: msg_id in self._idle)

    def until_text(self, msg_id: str, text: str) -> None:
        """Waits until a request has printed `text`."""

        def there(found: list[Message]) -> bool:
            texts = (m["content"]["text"] for m in found if m["msg_type"] == "stream")
            return text in "".join(texts)

        self.wait_for(msg_id, there)

    def take_all(self) -> list[Message]:
        """Everything that was said since the last call; the past is forgotten."""
        with self._changed:
            said, self._said = self._said, []
            self._by_request.clear()
            return said


class Pulse(threading.Thread):
    """Asks something again and again; `worst_s` is the longest that an answer took."""

    def __init__(
        self, ask: Callable[[float], bool], every_s: float, close: Callable[[], None]
    ) -> None:
        super().__init__(daemon=True)
        self._ask, self._every_s, self._close = ask, every_s, close
        self._ending = threading.Event()
        self.worst_s = 0.0

    def run(self) -> None:
        """Asks until `end`."""
        while not self._ending.wait(self._every_s):
            begin = time.monotonic()
            while not self._ask(0.5) and not self._ending.is_set():
                self.worst_s = max(self.worst_s, time.monotonic() - begin)
            self.worst_s = max(self.worst_s, time.monotonic() - begin)

    def end(self) -> None:
        """Ends the thread."""
        self._ending.set()
        self.join()
        self._close()


def heartbeat(manager: KernelManager) -> Pulse:
    """The heartbeat, as Jupyter asks for it."""
    sock = zmq.Context.instance().socket(zmq.DEALER)
    sock.linger = 0
    sock.connect(f"{manager.transport}://{manager.ip}:{manager.hb_port}")
    waits = [False]

    def ask(timeout_s: float) -> bool:
        if not waits[0]:
            sock.send_multipart([b"", b"ping"])
            waits[0] = True
        if not sock.poll(1000 * timeout_s):
            return False
        sock.recv_multipart()
        waits[0] = False
        return True

    return Pulse(ask, 0.05, sock.close)


def control(manager: KernelManager) -> Pulse:
    """kernel_info on the control channel: its event loop is the one that hears interrupts."""
    session, sock = manager.session.clone(), manager.connect_control()
    session.session = secrets.token_hex(16)  # or the numbers of its messages would be the client's
    waits = [False]

    def ask(timeout_s: float) -> bool:
        if not waits[0]:
            session.send(sock, "kernel_info_request", {})
            waits[0] = True
        if not sock.poll(1000 * timeout_s):
            return False
        session.recv(sock)
        waits[0] = False
        return True

    return Pulse(ask, 0.25, sock.close)


# -- the world around a kernel -------------------------------------------------------------------


def digests(folder: Path) -> dict[str, tuple[int, int, int, str]]:
    """{path: (mode, links, time of change in ns, SHA-256)} of all that lies in a folder."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        about = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        digest = hashlib.sha256(content).hexdigest()
        found[str(path.relative_to(folder))] = (
            about.st_mode, about.st_nlink, about.st_mtime_ns, digest,
        )  # fmt: skip
    return found


def disk_bytes(folders: set[Path]) -> dict[Path, int]:
    """What each folder takes on the disk; it may be deeper than os.walk can go."""
    done = subprocess.run(["du", "-sk", *folders], capture_output=True, text=True, check=False)
    rows = (line.split("\t", 1) for line in done.stdout.splitlines())
    return {Path(name): 1024 * int(kib) for kib, name in rows}


class World:
    """The host around the kernels of a run: what they are granted, and what they are not.

    Attributes:
        folder: All of it lies here.
        work: The notebook's folder, /work in the guest, read-only; holds kept.txt.
        data: Granted read-only as /data; holds kept.txt.
        out: Granted read and write as /out, emptied after each case.
        outside: Not granted.
        home: The host's home, not granted.
        secret: A word that stands in files and variables of the host that no guest may see.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secret = f"canary-{secrets.token_hex(12)}"
        for name in ("work", "data", "out", "outside", "home", "scratch"):
            (folder / name).mkdir()
            setattr(self, name, folder / name)
        self.work, self.data, self.out = folder / "work", folder / "data", folder / "out"
        self.outside, self.home = folder / "outside", folder / "home"
        self.scratch = folder / "scratch"
        self.kept = secrets.token_hex(16)
        for granted in (self.work, self.data):
            (granted / "kept.txt").write_text(self.kept)
        (self.outside / "secret.txt").write_text(self.secret)
        (self.outside / "sub").mkdir()
        (self.outside / "sub" / "secret.txt").write_text(self.secret)
        (self.home / ".ssh").mkdir(mode=0o700)
        (self.home / ".ssh" / "id_ed25519").write_text(self.secret)
        self.sleeper = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"],
                                        stdin=subprocess.PIPE)  # fmt: skip
        self._intact = self._look()

    def _look(self) -> dict[str, Any]:
        return {f.name: digests(f) for f in (self.work, self.data, self.outside, self.home)}

    def check(self) -> None:
        """Nothing that no case may change has changed; `out` is emptied."""
        assert self._look() == self._intact
        assert self.sleeper.poll() is None, "a process outside has ended"
        self.empty()

    def empty(self) -> None:
        """Empties `out`; the folder itself is granted, and stays."""
        if found := os.listdir(os.fsencode(self.out)):
            subprocess.run(["chmod", "-R", "u+rwX", self.out], check=False)
            subprocess.run(["rm", "-rf", "--", *found], cwd=self.out, check=True)

    def look_again(self) -> None:
        """What is there now is what must stay."""
        self._intact = self._look()

    def close(self) -> None:
        """Ends the canary process."""
        self.sleeper.communicate()

    @property
    def needles(self) -> list[str]:
        """What stands in no message: paths and names of the host, and the secret."""
        package = str(Path(wasi_kernel.__file__).parent)
        return [
            self.secret, str(self.folder), str(caches.default_path()), sys.prefix, package,
            "site-packages", "dist-packages", "wasi_kernel/", "wasmtime/", "ipykernel/",
            str(Path.home()) + "/", str(Path(sys.executable).parent),
        ]  # fmt: skip


class Stage:
    """One kernel in the world, started with a policy, and everything that watches it.

    Attributes:
        world: What is around it.
        policy: As in a policy file.
        manager: Jupyter's handle on the kernel.
        client: Its shell and stdin channels; IOPub is the recorder's.
        recorder: What was published.
        measured: After each case, what is held to the budgets.
    """

    def __init__(self, world: World, policy: dict[str, Any], *, ready: bool = True) -> None:
        self.world = world
        self.policy = merged({"checkpoints": CHECKPOINTS}, policy)
        self.measured: list[dict[str, Any]] = []
        self._others = set(self._sessions())
        path = world.folder / f"policy-{secrets.token_hex(4)}.toml"
        path.write_text(self._policy_text())
        self._log = path.with_suffix(".log")
        env = os.environ | {
            "HOME": str(world.home), "TMPDIR": str(world.scratch), "CANARY": world.secret,
        }  # fmt: skip
        self.manager = KernelManager(kernel_name="python-wasi")
        with self._log.open("wb") as log:
            self.manager.start_kernel(
                env=env, cwd=str(world.work), extra_arguments=["--policy", str(path)],
                stdout=log, stderr=log,
            )  # fmt: skip
        self._watch: list[Pulse] = []
        self._replies: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.client = self.manager.client()
        self.client.session.pack = escaped
        self.client.start_channels()
        self.client.wait_for_ready(timeout=TIMEOUT_S)
        self.recorder = Recorder(self.manager, self.client)
        self.recorder.start()
        self._await_recorder()
        if ready:
            assert self._first().ename == "ok"
        self.process = psutil.Process(self.manager.provisioner.pid)
        self._first_facts: dict[str, Any] | None = None  # of the first case
        self._watch = [heartbeat(self.manager), control(self.manager)]
        for pulse in self._watch:
            pulse.start()
        self._log_bytes = self._log.stat().st_size

    def _await_recorder(self) -> None:
        """Asks until the answers are heard: a subscription takes a moment."""
        end = time.monotonic() + TIMEOUT_S
        asked = [self.client.kernel_info()]
        while not self.recorder.connected():
            assert time.monotonic() < end, "nothing is published"
            asked.append(self.client.kernel_info())
        for msg_id in asked:
            self._reply(msg_id)

    def _policy_text(self) -> str:
        lines = []
        grants = [f"{self.world.data}:/data", f"{self.world.out}:/out:rw"]
        more = [g.replace("{world}", str(self.world.folder)) for g in self.policy.get("grants", [])]
        given = {**self.policy, "grants": [*grants, *more]}
        for key, value in sorted(given.items(), key=lambda item: isinstance(item[1], dict)):
            if isinstance(value, dict):
                lines.append(f"[{key}]")
                lines += [f"{name} = {json.dumps(said)}" for name, said in value.items()]
            else:
                lines.append(f"{key} = {json.dumps(value)}")
        return "\n".join(lines) + "\n"

    def _first(self) -> Answer:
        """The first cell, which may have to wait until the runtime is compiled."""
        sent = self.execute("None")
        self._reply(sent, PREPARING_S)
        return self.answer(sent)

    # -- requests ----------------------------------------------------------------------------

    def execute(self, code: str, **options: Any) -> str:
        """Sends an execute_request; its msg_id."""
        content = {
            "code": code, "silent": False, "store_history": True, "user_expressions": {},
            "allow_stdin": False, "stop_on_error": True,
        }  # fmt: skip
        message = self.client.session.msg("execute_request", content | options)
        self.client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def _reply(self, msg_id: str, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        end = time.monotonic() + timeout_s
        while not self._replies[msg_id]:
            try:
                message = self.client.get_shell_msg(timeout=max(0.0, end - time.monotonic()))
            except Empty:
                raise AssertionError(f"no reply in {timeout_s:g} s") from None
            self._replies[message["parent_header"].get("msg_id", "")].append(message["content"])
        return self._replies[msg_id][0]

    def replied(self, msg_id: str, timeout_s: float) -> bool:
        """Is the reply there, within that time?"""
        try:
            self._reply(msg_id, timeout_s)
        except AssertionError:
            return False
        return True

    def ask(self, kind: str, content: dict[str, Any], buffers: Sequence[bytes] = ()) -> str:
        """Sends any shell message; its msg_id."""
        message = self.client.session.msg(kind, content)
        self.client.session.send(self.client.shell_channel.socket, message, buffers=list(buffers))
        return str(message["header"]["msg_id"])

    def answer(self, msg_id: str) -> Answer:
        """Waits for a request's reply and its idle status."""
        reply = self._reply(msg_id)
        return Answer(msg_id, reply, self.recorder.until_idle(msg_id))

    def run(self, code: str, **options: Any) -> Answer:
        """Executes a cell and waits for its end."""
        return self.answer(self.execute(code, **options))

    def interrupt(self, *, heard: bool = True) -> None:
        """What a front end's stop button does.

        Not `heard`: does not wait for the answer, and it may yet hit the next cell.
        """
        message = self.client.session.msg("interrupt_request", {})
        self.client.control_channel.send(message)
        asked = message["header"]["msg_id"]
        while heard:
            said = self.client.get_control_msg(timeout=TIMEOUT_S)
            heard = said["parent_header"].get("msg_id") != asked

    def workers(self) -> list[psutil.Process]:
        """The processes that the kernel process has started."""
        return self.process.children(recursive=True)

    def attack(self, case: Case) -> Answer:
        """Runs a case's cells; the answer to the last."""
        for cell in case.cells[:-1]:
            assert self.run(cell).ename == "ok", cell
        sent = self.execute(case.cells[-1], allow_stdin=bool(case.input))
        for line in case.input:
            self.client.get_stdin_msg(timeout=TIMEOUT_S)
            self.client.input(line)
        if case.interrupt is not None:
            self._interrupt(sent, case.interrupt)
        return self.answer(sent)

    def _interrupt(self, sent: str, how: dict[str, Any]) -> None:
        self.recorder.until_text(sent, how.get("after", "begun"))
        times = how.get("times", 1)
        for i in range(times):  # the last is heard: one on its way would be for the next cell
            self.interrupt(heard=i == times - 1)
            time.sleep(how.get("every_s", 0.01))
        if how.get("until_reply"):
            for _ in range(20):
                if self.replied(sent, 1.2):
                    return
                self.interrupt()

    # -- what must be so afterwards ----------------------------------------------------------

    def _facts(self) -> dict[str, Any]:
        return {
            "pid": self.manager.provisioner.pid,
            "descriptors": self.process.num_fds(),
            "threads": self.process.num_threads(),
            "environment": self.process.environ(),
            "folder": self.process.cwd(),
        }

    def begin(self, case: Case) -> str:
        """Goes to the state that all cases begin with, and sets the sentinel; its value."""
        value = f"{case.name} {secrets.token_hex(8)}"
        magic = "%checkpoint begin" if self._first_facts is None else "%restore begin"
        assert self.run(magic).ename == "ok"
        assert self.run(f"sentinel = {value!r}").ename == "ok"
        assert self.run("None").ename == "ok"  # begins when the checkpoint before it is written
        self.recorder.take_all()
        self._replies.clear()
        self._worker = self.workers()
        if self._first_facts is None:
            self._first_facts = self._facts()
        self._disk_bytes = sum(self._on_disk())
        for pulse in self._watch:
            pulse.worst_s = 0.0
        self._begun_s = time.monotonic()
        return value

    def settle(self, case: Case, value: str, answer: Answer) -> None:
        """Asserts all that must be so after any case; see the module's docstring."""
        took_s = time.monotonic() - self._begun_s
        self._check_answer(case, answer)
        if case.undo:
            undone = self.run("%undo")
            assert undone.ename == "ok", undone.text[-3000:]
        look = self.run("' '.join((sentinel, *map(open('/data/kept.txt').readline, [99])))")
        assert look.result == repr(f"{value} {self.world.kept}"), look.text[-3000:]
        self._check_restore(case, answer, look)
        self.run("None")  # begins when the checkpoint before it is written
        assert self.recorder.late == [], "there are messages after idle"
        assert len(self._replies[answer.msg_id]) == 1, "there are two replies"
        self._check_leaks()
        self.world.check()
        self._check_budget(case, answer, took_s)

    def _check_answer(self, case: Case, answer: Answer) -> None:
        assert answer.ename == case.ename, answer.text[-3000:]
        kinds = answer.kinds
        assert (kinds[0], kinds[-1]) == ("busy", "idle")
        assert kinds.count("busy") == kinds.count("idle") == 1
        failed = answer.reply["status"] == "error"
        # a cell can publish errors of its own; the last is the reply's
        errors = [m["content"] for m in answer.published if m["msg_type"] == "error"]
        if failed:
            said = {k: answer.reply[k] for k in ("ename", "evalue", "traceback")}
            assert errors, "an error that is not shown"
            assert errors[-1] == said
        for text in case.shows:
            assert text in answer.text, answer.text[-3000:]
        for text in case.hides:
            assert text not in answer.text

    def _check_restore(self, case: Case, answer: Answer, look: Answer) -> None:
        announced = bool(ANNOUNCED.search(answer.text) or ANNOUNCED.search(look.text))
        moved = self.workers() != self._worker
        if answer.ename in LOSSES and "stopped from outside" in answer.text:
            assert announced
        assert announced or not moved, "another worker, and not a word about it"
        if case.restored is not None:
            assert announced == case.restored, answer.text[-3000:]

    def _check_leaks(self) -> None:
        needles = self.world.needles
        for message in self.recorder.take_all():
            parts = [json.dumps([message["content"], message["metadata"]], ensure_ascii=False)]
            parts += [bytes(b).decode("utf-8", "replace") for b in message.get("buffers") or ()]
            for part in parts:
                found = [n for n in needles if n in part]
                assert not found, f"{found} in {message['msg_type']}: {part[:2000]}"
        for replies in self._replies.values():
            part = json.dumps(replies, ensure_ascii=False)
            found = [n for n in needles if n in part]
            assert not found, f"{found} in a reply: {part[:2000]}"
        self._replies.clear()
        with self._log.open(encoding="utf-8", errors="replace") as log:
            log.seek(self._log_bytes)
            text = log.read()
        assert "Traceback" not in text, text[-4000:]
        assert len(text) <= LOG_BYTES, f"{len(text)} characters in the log: {text[:2000]}"
        self._log_bytes = self._log.stat().st_size

    def _check_budget(self, case: Case, answer: Answer, took_s: float) -> None:
        facts, first = self._facts(), self._first_facts or {}
        assert self.manager.is_alive()
        assert (facts["pid"], facts["environment"], facts["folder"]) == (
            first["pid"], first["environment"], first["folder"],
        )  # fmt: skip
        workers = self.workers()
        assert len(workers) == 1, workers
        limits = launch_limits(self.policy)
        log_bytes, files_bytes = self._on_disk()
        seen = {
            "case": f"{case.group}-{case.name}",
            "ename": answer.ename,
            "restored": bool(ANNOUNCED.search(answer.text)),
            "s": round(took_s, 2),
            "heartbeat_s": round(self._watch[0].worst_s, 3),
            "control_s": round(self._watch[1].worst_s, 3),
            "kernel": self.process.memory_info().rss,
            "worker": workers[0].memory_info().rss,
            "descriptors": facts["descriptors"] - first["descriptors"],
            "threads": facts["threads"] - first["threads"],
            "worker_descriptors": workers[0].num_fds(),
            "log": log_bytes,
            "disk": log_bytes + files_bytes - self._disk_bytes,
        }
        self.measured.append(seen)
        within = {
            "heartbeat_s": HEARTBEAT_S, "control_s": CONTROL_S, "kernel": KERNEL_BYTES,
            "worker": WORKER_BYTES + limits["memory_bytes"], "descriptors": DESCRIPTORS,
            "threads": THREADS, "disk": case.disk_mib * MIB,
            "log": LOG_SLACK_BYTES + limits["checkpoints"],
        }  # fmt: skip
        over = {k: (seen[k], most) for k, most in within.items() if seen[k] > most}
        assert not over, f"over the budget: {over}; {self._open()}"

    def _on_disk(self) -> tuple[int, int]:
        """What this kernel has on the disk, in bytes: its checkpoints, and its files."""
        own = set(self._sessions()) - self._others
        home = Path(os.environ["WASI_KERNEL_HISTORY"]).parent
        found = disk_bytes({*own, self.world.scratch, home})
        log = sum(size for path, size in found.items() if path.parent.name == "sessions")
        return log, sum(found.values()) - log

    def _open(self) -> list[str]:
        """What the kernel process has open, and its threads, for a failed test."""
        found = []
        for kind in ("fd", "task"):
            folder = f"/proc/{self.process.pid}/{kind}"
            for name in os.listdir(folder) if os.path.isdir(folder) else ():
                with contextlib.suppress(OSError):
                    path = f"{folder}/{name}"
                    said = os.readlink(path) if kind == "fd" else Path(path, "comm").read_text()
                    found.append(f"{name} {said.strip()}")
        return found

    @staticmethod
    def _sessions() -> list[Path]:
        """The folders of all sessions that there are, and those with their /tmp and home."""
        cache = caches.Cache()
        return [p for name in ("sessions", launch.SCRATCH) for p in cache.folder(name).iterdir()]

    def end_politely(self) -> None:
        """What a front end does at the end: a shutdown_request; the process ends by itself."""
        message = self.client.session.msg("shutdown_request", {"restart": False})
        self.client.control_channel.send(message)
        self.process.wait(30)

    def close(self, *, at_once: bool = False) -> None:
        """Ends the kernel and all that watches it; its worker ends with it."""
        for pulse in self._watch:
            pulse.end()
        self._watch = []
        self.recorder.end()
        workers = self.workers() if self.manager.is_alive() else []
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=at_once or not self.manager.is_alive())
        assert psutil.wait_procs(workers, 30)[1] == []
        for name in ("sessions", launch.SCRATCH):  # a cell may have left more than 5 s of removing
            folders.sweep(caches.Cache().folder(name))
        left = set(self._sessions()) - self._others
        assert not left, f"the next kernel would not remove {left}"


def escaped(message: dict[str, Any]) -> bytes:
    """JSON as a browser writes it: lone surrogates escaped."""
    return json.dumps(message, default=json_default).encode()


def launch_limits(policy: dict[str, Any]) -> dict[str, int]:
    """{memory_bytes, checkpoints} of a policy, in bytes."""
    read = wasi_kernel.Policy.from_file_data(policy)
    return {"memory_bytes": read.limits.memory_bytes, "checkpoints": read.checkpoints.bytes}


class Hostile:
    """Runs cases; kernels are kept for the next case with the same policy."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self._stages: dict[str, Stage] = {}

    def stage(self, policy: dict[str, Any]) -> Stage:
        """The kernel for a policy; one at a time, unless `close` was not called between."""
        key = _key(policy)
        if key not in self._stages:
            self.close_stages()
            self._stages[key] = Stage(self.world, policy)
        return self._stages[key]

    def check(self, case: Case, acts: dict[str, Act] | None = None) -> None:
        """Runs a case and asserts everything; `acts` are the functions that cases name."""
        self.world.empty()
        stage = self.stage(case.policy)
        try:
            value = stage.begin(case)
            attack = (acts or {})[case.act] if case.act else None
            answer = stage.attack(case) if attack is None else attack(stage, case)
            stage.settle(case, value, answer)
        except BaseException:
            self.drop()
            raise

    @staticmethod
    def case(group: str, table: dict[str, Any]) -> Case:
        """The case that a table says."""
        return Case.of(group, table, {})

    @staticmethod
    def cases(group: str) -> list[Case]:
        """The cases of a group."""
        return cases(group)

    def new_stage(self, policy: dict[str, Any], *, ready: bool = True) -> Stage:
        """A kernel of a test's own, which closes it; `ready`: wait for its first cell."""
        return Stage(self.world, policy, ready=ready)

    def drop(self) -> None:
        """Ends a kernel that a case has left unusable; the next case gets another."""
        stages, self._stages = self._stages, {}
        for stage in stages.values():
            self._report(stage)
            stage.close(at_once=True)

    def close_stages(self) -> None:
        """Ends the kernels."""
        stages, self._stages = self._stages, {}
        for stage in stages.values():
            self._report(stage)
            stage.close()

    def _report(self, stage: Stage) -> None:
        """With HOSTILE_REPORT=file, what was measured, a line for each case."""
        if path := os.environ.get("HOSTILE_REPORT"):
            with open(path, "a", encoding="utf-8") as f:
                f.writelines(json.dumps(seen) + "\n" for seen in stage.measured)

    def close(self) -> None:
        """Ends everything."""
        try:
            self.close_stages()
        finally:
            self.world.close()


@pytest.fixture(scope="module")
def hostile(own_folders: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    """The corpus' driver, for one module's cases."""
    driver = Hostile(tmp_path_factory.mktemp("hostile"))
    yield driver
    driver.close()
