"""Words in pictures, in a font that has more than ASCII."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib (whose import would take longer than drawing a video's legends)."""
    folder = Path(find_spec("matplotlib").submodule_search_locations[0])
    return ImageFont.truetype(str(folder / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def text_width(text: str, size: int) -> int:
    """Pixels that a line of text takes; `size` is that of the font, in pixels."""
    return round(_font(size).getlength(text))


def shortened(text: str, width: int, size: int) -> str:
    """The text, or as much of it and "…" as `width` pixels hold."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text.rstrip(" _-") + "…"


def write_texts(canvas: np.ndarray, texts: list[tuple[str, int, int, Colour]], size: int) -> None:
    """Write lines of text into a picture.

    Args:
        canvas: (H, W, 3) uint8 BGR, changed in place.
        texts: the text, left edge, middle of its height, and BGR colour of each.
        size: of the font in pixels.
    """
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for text, left, middle, colour in texts:
        draw.text((left, middle), text, fill=colour, font=_font(size), anchor="lm")
    canvas[:] = np.asarray(picture)
