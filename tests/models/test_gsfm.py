"""GSFM's network: official numbers of encoders, decoder and aggregation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmseg.models.layers.aggregation import aggregate
from tests.models.gsfm_cases import GSFMCase, network


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return network()


class Recorded:
    """What the modules of a network give while it is at work."""

    def __init__(self, module: torch.nn.Module, *names: str) -> None:
        self.outputs: dict[str, torch.Tensor] = {}
        for name in names:
            hook = lambda _, __, out, name=name: self.outputs.__setitem__(name, out)  # noqa: E731
            module.get_submodule(name).register_forward_hook(hook)


class Inputs:
    """What the modules of a network are given while it is at work."""

    def __init__(self, module: torch.nn.Module, *names: str) -> None:
        self.module, self.seen = module, {}
        for name in names:
            hook = lambda _, args, name=name: self.seen.__setitem__(name, args)  # noqa: E731
            module.get_submodule(name).register_forward_pre_hook(hook)

    def output(self, name: str) -> torch.Tensor:
        """What the module makes of it, before an activation that the network has it apply."""
        return self.module.get_submodule(name)(*self.seen[name])


@torch.no_grad()
def test_key_encoder_has_the_official_numbers(model):
    case = GSFMCase("encode_key_96x128")
    frame = case.inputs()["frame"]
    features, keys = model.key_encoder(frame), model.encode_key(frame)
    for name, value in {
        "stem": F.max_pool2d(F.relu(model.key_encoder.bn1(model.key_encoder.conv1(frame))), 3, 2, 1),
        "f4": features.f4,
        "f8": features.f8,
        "f16_backbone": features.f16,
        "f16": keys.f16,
        "k16": keys.key,
        "f16_thin": keys.query,
    }.items():
        case.check(name, value)
    folded = model.encode_key(frame, model.folded()["key_encoder"])
    case.check("k16", folded.key)
    case.check("f4", folded.f4)


@pytest.mark.parametrize("name", ["encode_value_1obj", "encode_value_3obj"])
@pytest.mark.parametrize("folded", [False, True])
@torch.no_grad()
def test_value_encoder_has_the_official_numbers(model, name, folded):
    case = GSFMCase(name)
    inputs = case.inputs()
    ids = case["params"]["object_ids"]
    masks = torch.stack([0.9 * (inputs["labels"] == number) + 0.03 for number in ids])[None]  # (1, k, H, W)
    encoder = model.folded()["value_encoder"] if folded else model.value_encoder
    names = {
        "layer1": "layer1", "layer2": "layer2", "layer3": "layer3", "fuser_block1": "fuser.block1",
        "channel_gate": "fuser.attention.ChannelGate", "attention": "fuser.attention",
    }  # fmt: skip
    seen = Recorded(encoder, *names.values())
    value = encoder(inputs["frame"], inputs["kf16"], masks)
    for official, own in names.items():
        case.check(official, seen.outputs[own])
    case.check("value", value[0][:, :, None])


@torch.no_grad()
def test_single_object_value_encoder_has_the_official_numbers():
    case = GSFMCase("encode_value_single_object")
    inputs = case.inputs()
    mask = 0.9 * (inputs["labels"] == 1) + 0.03
    value = network(single_object=True).value_encoder(inputs["frame"], inputs["kf16"], mask[:, None])
    case.check("value", value.transpose(1, 2))


@torch.no_grad()
def test_decoder_has_the_official_numbers(model):
    case = GSFMCase("decoder_2obj")
    inputs, decoder = case.inputs(), model.decoder
    names = ["compress", "up_16_8", "up_8_4", "hfm", "fusion_1", "boundary_2", "boundary_3", "fusion_2"]
    names += ["predict_mask", "pred", "predict_boundary_1", "predict_boundary_2"]
    seen, noted = Inputs(decoder, *names), Recorded(decoder, "compress", "up_16_8", "up_8_4", "hfm")
    # the case joins read-out and query value of each object; two frames of one object each have all of it
    readout, query = inputs["f16"][:, None, :512], inputs["f16"][:, 512:]
    f8, f4 = inputs["f8"].expand(2, -1, -1, -1), inputs["f4"].expand(2, -1, -1, -1)
    decoded = decoder(readout, query, f8, f4)
    for name, value in noted.outputs.items():  # before the modules run once more
        case.check(name, value)
    for name in names:
        case.check(name, seen.output(name))
    for name in ("boundary_1", "mask_1"):  # computed together
        case.check(name, decoder.get_submodule(name)(noted.outputs["up_8_4"]))
    case.check("mask_logits", decoded.masks)
    case.check("boundary_logits", decoded.boundaries)
    without = decoder(readout, query, f8, f4, boundaries=False)
    assert without.boundaries is None and torch.equal(without.masks, decoded.masks)


@torch.no_grad()
def test_objects_of_one_frame_share_what_is_the_same(model):
    """k objects in one call have the results of k calls."""
    generator = torch.Generator().manual_seed(0)
    readout = torch.randn(2, 3, 512, 4, 6, generator=generator)
    query, f8, f4 = (torch.randn(2, c, 4 * s, 6 * s, generator=generator) for c, s in ((512, 1), (512, 2), (256, 4)))
    together = model.decoder(readout, query, f8, f4)
    for number in range(3):
        alone = model.decoder(readout[:, number : number + 1], query, f8, f4)
        for one, other in zip(alone, together):
            torch.testing.assert_close(one[:, 0], other[:, number], rtol=1e-4, atol=1e-4)


def test_aggregation_has_the_official_numbers():
    case = GSFMCase("aggregate_3obj")
    inputs = case.inputs()
    soft = aggregate(inputs["logits"].sigmoid())[1]
    case.check("soft", soft)
    hard = torch.stack([inputs["labels"] == number for number in (1, 2, 3)]).float()[:, None]
    case.check("hard", aggregate(hard)[1])
