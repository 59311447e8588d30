"""Granted: the folders that a guest has, as a look; what its session has changed in each.

Host paths stay here: what is said are guest paths and counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wasi_kernel.worker.looks import Refusal, Sight

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wasi_kernel.worker.preopens import Preopen
    from wasi_kernel.worker.usage import Usage


def look(
    preopens: Sequence[Preopen], usage: Usage, missing: Callable[[], Sequence[str]]
) -> Callable[[dict[str, Any]], Sight]:
    """What answers a "grants" look: `folders`, a row for each folder but the root.

    A row has `guest_path`, `writable`, `there` (False: its host folder was moved, and an empty one
    stands in its place), and, where the question has `measure`, `bytes` and `entries`: of files
    and folders that have changed since the session began, None where nobody can know. To measure
    takes as long as it takes to list `usage.MAX_ENTRIES` entries of each folder, at most.

    Args:
        preopens: The guest's folders.
        usage: What measures.
        missing: Gives the guest paths of those that are not there now.
    """

    def answer(question: dict[str, Any]) -> Sight:
        measure = question.get("measure", False)
        if type(measure) is not bool:
            raise Refusal("measure is neither true nor false")
        gone = missing()
        rows = []
        for each in preopens:
            if each.guest_path == "/":
                continue
            row: dict[str, Any] = {
                "guest_path": each.guest_path, "there": each.guest_path not in gone,
                "writable": each.writable and each.guest_path not in gone,
            }  # fmt: skip
            if measure:
                counted = row["writable"] and usage.changed_in(each.host_path)
                size, entries = counted or (None, None)
                row |= {"bytes": size, "entries": entries}
            rows.append(row)
        return Sight({"folders": rows})

    return answer
