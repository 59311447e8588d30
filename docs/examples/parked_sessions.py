"""A web service whose users each have a Python session, parked on disk between their requests.

No process waits for a user who is away: a request resumes the session from its file, runs, saves
it and ends it. Run `python parked_sessions.py --sessions 100 --requests 100`: it parks so many
sessions, sends itself requests, and prints how long resuming took. docs/embedding.md explains it.

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
    """Sessions in a folder, one file each.

    Args:
        folder: Where the files are; ours alone, since they hold what the users computed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        self.resumed_s: list[float] = []

    def run(self, name: str, code: str) -> dict[str, Any]:
        """Runs code in the session of that name, which is made when it is new."""
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:  # one request of a session at a time: the second sees what the first did
            file = self._folder / f"{name}.session"
            known = file.exists()
            began = time.perf_counter()
            with Sandbox(resume=file if known else None) as box:
                if known:
                    self.resumed_s.append(time.perf_counter() - began)
                result = box.run(code, deadline_s=DEADLINE_S)
                box.save(file)
        error = None if result.error is None else f"{result.error.ename}: {result.error.evalue}"
        return {"text": result.text, "stdout": result.stdout, "error": error}


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
    parser.add_argument("--requests", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, server(parked := Parked(Path(folder))) as service:
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
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
        service.shutdown()
    times = sorted(s * 1000 for s in parked.resumed_s)
    p95 = times[int(len(times) * 0.95)]
    print(f"{options.sessions} parked sessions, {size / options.sessions / 2**20:.1f} MiB each")
    print(f"{len(times)} resumes: median {statistics.median(times):.0f} ms, p95 {p95:.0f} ms")
    print(f"wrong answers: {wrong}")


if __name__ == "__main__":
    main()
