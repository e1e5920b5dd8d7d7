"""``tools/print_config.py``: what a config says after its files and the options."""

from mmseg.config import load_config
from tests.tools.processes import ROOT

CONFIG = str(ROOT / "local_configs/toy/cffm.b0.py")


def test_the_whole_is_a_config_that_says_the_same(tmp_path, call):
    options = {"runner.max_iters": 7, "data_root": "elsewhere"}
    path = tmp_path / "resolved.py"
    given = ["--options", *(f"{key}={value}" for key, value in options.items())]
    assert call("print_config.py", CONFIG, "--out", path, *given) == ""
    assert load_config(path).to_dict() == load_config(CONFIG, options).to_dict()
    assert "_base_" not in path.read_text()
    assert call("print_config.py", CONFIG, *given) == path.read_text()


def test_one_entry(call):
    assert call("print_config.py", CONFIG, "--key", "data.train.dataset.pipeline.0") == "type = 'LoadFrames'\n"
    assert call("print_config.py", CONFIG, "--key", "model.decode_head.num_classes", "--options",
                "model.decode_head.num_classes=3") == "3\n"  # fmt: skip
    assert "did you mean 'train'?" in call("print_config.py", CONFIG, "--key", "data.trian", status=2)
    assert "known names: 0, 1" in call("print_config.py", CONFIG, "--key", "data.test.pipeline.7", status=2)
    assert "did you mean 'max_iters'" in call("print_config.py", CONFIG, "--options", "runner.max_itres=1", status=2)
