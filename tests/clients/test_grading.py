"""Ten submissions are graded by nbgrader in this kernel, as `docs/grading.md` says; four attack it.

The page's files are written and its commands run as they stand there. What the attackers look for
is really there: solutions, hidden tests, the gradebook, another student's work.
"""

from __future__ import annotations

import csv
import hashlib
import textwrap

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from reading import DOCS, Reader, agrees, blocks, commands

pytestmark = pytest.mark.timeout(300)  # the first test waits for all ten

SOLUTION = """
def mean(values):
    ### BEGIN SOLUTION
    return sum(values) / len(values)
    ### END SOLUTION
"""
SHOWN = "assert mean([1, 3]) == 2"
HIDDEN = """
numbers = [float(line) for line in open('/data/numbers.txt')]
assert mean(numbers) == 4
### BEGIN HIDDEN TESTS
assert mean([7]) == 7, 'the hidden one'
### END HIDDEN TESTS
"""
RIGHT = "def mean(values):\n    return sum(values) / len(values)\n"

HONEST = {
    "ana": (RIGHT, 4),
    "ben": ("def mean(values):\n    return 2\n", 1),
    "cleo": ("def mean(values):\n    return sum(values) /\n", 0),
    "dag": (RIGHT + "mean([])", 4),  # an error that breaks nothing
    "eva": (RIGHT + "print('words ' * 100_000)", 4),
    "finn": ("raise NotImplementedError", 0),
}
HOSTILE = {
    "loop": (RIGHT + "while True: pass", 4),
    "bomb": (RIGHT + "held = []\nwhile True: held.append(bytearray(50_000_000))", 0),
    "vandal": ("""
        import os, shutil
        for folder in ('.', '/', '/data', '/work', '..', '../..'):
            shutil.rmtree(folder, ignore_errors=True)
        for path in ('/data/numbers.txt', '/data/new.txt'):
            try:
                open(path, 'w').write('5')
            except OSError as e:
                print(type(e).__name__)
        os._exit(0)
        """, 0),
    "thief": ("""
        import glob, os, sqlite3
        found = [name for folder in ('', '/work', '..', '../..', '/data', os.path.expanduser('~'))
                 for name in glob.glob(folder + '/**', recursive=True)
                 if name.endswith(('.ipynb', '.db', '.py', 'numbers.txt'))
                 and not name.startswith('/usr/')]
        print(sorted(set(found)))
        for path in ('COURSE/gradebook.db', 'COURSE/source/ps1/ps1.ipynb',
                     '../../../gradebook.db', '../../../source/ps1/ps1.ipynb', '/work/ps1.ipynb'):
            try:
                print('opened', open(path, 'rb').read())
            except OSError as e:
                print(type(e).__name__)
        def mean(values):
            return 0
        """, 0),
}  # fmt: skip
"""{who: (what is handed in, points)}. Of 4 points 1 is for the tests that students see."""

SUBMISSIONS = HONEST | HOSTILE


def _cell(source, name, *, points=0, solution=False):
    about = {
        "schema_version": 3, "grade_id": name, "grade": bool(points), "solution": solution,
        "locked": not solution, "task": False, "cell_type": "code",
    }  # fmt: skip
    if points:
        about["points"] = points
    return new_code_cell(textwrap.dedent(source).strip(), metadata={"nbgrader": about})


def _course(folder):
    """The instructor's folder before anything was handed in."""
    source = folder / "source" / "ps1"
    (source / "data").mkdir(parents=True)
    (source / "data" / "numbers.txt").write_text("3\n5\n")
    cells = [
        _cell(SOLUTION, "mean", solution=True),
        _cell(SHOWN, "shown", points=1),
        _cell(HIDDEN, "hidden", points=3),
    ]
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made = new_notebook(cells=cells, metadata={"kernelspec": spec})
    nbformat.write(made, source / "ps1.ipynb")


