"""Video segmentation research in one package; see README.md for the systems and the public names."""

from mmseg.version import __version__

__all__ = ["__version__"]
