#!/usr/bin/env python
"""Score stored predictions, whoever made them (see docs/scores.md).

    python tools/evaluate.py PRED --data-root data/vspw/VSPW_480p
    python tools/evaluate.py --protocol davis17 PRED DAVIS/Annotations/480p

PRED holds ``<video>/<frame>.png``: palette or grey PNGs of class numbers or object ids; for the protocol vspw, a
``res.pkl`` of a test run is taken as well.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli
from mmseg.apis.evaluation_command import add_evaluation_arguments, run_evaluation


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_evaluation_arguments(parser)
    run_evaluation(parser.parse_args(argv))


if __name__ == "__main__":
    cli.run(main)
