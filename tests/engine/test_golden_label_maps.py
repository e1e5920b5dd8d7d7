"""The label maps of the official test path, made by streaming: frames 0 to 3 of a video are the first whole clip."""

import pytest
import torch

from mmseg.datasets.transforms import View
from mmseg.engine.predict import VideoPredictor
from mmseg.models import build_segmentor
from tests.golden_cases import Case, build_filled


@pytest.mark.parametrize("name", ["cffm_b1_seg", "cffm_b0_seg_1frame", "cffmpp_b1_seg"])
def test_label_map(name):
    case = Case("cffm", name)
    model = build_filled(build_segmentor, case.config)
    inputs = case.inputs()
    context = {"prototypes": inputs["centers"]} if "centers" in inputs else {}
    predictor = VideoPredictor(model, None, **context)
    for img in inputs["img"][0]:  # (3, H, W)
        labels = predictor.step_views([View(img, False, None)], case["ori_shape"])
    expected = torch.from_numpy(case.arrays["pred"]).reshape(labels.shape)
    assert labels.dtype == torch.uint8
    assert (labels != expected).sum() <= 5  # near-ties
