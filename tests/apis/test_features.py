"""Pictures of features as a writer; what is on them: tests/visualization/test_heat_maps.py, tests/tools."""

from types import SimpleNamespace

import pytest

from mmseg.apis.features import FeatureWriter
from mmseg.errors import ConfigError
from mmseg.visualization import palette_table
from tests.writing.feeding import videos

TABLE = palette_table(None, 2)


def test_pictures_of_another_run_are_told(tmp_path, caplog):
    for name in ("first", "nested/third", "nested/old", "older"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "00000.jpg").touch()
    writer = FeatureWriter(tmp_path, SimpleNamespace(feature_maps=None), None, TABLE)
    writer.start(videos(), [0, 0, 0])
    writer.finish()
    expected = f"{tmp_path} still holds 2 of another run, which this one does not replace: nested/old, older"
    assert expected in caplog.text


def test_models_without_features_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="--save features with a SimpleNamespace"):
        FeatureWriter(tmp_path, SimpleNamespace(), None, TABLE)
