"""Files of weights: every layout is read, what they ask for beyond weights is refused, and what fits is told apart."""

from __future__ import annotations

import os
import pathlib
import pickle
import struct
import sys
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mmseg.errors import CheckpointError, WriteError
from mmseg.weights import (
    load_checkpoint,
    read_checkpoint,
    read_weights_file,
    strip_prefix,
    unusable,
    write_weights_file,
)
from tests.tools.processes import ROOT, finish
from tests.weight_models import equal, small_model

# --- reading ----------------------------------------------------------------------------------------------------------


def test_truncated_file(tmp_path):
    path = tmp_path / "iter_1.pth"
    write_weights_file(path, {"state_dict": small_model().state_dict()})
    content = path.read_bytes()
    for size in (0, 10, len(content) // 2, len(content) - 10):
        path.write_bytes(content[:size])
        with pytest.raises(CheckpointError, match=r"iter_1\.pth"):
            load_checkpoint(small_model(), path)


def test_places_that_hold_no_file(tmp_path):
    (tmp_path / "folder.pth").mkdir()
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "latest.pth").symlink_to("iter_4.pth")
    for place, message in (
        (tmp_path / "none.pth", "no such file"),
        ("https://example.org/cffm.pth", "no such file\n(.*\n)*.*download it"),
        (tmp_path / "latest.pth", r"no such file \(a link to iter_4\.pth, which does not exist\)"),
        (tmp_path / "folder.pth", "is a folder"),
        (tmp_path / "pipe.pth", "is a pipe or a device"),
        ("/dev/zero", "is a pipe or a device"),
        ("a\0b.pth", r"'a\\x00b\.pth': no file name"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(small_model(), place)


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, target: pathlib.Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_code_in_a_file_is_not_run(tmp_path, how):
    path, target = tmp_path / "evil.pth", tmp_path / "proof"
    content = {"state_dict": small_model().state_dict(), "extra": Evil(target)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(CheckpointError, match=r"evil\.pth"):
        load_checkpoint(small_model(), path)
    assert not target.exists()


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: object, *args: object) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple:
        return self.function, self.args


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "value",
    [
        Call(np.ndarray, (), [("a", "O")], b"A" * 64),  # pointers to anywhere
        Call(np.dtype, "O"),
        Call(np.load, "file"),
        np.array(["text"]),
        np.ndarray,
    ],
    ids=["pointers", "object dtype", "another function", "text", "the class"],
)
def test_only_plain_arrays_are_made(tmp_path, value, zipped):
    path = tmp_path / "bad.pth"
    content = {"state_dict": small_model().state_dict(), "meta": {"seed": value}}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="refused to read it, it asks for more than weights"):
        read_checkpoint(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_numpy_values_of_official_files(tmp_path, zipped):
    path = tmp_path / "iter_10.pth"
    meta = {"lr": np.float64(0.1), "PALETTE": np.arange(6, dtype=np.uint8).reshape(2, 3), "flag": np.bool_(True)}
    content = {"state_dict": small_model().state_dict(), "meta": meta}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    read = read_checkpoint(path)["meta"]
    assert type(read["lr"]) is np.float64 and read["lr"] == 0.1 and read["flag"]
    assert type(read["PALETTE"]) is np.ndarray and np.array_equal(read["PALETTE"], meta["PALETTE"])


def rewritten(path: pathlib.Path, compression: int = zipfile.ZIP_STORED, **replaced: bytes) -> None:
    """The archive of torch.save again, with parts of its pickle replaced."""
    with zipfile.ZipFile(path) as source:
        entries = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(path, "w", compression) as target:
        for name, data in entries.items():
            if name.endswith("data.pkl"):
                for old, new in replaced.values():
                    assert old in data
                    data = data.replace(old, new)
            target.writestr(name, data)


@pytest.mark.parametrize("count", [5, 10**6, 10**9, 10**15])
def test_a_tensor_that_claims_more_than_the_file_has(tmp_path, count):
    path = tmp_path / "claims.pth"
    torch.save({"a": torch.zeros(4)}, path)
    number = b"J" + struct.pack("<i", count) if count < 2**31 else b"\x8a\x08" + struct.pack("<q", count)
    rewritten(path, storage=(b"K\x04t", number + b"t"), size=(b"K\x04\x85", number + b"\x85"))
    with pytest.raises(CheckpointError, match=f"tensor 0 is shorter than the {count} elements"):
        read_weights_file(path)


def test_an_archive_that_unpacks_to_more_than_it_is(tmp_path):
    path = tmp_path / "packed.pth"
    torch.save({"a": torch.zeros(10**6)}, path)
    rewritten(path, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**5
    with pytest.raises(CheckpointError, match="smaller than what it claims to hold"):
        read_weights_file(path)


@pytest.mark.filterwarnings("ignore")
def test_what_is_no_plain_tensor():
    kinds = {
        "sparse": torch.eye(2).to_sparse(),
        "quantised": torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.quint8),
        "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        "complex": torch.ones(2, dtype=torch.complex64),
    }
    for kind, value in kinds.items():
        assert unusable(value) == "is sparse, quantised, nested or complex", kind
    assert unusable(torch.ones(2)) is None and unusable(torch.ones(2, device="meta")) == "has a shape and no content"


@pytest.mark.parametrize(
    "layout", ["state_dict", "model", "plain", "module.", "_orig_mod.", "module._orig_mod.", "safetensors"]
)
def test_layouts(tmp_path, layout):
    path = tmp_path / "weights.pth"
    state = small_model(1).state_dict()
    if layout.endswith("."):
        state = {f"{layout}{name}": value for name, value in state.items()}
    if layout == "safetensors":
        path = path.with_suffix(".safetensors")
        save_file(state, path)
    else:
        torch.save(state if layout == "plain" else {"model" if layout == "model" else "state_dict": state}, path)
    model = small_model()
    load_checkpoint(model, path, strict=True)
    assert equal(model, small_model(1))


def test_strip_prefix_leaves_other_names():
    assert strip_prefix({"module.a": 1, "b.module.c": 2}) == {"a": 1, "b.module.c": 2}
    assert strip_prefix({"_orig_mod.module.a": 1, "b._orig_mod.c": 2}) == {"a": 1, "b.c": 2}  # parts compiled alone


def test_file_without_weights(tmp_path):
    path = tmp_path / "list.pth"
    for content in ([1, 2], {"a": 1}, {"state_dict": 3}, {"meta": {}, "state_dict": {"a": "b"}}, 5):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match="no weights in it"):
            load_checkpoint(small_model(), path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"meta": "x"}, "meta is a str"),
        ({"meta": [1]}, "meta is a list"),
        ({"meta": {"CLASSES": 5}}, "CLASSES"),
        ({"meta": {"CLASSES": ["a", 1]}}, "CLASSES"),
        ({"meta": {"PALETTE": "x"}}, "PALETTE"),
        ({"meta": {"PALETTE": [[1, 2], [3, 4]]}}, "PALETTE"),
        ({"meta": {"PALETTE": [[1, 2, 300]]}}, "PALETTE"),
        ({"meta": {"PALETTE": [[1, 2, 10**30]]}}, "PALETTE"),
        ({"meta": {"PALETTE": torch.zeros(0, 3)}}, "PALETTE"),
        ({"state_dict": {1: torch.zeros(1)}}, "names that are no text"),
    ],
)
def test_checkpoints_with_wrong_parts(tmp_path, wrong, message):
    torch.save({"meta": {}, "state_dict": small_model().state_dict(), **wrong}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "a.pth")


def test_no_meta_is_none(tmp_path):
    torch.save({"meta": None, "state_dict": small_model().state_dict()}, tmp_path / "a.pth")
    assert read_checkpoint(tmp_path / "a.pth")["meta"] == {}


FILL_UP = """
import resource, sys, torch
from mmseg.errors import WriteError
from mmseg.weights import write_weights_file
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    write_weights_file(sys.argv[1], {"a": torch.zeros(int(sys.argv[2]))}, "or train less")
except WriteError as error:
    print(error)
"""


@pytest.mark.parametrize("numbers", [200_000, 5_000_000])  # of 4 bytes each: more than the limit, than one write
def test_a_full_disk_is_told_as_it_is(tmp_path, numbers):
    (tmp_path / "a.pth").write_bytes(b"old")
    told = finish([sys.executable, "-c", FILL_UP, tmp_path / "a.pth", numbers], ROOT)
    assert "a.pth: cannot be written, the file is larger than allowed" in told and "train less" in told
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]
    assert (tmp_path / "a.pth").read_bytes() == b"old"


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot be written"):
        write_weights_file(tmp_path / "file" / "a.pth", {})
