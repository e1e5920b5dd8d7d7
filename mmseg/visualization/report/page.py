"""Makes that file: its HTML, CSS and JavaScript lie beside this one, the numbers become one block of JSON in it."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import Any

_SCRIPTS = ("elements.js", "tables.js", "charts.js", "confusion.js", "page.js")


def render_report(title: str, content: Mapping[str, Any]) -> str:
    """The HTML file.

    Args:
        title: of the page.
        content: plain JSON values, for ``page.js``::

            facts     [[name, value], ...] of the run
            notes     [text, ...]
            parts     one for each evaluator: name, percent, scores [[name, value]], rules [[name, text]],
                      bars [[class, IoU, colour]], confusion {names, cells [[row, column, pixels]]} or None,
                      curves [{id, video, numbers, curves {name: values}}], thinned,
                      tables [{title, columns [{name, kind}], rows, colours, links}]
            frames    score, percent, stride, legend {label: [name, colour]}, rows [{video, name, score, present
                      [label], image, truth, prediction}] with pictures as data URIs
    """
    data = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Template(_read("page.html")).substitute(
        title=html.escape(title.encode("utf-8", "replace").decode()),  # names of files may be none of UTF-8
        style=_read("page.css"),
        script="".join(map(_read, _SCRIPTS)),
        data=data.replace("<", "\\u003c"),  # nothing in it can end the script element, or begin a comment
    )


def _read(name: str) -> str:
    return files("mmseg.visualization.report").joinpath(name).read_text(encoding="utf-8")
