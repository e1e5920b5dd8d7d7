"""The streaming test loop against predictions made clip by clip, on a real data set."""

import numpy as np
import pytest
import torch

from mmseg.apis.inference import init_segmentor
from mmseg.clips import inference_clip
from mmseg.config import load_config
from mmseg.datasets import build_dataset
from mmseg.engine.test import test_dataset as run_test
from mmseg.errors import DataError
from mmseg.evaluation import VSPWEvaluator
from mmseg.models.cpu.label_map import resize_logits
from mmseg.structures import Flipped
from mmseg.writing.base import ResultWriter
from tests.engine.tiny_vspw import CLASSES, SIZE, make_data, make_video, write_config

LENGTHS = {"long": 18, "short": 4}
DILATION = (-9, -6, -3)


class Keep(ResultWriter):
    """Keeps everything it sees."""

    def __init__(self) -> None:
        self.results, self.calls = [], []

    def start(self, videos, owners):
        self.calls.append("start")

    def add(self, result):
        self.results.append(result)

    def finish(self):
        self.calls.append("finish")

    def abort(self):
        self.calls.append("abort")


@pytest.fixture
def data(tmp_path):
    return make_data(tmp_path / "data", LENGTHS)


def load(tmp_path, clip: bool = True):
    torch.manual_seed(0)
    cfg = load_config(write_config(tmp_path / "config.py", tmp_path / "data", clip))
    dataset = build_dataset(cfg.data.test, where="data.test", test_mode=True)
    return init_segmentor(cfg), dataset


def view_of(dataset, index: int, number: int, view: int = 0, pipeline=None) -> torch.Tensor:
    """The network input that is made of a frame."""
    return (pipeline or dataset.pipeline).views(dataset.frame(index, number))[view].inputs["img"]


@pytest.mark.parametrize("clip", [True, False], ids=["CFFM", "SegFormer"])
def test_equals_whole_clips(tmp_path, data, clip):
    """Every frame, the first ones of a video included, predicted from its clip as the official item list has it."""
    model, dataset = load(tmp_path, clip)
    keep = Keep()
    run_test(model, dataset, writers=[keep], progress=False)
    frames = [(video, t) for video in dataset.videos for t in range(video.num_frames)]
    assert [(r.video.name, r.frame.number) for r in keep.results] == [(video.name, t) for video, t in frames]
    for result, (video, t) in zip(keep.results, frames, strict=True):
        clip = [view_of(dataset, video.index, number) for number in inference_clip(t, DILATION)]
        logits = model.encode_decode(torch.stack(clip)[None])[0]
        expected = resize_logits(logits, [SIZE]).argmax(dim=0).numpy()
        assert result.labels.dtype == np.uint8 and result.labels.shape == SIZE
        assert (result.labels == expected).mean() > 0.9995  # ties up to rounding


def test_metrics_and_restored_state(tmp_path, data):
    model, dataset = load(tmp_path)
    model.train()
    evaluator = VSPWEvaluator(3, CLASSES, video_order=list(LENGTHS))
    keep = Keep()
    results = run_test(model, dataset, evaluator, [keep], progress=False)
    assert model.training
    assert keep.calls == ["start", "finish"]
    assert results["counts"]["frames"] == sum(LENGTHS.values()) and results["skipped_videos"] == ["short"]
    again = VSPWEvaluator(3, CLASSES)
    for r in keep.results:
        again.update(r.video.name, r.frame.number, r.labels, r.frame.truth)
    for name in ("mIoU", "FWIoU", "VC8", "VC16", "mmseg/mIoU"):
        np.testing.assert_equal(results[name], again.compute()[name])


def test_augmentation_averages_probabilities_over_views(tmp_path, data):
    """One stream per view; flips undone; the mean softmax at the original size, by hand for the last frames."""
    model, dataset = load(tmp_path)
    keep = Keep()
    dataset.videos = dataset.videos[:1]
    run_test(model, dataset, writers=[keep], aug_test=True, progress=False)
    pipeline = dataset.pipeline.augmented()
    views = pipeline.views(dataset.frame(0, 0))
    assert len(views) == 12
    mean = 0
    for k, view in enumerate(views):
        clip = torch.stack([view_of(dataset, 0, t, k, pipeline) for t in (8, 11, 14, 17)])[None]
        scores = resize_logits(model.encode_decode(clip)[0], [SIZE]).softmax(dim=0)
        mirrored = any(isinstance(step, Flipped) for step in view.steps)
        mean = mean + (scores.flip(-1) if mirrored else scores) / 12
    assert (keep.results[17].labels == mean.argmax(dim=0).numpy()).mean() > 0.9995


def test_bfloat16_is_close(tmp_path, data):
    model, dataset = load(tmp_path, clip=False)
    exact, rounded, types = Keep(), Keep(), []
    model.backbone.block4[0].attn.q.register_forward_hook(lambda _m, _i, out: types.append(out.dtype))
    run_test(model, dataset, writers=[exact], progress=False)
    assert set(types) == {torch.float32}
    types.clear()
    run_test(model, dataset, writers=[rounded], progress=False, amp=torch.bfloat16)
    assert set(types) == {torch.bfloat16}
    same = np.mean([(a.labels == b.labels).mean() for a, b in zip(exact.results, rounded.results)])
    assert 0.9 < same <= 1


def test_an_error_names_video_and_frame(tmp_path, data):
    model, dataset = load(tmp_path)
    damaged = data / "data" / "long" / "origin" / "00007.jpg"
    damaged.write_bytes(damaged.read_bytes()[:200])
    keep = Keep()
    with pytest.raises(DataError, match=r"video 'long', frame 7: .*00007\.jpg"):
        run_test(model, dataset, writers=[keep], progress=False)
    assert keep.calls == ["start", "abort"] and len(keep.results) == 7


def test_a_frame_of_another_size_is_refused(tmp_path):
    make_data(tmp_path / "data", {"a": 3})
    make_video(tmp_path / "other", "a", 3, 0, size=(60, 70))
    for kind, suffix in (("origin", "jpg"), ("mask", "png")):
        name = f"data/a/{kind}/00002.{suffix}"
        (tmp_path / "other" / name).rename(tmp_path / "data" / name)
    model, dataset = load(tmp_path)
    with pytest.raises(DataError, match=r"video 'a', frame 2 .* 70x60 pixels after frames of 70x45"):
        run_test(model, dataset, progress=False)


def test_memory_does_not_grow_with_the_video(tmp_path):
    """What Python and PyTorch hold after 12 frames of a video is what they hold after 60."""
    import gc

    make_data(tmp_path / "data", {"a": 70})
    model, dataset = load(tmp_path)

    class Count(ResultWriter):
        def __init__(self):
            self.held = {}

        def add(self, result):
            if result.frame.number in (12, 60):
                gc.collect()
                tensors = [o for o in gc.get_objects() if type(o) is torch.Tensor]
                self.held[result.frame.number] = (len(tensors), sum(t.numel() for t in tensors))

    count = Count()
    gc.freeze()  # what other tests have left is not counted, nor looked through
    try:
        run_test(model, dataset, VSPWEvaluator(3, CLASSES), [count], progress=False)
    finally:
        gc.unfreeze()
    objects, elements = zip(count.held[12], count.held[60])
    assert objects[1] - objects[0] <= 30  # some frames more or less are on their way; a tensor a frame would be 48
    assert elements[1] <= 2 * elements[0]
