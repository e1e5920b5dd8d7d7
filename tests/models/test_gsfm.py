"""GSFM's network: official numbers of its parts, its losses and training steps, its names and its first weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmseg.errors import CheckpointError, ConfigError, DataError
from mmseg.models import build_segmentor
from mmseg.models.layers.aggregation import aggregate
from mmseg.models.layers.memory_reading import read_all, read_best
from mmseg.models.losses.boundary_loss import boundary_loss, boundary_target
from mmseg.models.networks.gsfm.clip_losses import Clip, ClipLoss, Segmented
from mmseg.models.networks.gsfm.memory_bank import MemoryBank
from mmseg.models.networks.gsfm.spectral import SpectralModule, spectral_filter
from mmseg.weights import load_checkpoint
from tests.golden_cases import build_filled, fill
from tests.models.gsfm_cases import GSFMCase, clip_batch, network
from tests.reference import gsfm as reference

SPECTRAL = ["hfm_24x32", "hfm_96x96", "hfm_odd_23x31", "lfm_24x24", "lfm_30x54", "lfm_odd_7x9"]
WARMING = {0: dict(start_warm=3000, end_warm=10000), 3: dict(start_warm=3000, end_warm=15000)}


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


@pytest.mark.parametrize("name", SPECTRAL)
@torch.no_grad()
def test_spectral_modules_have_the_official_numbers(name):
    """In these cases conv1 passed on what it was given (they note its input, and the note replaced its output): their
    conv2_out is conv2(relu(conv1_in)). With conv1 the modules are held by the cases of key encoder and decoder."""
    case = GSFMCase(name)
    channels, high = case.config["num_channels"], case.config["network"] == "HFM"
    module = build_filled(lambda c: SpectralModule(channels, high), {})
    module.conv1.weight.copy_(torch.eye(2 * channels)[:, :, None, None])
    module.conv1.bias.zero_()
    x = case.inputs()["x"]
    case.check("gaussian", spectral_filter(*x.shape[-2:], True).float()[None, None])
    case.check("out", module(x))
    spectrum = torch.fft.fft2(x) * spectral_filter(*x.shape[-2:], high)
    stack = torch.cat([spectrum.real, spectrum.imag], dim=1).float()
    case.check("conv1_in", stack)
    case.check("conv2_out", module.conv2(F.relu(stack)))


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
    seen = Recorded(encoder, "layer1", "layer2", "layer3", "fuser.attention", "fuser.attention.ChannelGate")
    value = encoder(inputs["frame"], inputs["kf16"], masks)
    for official, own in {
        "layer1": "layer1", "layer2": "layer2", "layer3": "layer3",
        "channel_gate": "fuser.attention.ChannelGate", "attention": "fuser.attention",
    }.items():  # fmt: skip
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
    names = ["up_16_8", "up_8_4", "hfm", "fusion_1", "boundary_2", "boundary_3", "fusion_2", "predict_mask", "pred"]
    names += ["predict_boundary_1", "predict_boundary_2"]
    seen = Inputs(decoder, *names)
    # the case joins read-out and query value of each object; two frames of one object each have all of it
    readout, query = inputs["f16"][:, None, :512], inputs["f16"][:, 512:]
    f8, f4 = inputs["f8"].expand(2, -1, -1, -1), inputs["f4"].expand(2, -1, -1, -1)
    decoded = decoder(readout, query, f8, f4)
    for name in names:
        case.check(name, seen.output(name))
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


def test_memory_reader_has_the_official_numbers():
    case = GSFMCase("memory_reader")
    inputs = case.inputs()
    readout = read_all(inputs["mk"].flatten(2), inputs["mv"][:, None].flatten(3), inputs["qk"].flatten(2))
    readout = readout[:, 0].unflatten(-1, inputs["qk"].shape[-2:])
    case.check("readout", torch.cat([readout, inputs["qv"]], dim=1))


@pytest.mark.parametrize("name", ["memory_bank_top5", "memory_bank_top20"])
def test_memory_bank_has_the_official_numbers(name):
    case = GSFMCase(name)
    inputs, params = case.inputs(), case["params"]
    bank = MemoryBank()
    for number, (key, value) in enumerate(zip(inputs["keys"], inputs["values"])):
        bank.add(key.flatten(1).T, value.flatten(2).flatten(0, 1).T, params["is_temp"][number])
        read = bank.read(inputs["query"][0].flatten(1).T, params["top_k"])  # (P, k * C)
        read = read.T.unflatten(0, value.shape[:2]).unflatten(-1, value.shape[-2:])
        case.check(f"read_{number}", read)


@pytest.mark.parametrize("scale, noise", [(1.0, 0.3), (1.0, 2.0), (10.0, 0.3)])
@pytest.mark.parametrize("top_k", [20, 50])
def test_reading_is_the_formula(top_k, scale, noise):
    """Twelve frames that look much alike. Keys must be the same to the last bit: similarities of large keys are rounded
    by up to 1e-3, which a softmax makes as much of the result, and rounding decides which of two similar positions is
    the last one of the top-k. So ours may be as far from the exact result as the formula is, and no farther."""
    generator = torch.Generator().manual_seed(0)
    base, values = scale * torch.randn(60, 64, generator=generator), torch.randn(720, 32, generator=generator)
    keys = (base + noise * scale * torch.randn(12, 60, 64, generator=generator)).flatten(0, 1)
    queries = base + noise * scale * torch.randn(60, 64, generator=generator)
    read = read_best(keys, values, queries, top_k)
    formula = (values.T @ reference.affinity(keys.T, queries.T, top_k)).T
    exact = (values.T.double() @ reference.affinity(keys.T.double(), queries.T.double(), top_k)).T
    torch.testing.assert_close(read, formula, rtol=1e-5, atol=1e-5)
    assert (read - exact).square().mean() <= 1.5 * (formula - exact).square().mean()
    torch.testing.assert_close(read.double(), exact, rtol=0, atol=1e-3)


def test_top_k_beyond_the_memory_reads_all_of_it():
    generator = torch.Generator().manual_seed(0)
    keys, values, queries = (torch.randn(n, c, generator=generator) for n, c in ((7, 64), (7, 5), (3, 64)))
    expected = read_all(keys.T[None], values.T[None, None], queries.T[None])[0, 0].T
    torch.testing.assert_close(read_best(keys, values, queries, 50), expected)
    far = read_best(keys * 40, values, queries * 40, 5)  # exp() of these similarities overflows
    assert torch.isfinite(far).all()


def test_a_bounded_bank_keeps_the_first_frame_and_the_latest():
    bank = MemoryBank(max_frames=3)
    queries = 20 * torch.eye(8)
    for number in range(6):
        bank.add(20 * torch.eye(8)[number : number + 1], torch.full((1, 2), float(number)))
        assert len(bank) == min(number + 1, 3)
    bank.add(20 * torch.eye(8)[6:7], torch.full((1, 2), 6.0), temporary=True)
    assert len(bank) == 4
    read = bank.read(queries, 1)[:, 0].tolist()
    assert [read[number] for number in (0, 4, 5, 6)] == [0, 4, 5, 6]
    assert not {1.0, 2.0, 3.0} & set(read)
    only = MemoryBank(max_frames=1)
    for number in range(3):
        only.add(torch.ones(1, 8), torch.full((1, 2), float(number)))
    assert only.read(queries, 5)[0, 0] == 0


# ---------------------------------------------------------------------------------------------------- losses, training


@pytest.mark.parametrize("name", ["loss_stage0", "loss_stage3"])
def test_losses_have_the_official_numbers(name):
    case = GSFMCase(name)
    inputs, batch, stage = case.inputs(), clip_batch(case), case["params"]["stage"]
    batch["img"] = torch.zeros(*batch["gt_semantic_seg"].shape[:2], 3, 48, 64)
    clip = Clip.of(batch, 1 if stage == 0 else 2)
    selector = clip.selector[:, :, None, None]
    predicted = []
    for t in (0, 1):
        logits, soft = aggregate(inputs["mask_logits"][:, t].sigmoid() * selector, dim=1)
        predicted.append(Segmented(logits, soft[:, 1:], inputs["boundary_logits"][:, t] * selector))
    target = boundary_target(clip.masks[:, 1, 0])
    case.check("boundary_target_frame1", target[:, None])
    one = boundary_loss(predicted[0].boundaries[:1, 0], clip.masks[:1, 1, 0])  # of the first clip
    assert one.item() == pytest.approx((case.expected("bce_frame1") + case.expected("dice_frame1")).item(), rel=1e-4)
    losses = ClipLoss(WARMING[stage], 0.05)
    for iteration in case["params"]["iterations"]:
        got = losses(predicted, clip, iteration)
        got["total_loss"] = got["loss_1"] + got["loss_2"]
        for key, value in got.items():
            case.check(f"it{iteration}/{key}", value)


@pytest.mark.parametrize("name", ["train_stage0", "train_stage3"])
def test_training_steps_have_the_official_numbers(name):
    case = GSFMCase(name)
    params, batch = case["params"], clip_batch(case)
    model = network(params["stage"] == 0, "train", bootstrap=WARMING[params["stage"]])
    optimizer = torch.optim.Adam(model.parameters(), lr=params["lr"], weight_decay=1e-7)

    def check(place: str, iteration: int) -> torch.Tensor:
        losses = model(batch, iteration)
        losses["total_loss"] = losses["loss_1"] + losses["loss_2"]
        for key, value in losses.items():
            if f"{place}/{key}" in case["outputs"]:
                case.check(f"{place}/{key}", value)
        return losses["total_loss"]

    with torch.no_grad():
        for iteration in params["iterations"]:
            check(f"it{iteration}", iteration)
    before = {name: model.get_parameter(name).detach().clone() for name in params["parameters"]}
    check("step1", params["grad_iteration"]).backward()
    statistics = model.key_encoder.bn1.running_mean.clone()
    optimizer.step()
    for name, old in before.items():
        parameter = model.get_parameter(name)
        case.check(f"grad/{name}", parameter.grad.norm())
        case.check(f"delta/{name}", (parameter.detach() - old).norm())
    check("step2", params["grad_iteration"] + 1)
    assert torch.equal(model.key_encoder.bn1.running_mean, statistics)


@pytest.mark.parametrize("name", ["train_stage0", "train_stage3"])
@torch.no_grad()
def test_losses_are_the_formulas(name):
    """The reference, which knows no batches, has the official numbers, and so has the product."""
    case = GSFMCase(name)
    stage, batch = case["params"]["stage"], clip_batch(case)
    model = network(stage == 0, "train", bootstrap=WARMING[stage])
    iteration = case["params"]["grad_iteration"]
    for key, value in reference.loss(model, batch, iteration).items():
        case.check(f"it{iteration}/{key}", value)


@pytest.mark.parametrize("name", SPECTRAL)
@torch.no_grad()
def test_spectral_modules_are_the_formulas(name):
    case = GSFMCase(name)
    high = case.config["network"] == "HFM"
    module, x = build_filled(lambda c: SpectralModule(case.config["num_channels"], high), {}), case.inputs()["x"]
    torch.testing.assert_close(module(x), reference.spectral(module, x), rtol=1e-5, atol=1e-5)
    for size in ((7, 240), (8, 9)):  # wider than the window, one side odd
        other = torch.randn(1, case.config["num_channels"], *size)
        torch.testing.assert_close(module(other), reference.spectral(module, other), rtol=1e-5, atol=1e-5)


def test_sizes_that_16_does_not_divide_cannot_be_trained():
    model = network(mode="train")
    batch = {"img": torch.zeros(1, 3, 3, 40, 64), "gt_semantic_seg": torch.zeros(1, 3, 1, 40, 64, dtype=torch.long)}
    with pytest.raises(DataError, match="multiples of 16"):
        model(batch)


# ------------------------------------------------------------------------------------------------- names, first weights


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
