"""What this package uses of mmengine, imported whatever state the cache of mmengine's formatter is in.

The formatter (yapf) keeps its grammar in a file of the user's cache folder, which it reads and writes as it is
imported. It renames the file before the last bytes are in it: of several processes that start for the first time
(torchrun, slurm on a shared home folder), one may find a part of it and end with "EOFError: Ran out of input". A kill
at that moment leaves such a part behind, and no later process would start.
"""

from __future__ import annotations

import os
import tempfile

_FOLDER = "XDG_CACHE_HOME"  # where the cache is looked for


def _import_formatter() -> None:
    """Have mmengine import it; with a cache of this process's own where the user's cannot be read."""
    try:
        import mmengine.config
    except ImportError:
        raise
    except Exception:  # whatever unpickling a part of a file ends in; another cause will show again
        before = os.environ.get(_FOLDER)
        with tempfile.TemporaryDirectory() as own:
            os.environ[_FOLDER] = own
            try:
                import mmengine.config  # noqa: F401
            finally:
                os.environ.pop(_FOLDER)
                if before is not None:
                    os.environ[_FOLDER] = before


_import_formatter()

from mmengine.config import Config, DictAction  # noqa: E402
from mmengine.registry import Registry  # noqa: E402

__all__ = ["Config", "DictAction", "Registry"]
