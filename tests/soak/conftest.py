"""The soak's modules are found by their names, as when it is run as a command."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
