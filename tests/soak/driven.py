"""A kernel that is driven from outside: by Jupyter's messages, its restarter, and signals."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any

import leftovers
import psutil
from jupyter_client.manager import KernelManager
from jupyter_client.restarter import KernelRestarter

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT_S = 120.0
ENDED_S = 10.0
"""How long what belongs to a kernel that is gone may take to end."""

POLICY = '[limits]\nmemory_bytes = "256 MiB"\n[checkpoints]\nbytes = "64 MiB"\ncells = 20\n'
KEPT = ("policy.toml", "log", "history.sqlite")
"""What of its folder is there when it is shut down; anything else is a leftover."""


class Kernel:
    """A kernel in folders of its own.

    Attributes:
        folder: Where its working, scratch and history files are.
        seen: All processes that it has had.
        folders: All folders in the cache that it has had.
    """

    def __init__(self, folder: Path) -> None:
        """Starts it, and waits until it answers."""
        self.folder = folder
        scratch = folder / "tmp"
        scratch.mkdir()
        policy = folder / "policy.toml"
        policy.write_text(POLICY)
        connection = str(folder / "kernel.json")
        self.manager = KernelManager(kernel_name="python-wasi", connection_file=connection)
        # Jupyter's own, but for its timer: `restart` asks it to look when there is something to see
        self._restarter = KernelRestarter(kernel_manager=self.manager, stable_start_time=0.0)
        env = os.environ | {
            "TMPDIR": str(scratch), "WASI_KERNEL_HISTORY": str(folder / "history.sqlite"),
        }  # fmt: skip
        self._log = (folder / "log").open("ab")  # open to the end: restarts use it again
        self.manager.start_kernel(
            env=env, cwd=str(folder), extra_arguments=["--policy", str(policy)],
            stdout=self._log, stderr=self._log,
        )  # fmt: skip
        self.seen: set[psutil.Process] = set()
        self.folders: set[Path] = set()
        self._connect()

    def _connect(self) -> None:
        self.client: Any = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=TIMEOUT_S)
        self._restarter.poll()

    # -- messages ----------------------------------------------------------------------------

    def send(self, code: str) -> str:
        """Sends a cell; the message's id."""
        return str(self.client.execute(code, stop_on_error=False))

    def reply(self, msg_id: str) -> dict[str, Any]:
        """The content of a cell's reply; reads what was published, too.

        Raises:
            TimeoutError: There is none.
        """
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            self._read_published()
            try:
                message = self.client.get_shell_msg(timeout=1)
            except Empty:
                continue
            if message["parent_header"].get("msg_id") == msg_id:
                return dict(message["content"])
        raise TimeoutError(f"no reply in {TIMEOUT_S:g} s")

    def _read_published(self) -> None:
        with contextlib.suppress(Empty):
            while True:
                self.client.get_iopub_msg(timeout=0)

    def run(self, code: str) -> dict[str, Any]:
        """Runs a cell."""
        return self.reply(self.send(code))

    def outcome(self, code: str) -> str:
        """Runs a cell: "ok", or the name of its error."""
        said = self.run(code)
        return str(said.get("ename", said["status"]))

    def interrupted(self, code: str) -> str:
        """`outcome` of a cell that prints "begun", and is interrupted then."""
        sent = self.send(code)
        end = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end:
            with contextlib.suppress(Empty):
                message = self.client.get_iopub_msg(timeout=1)
                if "begun" in str(message["content"].get("text")):
                    break
        else:
            raise TimeoutError("the cell did not begin")
        self.client.control_channel.send(self.client.session.msg("interrupt_request", {}))
        said = self.reply(sent)
        return str(said.get("ename", said["status"]))

    # -- processes ---------------------------------------------------------------------------

    @property
    def process(self) -> psutil.Process:
        """The kernel process."""
        return psutil.Process(self.manager.provisioner.pid)

    def workers(self) -> list[psutil.Process]:
        """Its worker, and whatever else it has started; notes its folders, too."""
        process = self.process
        found = process.children(recursive=True)
        self.seen |= {process, *found}
        self.folders |= leftovers.own_folders(process)
        return found

    def kill(self) -> list[psutil.Process]:
        """SIGKILL for the kernel process; those of its children that outlive it."""
        process = self.process
        process.suspend()  # so that it starts nothing that is not seen
        children = self.workers()
        process.kill()
        process.wait()
        return list(psutil.wait_procs(children, ENDED_S)[1])

    def restart(self) -> None:
        """Has Jupyter's restarter see that it has died; it is started again, at least."""
        self.client.stop_channels()
        self._restarter.poll()

    def ready(self) -> None:
        """Waits until it answers, after `restart`."""
        self._connect()

    def measure(self) -> dict[str, float]:
        """Memory (MiB), descriptors and threads of both; disk (MiB), mappings of the worker.

        "anonymous" is memory that is no file's. Pages of files (the base image, the page log) come
        and go, and the system can take them back.
        """
        process, (worker,) = self.process, self.workers()
        found = {}
        for name, each in (("kernel", process), ("worker", worker)):
            found[f"{name} resident"] = each.memory_info().rss / leftovers.MIB
            if (own := leftovers.anonymous_bytes(each.pid)) is not None:
                found[f"{name} anonymous"] = own / leftovers.MIB
            found[f"{name} descriptors"] = each.num_fds()
            found[f"{name} threads"] = each.num_threads()
        if (maps := leftovers.mapped(worker.pid)) is not None:
            found["worker mappings"], found["gone files mapped"] = maps
        here = [self.folder / "tmp", *leftovers.own_folders(process)]
        found["disk"] = sum(map(leftovers.disk_bytes, here)) / leftovers.MIB
        history = self.folder.glob("history*")
        found["history"] = sum(path.stat().st_size for path in history) / leftovers.MIB
        return found

    # -- the end -----------------------------------------------------------------------------

    def close(self) -> list[str]:
        """Shuts it down politely; what it has left behind, one line each."""
        self.workers()
        self.client.stop_channels()
        self.manager.shutdown_kernel()
        self._log.close()
        alive = psutil.wait_procs(self.seen, ENDED_S)[1]
        left = [f"process {p.pid} is left" for p in alive]
        left += [f"{path} is left" for path in leftovers.still_there(self.folders)]
        left += [f"{p.name} is left" for p in self.folder.iterdir() if p.name not in (*KEPT, "tmp")]
        left += [f"{p.name} is left in TMPDIR" for p in (self.folder / "tmp").iterdir()]
        if "Traceback" in (said := (self.folder / "log").read_text(errors="replace")):
            left.append(f"its log has a traceback: {said[-1000:]}")
        return left


@contextlib.contextmanager
def kernel(wrong: list[str]) -> Iterator[Kernel]:
    """A kernel in a temporary folder; it is shut down, and what it leaves is added to `wrong`."""
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        found = Kernel(Path(folder))
        try:
            yield found
        finally:
            wrong += found.close()
