"""The published scripts of GSFM, end to end: official masks, files and palettes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.datasets.vos_folders import write_davis, write_davis_2016, write_youtube
from tests.models.gsfm_cases import GSFMCase, network


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[int, Path]:
    """Number of input channels of the value encoder -> a plain state dict."""
    folder = tmp_path_factory.mktemp("saves")
    for channels in (4, 5):
        torch.save(network(single_object=channels == 4).state_dict(), folder / f"{channels}.pth")
    return {channels: folder / f"{channels}.pth" for channels in (4, 5)}


def write_case(case: GSFMCase, root: Path) -> list[str]:
    """Write the data of a case; the flag that names it."""
    params = case["params"]
    if params["layout"] == "davis2017":
        return ["--davis_path", str(write_davis(root, params["videos"], params["folder"], params["list"]))]
    if params["layout"] == "davis2016":
        return ["--davis_path", str(write_davis_2016(root, params["videos"]))]
    return ["--yv_path", str(write_youtube(root, params["videos"], params["split"]))]


@pytest.mark.parametrize("name", ["cli_davis_val", "cli_davis_2016", "cli_youtube"])
def test_published_scripts_write_the_official_masks(name, tmp_path, checkpoints, call):
    case = GSFMCase(name)
    params, out = case["params"], tmp_path / "out"
    flags = [*write_case(case, tmp_path / "data"), "--model", checkpoints[params["checkpoint_channels"]]]
    output = call(params["script"], *flags, *params["flags"], "--output", out, "--device", "cpu")
    expected = {key.removeprefix("png/") for key in case["outputs"] if key.startswith("png/")}
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.*")} == expected
    for path in expected:
        with Image.open(out / path) as image:
            assert image.mode == case["facts"][f"mode/{path}"]
            case.check(f"png/{path}", np.asarray(image))
            if "palette" in case["outputs"]:
                case.check("palette", torch.tensor(image.getpalette()))
    if "davis" in name:
        assert f"Total processed frames: {sum(v['frames'] for v in params['videos'])}" in output
        assert "FPS: " in output and "Total processing time: " in output


@pytest.mark.parametrize(
    "script, flags, message",
    [
        ("eval_davis.py", [], "--output"),
        ("eval_davis.py", ["--output", "out", "--model", "none.pth"], "--model none.pth: no such file"),
    ],
)
def test_wrong_flags(script, flags, message, tmp_path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in call(script, *flags, status=2)
    assert not list(tmp_path.iterdir())
