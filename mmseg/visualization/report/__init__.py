"""A report of a test as one HTML file that needs nothing else: no network, no server, no other file."""

from mmseg.visualization.report.page import render_report
from mmseg.visualization.report.shown_frame import ShownFrame

__all__ = ["ShownFrame", "render_report"]
