"""The house is what design says: imports run one way, without circles, and no work is done at import time."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.processes import patience

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "mmseg").rglob("*.py"))

# From the ground up. A room imports rooms of lower floors only; rooms of one floor do not import each other, except on
# the ground floors, whose files are rooms by themselves.
FLOORS = [
    [
        "errors",
        "version",
        "mmengine_names",
        "clips",
        "compat",
        "values",
        "registry",
        "update_sections",
        "sections",
        "config_files",
        "data_entries",
        "config",
    ],
    [
        "parent",
        "worker_pool",
        "locks",
        "files",
        "folder_lock",
        "progress",
        "structures",
        "images",
        "image_trees",
        "video_io",
        "behind",
        "plain_pickle",
    ],
    ["hub", "model_folder", "weights", "carried_config", "distributed", "launchers", "shared_counts"],
    ["evaluation", "visualization"],
    ["writing"],
    ["models", "datasets"],
    ["making"],
    ["engine"],
    ["exporting"],
    ["apis"],
]  # fmt: skip
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
GROUND = 3  # floors whose rooms are single files, which may import each other


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def nodes_of(tree: ast.AST, for_types: bool) -> Iterator[ast.AST]:
    """All nodes; those under ``if TYPE_CHECKING`` only if `for_types`."""
    for child in ast.iter_child_nodes(tree):
        if for_types or not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield child
            yield from nodes_of(child, for_types)


def imports_of(path: Path, for_types: bool = True) -> set[str]:
    """The modules of the package that a file imports, inside of functions as well."""
    found = set()
    for node in nodes_of(ast.parse(path.read_text()), for_types):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in MODULES else node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {name for name in found if name in MODULES}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "version"


@pytest.mark.parametrize("path", FILES, ids=[module_of(path) for path in FILES])
def test_imports_run_one_way(path):
    module = module_of(path)
    own = room_of(module)
    assert own in FLOOR, f"{own}: a room that has no floor yet"
    for name in imports_of(path):
        other = room_of(name)
        same_floor_is_fine = other == own or FLOOR[own] < GROUND
        assert FLOOR[other] < FLOOR[own] or (FLOOR[other] == FLOOR[own] and same_floor_is_fine), f"{module} -> {name}"


def test_there_are_no_import_circles():
    graph = {module: imports_of(path, for_types=False) - {module} for module, path in MODULES.items()}
    # a package that gathers the names of its files is no part of a circle through it
    graph = {m: {n for n in names if not m.startswith(f"{n}.")} for m, names in graph.items()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail[trail.index(module) :], module))
        if module not in done:
            for name in graph[module]:
                visit(name, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_names_tell_files_apart():
    """No two files of the package have one name, but for those that have one job in several rooms.

    What models/cpu holds is called like the formula that it computes in another way.
    """
    one_job = {"__init__", "base", "head", "vspw"}
    stems: dict[str, list[Path]] = {}
    for path in FILES:
        if "cpu" in path.parts:
            continue
        stems.setdefault(path.stem, []).append(path.relative_to(ROOT))
    assert {stem: paths for stem, paths in stems.items() if len(paths) > 1 and stem not in one_job} == {}
    hidden = {stem for stem in stems if stem in sys.stdlib_module_names and stem not in ("test",)}
    assert hidden == set(), "names of the standard library"


def test_mmengine_is_imported_in_one_place():
    """Which copes with a damaged cache of its formatter, and which what needs no config does without."""
    found = set()
    for path in [*FILES, *(ROOT / "tools").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if any(name.split(".")[0] == "mmengine" for name in names):
                found.add(module_of(path))
    assert found == {"mmseg.mmengine_names"}


def test_importing_does_nothing():
    """No output, no threads, no random numbers, no use of the GPU, nothing that is slow and seldom needed."""
    code = (
        "import cv2, mmengine, random, threading, torch; import torch.utils.data;"
        "random.seed(1); torch.manual_seed(1); a = random.getstate(), torch.get_rng_state();"
        "import sys, mmseg.apis.evaluation_command;"
        "assert not [name for name in sys.modules if name.startswith('mmseg.models')];"  # scores need no networks
        "import mmseg.apis, mmseg.apis.training, mmseg.apis.testing, mmseg.apis.inference, mmseg.making.toy;"
        "assert random.getstate() == a[0] and torch.equal(torch.get_rng_state(), a[1]);"
        "assert not torch.cuda.is_initialized() and threading.active_count() == 1;"
        "slow = {'torch._dynamo', 'torchvision', 'scipy.optimize'};"  # some as slow as PyTorch, and seldom needed
        "assert not slow & set(sys.modules), slow & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=patience(100))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stderr
