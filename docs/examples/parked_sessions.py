"""A web service whose users each have a Python session, parked on disk between their requests.

No process waits for a user who is away: a request unparks the session, runs, and parks it again.
Run `python parked_sessions.py --sessions 100 --requests 300`: it parks so many sessions, sends
itself requests, and prints how long they took. docs/embedding.md explains it.

It knows no users and listens on this machine only: put it behind something that does.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from wasi_kernel import Sandbox

NAME = re.compile(r"/sessions/(\w{1,40})")
MAX_CODE_BYTES = 100_000
DEADLINE_S = 10.0
PATIENCE_S = 120.0


class Parked:
    """Sessions by name; a file for each says which parked session it is.

    Args:
        folder: Where the files are.
        base: What new sessions are forks of: what it has imported need not be imported again.
    """

    def __init__(self, folder: Path, base: Sandbox) -> None:
        self._folder, self._base = folder, base
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        self.unparked_s: list[float] = []
        self.parked_s: list[float] = []

    def run(self, name: str, code: str) -> dict[str, Any]:
        """Runs code in the session of that name, which is made when it is new."""
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:  # one request of a session at a time: the second sees what the first did
            file = self._folder / name
            began = time.perf_counter()
            if file.exists():
                box = self._base.unpark(file.read_text())
                self.unparked_s.append(time.perf_counter() - began)
            else:
                box = self._base.fork()
            result = box.run(code, deadline_s=DEADLINE_S)
            began = time.perf_counter()
            file.write_text(box.park())
            self.parked_s.append(time.perf_counter() - began)
        error = None if result.error is None else f"{result.error.ename}: {result.error.evalue}"
        return {"text": result.text, "stdout": result.stdout, "error": error}

    def remove(self) -> None:
        """Ends all sessions for good."""
        for file in self._folder.iterdir():
            self._base.unpark(file.read_text()).close()
            file.unlink()


def server(parked: Parked) -> ThreadingHTTPServer:
    """POST /sessions/NAME with code as its body answers with the result as JSON."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found = NAME.fullmatch(self.path)
            length = self.headers.get("Content-Length", "")
            if found is None:
                self.send_error(404, "POST to /sessions/NAME; letters, digits and _ in NAME")
            elif not length.isdecimal() or int(length) > MAX_CODE_BYTES:
                self.send_error(413, f"a Content-Length of at most {MAX_CODE_BYTES}")
            else:
                code = self.rfile.read(int(length)).decode(errors="replace")
                body = json.dumps(parked.run(found[1], code)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing: the figures are what is printed."""

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


def main() -> None:
    """Parks sessions, asks each for what it knows, prints figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--requests", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Sandbox() as base:
        parked = Parked(Path(folder), base)
        with server(parked) as service:
            threading.Thread(target=service.serve_forever, daemon=True).start()

            def post(name: str, code: str) -> dict[str, Any]:
                url = f"http://127.0.0.1:{service.server_port}/sessions/{name}"
                with urlopen(Request(url, code.encode()), timeout=PATIENCE_S) as answer:
                    return json.load(answer)

            for k in range(options.sessions):
                post(f"user{k}", f"secret = {k}")
            wrong = 0
            for k in range(options.requests):
                user = k % options.sessions
                wrong += post(f"user{user}", "secret")["text"] != str(user)
            service.shutdown()
        parked.remove()
    print(f"{options.sessions} sessions, {options.requests} requests, wrong answers: {wrong}")
    for what, times in (("unpark", parked.unparked_s), ("park", parked.parked_s)):
        ms = sorted(s * 1000 for s in times)
        p95 = ms[int(len(ms) * 0.95)]
        print(f"{what}: median {statistics.median(ms):.0f} ms, 95th percentile {p95:.0f} ms")


if __name__ == "__main__":
    main()
