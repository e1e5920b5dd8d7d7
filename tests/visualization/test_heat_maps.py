"""Heat maps of features."""

import numpy as np

from mmseg.visualization.colour_space import SIGHTS, lab
from mmseg.visualization.heat_maps import heat_map, heat_map_sheet


def test_the_stronger_the_brighter():
    """For everybody: brightness says it alone, with colour blindness, too."""
    feature = np.zeros((4, 8, 8))
    feature[:2, 6, 6], feature[2:, 6, 6] = -3.0, 3.0  # signs do not cancel
    feature[:, 1, 6] = 1.0
    picture = heat_map(feature, (64, 64))
    assert picture.shape == (64, 64, 3)
    for sight in SIGHTS:
        strongest, weaker, weakest = (lab(picture[y, x, ::-1], sight)[0] for y, x in ((52, 52), (12, 52), (4, 4)))
        assert strongest > weaker + 20 and weaker > weakest + 10
    assert heat_map(np.ones((4, 8, 8)), (16, 16)).std() == heat_map(np.zeros((4, 8, 8)), (16, 16)).std()


def test_sheet():
    picture = np.full((40, 80, 3), 7, np.uint8)
    stages = [{"frame": np.ones((3, 10, 20)), "fused": np.ones((3, 10, 20)), "c": np.ones((3, 5, 10))}]
    sheet = heat_map_sheet({"frame": picture}, stages, width=80)
    assert sheet.shape == (2 * (40 + 18), 3 * 80, 3)
    assert (sheet[18:58, :80] == 7).all() and (sheet[18:58, 80:] == 255).all()
