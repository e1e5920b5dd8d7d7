"""What is imported is listed, and what is listed is imported."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
# names that differ from what `packages_distributions` says on some machines, and imports that need another package
DISTRIBUTIONS = {"cv2": "opencv-python", "torch.utils.tensorboard": "tensorboard", "pydantic_core": "pydantic"}


def listed(*files: str) -> set[str]:
    lines = [line.split("#")[0].strip() for name in files for line in (ROOT / name).read_text().splitlines()]
    return {re.split(r"[<>=!~\[; ]", line)[0].lower().replace("_", "-") for line in lines if line}


def imported(*folders: str) -> dict[str, Path]:
    """Distribution -> a file that imports it, also inside functions."""
    known, found = packages_distributions(), {}
    scripts = {path.stem for path in (ROOT / "tests" / "golden").rglob("*.py")}  # imported by their path
    own = {"mmseg", "tests", "tools", *scripts}
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for module in modules:
                top = module.partition(".")[0]
                if top in sys.stdlib_module_names or top in own:
                    continue
                names = [DISTRIBUTIONS.get(module) or DISTRIBUTIONS.get(top) or known.get(top, [top])[0]]
                found.update({name.lower().replace("_", "-"): path for name in names})
    return found


def test_the_package_and_its_tools():
    found = imported("mmseg", "tools")
    extras = {path.name for path in ROOT.glob("requirements-*.txt")} - {"requirements-test.txt"}
    assert len(found) > 8 and "torch" in found
    missing = {name: path for name, path in found.items() if name not in listed("requirements.txt", *extras)}
    assert not missing, f"imported and not listed in requirements.txt: {missing}"
    unused = listed("requirements.txt") - set(found)
    assert not unused, f"listed in requirements.txt and never imported: {unused}"


def test_the_tests():
    missing = set(imported("tests")) - listed(*(path.name for path in ROOT.glob("requirements*.txt")))
    assert not missing, f"imported by the tests and not listed in requirements-test.txt: {missing}"
