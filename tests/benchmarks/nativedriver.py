"""Runs code in this Python, as the side of a comparison: requests and answers are lines of JSON.

Takes {"code": ...}, answers {"text": what it printed} or {"error": ...}; see sides.py.
"""

import contextlib
import io
import json
import sys


def main() -> None:
    """Serves until standard input ends."""
    answers, names = sys.stdout, {"__name__": "__main__"}
    for line in sys.stdin:
        shown = io.StringIO()
        try:
            with contextlib.redirect_stdout(shown):
                exec(json.loads(line)["code"], names)  # noqa: S102 - that is what it is for
            answer = {"text": shown.getvalue()}
        except Exception as e:  # noqa: BLE001 - it is the answer
            answer = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps(answer), file=answers, flush=True)


main()
