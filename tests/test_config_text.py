"""Configs as Python text: what they say comes back, whatever they hold, and it can be read."""

import pytest

from mmseg.config import load_config
from mmseg.config_text import config_text, value_text
from mmseg.mmengine_names import Config
from tests.tools.processes import ROOT

TOY = sorted((ROOT / "local_configs" / "toy").glob("*.py"))  # of every method


@pytest.mark.parametrize("path", TOY, ids=[path.name for path in TOY])
def test_shipped_configs_come_back(path, tmp_path):
    config, again = load_config(path), tmp_path / "again.py"
    again.write_text(config_text(config))
    assert load_config(again).to_dict() == config.to_dict()
    assert max(map(len, again.read_text().splitlines())) <= 120


@pytest.mark.parametrize(
    "value",
    [{"b.c": 1, 0: (1,)}, {"lambda": {}}, [], (), [[], (1,), "it's\n"], {"a": {"b": ["x" * 150, (2.5, None)]}}, 1e-7],
)
def test_values_come_back(value):
    assert eval(value_text(value)) == value
    assert Config.fromstring(config_text(Config({"name": value})), ".py").name == value


def test_layout():
    text = config_text(Config({"model": {"type": "A" * 100, "sizes": [1, 2], "of": {"x": 1}}, "amp": None}))
    assert text == f"amp = None\nmodel = dict(\n    of=dict(x=1),\n    sizes=[1, 2],\n    type='{'A' * 100}',\n)\n"
