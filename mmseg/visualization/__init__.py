"""Pictures and videos for people."""

from mmseg.visualization.contact_sheet import Row, contact_sheet
from mmseg.visualization.legend import Legend, legend_strip
from mmseg.visualization.painting import OPACITY, colourise, overlay, side_by_side
from mmseg.visualization.palette import davis_palette, default_palette, palette_table
from mmseg.visualization.video import OverlayVideo
from mmseg.visualization.video_encoders import VIDEO_SUFFIXES
from mmseg.visualization.video_writer import VideoWriter

__all__ = [
    "OPACITY",
    "VIDEO_SUFFIXES",
    "Legend",
    "OverlayVideo",
    "Row",
    "VideoWriter",
    "colourise",
    "contact_sheet",
    "davis_palette",
    "default_palette",
    "legend_strip",
    "overlay",
    "palette_table",
    "side_by_side",
]
