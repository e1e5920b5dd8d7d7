#!/usr/bin/env python
"""Scores of several test runs side by side: python tools/compare.py NAME=DIR/res.json ..."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmseg.apis import cli
from mmseg.errors import DataError
from mmseg.evaluation.tables import percent, text_table

COLUMNS = {"mIoU": "mIoU", "FWIoU": "weighted IoU", "VC8": "VC8", "VC16": "VC16", "Acc": "Acc"}


def read_scores(path: Path) -> dict[str, float]:
    """The scores of a ``res.json``; nan where it has none.

    Raises:
        DataError: the file is missing or is not the report of a test run.
    """
    try:
        report = json.loads(path.read_text())
        return {key: float("nan") if report[key] is None else float(report[key]) for key in COLUMNS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: {type(error).__name__}: {error}",
            "the res.json of a test run",
            "test with --out DIR/res.pkl first",
        ) from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="NAME=RES_JSON", help="a name is optional")
    rows = []
    for run in parser.parse_args().runs:
        name, _, path = run.rpartition("=")
        scores = read_scores(Path(path))
        rows.append([name or path, *(percent(scores[key]) for key in COLUMNS)])
    print(text_table(["run", *COLUMNS.values()], rows))


if __name__ == "__main__":
    cli.run(main)
