"""What all clip models share: streams, whole clips, the training step and its size."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch

from mmseg.errors import ConfigError, DataError
from mmseg.models import build_segmentor
from mmseg.models.decode_heads.clip_head import ClipHead, select_frames
from mmseg.models.layers.resize import halve, resize
from mmseg.structures import View
from tests.golden_cases import Case, build_filled
from tests.models.test_cffm import tiny_config, tiny_model
from tests.reference import cffm as reference


def batch(clips: int = 2, frames: int = 4, size: int = 64, classes: int = 9) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    labels = torch.randint(0, classes, (clips, frames, 1, size, size))
    labels[torch.rand(labels.shape) < 0.2] = 255
    return dict(img=torch.randn(clips, frames, 3, size, size), gt_semantic_seg=labels)


class TwoPredictions(ClipHead):
    """A head with two predictions of the target, as plain as can be."""

    def predictions(self, feats, fused, batch_size, num_clips, **context):
        target = self.frame_logits(fused).unflatten(0, (batch_size, num_clips))[:, -1]
        return torch.stack([target, 2 * target], 1)


@pytest.mark.parametrize("size", [(64, 96), (101, 139)])
def test_whole_clips_equal_the_reference(size):
    model = tiny_model()
    torch.manual_seed(0)
    imgs = torch.randn(2, 4, 3, *size)
    found = model.encode_decode(imgs)
    expected = reference.encode_decode(model, imgs)
    assert found.shape == (2, 9, *size)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found.argmax(1) == expected.argmax(1)).float().mean() >= 0.9999


def test_samples_of_a_batch_do_not_mix():
    model = tiny_model()
    imgs = batch()["img"]
    together = model.encode_decode(imgs)
    for b in range(2):
        torch.testing.assert_close(together[b : b + 1], model.encode_decode(imgs[b : b + 1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_clips_of_another_length_get_the_prediction_of_their_last_frame(frames):
    model = tiny_model()
    imgs = batch(frames=frames)["img"]
    single = model.encode_decode(imgs[:, -1:])
    torch.testing.assert_close(model.encode_decode(imgs), single, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(reference.encode_decode(model, imgs), single, rtol=1e-4, atol=1e-4)


def test_training_clips_of_another_length_are_reported():
    model = build_segmentor(tiny_config())
    with pytest.raises(ConfigError, match="3 frames for a head with num_clips=4"):
        model(batch(frames=3))


def test_offsets_into_the_future_cannot_be_streamed():
    with pytest.raises(ConfigError, match="past frames"):
        tiny_model().stream(dilation=(-3, -1, 3))


def test_other_offsets():
    model = tiny_model()
    torch.manual_seed(0)
    frames = torch.randn(7, 3, 64, 64)
    stream = model.stream("video", dilation=(-4, -2, -1))
    logits = [stream.step(frame) for frame in frames]
    for t, expected in ((0, frames[:1]), (3, frames[3:4]), (4, frames[[0, 2, 3, 4]]), (6, frames[[2, 4, 5, 6]])):
        torch.testing.assert_close(logits[t][None], model.encode_decode(expected[None]), rtol=1e-4, atol=1e-5)


def test_a_stream_that_failed_on_a_frame_goes_on():
    model = tiny_model()
    torch.manual_seed(0)
    frames = torch.randn(5, 3, 64, 64)
    broken, whole = model.stream(), model.stream()
    for t, frame in enumerate(frames):
        if t == 4:
            with pytest.raises(DataError, match="frame 4"):
                broken.step(torch.zeros(3, 64, 32))
        assert torch.equal(broken.step(frame), whole.step(frame))


def test_reset_starts_a_new_video():
    model = tiny_model()
    torch.manual_seed(0)
    frames = torch.randn(5, 3, 64, 64)
    stream = model.stream()
    first = [stream.step(frame) for frame in frames]
    stream.reset()
    assert all(torch.equal(a, stream.step(frame)) for a, frame in zip(first, frames))


def test_steps_at_input_size_and_at_the_size_of_the_head():
    model = tiny_model()
    frame = torch.randn(3, 61, 90)
    coarse = next(iter(model.stream().push(View(0, {"img": frame})))).values
    assert coarse.shape == (9, 16, 23)
    torch.testing.assert_close(model.stream().step(frame), resize(coarse[None], (61, 90))[0])


def test_training_mode_is_refused():
    model = tiny_model().train()
    for use in (model.stream, lambda: model.encode_decode(batch()["img"])):
        with pytest.raises(ConfigError, match=r"eval\(\)"):
            use()


def test_test_mode_other_than_whole_is_refused():
    with pytest.raises(ConfigError, match="slide"):
        build_segmentor({**tiny_config(), "test_cfg": dict(mode="slide")})


def test_loss_is_half_of_all_frames_and_the_mean_over_the_predictions_of_the_target():
    head = TwoPredictions([32, 64, 160, 256], 128, 9, num_clips=3, dropout_ratio=0).train()
    torch.manual_seed(0)
    feats = [torch.randn(6, c, 16 >> s, 16 >> s) for s, c in enumerate(head.in_channels)]
    labels = batch(frames=3)["gt_semantic_seg"]
    logits = head(feats, 2, 3)  # (B, T + 2, K, h, w)
    assert logits.shape == (2, 5, 9, 16, 16)
    losses = head.loss(feats, 2, 3, labels)

    def mean_ce(logits, labels):
        up = resize(logits, labels.shape[-2:])
        return torch.nn.functional.cross_entropy(up, labels, ignore_index=255, reduction="none").mean()

    target = 0.5 * mean_ce(logits[:, 3], labels[:, -1, 0]) + 0.5 * mean_ce(logits[:, 4], labels[:, -1, 0])
    frames = mean_ce(logits[:, :3].flatten(0, 1), labels.flatten(0, 2))
    torch.testing.assert_close(losses["loss_seg"], 0.5 * frames + target)
    hits = resize(logits[:, :3].flatten(0, 1), (64, 64)).argmax(1) == labels.flatten(0, 2)
    torch.testing.assert_close(losses["acc_seg"], 100 * hits.float().mean())


def saved_bytes(loss: Callable, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> int:
    """Memory of everything that a training step keeps between forward and backward, the weights excepted."""
    known = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers(), *inputs.values()]}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = loss(model, inputs)["decode.loss_seg"]
    value.backward()
    return sum(kept.values())


def test_training_step_keeps_less_than_half_of_what_the_reference_keeps():
    """The published CFFM-B1 with 124 classes; what is kept grows with the area of the images in both."""
    config = Case("cffm", "cffm_b1_seg").config
    inputs = batch(clips=1, size=96, classes=124)
    model = build_filled(build_segmentor, config, "train")
    kept = saved_bytes(type(model).loss, model, inputs)
    assert kept < 0.5 * saved_bytes(reference.loss, model, inputs)
    config["activation_checkpointing"] = True
    model = build_filled(build_segmentor, config, "train")
    assert saved_bytes(type(model).loss, model, inputs) < 0.95 * kept  # on a CPU blocks keep their inputs alone anyway


class Pair(NamedTuple):
    a: torch.Tensor
    b: list


@pytest.mark.parametrize("name", ["embed", "remember"])
def test_states_without_an_axis_of_frames_are_told(name, monkeypatch):
    """They are cut and joined along it."""
    head = (model := build_segmentor(tiny_config()).eval()).decode_head
    original = getattr(head, name)
    monkeypatch.setattr(head, name, lambda *inputs: {"own": original(*inputs), "scale": torch.ones(2)})
    if name == "embed":
        monkeypatch.setattr(head, "remember", lambda state, _: state)
    with pytest.raises(ConfigError, match=r"shape \(2,\) from CFFMHead.embed or remember for 1 frames"):
        model.stream().step(torch.zeros(3, 32, 48))


def test_select_frames_reaches_into_containers():
    x = torch.arange(12).view(6, 2)
    picked = select_frames(Pair(x, [{"c": x}, (x, None)]), slice(1, None, 3))
    assert isinstance(picked, Pair)
    for value in (picked.a, picked.b[0]["c"], picked.b[1][0]):
        assert torch.equal(value, x[[1, 4]])
    assert picked.b[1][1] is None


@pytest.mark.parametrize("size", [(8, 12), (7, 12), (9, 5)])
def test_halving_equals_bilinear_resizing(size):
    x = torch.randn(2, 3, *size)
    expected = torch.nn.functional.interpolate(x, size=(size[0] // 2, size[1] // 2), mode="bilinear")
    torch.testing.assert_close(halve(x), expected)
