"""Shows what a session's own view of an installed set shares with the cache, and what not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasi_kernel import installed

if TYPE_CHECKING:
    from pathlib import Path


def test_a_set_that_is_shown_is_the_caches_and_cannot_be_written(tmp_path: Path):
    """The session's worker may write in its folder; what others run as well is not to change."""
    source, base = tmp_path / "set", tmp_path / "session"
    (source / "package").mkdir(parents=True)
    base.mkdir()
    (source / "package" / "__init__.py").write_text("x = 1\n")
    installed.show(source, base, "set")
    shown = base / installed.FOLDER / "set" / "package" / "__init__.py"
    assert shown.samefile(source / "package" / "__init__.py")
    assert shown.stat().st_mode & 0o777 == 0o400
