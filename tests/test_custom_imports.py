"""``custom_imports`` of a config: modules of the working directory run, and what cannot be imported is told."""

import os
import sys
from pathlib import Path

import pytest

from mmseg.config import load_config
from mmseg.errors import ConfigError


def write(path: Path, text: str) -> Path:
    path.write_text(text + "\n")
    return path


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working directory with modules of a user; the process forgets them afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", os.getcwd())])
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.startswith("my_"):
            del sys.modules[name]


def test_custom_imports_run_the_modules_of_the_working_directory(elsewhere):
    write(elsewhere / "my_parts.py", "from pathlib import Path\nPath('was_here').touch()")
    load_config(write(elsewhere / "config.py", "custom_imports = dict(imports=['my_parts'])"))
    assert (elsewhere / "was_here").exists()


@pytest.mark.parametrize(
    ("module", "name", "message"),
    [
        ("x = 1", "my_missing", "my_missing.*ModuleNotFoundError"),
        ("1 / 0", "my_broken", "my_broken.*ZeroDivisionError"),
    ],
)
def test_modules_that_cannot_be_imported(elsewhere, module, name, message, caplog):
    write(elsewhere / "my_broken.py", module)
    path = write(elsewhere / "config.py", f"custom_imports = dict(imports='{name}', allow_failed_imports=False)")
    with pytest.raises(ConfigError, match=message):
        load_config(path)
    load_config(path, {"custom_imports.allow_failed_imports": True})
    assert name in caplog.text
