"""Connection: the sockets that a connection file names, bound and secured.

What IPKernelApp does of this, without the rest of it. Imports jupyter_client, never ipykernel.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import zmq
from jupyter_client.connect import ConnectionFileMixin
from jupyter_client.jsonutil import json_default
from traitlets import Any as AnyTrait
from traitlets import Unicode
from traitlets.config import Application

from wasi_kernel import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from jupyter_client.session import Session

PORTS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")


def _escaping(pack: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """`pack`, also for what UTF-8 has no form of: a lone surrogate, which JSON can escape.

    A browser's text may have one in it, and every message that quotes it would fail, the reply too.
    """

    def escaping(message: Any) -> bytes:
        try:
            return pack(message)
        except UnicodeEncodeError:
            return json.dumps(message, default=json_default, allow_nan=False).encode()

    return escaping


class Connection(ConnectionFileMixin, Application):
    """A kernel's end of a connection file; the options of `wasi-kernel kernel`."""

    name = "wasi-kernel"
    version = Unicode(__version__)
    blocking_class = AnyTrait()  # a kernel makes no clients; see lean.py
    aliases = {  # noqa: RUF012 - traitlets' own way
        "f": "Connection.connection_file", "ip": "Connection.ip",
        "transport": "Connection.transport", "hb": "Connection.hb_port",
        "shell": "Connection.shell_port", "iopub": "Connection.iopub_port",
        "stdin": "Connection.stdin_port", "control": "Connection.control_port",
        "log-level": "Application.log_level",
    }  # fmt: skip

    def _ip_default(self) -> str:
        """The loopback address; the base class looks at all interfaces first, for 7 ms."""
        return str(super()._ip_default()) if self.transport == "ipc" else "127.0.0.1"

    def _session_default(self) -> Session:
        """Jupyter's signed messages."""
        session: Session = super()._session_default()
        session.pack = _escaping(session.pack)
        return session

    def load(self) -> bool:
        """Reads the connection file, if there is one; otherwise `save` will make it."""
        from jupyter_core.paths import jupyter_runtime_dir

        name = self.connection_file or f"kernel-{os.getpid()}.json"
        candidates = [name, os.path.join(jupyter_runtime_dir(), os.path.basename(name))]
        self.connection_file = next((c for c in candidates if os.path.exists(c)), candidates[-1])
        existing = os.path.exists(self.connection_file)
        if existing:
            self.load_connection_file()
        return existing

    def save(self, *, existing: bool) -> None:
        """Writes the connection file where there was none, or where it left ports open."""
        if not existing:
            self.write_connection_file()
            print(f"To connect another client: --existing {self.connection_file}", file=sys.stderr)
            return
        with open(self.connection_file, encoding="utf-8") as f:
            ports_left_open = 0 in json.load(f).values()
        if ports_left_open:
            os.remove(self.connection_file)
            self.write_connection_file()

    def bind(self, context: Any) -> dict[str, Any]:
        """The bound sockets: shell, stdin, control and iopub. The heartbeat has its own."""
        sockets = {}
        for name in ("shell", "stdin", "control"):
            sockets[name] = self._secured(context.socket(zmq.ROUTER))
            sockets[name].router_handover = 1  # a client that reconnects takes over its identity
        sockets["iopub"] = self._secured(context.socket(zmq.XPUB))
        for name, sock in sockets.items():
            self._bind(sock, f"{name}_port")
        return sockets

    def named_ports(self) -> dict[str, int]:
        """The ports by their names in the connection file."""
        return {name: getattr(self, name) for name in PORTS}

    def close(self) -> None:
        """Removes what this kernel has written."""
        self.cleanup_connection_file()
        self.cleanup_ipc_files()

    def _secured(self, sock: Any) -> Any:
        sock.linger = 1000
        if self.curve_secretkey is not None:
            sock.curve_secretkey = self.curve_secretkey
            sock.curve_publickey = self.curve_publickey
            sock.curve_server = True
        return sock

    def _bind(self, sock: Any, port_name: str) -> None:
        port = getattr(self, port_name)
        if self.transport == "ipc":
            port = port or 1
            sock.bind(f"ipc://{self.ip}-{port}")
        elif port:
            sock.bind(f"tcp://{self.ip}:{port}")
        else:
            port = sock.bind_to_random_port(f"tcp://{self.ip}")
        setattr(self, port_name, port)