def _hand_in(folder):
    """Every student takes the released notebook and writes into it; all name the native kernel."""
    released = folder / "release" / "ps1" / "ps1.ipynb"
    assert "the hidden one" not in released.read_text()
    for who, (code, _) in SUBMISSIONS.items():
        made = nbformat.read(released, as_version=4)
        made.cells[0].source = textwrap.dedent(code).replace("COURSE", str(folder))
        made.metadata.kernelspec.name = "python3"
        path = folder / "submitted" / who / "ps1" / "ps1.ipynb"
        path.parent.mkdir(parents=True)
        nbformat.write(made, path)
        if who == "vandal":
            (path.parent / "data").mkdir()
            (path.parent / "data" / "numbers.txt").write_text("0\n")


def _digests(folder, *names):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in names
        for path in (folder / name).rglob("*")
        if path.is_file()
    }


class Graded:
    """What the page's commands have made.

    Attributes:
        said: {command: what it printed}.
        before, after: {file: digest} of what no submission may change.
    """

    def __init__(self, reader, home):
        self.folder = home / "course"
        self.said = {}
        _course(self.folder)
        for block in blocks((DOCS / "grading.md").read_text()):
            if block.language == "python":
                (home / block.about).write_text(block.text)
                continue
            for command, printed in commands(block.text):
                if "autograde" in command:
                    _hand_in(self.folder)
                    self.before = _digests(self.folder, "source", "release", "submitted")
                said = self.said[command] = reader.shell(command)
                assert agrees(printed, said), f"docs/grading.md:{block.line}: $ {command}\n{said}"
        self.after = _digests(self.folder, "source", "release", "submitted")

    def scores(self):
        with (self.folder / "grades.csv").open() as f:
            return {row["student_id"]: float(row["score"]) for row in csv.DictReader(f)}

    def cell(self, who, index):
        """(text, names of errors) of one graded cell."""
        path = self.folder / "autograded" / who / "ps1" / "ps1.ipynb"
        outputs = nbformat.read(path, as_version=4).cells[index].outputs
        text = "".join(o.text for o in outputs if o.output_type == "stream")
        return text, [o.ename for o in outputs if o.output_type == "error"]


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    home = tmp_path_factory.mktemp("grading")
    reader = Reader(home)
    yield Graded(reader, home)
    reader.close()


def test_everyone_gets_what_they_have_earned(graded):
    assert graded.scores() == {who: points for who, (_, points) in SUBMISSIONS.items()}


def test_nothing_of_the_course_has_changed(graded):
    assert graded.after == graded.before
    assert len(graded.before) > len(SUBMISSIONS)


def test_a_loop_costs_its_own_cell(graded):
    assert graded.cell("loop", 0)[1] == ["TimeLimitExceeded"]
    assert graded.cell("loop", 2)[1] == []


def test_a_memory_bomb_costs_its_own_cell(graded):
    assert graded.cell("bomb", 0)[1] == ["MemoryError"]


def test_a_vandal_meets_nothing_that_can_be_destroyed(graded):
    text, errors = graded.cell("vandal", 0)
    assert text.split() == ["PermissionError", "PermissionError"]
    assert errors == ["GuestExited"]
    # the tests ran all the same, with the instructor's numbers
    assert graded.cell("vandal", 2)[1] == ["NameError"]
    assert (graded.folder / "autograded/vandal/ps1/data/numbers.txt").read_text() == "3\n5\n"


def test_a_thief_finds_the_data_and_nothing_else(graded):
    text, errors = graded.cell("thief", 0)
    first, *others = text.splitlines()
    assert first == "['/data/numbers.txt']"
    assert len(others) == 5
    assert set(others) <= {"FileNotFoundError", "PermissionError"}
    assert errors == []


def test_what_is_checked_from_outside_is_checked_with_other_numbers(graded):
    said = dict(line.split() for line in graded.said["python check.py"].splitlines())
    right = {who for who, (code, _) in SUBMISSIONS.items() if code.startswith(RIGHT)}
    assert {who for who, points in said.items() if points == "3"} == right - {"bomb"}
    assert set(said) == set(SUBMISSIONS)
