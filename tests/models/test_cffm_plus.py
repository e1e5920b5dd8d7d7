"""CFFM++: official numbers, where prototypes come from, and a training step that computes only what learns."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from mmseg.clips import inference_clip, prototype_clip
from mmseg.errors import ConfigError, DataError
from mmseg.models import build_head, build_segmentor
from mmseg.models.decode_heads.cffm.kmeans import kmeans
from mmseg.models.decode_heads.cffm.prototype_attention import PrototypeDecoder
from mmseg.models.decode_heads.cffm.prototype_files import prototype_file, video_seed, write_prototypes
from mmseg.models.decode_heads.cffm.video_prototypes import LivePrototypes
from mmseg.models.layers.resize import resize
from tests.golden_cases import Case, build_filled
from tests.models.test_cffm import head_feats
from tests.models.training_cases import check_training
from tests.reference import cffm_plus as reference


def tiny_config(**head) -> dict:
    config = copy.deepcopy(Case("cffm", "cffmpp_b1_seg").config)
    config["backbone"] = dict(type="mit_b0", style="pytorch")
    config["decode_head"].update(in_channels=[32, 64, 160, 256], num_classes=9, **head)
    return config


def tiny_model(mode: str = "eval", **head) -> torch.nn.Module:
    return build_filled(build_segmentor, tiny_config(**head), mode)


def tiny_batch(clips: int = 2) -> dict:
    torch.manual_seed(5)
    return {
        "img": torch.randn(clips, 4, 3, 64, 96),
        "gt_semantic_seg": torch.randint(0, 9, (clips, 4, 1, 64, 96)),
        "img_metas": [dict(video=f"v{b}") for b in range(clips)],
    }


class Clip:
    """A whole video of random frames."""

    def __init__(self, name: str, num_frames: int) -> None:
        self.name, self.num_frames = name, num_frames
        self.frames = torch.randn(num_frames, 3, 64, 96, generator=torch.Generator().manual_seed(7))

    def network_input(self, frame: int) -> torch.Tensor:
        return self.frames[frame]


# ---------------------------------------------------------------------- official numbers


@torch.no_grad()
def test_prototype_attention_and_reference_have_the_official_numbers():
    case = Case("cffm", "cluster_layer")
    layer = build_filled(
        lambda config: PrototypeDecoder(config["dim"], config["depth"], config["num_heads"]), case.config
    )
    inputs = case.inputs()
    state = layer.state_dict()
    assert {k: list(v.shape) for k, v in state.items() if v.is_floating_point()} == case["state"]
    case.check("out", layer(inputs["x"], inputs["centers"]))
    case.check("out", reference.prototype_decoder(layer, inputs["x"], inputs["centers"]))


@pytest.mark.parametrize("name", ["cffmpp_b1_head", "cffmpp_b1_head_2frames"])
@torch.no_grad()
def test_head_and_reference_have_the_official_numbers(name):
    case = Case("cffm", name)
    head = build_filled(build_head, case.config)
    seen = []
    head.decoder_swin.register_forward_hook(lambda _m, _i, out: seen.append(out))
    args = (head_feats(case), case["batch_size"], case["num_clips"])
    case.check("logits", head(*args, prototypes=case.inputs()["centers"]))
    for out in seen:
        case.check("decoder_swin", out)
    assert bool(seen) == ("decoder_swin" in case["outputs"])
    case.check("logits", reference.forward(head, *args, prototypes=case.inputs()["centers"]))


@pytest.mark.parametrize("from_files", [False, True])
def test_segmentor_has_the_official_numbers(from_files, tmp_path):
    case = Case("cffm", "cffmpp_b1_seg")
    config = copy.deepcopy(case.config)
    config["decode_head"]["save_path"] = str(tmp_path)
    model = build_filled(build_segmentor, config)
    inputs = case.inputs()
    if from_files:
        write_prototypes(prototype_file(tmp_path, "12_abc"), inputs["centers"][0])
        logits = model.encode_decode(inputs["img"], img_metas=[dict(video="12_abc")])
    else:
        logits = model.encode_decode(inputs["img"], prototypes=inputs["centers"])
    case.check("logits_in", logits)
    logits = resize(logits, case["ori_shape"])
    case.check("logits_ori", logits)
    assert np.mean(logits.argmax(1).numpy() == case.arrays["pred"]) >= 0.9999


@pytest.mark.parametrize("loss", [None, reference.loss], ids=["product", "reference"])
def test_training_step_has_the_official_numbers(loss):
    case = Case("cffm", "cffmpp_b1_train")
    check_training(case, loss, prototypes=case.inputs()["centers"])


def test_training_logits_have_the_official_numbers():
    case = Case("cffm", "cffmpp_b1_train")
    model = build_filled(build_segmentor, case.config, mode="train")
    inputs = case.inputs()
    img = inputs["img"]
    logits = model.decode_head(model.backbone(img.flatten(0, 1)), *img.shape[:2], prototypes=inputs["centers"])
    case.check("seg_logits", logits)


# ---------------------------------------------------------------------- training


def test_gradient_of_the_unused_rows_is_zero_and_not_none():
    model = tiny_model("train")
    batch = {**tiny_batch(), "prototypes": torch.randn(2, 20, 256)}
    model.loss(batch)["decode.loss_seg"].backward()
    grad = model.decode_head.decoder_swin.blocks[0].attn.qkv.weight.grad
    assert grad[:256].any() and not grad[256:].any()
    assert all(p.grad is None for p in model.backbone.parameters())


def test_only_the_branch_trains_and_the_backbone_keeps_its_drop_path():
    model = build_segmentor(tiny_config()).train()
    head = model.decode_head
    assert not head.linear_fuse.training and not head.linear_fuse.bn.training
    assert head.decoder_swin.training and model.backbone.training
    before = head.linear_fuse.bn.running_mean.clone()
    batch = {**tiny_batch(), "prototypes": torch.randn(2, 20, 256)}
    losses = {float(model.loss(batch)["decode.loss_seg"].detach()) for _ in range(3)}
    assert len(losses) == 3
    assert torch.equal(before, head.linear_fuse.bn.running_mean)


def test_without_the_constant_the_gradients_are_the_same():
    batch = {**tiny_batch(), "prototypes": torch.randn(2, 20, 256)}
    grads, values = [], []
    for log in (True, False):
        model = tiny_model("train", log_constant_loss=log)
        seen = []
        model.backbone.register_forward_hook(lambda _m, inputs, _o, seen=seen: seen.append(len(inputs[0])))
        loss = model.loss(batch)["decode.loss_seg"]
        loss.backward()
        assert seen == [8 if log else 2]
        grads.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        values.append(float(loss.detach()))
    assert values[1] < values[0]
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-6, rtol=1e-4)


def test_mixed_prototype_counts(tmp_path):
    centers = [torch.randn(n, 256) for n in (5, 12)]
    for b, rows in enumerate(centers):
        write_prototypes(prototype_file(tmp_path, f"v{b}"), rows)
    model = tiny_model("train", save_path=str(tmp_path))
    batch = tiny_batch()
    together = model.decode_head(model.backbone(batch["img"].flatten(0, 1)), 2, 4, img_metas=batch["img_metas"])
    alone = [model.decode_head(model.backbone(batch["img"][b]), 1, 4, prototypes=centers[b][None]) for b in range(2)]
    torch.testing.assert_close(together, torch.cat(alone), atol=2e-5, rtol=1e-4)
    model.loss(batch)["decode.loss_seg"].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


# ---------------------------------------------------------------------- streams


def test_stream_equals_whole_clips(tmp_path):
    centers = torch.randn(30, 256)
    write_prototypes(prototype_file(tmp_path, "a"), centers)
    model = tiny_model(save_path=str(tmp_path))
    video = torch.randn(11, 3, 64, 96)
    stream = model.stream("a")
    for t, img in enumerate(video):
        clip = video[inference_clip(t)][None]
        whole = model.encode_decode(clip, prototypes=centers[None])[0]
        torch.testing.assert_close(stream.step(img), whole, atol=1e-5, rtol=1e-5)
        expected = reference.encode_decode(model, clip, [dict(video="a")])[0]
        torch.testing.assert_close(whole, expected, atol=1e-4, rtol=1e-4)
        assert (whole.argmax(0) == expected.argmax(0)).float().mean() >= 0.9999


def test_auto_computes_what_the_file_would_hold(tmp_path):
    model = tiny_model(save_path=str(tmp_path), prototypes="auto", n_clusters=15)
    video = Clip("whole", 25)
    with torch.no_grad():
        rows = model.decode_head.cluster_input(model.backbone(video.frames[prototype_clip(25)]))
    centers = kmeans(rows, 15, seed=video_seed("whole"))[1]
    stream, expected = model.stream(video), model.stream(prototypes=centers[None])
    for img in video.frames[:6]:
        torch.testing.assert_close(stream.step(img), expected.step(img), atol=1e-4, rtol=1e-4)
    assert not list(tmp_path.iterdir())


def test_auto_prefers_files(tmp_path):
    centers = torch.randn(30, 256)
    write_prototypes(prototype_file(tmp_path, "whole"), centers)
    model = tiny_model(save_path=str(tmp_path), prototypes="auto")
    context = model.decode_head.stream_context(Clip("whole", 25), model.backbone)
    assert torch.equal(context["prototypes"][0], centers)


def test_live_stream_clusters_what_it_has_seen():
    model = tiny_model(prototypes="auto", n_clusters=6)
    video = Clip("live", 9)
    stream = model.stream()
    first = [stream.step(img) for img in video.frames]
    assert all(logits.isfinite().all() for logits in first)
    stream.reset()
    again = [stream.step(img) for img in video.frames]
    assert all(torch.equal(a, b) for a, b in zip(first, again))


def test_live_prototypes_are_bounded_and_renewed_at_powers_of_two():
    live = LivePrototypes(n_clusters=4, seed=0, max_rows=100)
    changed = []
    before = None
    for frame in range(1, 20):
        live.observe(torch.full((60, 3), float(frame)) + torch.randn(60, 3) * 0.01)
        centers = live.centers()
        if before is None or not torch.equal(before, centers):
            changed.append(frame)
        before = centers
        assert len(live._rows) <= 100
    assert changed == [1, 2, 4, 8, 16]
    contributors = live._rows[:, 0].round().unique()
    assert len(contributors) > 12  # old and new frames alike


# ---------------------------------------------------------------------- what bad input gets


def test_missing_prototypes_are_reported(tmp_path):
    model = tiny_model(save_path=str(tmp_path))
    with pytest.raises(DataError, match=r"nowhere.centers\.pt.*(?s:.*)gene_prototype\.py"):
        model.stream("nowhere")
    clip = torch.randn(1, 4, 3, 64, 64)
    with pytest.raises(DataError, match="nowhere"):
        model.encode_decode(clip, img_metas=[dict(video="nowhere")])
    with pytest.raises(ConfigError, match="without prototypes"):
        model.encode_decode(clip)
    with pytest.raises(ConfigError, match="without a name"):
        model.stream()
    with pytest.raises(DataError, match=r"\(5, 17\)"):
        model.encode_decode(clip, prototypes=torch.zeros(1, 5, 17))
    assert model.encode_decode(clip[:, -1:], img_metas=[dict(video="nowhere")]).isfinite().all()


def test_unknown_source_of_prototypes():
    with pytest.raises(ConfigError, match="'memory'"):
        build_head(tiny_config(prototypes="memory")["decode_head"])
