"""The folder of an export: graphs, ``model.json`` and the runner, whole or not there at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from mmseg.errors import ConfigError, WriteError
from mmseg.exporting import onnx_runner, openvino_graphs, runner_objects, runner_prototypes
from mmseg.exporting.onnx_graphs import Graph, export_graph, require_onnx
from mmseg.exporting.picture_parts import Pictures
from mmseg.files import make_folder, writing
from mmseg.folder_lock import FolderLock
from mmseg.models.base import VideoModel
from mmseg.models.exportable import ExportParts, Part
from mmseg.structures import Size

DESCRIPTION = "model.json"
_ADVICE = "--out says where the export goes"


def export_model(
    model: VideoModel,
    size: Size,
    out: str | Path,
    about: Mapping[str, Any] | None = None,
    pictures: Pictures | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    opset: int | None = None,
    batch: bool = True,
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, Graph]:
    """Write the folder `out` with all parts of a model.

    Args:
        model: in eval mode.
        size: (h, w) of the network's input.
        out: must not exist.
        about: further entries of ``model.json``.
        pictures: how frames become that input, for graphs that do it; None: the runner takes inputs and gives logits.
        settings: of the model's stream.
        opset: of ONNX.
        batch: let it have any length where that is possible.
        tell: is told what is done.

    Returns:
        The graphs by name.

    Raises:
        ConfigError: packages are missing, `out` exists, or the model cannot be exported.
        DataError: a size that the model cannot take.
        WriteError: the folder cannot be written.
    """
    require_onnx()
    graphs: dict[str, Graph] = {}
    with new_folder(Path(out)) as folder:
        exported = model.export_parts(size, **(settings or {}))
        # the small ones first: where resized pictures are not PyTorch's, it is told in a second
        parts = {**_around(model, exported, pictures), **exported.parts}
        for number, (name, part) in enumerate(parts.items(), start=1):
            tell(f"{name} ({number} of {len(parts)})")
            graphs[name] = export_graph(part, **({} if opset is None else {"opset": opset}), batch=batch)
            _write(folder / f"{name}.onnx", graphs[name].data)
        content = {
            "format": onnx_runner.FORMAT,
            "model": type(model).__name__,
            "input": {
                "size": list(size),
                "channels": 6 if model.takes_flow else 3,
                **(pictures.record() if pictures else {}),
            },
            "result": {"kind": model.score_kind, "classes": model.num_classes},
            "policy": exported.policy,
            "graphs": {name: _description(name, graph) for name, graph in graphs.items()},
            "classes": None if model.CLASSES is None else list(model.CLASSES),
            "palette": None if model.PALETTE is None else [list(map(int, colour)) for colour in model.PALETTE],
            **(about or {}),
        }
        for source in (onnx_runner, openvino_graphs, *_beside_runner(exported.policy)):
            _write(folder / Path(source.__file__).name, Path(source.__file__).read_bytes())
        _write(folder / DESCRIPTION, (json.dumps(content, indent=1) + "\n").encode())
    return graphs


def _beside_runner(policy: Mapping[str, Any]) -> list[ModuleType]:
    """What the runner imports for a policy."""
    needed = {runner_prototypes: "prototypes" in policy, runner_objects: policy["kind"] == "objects"}
    return [module for module, is_needed in needed.items() if is_needed]


def _around(model: VideoModel, exported: ExportParts, pictures: Pictures | None) -> dict[str, Part]:
    """The graphs before and behind the network, where they are wanted, and logits are what comes out."""
    decoder = exported.parts.get("decode")
    if pictures is None or decoder is None or decoder.outputs != ("logits",):
        return {}
    return pictures.parts(6 if model.takes_flow else 3, decoder.example()["logits"].shape)


def _description(name: str, graph: Graph) -> dict[str, Any]:
    return {
        "file": f"{name}.onnx",
        "sha256": hashlib.sha256(graph.data).hexdigest(),
        "inputs": graph.inputs,
        "outputs": graph.outputs,
    }


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A hidden folder that becomes `out` at the end of the block, or disappears after an error.

    Raises:
        ConfigError: `out` exists.
        WriteError: it cannot be written, or another process makes it.
    """
    out = Path(os.path.abspath(out))
    if out.exists() or out.is_symlink():
        raise ConfigError(f"--out {out}: exists", "a new folder", "give another --out, or remove it")
    made = [folder for folder in out.parents if not folder.exists()]  # the innermost one first
    hidden = out.with_name(f".{out.name}.unfinished")
    lock = FolderLock(hidden, f"an export to {out.name!r}")
    try:
        with writing(hidden, _ADVICE):
            for path in hidden.iterdir():  # of a run that was killed
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path != lock.path:
                    path.unlink()
        yield hidden
        with writing(out, _ADVICE):
            lock.release()
            if out.exists():
                raise WriteError(f"{out}: has come into being meanwhile", "a new folder", "give another --out")
            os.rename(hidden, out)
    finally:
        lock.release()
        shutil.rmtree(hidden, ignore_errors=True)
        if not out.exists():
            with contextlib.suppress(OSError):
                for folder in made:
                    folder.rmdir()


def _write(path: Path, data: bytes) -> None:
    make_folder(path.parent, _ADVICE)
    with writing(path, _ADVICE), open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
