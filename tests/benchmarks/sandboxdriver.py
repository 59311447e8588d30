"""Runs code in this kernel's guest without Jupyter, as the side of a comparison; see
nativedriver.py.

A session file may be given, to go on from; {"save": path} makes one.
"""

import json
import sys

from wasi_kernel import Sandbox


def main() -> None:
    """Serves until standard input ends."""
    with Sandbox(resume=sys.argv[1] if len(sys.argv) > 1 else None) as box:
        for line in sys.stdin:
            asked = json.loads(line)
            answer = {"text": ""}
            if "save" in asked:
                box.save(asked["save"])
            else:
                result = box.run(asked["code"])
                answer = {"text": result.stdout} if result.ok else {"error": str(result.error)}
            print(json.dumps(answer), flush=True)


main()
