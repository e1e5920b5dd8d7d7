"""The version of the package, and the name by which it marks its files."""

__version__ = "0.1.0"
WRITER = "mmseg-video"
