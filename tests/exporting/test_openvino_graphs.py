"""A missing package is one message; test_export_folder.py compares the numbers of OpenVINO with those of PyTorch."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest

from mmseg.apis.exports import exported_model
from mmseg.errors import ConfigError


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
