"""Profiles: a tree of calls with counts, told as tables, as stacks, and as a drawing."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from wasi_agent.flames import Flame
from wasi_agent.tables import Table

if TYPE_CHECKING:
    from collections.abc import Callable

SHOWN = 20
"""Rows of a table; `to_dict` has all."""


class Profile:
    """What a number of looks at a guest's stack have met.

    Args:
        seen: The host's answer; its shape is that of worker/profiler.py.
        depth: How many frames stand below the profiled code.
        file: The file name of that code.
        hz: Looks in a second, as asked for.
        name_of: IPython's words for the file name of a cell, None for any other.
    """

    def __init__(
        self, seen: dict[str, Any], depth: int, file: str, hz: int, name_of: Callable[[str], Any],
        *, by_line: bool = False, whole: bool = False,
    ) -> None:  # fmt: skip
        self._made_of = (seen, depth, file, hz, name_of)
        self._seen, self._hz, self._by_line, self._whole = seen, hz, by_line, whole
        code = {k for k, (path, *_) in enumerate(seen["functions"]) if path == file}
        self._nodes = _cut(seen["nodes"], 0 if whole else depth, code)
        self._total = sum(node[3] for node in self._nodes)
        self._outside = sum(node[3] for node in seen["nodes"]) - self._total
        self._names = [(_named(file, name_of), name, at) for file, name, at in seen["functions"]]

    def shown(self, *, by_line: bool, whole: bool) -> Profile:
        """The same, shown in another way."""
        return Profile(*self._made_of, by_line=by_line, whole=whole)

    # -- data --------------------------------------------------------------------------------

    def functions(self) -> list[dict[str, Any]]:
        """By function, most time first: its name, file and first line; how many looks met it.

        `self`: as the innermost one; `total`: with what it called; `waiting`: of `self`, while the
        guest was on no processor. `share` is the part of all looks that `self` is, 0 to 1.
        """
        return self._rows(lambda node: (node[1], self._names[node[1]][2]))

    def lines(self) -> list[dict[str, Any]]:
        """The same by line."""
        return self._rows(lambda node: (node[1], node[2]))

    def _rows(self, key_of: Callable[[list[int]], tuple[int, int]]) -> list[dict[str, Any]]:
        own: Counter[tuple[int, int]] = Counter()
        waiting: Counter[tuple[int, int]] = Counter()
        for node in self._nodes:
            own[key_of(node)] += node[3]
            waiting[key_of(node)] += node[4]
        total = _cumulated(self._nodes, key_of)
        rows = []
        for function, line in sorted(total, key=lambda k: (-own[k], -total[k], k)):
            file, name, _ = self._names[function]
            k = (function, line)
            rows.append({
                "function": name, "file": file, "line": line, "self": own[k], "total": total[k],
                "waiting": waiting[k], "share": own[k] / max(self._total, 1),
            })  # fmt: skip
        return rows

    def collapsed(self) -> str:
        """A line for each stack, outermost function first: `a;b;c 12`.

        It is what programs that draw flame graphs read.
        """
        known: dict[tuple[int, int], int] = {}
        merged: list[int] = []
        counts: Counter[int] = Counter()
        for parent, function, _, count, _ in self._nodes:
            above = merged[parent] if parent >= 0 else -1
            here = known.setdefault((above, function), len(known))
            merged.append(here)
            counts[here] += count
        stacks = list(known)
        found = []
        for k, count in sorted(counts.items()):
            names = []
            while count and k >= 0:
                k, function = stacks[k]  # noqa: PLW2901 - upwards
                file, name, _ = self._names[function]
                names.append(f"{name} ({file})".replace(";", ":").replace("\n", " "))
            if count:
                found.append(f"{';'.join(reversed(names))} {count}\n")
        return "".join(found)

    def to_dict(self) -> dict[str, Any]:
        """All of it: `functions`, `lines`, and what is known of the run.

        `samples`: looks that met the code; `outside`: that met what runs it; `torn`: dropped,
        because the guest changed its stack meanwhile; `unkept`: dropped, because the tree was full.
        `wall_s`, `cpu_s`: of the run; `sampler_s`: the processor time that looking took.
        """
        said = {key: self._seen[key] for key in ("torn", "unkept", "wall_s", "cpu_s", "sampler_s")}
        return {
            "samples": self._total, "outside": self._outside, "hz": self._hz, **said,
            "functions": self.functions(), "lines": self.lines(),
        }  # fmt: skip

    # -- shown -------------------------------------------------------------------------------

    def flame(self) -> Flame:
        """The drawing: a box for each function, as wide as its share, upon what called it."""
        labels = [(name, f"{name} ({file}:{at})") for file, name, at in self._names]
        return Flame(self._title(), [(n[0], n[1], n[3]) for n in self._nodes], labels)

    def _title(self) -> str:
        seen = self._seen
        taken = seen["sampler_s"] / max(seen["wall_s"], 1e-9)
        title = (
            f"Profile: {self._total:,} looks in {seen['wall_s']:.2f} s "
            f"({seen['cpu_s']:.2f} s on a processor); "
            f"looking took {seen['sampler_s']:.2f} s of another one ({taken:.1%})"
        )
        dropped = seen["torn"] + seen["unkept"]
        return f"{title}; {dropped:,} dropped" if dropped else title

    def _table(self) -> Table:
        rows = self.lines() if self._by_line else self.functions()
        shown = [("self", "total", "waiting", "function", "line" if self._by_line else "defined")]
        whole = max(self._total, 1)
        for row in rows[:SHOWN]:
            parts = (f"{row[key] / whole:.1%}" for key in ("self", "total", "waiting"))
            shown.append((*parts, row["function"], f"{row['file']}:{row['line']}"))
        if len(rows) > SHOWN:
            shown.append(("", "", "", f"and {len(rows) - SHOWN:,} more, in to_dict()", ""))
        if not rows:
            shown.append(("", "", "", "it was over before the first look: give it more to do", ""))
        return Table(self._title(), shown, {}, head=True)

    def __repr__(self) -> str:
        return repr(self._table())

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()

    def _ipython_display_(self) -> None:
        """The drawing, then the table: no one type of output holds both."""
        from IPython.display import display

        if self._total:
            display(self.flame())
        display({"text/plain": repr(self), "text/html": self._repr_html_()}, raw=True)


def _named(file: str, name_of: Callable[[str], Any]) -> str:
    """A file, for people: cells as `In[3]`."""
    known = name_of(file)
    return file if known is None else str(known[1])


def _cut(nodes: list[list[int]], depth: int, functions: set[int]) -> list[list[int]]:
    """The nodes that lie deeper than `depth`, upon one of `functions` that lies right there."""
    depths: list[int] = []
    new: dict[int, int] = {}
    found: list[list[int]] = []
    for k, (parent, *rest) in enumerate(nodes):
        depths.append(1 if parent < 0 else depths[parent] + 1)
        if parent in new or (depths[k] == depth + 1 and (not depth or rest[0] in functions)):
            new[k] = len(found)
            found.append([new.get(parent, -1), *rest])
    return found


def _cumulated(
    nodes: list[list[int]], key_of: Callable[[list[int]], tuple[int, int]]
) -> Counter[tuple[int, int]]:
    """Looks that met each key anywhere in their stack, once for each stack."""
    below = [node[3] for node in nodes]
    children: list[list[int]] = [[] for _ in nodes]
    for k in range(len(nodes) - 1, -1, -1):
        parent = nodes[k][0]
        if parent >= 0:
            below[parent] += below[k]
            children[parent].append(k)
    found: Counter[tuple[int, int]] = Counter()
    above: Counter[tuple[int, int]] = Counter()
    pending = [(k, True) for k, node in enumerate(nodes) if node[0] < 0]
    while pending:  # stacks may be deeper than Python's own
        k, enters = pending.pop()
        key = key_of(nodes[k])
        if not enters:
            above[key] -= 1
            continue
        if not above[key]:
            found[key] += below[k]
        above[key] += 1
        pending.append((k, False))
        pending += [(child, True) for child in children[k]]
    return found
