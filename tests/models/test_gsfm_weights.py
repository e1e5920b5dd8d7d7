"""GSFM's weights: official names, the first ones, files of other networks; and configs that cannot be built."""

from __future__ import annotations

import pytest
import torch

from mmseg.errors import CheckpointError, ConfigError
from mmseg.models import build_segmentor
from mmseg.weights import load_checkpoint
from tests.golden_cases import fill
from tests.models.gsfm_cases import GSFMCase, network


@pytest.mark.parametrize("case", ["encode_key_96x128", "train_stage0"])
def test_state_dict_has_the_official_names_shapes_and_order(case):
    case = GSFMCase(case)
    with torch.device("meta"):
        state = build_segmentor(dict(type="GSFM", single_object=case.config.get("single_object", False))).state_dict()
    for entries, floating in (("state", True), ("state_int", False)):
        own = {name: list(value.shape) for name, value in state.items() if value.is_floating_point() == floating}
        assert own == case[entries] and list(own) == list(case[entries])


def test_first_weights():
    torch.manual_seed(0)
    model = build_segmentor(dict(type="GSFM"))
    conv = model.key_encoder.layer3[0].conv2
    assert conv.weight.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.02)
    assert not conv.bias.any() and not model.key_proj.key_proj.bias.any()
    rows = model.key_proj.key_proj.weight.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(64), atol=1e-4, rtol=0)
    masks = model.value_encoder.conv1.weight[:, 3:].flatten(1)
    torch.testing.assert_close(masks @ masks.T, torch.eye(64), atol=1e-4, rtol=0)
    assert model.lfm.conv1.bias.any()


def single_object_file(path) -> dict[str, torch.Tensor]:
    state = {name: value.clone() for name, value in network(single_object=True).state_dict().items()}
    torch.save(state, path)
    return state


def test_a_single_object_file_gets_a_channel_for_the_others(tmp_path):
    state, name = single_object_file(tmp_path / "s0.pth"), "value_encoder.conv1.weight"
    tested, trained = network(), network()
    load_checkpoint(tested, tmp_path / "s0.pth", strict=True, purpose="test")
    load_checkpoint(trained, tmp_path / "s0.pth", strict=True, purpose="train")
    for model in (tested, trained):
        assert torch.equal(model.value_encoder.conv1.weight[:, :4], state[name])
    assert not tested.value_encoder.conv1.weight[:, 4:].any()
    rows = trained.value_encoder.conv1.weight[:, 4:].flatten(1)  # (64, 49), of full rank
    torch.testing.assert_close(rows.T @ rows, torch.eye(49), atol=1e-4, rtol=0)
    load_checkpoint(network(single_object=True), tmp_path / "s0.pth", strict=True, purpose="train")
    torch.save(network().state_dict(), tmp_path / "s3.pth")
    with pytest.raises(CheckpointError, match=r"value_encoder\.conv1\.weight"):
        load_checkpoint(network(single_object=True), tmp_path / "s3.pth", purpose="test")


def imagenet_file(path, encoder: torch.nn.Module, res2: str) -> dict[str, torch.Tensor]:
    """A file with the names of torchvision's ResNets: no biases of convolutions, a fourth stage and a classifier."""
    state = {}
    for name, value in encoder.state_dict().items():
        is_conv = name.endswith("weight") and value.ndim == 4
        is_norm = "bn" in name or "downsample.1" in name
        if (is_conv or is_norm) and not name.startswith("fuser") and not name.endswith("num_batches_tracked"):
            state[name.replace(res2, "layer1")] = torch.rand_like(value)
    state["conv1.weight"] = torch.rand(64, 3, 7, 7)
    torch.save({**state, "layer4.0.conv1.weight": torch.rand(2, 2, 1, 1), "fc.weight": torch.rand(10, 3)}, path)
    return state


def test_imagenet_weights(tmp_path, caplog):
    plain = build_segmentor(dict(type="GSFM"))
    key = imagenet_file(tmp_path / "resnet50.pth", plain.key_encoder, "res2")
    value = imagenet_file(tmp_path / "resnet18.pth", plain.value_encoder, "layer1")
    files = dict(key_encoder=str(tmp_path / "resnet50.pth"), value_encoder=str(tmp_path / "resnet18.pth"))
    model = build_segmentor(dict(type="GSFM", pretrained=files))
    assert torch.equal(model.key_encoder.res2[0].conv1.weight, key["layer1.0.conv1.weight"])
    assert torch.equal(model.value_encoder.layer1[0].conv1.weight, value["layer1.0.conv1.weight"])
    assert torch.equal(model.value_encoder.conv1.weight[:, :3], value["conv1.weight"])
    assert model.value_encoder.conv1.weight.shape[1] == 5 and not model.value_encoder.conv1.bias.any()
    with pytest.raises(CheckpointError, match="does not fit the KeyEncoder"):
        build_segmentor(dict(type="GSFM", pretrained=dict(key_encoder=files["value_encoder"])))
    with pytest.raises(ConfigError, match="did you mean 'key_encoder'"):
        build_segmentor(dict(type="GSFM", pretrained=dict(key_encode="a.pth")))
    build_segmentor(dict(type="GSFM", pretrained=dict(key_encoder=str(tmp_path / "absent.pth"))))
    assert "absent.pth: no such file" in caplog.text


@pytest.mark.parametrize(
    "config, message",
    [
        (dict(bootstrap=dict(start_warm=10, end_warm=10)), "start_warm before end_warm"),
        (dict(bootstrap=dict(warm=1)), "model.bootstrap.warm"),
        (dict(boundary_weight=-1.0), "boundary_weight"),
        (dict(test_cfg=dict(mem_evry=3)), "did you mean 'mem_every'"),
    ],
)
def test_wrong_configs(config, message):
    with pytest.raises(ConfigError, match=message), torch.device("meta"):
        build_segmentor(dict(type="GSFM", **config))


def test_weights_are_a_function_of_their_names():
    assert torch.equal(network().key_comp.bias, fill.weight("key_comp.bias", (512,)))
