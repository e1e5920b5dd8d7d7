"""Video segmentation research in one package; see README.md for the systems and the public names."""

from mmseg.formatter_cache import import_mmengine
from mmseg.version import __version__

import_mmengine()  # before any other module of the package does

__all__ = ["__version__"]
