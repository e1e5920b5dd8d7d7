"""The label maps of the official test path, made by streaming: frames 0 to 3 of a video are the first whole clip."""

import numpy as np
import pytest

from mmseg.engine.predictor import VideoPredictor
from mmseg.models import build_segmentor
from mmseg.structures import Frame, Resized, View
from tests.golden_cases import Case, build_filled


@pytest.mark.parametrize("name", ["cffm_b1_seg", "cffm_b0_seg_1frame", "cffmpp_b1_seg"])
def test_label_map(name):
    case = Case("cffm", name)
    model = build_filled(build_segmentor, case.config)
    inputs = case.inputs()
    context = {"prototypes": inputs["centers"]} if "centers" in inputs else {}
    predictor = VideoPredictor(model, None, context)
    size = tuple(case["ori_shape"][:2])
    for number, img in enumerate(inputs["img"][0]):  # (3, H, W)
        frame = Frame(number, str(number), np.zeros((*size, 3), np.uint8))
        [result] = predictor.push_views(frame, [View(number, {"img": img}, [Resized(size)])])
    expected = case.arrays["pred"].reshape(size)
    labels = result.labels
    assert labels.dtype == np.uint8
    assert (labels != expected).sum() <= 5  # near-ties
