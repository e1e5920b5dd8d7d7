"""Reads a ``report.html``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any


def numbers_of(path: Path) -> dict[str, Any]:
    """What its page draws, without the time at which it was written."""
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.S)[1]
    content = json.loads(block)
    content["facts"] = {name: value for name, value in content["facts"] if name != "date"}
    return content
