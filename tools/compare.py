#!/usr/bin/env python
"""Scores of several test runs side by side: python tools/compare.py NAME=DIR/res.json ..."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli
from mmseg.errors import DataError
from mmseg.evaluation.tables import percent, text_table
from mmseg.files import read_json

COLUMNS = {"mIoU": "mIoU", "FWIoU": "weighted IoU", "VC8": "VC8", "VC16": "VC16", "Acc": "Acc"}  # others follow
LEFT_OUT = ("Acc_class",)


def read_scores(path: Path) -> dict[str, float]:
    """The scores of a ``res.json`` by name, nan where undefined; those of other definitions (a/b) are left out.

    Raises:
        DataError: the file is missing or is not the report of a test run.
    """
    report = read_json(path)
    scores = {}
    if isinstance(report, dict) and ("run" in report or "predictions" in report):
        for name, value in report.items():
            if (value is None or isinstance(value, int | float)) and "/" not in name and name not in LEFT_OUT:
                scores[name] = math.nan if value is None else float(value)
    if not scores:
        raise DataError(f"{path}: no scores in it", "the res.json of a test run", "test with --out DIR/res.pkl first")
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="NAME=RES_JSON", help="a name is optional")
    runs = [run.rpartition("=") for run in parser.parse_args().runs]
    scores = [(name or path, read_scores(Path(path))) for name, _, path in runs]
    known = {name for _, found in scores for name in found}
    names = [*(name for name in COLUMNS if name in known), *sorted(known - set(COLUMNS))]
    rows = [[run, *(percent(found[name]) if name in found else "-" for name in names)] for run, found in scores]
    print(text_table(["run", *(COLUMNS.get(name, name) for name in names)], rows))


if __name__ == "__main__":
    cli.run(main)
