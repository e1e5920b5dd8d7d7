"""The package can be imported whatever has become of the cache of mmengine's formatter."""

import pathlib
import subprocess
import sys

import pytest

from tests.tools.processes import ROOT, environment, patience

CODE = "import os, mmseg.config; print(mmseg.config.Config(dict(a=1)).pretty_text.strip(), os.environ)"


def said(cache: pathlib.Path) -> str:
    """The output of a process that imports the package and has a config formatted."""
    command, env = [sys.executable, "-c", CODE], environment(XDG_CACHE_HOME=str(cache))
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=patience(20))
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("size", [0, 1000], ids=["empty", "a part"])
def test_a_cache_that_another_process_has_begun(tmp_path, size):
    said(tmp_path)
    grammars = list(tmp_path.rglob("*.pickle"))
    assert grammars  # else the formatter has another cache by now, and this test and what it tests can go
    for grammar in grammars:
        grammar.write_bytes(grammar.read_bytes()[:size])
    output = said(tmp_path)
    assert output.startswith("a = 1 ") and f"'XDG_CACHE_HOME': '{tmp_path}'" in output
