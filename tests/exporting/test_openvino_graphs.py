"""What cannot be is one message; test_export_folder.py compares the numbers of OpenVINO with those of PyTorch."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch

from mmseg.apis.exports import exported_model
from mmseg.errors import ConfigError
from mmseg.exporting.openvino_graphs import open_graph


@pytest.mark.parametrize(("backend", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_a_missing_package_is_one_message(backend: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    graph = {"file": "decode.onnx", "sha256": hashlib.sha256(b"graph").hexdigest()}
    (tmp_path / "decode.onnx").write_bytes(b"graph")
    (tmp_path / "model.json").write_text(json.dumps({"format": 1, "policy": {}, "graphs": {"decode": graph}}))
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(ConfigError, match=rf"without the package {package}[\s\S]*pip install -e \.\[{backend}\]"):
        exported_model(tmp_path, backend)


def test_an_unknown_backend_is_one_message(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"--backend tensorrt[\s\S]*onnx or openvino"):
        exported_model(tmp_path, "tensorrt")


@pytest.mark.parametrize(("backend", "amp"), [("onnx", torch.bfloat16), ("openvino", torch.float16)])
def test_a_type_without_effect_is_one_message(backend: str, amp: torch.dtype, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"--amp \w*float16[\s\S]*--amp bfloat16 with --backend openvino"):
        exported_model(tmp_path, backend, amp)


def test_a_processor_without_bfloat16_is_one_message(tmp_path: Path):
    openvino = pytest.importorskip("openvino", reason="pip install -e .[openvino]")
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has instructions for bfloat16")
    with pytest.raises(ConfigError, match=r"--amp bfloat16[\s\S]*instructions for bfloat16"):
        exported_model(tmp_path, "openvino", torch.bfloat16)
    with pytest.raises(ValueError, match="on a processor without it"):
        open_graph(tmp_path / "decode.onnx", "bfloat16")


def test_an_unknown_precision_is_one_message(tmp_path: Path):
    pytest.importorskip("openvino", reason="pip install -e .[openvino]")
    with pytest.raises(ValueError, match="'int4': expected float32 or bfloat16"):
        open_graph(tmp_path / "decode.onnx", "int4")
