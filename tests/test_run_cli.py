"""Shows `wasi-kernel run` (or `python`): programs, their arguments, bytes, statuses; the prompt."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COMMAND = [sys.executable, "-P", "-m", "wasi_kernel"]
TIMEOUT_S = 60


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """`wasi-kernel run` with these arguments, in tmp_path."""

    def run(
        *argv: str, stdin: bytes = b"", name: str = "run"
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*COMMAND, name, *argv], capture_output=True, input=stdin, cwd=tmp_path, check=False
        )

    return run


def test_a_script_with_arguments_imports_and_a_status(run: Callable, tmp_path: Path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "helper.py").write_text("x = 5")
    (tmp_path / "lib" / "main.py").write_text(
        "import sys, helper\n"
        "print(sys.argv, helper.x, __name__, __file__, sys.modules['__main__'].helper.x)\n"
        "print('problem', file=sys.stderr)\nsys.exit(7)\n"
    )
    done = run("lib/main.py", "-a", "--grant", "c d")
    assert (
        done.stdout.decode() == "['lib/main.py', '-a', '--grant', 'c d'] 5 __main__ lib/main.py 5\n"
    )
    assert done.stderr == b"problem\n"
    assert done.returncode == 7


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("pass", 0), ("import sys; sys.exit()", 0), ("raise SystemExit(True)", 1),
        ("import sys; sys.exit(300)", 44), ("import os; os._exit(9)", 9), ("1/0", 1),
        ("import sys; sys.exit('why')", 1), ("raise KeyboardInterrupt", 130), ("1 +", 1),
    ],
)  # fmt: skip
def test_statuses_are_pythons(run: Callable, code: str, status: int):
    assert run("-c", code).returncode == status


def test_a_traceback_is_pythons(run: Callable):
    done = run("-c", "def f():\n    1/0\nf()")
    assert done.stderr.decode().splitlines() == [
        "Traceback (most recent call last):",
        '  File "<string>", line 3, in <module>',
        "    f()",
        "    ~^^",
        '  File "<string>", line 2, in f',
        "    1/0",
        "    ~^~",
        "ZeroDivisionError: division by zero",
    ]
    assert run("-c", "import sys; sys.exit('why')").stderr == b"why\n"


def test_bytes_go_through_both_ways(run: Callable):
    data = bytes(range(256)) * 1000
    code = "import sys, shutil; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)"
    done = run("-c", code, stdin=data, name="python")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == data
    done = run("-c", "import os; os.write(1, b'\\xff\\x00'); os.write(2, b'\\xfe')")
    assert (done.stdout, done.stderr) == (b"\xff\x00", b"\xfe")


def test_input_and_the_end_of_it(run: Callable):
    done = run("-c", "print([input('? '), input()])\ninput()", stdin="ä\nb".encode())
    assert done.stdout.decode() == "? ['ä', 'b']\n"
    assert done.stderr.decode().splitlines()[-1] == "EOFError: EOF when reading a line"
    assert run("-c", "import sys; print(sys.stdin.read(2), sys.stdin.readlines())",
               stdin=b"abc\nd\n").stdout == b"ab ['c\\n', 'd\\n']\n"  # fmt: skip


def test_modules_and_programs_from_standard_input(run: Callable):
    done = run("-m", "json.tool", "--compact", stdin=b'{"a": [1, 2]}')
    assert (done.returncode, done.stdout) == (0, b'{"a":[1,2]}\n')
    assert run(stdin=b"print(__name__, 1 + 1)").stdout == b"__main__ 2\n"
    assert run("-", "x", stdin=b"import sys; print(sys.argv)").stdout == b"['-', 'x']\n"
    assert run("-m", "no_such_module").returncode == 1


def test_what_it_sees_is_this_folder_and_what_is_granted(run: Callable, tmp_path: Path):
    (tmp_path / "a.txt").write_text("here")
    (tmp_path / "out").mkdir()
    assert run("-c", "print(open('a.txt').read())").stdout == b"here\n"
    assert b"PermissionError" in run("-c", "open('a.txt', 'w')").stderr
    done = run("--grant", "./out:/out:rw", "--env", "A=1",
               "-c", "import os; open('/out/b', 'w').write(os.environ['A'])")  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "out" / "b").read_text() == "1"
    assert b"FileNotFoundError" in run("--no-work", "-c", "open('a.txt')").stderr


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("none.py",), b"none.py"),
        (("--grant", "x", "-c", "1"), b"grants[0] = 'x'"),
        (("--kernel", "nope", "-c", "1"), b"nope"),
        (("--memory", "1", "-c", "1"), b"limits.memory_bytes"),
    ],
)
def test_a_mistake_is_named(run: Callable, argv: tuple[str, ...], named: bytes):
    done = run(*argv)
    assert done.returncode in (1, 2)
    assert named in done.stderr
    assert b"Traceback" not in done.stderr


def test_limits_and_deaths(run: Callable):
    done = run("--cell-seconds", "1", "-c", "while True: pass")
    assert done.returncode == 124
    said = (
        b"wasi-kernel: TimeLimitExceeded: more than 1 s; limits.cell_s in the policy, or "
        b"--cell-seconds, raises it\n"
    )
    assert done.stderr.endswith(b"KeyboardInterrupt\n" + said)
    assert b"wasi_agent" not in done.stderr
    caught = "try:\n    while True: pass\nexcept KeyboardInterrupt: raise SystemExit(7)"
    done = run("--cell-seconds", "1", "-c", caught)
    assert (done.returncode, done.stderr) == (7, said)
    deaf = "while True:\n    try:\n        while True: pass\n    except BaseException: pass"
    done = run("--cell-cpu-seconds", "0.5", "--grace-seconds", "0.2", "-c", deaf)
    assert done.returncode == 124
    assert b"--cell-cpu-seconds, raises it" in done.stderr
    done = run("--created-files", "3", "-c", "for k in range(9): open(f'/tmp/{k}', 'w')")
    assert done.returncode == 1
    assert b"OSError: [Errno 51]" in done.stderr
    assert b"limits.created_files in the policy, or --created-files, raises it" in done.stderr
    done = run("-c", "import sys; sys.setrecursionlimit(10**9)\ndef f(): f()\nf()")
    assert done.returncode == 1
    assert done.stderr
    assert len(run("-c", "print('x' * 50_000_000)").stdout) == 50_000_001
    assert b"output limit" in run("--output", "1MiB", "-c", "print('x' * 5_000_000)").stderr


def test_an_interrupt_is_the_programs(tmp_path: Path):
    code = (
        "print('on', flush=True)\ntry:\n    while True: pass\n"
        "except KeyboardInterrupt: print('off')"
    )
    with subprocess.Popen([*COMMAND, "run", "-c", code], stdout=subprocess.PIPE, cwd=tmp_path) as p:
        assert p.stdout is not None
        assert p.stdout.readline() == b"on\n"
        p.send_signal(signal.SIGINT)
        assert p.stdout.read() == b"off\n"
        assert p.wait(TIMEOUT_S) == 0


def test_a_reader_that_has_gone_ends_it(tmp_path: Path):
    code = "while True: print('y' * 1000)"
    with subprocess.Popen(
        [*COMMAND, "run", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"y" * 1000 + b"\n"
        process.stdout.close()
        assert process.wait(TIMEOUT_S) != 0


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, argv: list[str], cwd: Path) -> None:
        self.shown = ""
        pid, self._fd = pty.fork()
        if pid == 0:
            os.chdir(cwd)
            os.environ["TERM"] = "dumb"
            os.execv(argv[0], argv)  # noqa: S606 - ourselves
        self._pid = pid

    def until(self, text: str) -> None:
        """Reads until this was shown."""
        end = time.monotonic() + TIMEOUT_S
        while text not in self.shown:
            assert time.monotonic() < end, self.shown
            if select.select([self._fd], [], [], 1)[0]:
                self.shown += os.read(self._fd, 65536).decode("utf-8", "replace")

    def type(self, text: str) -> None:
        """Types it, after everything that was shown so far."""
        self.shown = ""
        os.write(self._fd, text.encode())

    def status(self) -> int:
        """Waits for its end."""
        try:
            while os.read(self._fd, 65536):
                pass
        except OSError:
            pass
        _, status = os.waitpid(self._pid, 0)
        os.close(self._fd)
        return os.waitstatus_to_exitcode(status)


def test_on_a_terminal_nothing_acts(tmp_path: Path):
    code = "print('\\x1b]0;title\\x07\\x1b[31mred'); import sys; print(sys.stdout.isatty())"
    terminal = Terminal([*COMMAND, "run", "-c", code], tmp_path)
    terminal.until("True")
    assert "\x1b]" not in terminal.shown
    assert "\u241b]0;title\u2407\x1b[31mred" in terminal.shown
    assert terminal.status() == 0


def test_the_prompt(tmp_path: Path):
    (tmp_path / "a.txt").write_text("here")
    terminal = Terminal([*COMMAND, "python"], tmp_path)
    terminal.until("[1]: ")
    terminal.type("x = open('a.txt').read(); x\r")
    terminal.until("[2]: ")
    assert "'here'" in terminal.shown
    terminal.type("for k in range(2):\r")
    terminal.until("...: ")
    terminal.type("print('k', k)\r\r")
    terminal.until("[3]: ")
    assert "k 0" in terminal.shown
    assert "k 1" in terminal.shown
    terminal.type("1/0\r")
    terminal.until("[4]: ")
    assert "ZeroDivisionError" in terminal.shown
    terminal.type("input('name? ')\r")
    terminal.until("name? ")
    terminal.type("Ada\r")
    terminal.until("'Ada'")
    terminal.until("[5]: ")
    terminal.type("exit\r")
    assert terminal.status() == 0
