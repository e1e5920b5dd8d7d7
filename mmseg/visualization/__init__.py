"""Pictures and videos for people."""

from mmseg.visualization.contact_sheet import Row, contact_sheet
from mmseg.visualization.palette import colourise, davis_palette, default_palette, overlay, palette_table
from mmseg.visualization.video import OVERLAY_SUFFIXES, OverlayVideo

__all__ = [
    "OVERLAY_SUFFIXES",
    "OverlayVideo",
    "Row",
    "colourise",
    "contact_sheet",
    "davis_palette",
    "default_palette",
    "overlay",
    "palette_table",
]
