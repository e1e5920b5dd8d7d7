"""An export in the place of the model that it was made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from mmseg.apis import VideoStream, init_segmentor
from mmseg.apis.exports import export, exported_model, require_backend
from mmseg.config import load_config
from mmseg.errors import ConfigError
from mmseg.exporting import onnx_graphs
from mmseg.exporting.exported_model import is_export
from mmseg.exporting.onnx_graphs import Graph, traced
from mmseg.exporting.onnx_runner import Runner
from mmseg.models.base import VideoModel
from tests.contract.systems import SYSTEMS
from tests.exporting.small_encoder import with_small_encoder

SIZE = (64, 112)  # of frames, which the test pipeline enlarges to 96x160
TOY = Path(__file__).parents[2] / "local_configs" / "toy" / "cffm.b0.py"


def model_of_frames():
    """A SegFormer with the test pipeline of the toy config."""
    cfg = load_config(TOY)
    cfg.model = with_small_encoder(SYSTEMS[0]).config()
    torch.manual_seed(0)
    return init_segmentor(cfg)


def some_frames() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8) for _ in range(3)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[VideoModel, Path, dict[str, Graph], list[str]]:
    """A model, its export, the graphs and what was told."""
    model, out, told = model_of_frames(), tmp_path_factory.mktemp("export") / "out", []
    return model, out, export(model, out, SIZE, tell=told.append), told


def test_an_export_takes_pictures_and_gives_label_maps(exported):
    model, out, graphs, told = exported
    assert list(graphs) == ["prepare", "labels", "decode"] and told[0] == "prepare (1 of 3)" and is_export(out)
    assert graphs["decode"].inputs == {"img": ["batch", 3, 96, 160]}
    ours, theirs, alone = VideoStream(model), VideoStream(exported_model(out)), Runner(out)
    for frame in some_frames():
        labels = ours.step(frame)
        assert (theirs.step(frame) == labels).mean() > 0.999 and len(np.unique(labels)) > 1
        found = alone.segment(frame)
        # grey levels that OpenCV rounds otherwise may decide between two classes here and there
        assert found.shape == labels.shape and found.dtype == labels.dtype and (found == labels).mean() > 0.99
    with pytest.raises(ValueError, match=r"a frame of \(96, 160, 3\) uint8 for graphs of \(64, 112, 3\)"):
        alone.segment(np.zeros((96, 160, 3), np.uint8))
    part = model.export_parts((96, 160)).parts["decode"]
    images = torch.randn(3, 3, 96, 160, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = part.module(images)
        torch.testing.assert_close(traced(part).module()(images), expected, rtol=0, atol=1e-4)
    [found] = onnxruntime.InferenceSession(out / "decode.onnx").run(None, {"img": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-4)


def test_mixed_precision_around_an_export_is_refused(exported):
    """Its graphs would not notice."""
    stream = VideoStream(exported_model(exported[1]), amp=torch.bfloat16)
    with pytest.raises(ConfigError, match="give the type to exported_model"):
        stream.step(some_frames()[0])
    before = torch.is_autocast_enabled("cuda")
    torch.set_autocast_enabled("cuda", True)  # as for a model that has been moved to a GPU
    try:
        with pytest.raises(ConfigError, match="give the type to exported_model"):
            VideoStream(exported_model(exported[1])).step(some_frames()[0])
    finally:
        torch.set_autocast_enabled("cuda", before)


def test_openvino_in_bfloat16(exported):
    openvino = pytest.importorskip("openvino", reason="pip install -e .[openvino]")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no instructions for bfloat16")
    model, out, *_ = exported
    plain, full, rounded = (
        VideoStream(each, returns=("logits",))
        for each in (model, exported_model(out, "openvino"), exported_model(out, "openvino", torch.bfloat16))
    )
    for frame in some_frames():
        expected = plain.step(frame).logits
        off = [np.abs(stream.step(frame).logits - expected).max() / expected.std() for stream in (full, rounded)]
        assert off[0] < 1e-3 < off[1] < 0.1


def test_what_cannot_be_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model, out = model_of_frames(), tmp_path / "out"
    with pytest.raises(ConfigError, match="--opset 3"):
        export(model, out, SIZE, opset=3)
    with pytest.raises(ConfigError, match=r"tools/export\.py"):
        require_backend("onnx", "some.pth")
    for wrong in ({"amp": torch.bfloat16}, {"options": {"a": 1}}, {"backend": "pytorch"}):
        with pytest.raises(ConfigError):
            exported_model(out, **wrong)
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigError, match="exists"):
        export(model, tmp_path / "there", SIZE)
    monkeypatch.setattr(onnx_graphs, "NEEDED", ("onnx", "a_package_that_is_not_there"))
    with pytest.raises(ConfigError, match=r"pip install -e \.\[onnx\]"):
        export(model, out, SIZE)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
