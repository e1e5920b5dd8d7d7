#!/usr/bin/env python
"""Segment videos: python tools/infer.py VIDEO ... [CONFIG] CHECKPOINT --out DIR (see docs/inference.md); or the data
set of a config, as published: python tools/infer.py --config CONFIG --checkpoint CHECKPOINT --output_dir DIR.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli
from mmseg.apis.infer_command import main

if __name__ == "__main__":
    cli.run(main)
