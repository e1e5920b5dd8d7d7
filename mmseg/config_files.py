"""What a config file says as text: its base files, the variables it sets and reads, and it with other values.

A config is Python that is executed, after which nothing tells that ``pipeline[3].crop_size`` once was the variable
``crop_size``. The text does.
"""

from __future__ import annotations

import ast
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmseg.mmengine_names import Config

_PLACEHOLDER = re.compile(r"\{\{\s*_base_\.")
_PREDEFINED = re.compile(r"\{\{\s*(file|\$)")  # what mmengine puts in from the file's own name or the environment


@dataclass(frozen=True)
class ConfigFile:
    """One file of a config: its syntax tree as written, and the files that it is based on."""

    path: Path
    text: str
    tree: ast.Module
    bases: tuple[ConfigFile, ...]

    def chain(self) -> Iterator[ConfigFile]:
        """The file and all that it is based on."""
        yield self
        for base in self.bases:
            yield from base.chain()


def parse(path: Path) -> ConfigFile | None:
    """The file with its bases; None where the text does not tell them (no Python, computed names, missing files)."""
    try:
        text = path.read_text(encoding="utf-8")
        tree = _parsed(text)
        bases = [parse(path.parent / base) for base in _base_names(tree)]
    except (OSError, SyntaxError, ValueError, TypeError, RecursionError):
        return None
    return None if None in bases else ConfigFile(path, text, tree, tuple(bases))


def quoted_placeholders(file: ConfigFile) -> Iterator[tuple[Path, int, str]]:
    """Every ``'{{ _base_.name }}'`` in quotes of the chain, as (file, line, text).

    mmengine puts the value in before it parses the file, so that the quotes break it, or leave a text behind that
    stands for nothing.
    """
    for part in file.chain():
        comments = {id(node.value) for node in ast.walk(part.tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(part.tree):
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in comments
            if is_text and _PLACEHOLDER.search(node.value):
                yield part.path, node.lineno, node.value


def names_read(file: ConfigFile) -> set[str]:
    """Variables that some file of the chain reads, also as ``_base_.name``."""
    return set().union(*(_names_read(part.text) for part in file.chain()))


def with_values(file: ConfigFile, values: Mapping[str, Any]) -> Config | None:
    """The config that the file would give if it set its variables to `values`; None where that cannot be told.

    It can where a variable is only set by plain assignments (``name = ...``) that are not inside of anything else.
    """
    if not all(_is_plain(file, name) for name in values) or any(_PREDEFINED.search(f.text) for f in file.chain()):
        return None
    with tempfile.TemporaryDirectory() as folder:
        config = Config.fromfile(_written(file, values, Path(folder)), lazy_import=False, import_custom_modules=False)
    return Config(config.to_dict(), filename=str(file.path))


@lru_cache(maxsize=256)
def _parsed(text: str) -> ast.Module:
    """The syntax tree of a file, which nothing changes: the files of a config are looked at several times."""
    return ast.parse(text)


@lru_cache(maxsize=256)
def _names_read(text: str) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(_parsed(text)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "_base_":
            names.add(node.attr)
    return frozenset(names)


def _base_names(tree: ast.Module) -> list[str]:
    """The literal value of ``_base_``. Raises ValueError if it is computed."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "_base_":
            value = ast.literal_eval(node.value)
            return [value] if isinstance(value, str) else list(value)
    return []


def _assignments(tree: ast.Module, name: str) -> list[ast.Assign]:
    """The plain assignments of a variable."""
    return [
        node
        for node in tree.body
        if isinstance(node, ast.Assign) and [getattr(target, "id", None) for target in node.targets] == [name]
    ]


def _is_plain(file: ConfigFile, name: str) -> bool:
    """Whether every file of the chain that sets the variable does so once, by a plain assignment; and one does."""
    total = 0
    for part in file.chain():
        stores = sum(
            isinstance(node, ast.Name) and node.id == name and not isinstance(node.ctx, ast.Load)
            for node in ast.walk(part.tree)
        )
        plain = len(_assignments(part.tree, name))
        if stores != plain or plain > 1:
            return False
        total += plain
    return total > 0


def _written(file: ConfigFile, values: Mapping[str, Any], folder: Path) -> str:
    """Write the chain with other values into `folder`; returns the path of the file itself."""
    bases = [_written(base, values, folder) for base in file.bases]
    tree = ast.parse(ast.unparse(file.tree))
    for name, value in {**values, "_base_": bases}.items():
        for node in _assignments(tree, name):
            node.value = ast.parse(repr(value), mode="eval").body
    path = folder / f"file_{len(list(folder.iterdir()))}.py"
    path.write_text(ast.unparse(tree), encoding="utf-8")
    return str(path)
