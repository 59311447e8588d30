"""The kernel with checkpoints on or off, to be compared: `python switched.py on|off -f FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from wasi_kernel import kernel, launch
from wasi_kernel.policy import CheckpointLimits, Policy

if __name__ == "__main__":
    _, switch, *argv = sys.argv
    policy = Policy(checkpoints=CheckpointLimits(enabled=switch == "on"))
    settings = launch.settings(policy, Path.cwd())
    kernel.main(argv, settings, launch.start(settings))
