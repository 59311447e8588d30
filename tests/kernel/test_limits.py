"""Shows that a notebook's user is told which limit was reached, and how to raise it.

What each limit does is in ../test_limits.py; here are a kernel's options, messages and displays.
"""

from __future__ import annotations

import pytest

RAISES = "limits.{} in the policy, or {}, raises it"


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    path = tmp_path_factory.mktemp("policy") / "policy.toml"
    path.write_text(
        '[limits]\nwritten_bytes = "1 MiB"\ncreated_files = 10\nopen_files = 20\ncell_s = 20\n'
        'output_bytes = "1 MiB"\nmessage_bytes = "2 MiB"\n'
    )
    return ["--policy", str(path)]


@pytest.mark.parametrize(
    ("code", "limit", "option"),
    [
        ("open('/tmp/a', 'wb', 0).write(bytes(2 << 20))", "written_bytes", "--written"),
        ("for k in range(20): open(f'/tmp/{k}', 'w')", "created_files", "--created-files"),
        ("[open('/tmp/0', 'a') for _ in range(30)]", "open_files", "--open-files"),
    ],
)
def test_an_errors_last_line_names_the_limit(kernel, code, limit, option):
    answer = kernel.run(code)
    assert answer.content["ename"] == "OSError"
    last = answer.content["traceback"][-1]
    assert last.startswith("[wasi-kernel] ")
    assert RAISES.format(limit, option) in last
    assert answer.of("error")[0]["traceback"][-1] == last


def test_what_is_dropped_is_named(kernel):
    said = kernel.run("print('x' * (2 << 20))").text("stderr")
    assert RAISES.format("output_bytes", "--output") in said
    code = "from IPython.display import Markdown\nMarkdown('x' * (3 << 20))"
    said = kernel.run(code).text("stderr")
    assert RAISES.format("message_bytes", "--message") in said


def test_wasi_limits_is_a_table_with_data(kernel):
    answer = kernel.run("%wasi limits")
    data = answer.of("execute_result")[0]["data"]
    assert "limits.cell_s, --cell-seconds" in data["text/plain"]
    assert "20.0 s" in data["text/plain"]
    assert "<table" in data["text/html"]
    found = kernel.run("w = %wasi limits\nw.to_dict()['open_files']['allowed']")
    assert found.result == "20"
    assert ", limits, " in kernel.run("%wasi nothing").content["evalue"]
