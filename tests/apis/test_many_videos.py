"""What makes a finished video one that can be kept."""

import numpy as np
from PIL import Image

from mmseg.apis.many_videos import settings_of
from mmseg.datasets.mask_inputs import GivenMasks
from mmseg.datasets.sources import video_sources


def test_masks_of_a_video_decide_and_those_of_others_do_not(tmp_path):
    for name in ("videos/a/0.png", "videos/b/0.png", "masks/a/0.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ones((8, 8), np.uint8)).save(tmp_path / name)
    sources, masks = video_sources(tmp_path / "videos"), GivenMasks(tmp_path / "masks")

    def found() -> list:
        return [settings_of(source, {"every": 1}, masks, several=True) for source in sources]

    before = found()
    assert before[0]["mask files"][0] == 1 and before[1]["mask files"] is None and before[1]["every"] == 1
    (tmp_path / "masks/b").mkdir()
    Image.fromarray(np.ones((8, 8), np.uint8)).save(tmp_path / "masks/b/0.png")
    between = found()
    assert between[0] == before[0] and between[1] != before[1]
    Image.fromarray(np.random.default_rng(0).integers(0, 9, (8, 8), np.uint8)).save(tmp_path / "masks/a/0.png")
    assert found()[0] != between[0] and found()[1] == between[1]
