"""No Python file in the notebook's folder ever runs on the host.

A kernel starts with that folder as its working directory, where `python -m` would look first.
"""

from __future__ import annotations

import pytest

IMPORTED_EARLY = ("wasi_kernel", "inspect", "socket", "zmq", "traitlets", "wasmtime", "platform")


@pytest.mark.parametrize("as_package", [False, True])
def test_files_beside_the_notebook_are_not_imported(start_kernel, tmp_path, as_package):
    folder = tmp_path / "work"
    folder.mkdir()
    seen = tmp_path / "seen"
    code = f"open({str(seen)!r}, 'a').write(__file__)\n"
    for name in IMPORTED_EARLY:
        if as_package:
            (folder / name).mkdir()
            (folder / name / "__init__.py").write_text(code)
        else:
            (folder / f"{name}.py").write_text(code)
    kernel = start_kernel(cwd=str(folder))
    target = "socket/__init__.py" if as_package else "socket.py"
    assert kernel.run(f"open({target!r}).read()[:4]").result == "'open'"
    assert not seen.exists()
