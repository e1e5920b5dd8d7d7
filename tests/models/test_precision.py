"""Other types of weights than float32, and autocast: every system, in streams, whole clips and a training step."""

from __future__ import annotations

import copy

import pytest
import torch

from mmseg.models import build_segmentor
from mmseg.models.decode_heads.cffm.kmeans import kmeans
from mmseg.models.decode_heads.cffm.prototype_files import prototype_file, write_prototypes
from tests.golden_cases import Case, build_filled
from tests.reference import reference_of

CHANNELS = [32, 64, 160, 256]
SYSTEMS = ["segformer", "cffm", "cffm_plus", "mrcfa"]
SIZE, CLASSES, VIDEO = (64, 96), 9, "v"
DILATION = (-3, -2, -1)


def config_of(system: str, folder) -> dict:
    if system == "mrcfa":
        config = copy.deepcopy(Case("mrcfa", "mrcfa_b0_seg").config)
    elif system == "segformer":
        head = copy.deepcopy(Case("cffm", "segformer_b0_head").config)
        config = dict(type="FrameSegmentor", backbone=dict(type="mit_b0"), decode_head={**head, "fuse_norm": "BN"})
    else:
        config = copy.deepcopy(Case("cffm", "cffm_b1_seg" if system == "cffm" else "cffmpp_b1_seg").config)
        config["backbone"] = dict(type="mit_b0")
        config["decode_head"].update(in_channels=CHANNELS)
    if system == "cffm_plus":
        torch.manual_seed(4)
        write_prototypes(prototype_file(folder, VIDEO), torch.randn(12, 256))
        config["decode_head"]["save_path"] = str(folder)
    config["decode_head"]["num_classes"] = CLASSES
    return config


@pytest.fixture(params=SYSTEMS)
def model(request, tmp_path) -> torch.nn.Module:
    return build_filled(build_segmentor, config_of(request.param, tmp_path))


def frames(count: int = 5) -> torch.Tensor:
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def streamed(model: torch.nn.Module, imgs: torch.Tensor) -> torch.Tensor:
    settings = {"dilation": DILATION} if "dilation" in model.stream_settings else {}
    stream = model.stream(VIDEO, **settings)
    return torch.stack([stream.step(img) for img in imgs])


def whole(model: torch.nn.Module, imgs: torch.Tensor) -> torch.Tensor:
    return model.encode_decode(imgs[None], [dict(video=VIDEO)])[0]


def autocast() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def test_double_weights_give_the_logits_in_double(model):
    """Far beyond the precision of float32: nothing on the way is rounded to it."""
    imgs = frames().double()
    model.double()
    expected = reference_of(model).encode_decode(model, imgs[None, 1:], [dict(video=VIDEO)])[0]
    for found in (streamed(model, imgs)[-1], whole(model, imgs[1:])):
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_bfloat16_weights_and_autocast_change_the_logits_little(model):
    imgs = frames()
    exact = streamed(model, imgs)
    with autocast():
        rounded = [streamed(model, imgs), whole(model, imgs[1:])[None]]
    model.bfloat16()
    rounded += [streamed(model, imgs.bfloat16()), whole(model, imgs[1:].bfloat16())[None]]
    for found in rounded:
        error = (found.float() - exact[-len(found) :]).abs().mean() / exact.std()
        assert 1e-4 < error < 0.1, error  # exactly 0 would mean that nothing was computed in bfloat16


def test_folds_are_the_same_whatever_autocast_they_are_made_under(model):
    imgs = frames()
    expected = streamed(model, imgs)
    model._folded = None
    with autocast():
        model.folded()  # of a stream under autocast; the next one shares it
        inside = model.decode_head.fold()
    torch.testing.assert_close(streamed(model, imgs), expected, rtol=0, atol=0)
    for one, other in zip(tensors_of(inside), tensors_of(model.decode_head.fold()), strict=True):
        assert one.dtype == torch.float32 and torch.equal(one, other)


def tensors_of(folded) -> list[torch.Tensor]:
    if isinstance(folded, torch.Tensor):
        return [folded]
    parts = folded if isinstance(folded, tuple | list) else vars(folded).values() if hasattr(folded, "__dict__") else []
    return [tensor for part in parts for tensor in tensors_of(part)]


def test_gradients_in_double_are_those_of_the_reference(model):
    for module in model.double().train().modules():
        for rate in ("p", "drop_prob"):
            if isinstance(getattr(module, rate, None), float):
                setattr(module, rate, 0.0)
    labels = torch.randint(0, CLASSES, (2, 4, 1, *SIZE), generator=torch.Generator().manual_seed(2))
    labels[:, :, :, :9] = 255
    batch = {
        "img": frames(8).double().unflatten(0, (2, 4)),
        "gt_semantic_seg": labels,
        "img_metas": [dict(video=VIDEO)] * 2,
    }
    names = [name for name, _ in model.named_parameters()]
    found = []
    for loss in (type(model).loss, reference_of(model).loss):
        losses = loss(model, batch)
        gradients = torch.autograd.grad(losses["decode.loss_seg"], list(model.parameters()), allow_unused=True)
        found.append({**losses, **dict(zip(names, gradients))})
    for name, expected in found[1].items():
        if expected is not None and expected.abs().max() > 1e-12:  # else rounding noise of a zero
            assert (found[0][name] - expected).abs().max() <= 1e-6 * expected.abs().max(), name
        assert (found[0][name] is None) == (expected is None), name


def test_prototypes_found_on_the_fly_follow_the_weights(tmp_path):
    config = config_of("cffm_plus", tmp_path)
    config["decode_head"].update(prototypes="auto", n_clusters=5)

    class Clip:
        name, num_frames = "unknown", 12

        def network_input(self, frame: int) -> torch.Tensor:
            return frames(12)[frame]

    for dtype in (torch.float64, torch.bfloat16, torch.float32):
        model = build_filled(build_segmentor, config).to(dtype)
        for video in (Clip(), None):  # the whole video at hand, and a live stream
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.float32):
                stream = model.stream(video)
                assert all(stream.step(img.to(dtype)).isfinite().all() for img in frames())


def test_kmeans_of_narrow_rows_is_that_of_their_values():
    rows = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)).bfloat16()
    expected = kmeans(rows.float(), 5)
    with autocast():
        found = kmeans(rows, 5)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
