"""Training data of GSFM: frame sampling, curriculum, warps, synthetic clips, and what a sample holds."""

from __future__ import annotations

from collections import Counter
from itertools import product

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from torchvision import transforms

from mmseg.config import load_config
from mmseg.datasets import StaticImageDataset, VOSClipDataset, build_dataset
from mmseg.datasets.picture_changes import Motion, Recolouring
from mmseg.datasets.static_images import OfStill
from mmseg.datasets.thin_plate import draw_control_points, thin_plate_maps, warp
from mmseg.datasets.vos_clips import OfClip, draw_frames, maximum_jump
from mmseg.engine.lr import Schedule
from mmseg.engine.optim import build_optimizer
from mmseg.errors import DataError
from mmseg.models.losses.bootstrapped import BootstrappedCrossEntropy
from mmseg.structures import Progress
from tests.datasets.vos_folders import label_map, pictures, write_png
from tests.golden_cases import GOLDEN
from tests.models.gsfm_cases import GSFMCase

CONFIGS = GOLDEN.parents[1] / "local_configs" / "gsfm"
VIDEO = {"name": "one", "frames": 6, "size": [60, 80], "ids": [1, 4, 9], "cell": 20}


def stage(number: int) -> Config:
    return load_config(CONFIGS / f"stage{number}.py")


def all_draws(n: int, jump: int):
    """Every sequence of draws, and the frames that it gives."""
    sizes = [n - min(n, jump) + 1, min(n, jump) + 1, min(n, jump) + 1]
    for *draws, chance in product(*map(range, sizes), (0.2, 0.7)):
        left = iter(draws)
        yield draw_frames(n, jump, lambda high, left=left: next(left), lambda chance=chance: chance)


@pytest.mark.parametrize("pair", GSFMCase("frame_sampling")["params"]["pairs"])
def test_distribution_of_frames_is_the_official_one(pair):
    case, (n, jump) = GSFMCase("frame_sampling"), pair
    counts = Counter(map(tuple, all_draws(n, jump)))
    rows = [[*frames, count / sum(counts.values())] for frames, count in sorted(counts.items())]
    case.check(f"n{n}_jump{jump}", torch.tensor(rows, dtype=torch.float64))


def test_draws_come_in_the_official_order():
    case = GSFMCase("frame_sampling_seeds")
    for n, jump in case["params"]["pairs"]:
        rows = []
        for seed in case["params"]["seeds"]:
            random = np.random.RandomState(seed)
            rows.append(draw_frames(n, jump, random.randint, random.rand))
        case.check(f"n{n}_jump{jump}", torch.tensor(rows))


def test_schedules_are_the_official_ones():
    case = GSFMCase("schedules")
    for name, (iterations, batches) in case["params"]["skip"].items():
        epochs = -(-iterations // batches)
        case.check(f"skip_{name}", torch.tensor([maximum_jump(epoch, epochs) for epoch in range(epochs)]))
    assert maximum_jump(85, 100) == 25 and maximum_jump(85, 100, 0.8) == 5
    for number in (0, 3):
        cfg = stage(number)
        optimizer = build_optimizer(torch.nn.Linear(1, 1), cfg.optimizer)
        schedule, rates = Schedule(optimizer, cfg.lr_config, cfg.runner.max_iters), []
        for iteration in case["params"]["lr_iterations"][str(number)]:
            schedule.step(iteration)
            rates.append(optimizer.param_groups[0]["lr"])
        case.check(f"lr_stage{number}", torch.tensor(rates, dtype=torch.float64))
        loss = BootstrappedCrossEntropy(**cfg.model.bootstrap)
        shares = [loss.share(iteration) for iteration in case["params"]["p_iterations"][str(number)]]
        case.check(f"p_stage{number}", torch.tensor(shares, dtype=torch.float64))


def test_thin_plate_warp_is_the_official_one():
    case = GSFMCase("tps_48x64")
    inputs = case.inputs()
    source = inputs["c_src"].sigmoid()
    maps = thin_plate_maps(source.numpy(), (source + 0.02 * inputs["shift"]).numpy(), case["params"]["size"])
    case.check("mapx", maps[0])
    case.check("mapy", maps[1])
    image, mask = inputs["img"].to(torch.uint8).numpy(), (255 * inputs["mask"]).to(torch.uint8).numpy()
    for name, value in (("image", warp(image, maps)), ("mask", warp(mask, maps, is_mask=True))):
        expected, tolerance = case.expected(name).numpy().astype(int), case["tolerance"][name]
        difference = np.abs(value.astype(int) - expected)
        share = tolerance.get("mismatch_fraction")
        assert difference.max() <= tolerance["abs"] if share is None else (difference > 0).mean() <= share


def test_control_points_do_not_coincide():
    source, target = draw_control_points(384, np.random.default_rng(0))
    assert all(len(np.unique(axis)) == 12 for axis in source.T) and np.abs(target - source).max() < 0.1


# ------------------------------------------------------------------------------------------------------------- samples


def write_video(root, video=VIDEO):
    every = label_map(video, sliding=True)
    height, width = video["size"]
    for t, frame in enumerate(pictures(video)):
        write_png(root / "JPEGImages" / video["name"] / f"{t:05d}.jpg", frame)
        mask = np.ascontiguousarray(every[3 * t : 3 * t + height, 6 * t : 6 * t + width])
        write_png(root / "Annotations" / video["name"] / f"{t:05d}.png", mask)


def test_a_clip_of_a_video(tmp_path):
    write_video(tmp_path)
    dataset = VOSClipDataset(str(tmp_path), crop_size=48)
    seen = set()
    for seed in range(12):
        sample = dataset[0, (seed,)]
        again = dataset[0, (seed,)]
        assert all(torch.equal(sample[key], again[key]) for key in ("img", "gt_semantic_seg", "selector"))
        labels, selector = sample["gt_semantic_seg"], sample["selector"]
        assert sample["img"].shape == (3, 3, 48, 48) and labels.shape == (3, 1, 48, 48)
        assert labels.dtype == torch.int64 and set(labels.unique().tolist()) <= {0, 1, 2}
        assert (labels[0] == 1).any() and bool((labels[0] == 2).any()) == bool(selector[1])
        assert selector[0] == 1 and abs(sample["img"]).max() < 3
        seen.add(tuple(sample["img_metas"]["frames"]))
    assert len(seen) > 3


def test_distances_grow_with_the_training(tmp_path):
    write_video(tmp_path, {**VIDEO, "frames": 40, "size": [16, 16], "cell": 4})
    spans = {}
    for divisor, keys, epochs in (
        (1, {}, (0, 50, 85, 95)),
        (5, {"jump_divisor": 5}, (0, 50, 95)),
        ("ends early", {"last_limit": 0.8}, (85,)),
    ):
        dataset = VOSClipDataset(str(tmp_path), crop_size=16, **keys)
        for epoch in epochs:
            drawn = [
                dataset.clip(0, np.random.default_rng(s), Progress(epoch, 100, epoch, 100))["img_metas"]["frames"]
                for s in range(40)
            ]
            spans[divisor, epoch] = max(abs(a - b) for a, b, _ in drawn)
    assert spans[1, 0] <= 6 and 10 < spans[1, 50] <= 26 and spans[1, 95] <= 6
    assert spans[5, 0] <= 2 and 2 <= spans[5, 50] <= 6 and spans[5, 95] <= 2
    assert spans[1, 85] > 10 and spans["ends early", 85] <= 6


def test_a_video_without_objects_gives_an_empty_clip(tmp_path):
    write_video(tmp_path)
    for path in (tmp_path / "Annotations/one").iterdir():
        write_png(path, np.zeros((60, 80), np.uint8))
    sample = VOSClipDataset(str(tmp_path), crop_size=32)[0, (0,)]
    assert not sample["gt_semantic_seg"].any() and sample["selector"].tolist() == [1, 0]


def test_videos_that_cannot_be_trained_on(tmp_path, caplog):
    write_video(tmp_path, {**VIDEO, "frames": 2})
    with pytest.raises(DataError, match="1 of 1 videos have less than 3 frames: one"):
        VOSClipDataset(str(tmp_path))
    write_video(tmp_path, {**VIDEO, "name": "two"})
    assert [video.name for video in VOSClipDataset(str(tmp_path)).videos] == ["two"]
    assert "1 of 2 videos have less than 3 frames: one; they are left out" in caplog.text
    write_video(tmp_path)
    (tmp_path / "Annotations/one/00003.png").unlink()
    with pytest.raises(DataError, match="5 masks for 6 frames"):
        VOSClipDataset(str(tmp_path))


class OfficialDraws:
    """The chances of the published data sets: numpy's old generator, and torchvision's transforms, whose generator is
    set to a number of numpy's before those that a picture shares with its mask."""

    def __init__(self, seed: int) -> None:
        self.numpy = np.random.RandomState(seed)

    def _set(self, seed: int | None = None) -> None:
        torch.manual_seed(self.numpy.randint(2147483647) if seed is None else seed)

    @staticmethod
    def _colours(*widths: float) -> Recolouring:
        ranges = [(1 - width, 1 + width) for width in widths[:3]]
        hue = (-widths[3], widths[3]) if len(widths) > 3 else None
        order, *factors, turn = transforms.ColorJitter.get_params(*ranges, hue)
        return Recolouring(*factors, turn or 0.0, tuple(order.tolist()))

    @staticmethod
    def _affine(degrees: float, scale=None, shear=None) -> tuple[float, float, float]:
        shears = None if shear is None else (-shear, shear)
        angle, _, scale, (shear, _) = transforms.RandomAffine.get_params(
            (-degrees, degrees), None, scale, shears, (9, 9)
        )
        return angle, scale, shear

    @staticmethod
    def _chance(share: float) -> bool:
        return torch.rand(1).item() < share


class StillDraws(OfficialDraws):
    """Of stage 0."""

    def of_clip(self) -> OfStill:
        self._set()
        scale, mirror = self._affine(0.0, (0.8, 1.5))[1], self._chance(0.5)
        return OfStill(scale, mirror, self._colours(0.1, 0.05, 0.05, 0.05), self._chance(0.05))

    def motion(self) -> Motion:
        self._set()
        return Motion(*self._affine(20.0, (0.9, 1.1), 10.0))

    def crop(self, size, side):
        top, left, *_ = transforms.RandomCrop.get_params(torch.empty(1, size[1], size[0]), (side, side))
        return (left, top), self._colours(0.1, 0.05, 0.05)

    def warp(self, side):
        if self.numpy.rand() >= 0.33:
            return None
        axes = [self.numpy.choice(side, 12, replace=False) for _ in range(2)]
        source = (np.stack(axes, axis=1) / side).astype(np.float32)
        return source, (source + self.numpy.normal(scale=0.02, size=source.shape)).astype(np.float32)


class ClipDraws(OfficialDraws):
    """Of stage 3."""

    def frames(self, num_frames, jump):
        return draw_frames(num_frames, jump, self.numpy.randint, self.numpy.rand)

    def of_clip(self, size) -> OfClip:
        self._set()
        mirror = self._chance(0.5)
        image = torch.empty(1, size[1], size[0])
        top, left, height, width = transforms.RandomResizedCrop.get_params(image, (0.36, 1.0), (3 / 4, 4 / 3))
        box = (left, top, left + width, top + height)
        return OfClip(mirror, box, self._colours(0.1, 0.03, 0.03), self._chance(0.05))

    def of_frame(self):
        self._set()
        return Motion(*self._affine(15.0, shear=10.0)), self._colours(0.01, 0.01, 0.01)

    def objects(self, ids):
        first = self.numpy.choice(ids)
        rest = [number for number in ids if number != first]
        return [first, self.numpy.choice(rest)] if rest else [first]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_clips_of_a_still_image_are_the_official_ones(tmp_path, seed):
    case = GSFMCase("static_sample")
    params = case["params"]
    video = {"frames": 1, "ids": [255], **params}
    write_png(tmp_path / "a.jpg", pictures(video)[0])
    write_png(tmp_path / "a.png", label_map(video))
    sample = StaticImageDataset(str(tmp_path)).drawn(0, StillDraws(seed))
    case.check(f"seed{seed}/rgb", sample["img"])
    case.check(f"seed{seed}/gt", sample["gt"])
    case.check(f"seed{seed}/cls_gt", sample["gt_semantic_seg"][:, 0].to(torch.uint8))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_clips_of_a_video_are_the_official_ones(tmp_path, seed):
    case = GSFMCase("vos_sample")
    params = case["params"]
    write_video(tmp_path, params)
    sample = VOSClipDataset(str(tmp_path)).drawn(0, params["max_jump"], ClipDraws(seed))
    case.check(f"seed{seed}/frames", torch.tensor(sample["img_metas"]["frames"]))
    case.check(f"seed{seed}/rgb", sample["img"])
    case.check(f"seed{seed}/cls_gt", sample["gt_semantic_seg"][:, 0].to(torch.uint8))
    case.check(f"seed{seed}/selector", sample["selector"])


def write_static(root, folder=""):
    image = pictures({**VIDEO, "frames": 1})[0]
    mask = np.zeros((60, 80), np.uint8)
    mask[15:45, 20:60] = 255
    write_png(root / folder / "a.jpg", image)
    write_png(root / folder / "a.png", mask)
    return mask


@pytest.mark.parametrize("layout", ["flat", "classes"])
def test_a_clip_of_a_still_image(tmp_path, layout):
    write_static(tmp_path, "" if layout == "flat" else "dog")
    dataset = StaticImageDataset(str(tmp_path), layout=layout, crop_size=64)
    soft = 0
    for seed in range(8):
        sample, again = dataset[0, (seed,)], dataset[0, (seed,)]
        assert torch.equal(sample["img"], again["img"]) and torch.equal(sample["gt"], again["gt"])
        assert sample["img"].shape == (3, 3, 64, 64) and sample["gt"].shape == (3, 1, 64, 64)
        assert torch.equal(sample["gt_semantic_seg"], (sample["gt"] > 0.5).long())
        assert 0.1 < sample["gt"].mean() < 0.9 and not torch.equal(sample["gt"][0], sample["gt"][1])
        soft += ((sample["gt"] > 0) & (sample["gt"] < 1)).sum()
    assert soft > 0
    counts = dataset.label_counts()
    assert counts[0] > 0 and counts[1] > 0


def test_images_without_masks(tmp_path):
    write_static(tmp_path)
    cv2.imwrite(str(tmp_path / "b.jpg"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DataError, match=r"1 images without mask.*b\.jpg"):
        StaticImageDataset(str(tmp_path))
    with pytest.raises(DataError, match="no videos"):
        StaticImageDataset(str(tmp_path), layout="classes")


def test_masks_without_objects_teach_nothing(tmp_path):
    write_static(tmp_path / "still")
    write_png(tmp_path / "still/a.png", np.zeros((60, 80), np.uint8))
    write_video(tmp_path)
    for path in (tmp_path / "Annotations").rglob("*.png"):
        write_png(path, np.zeros((60, 80), np.uint8))
    for dataset, masks in ((StaticImageDataset(tmp_path / "still"), 1), (VOSClipDataset(tmp_path), 6)):
        with pytest.raises(DataError, match=f"no object in {masks} of {masks} masks, the first is .*png"):
            dataset.label_counts()


def test_objects_of_the_value_255_are_learned_from(tmp_path):
    """Masks of DAVIS-2016 are 0 and 255."""
    write_video(tmp_path)
    mask = np.zeros((60, 80), np.uint8)
    mask[10:40, 20:60] = 255
    for path in (tmp_path / "Annotations").rglob("*.png"):
        write_png(path, mask)
    dataset = VOSClipDataset(tmp_path, crop_size=32)
    counts = dataset.label_counts()
    assert counts[1:255].sum() == 6 * 30 * 40 and counts[255] == 0
    assert dataset.clip(0, np.random.default_rng(0))["gt_semantic_seg"].any()


def test_published_stages():
    """What section 7.2 of the specification says of them."""
    for number, batch, iterations, step, warm in ((0, 16, 40000, 20000, 10000), (3, 8, 30000, 25000, 15000)):
        cfg = stage(number)
        assert (cfg.data.samples_per_gpu, cfg.runner.max_iters, cfg.lr_config.step) == (batch, iterations, [step])
        assert cfg.model.bootstrap == dict(start_warm=3000, end_warm=warm) and cfg.optimizer.lr == 4e-5
    names = (CONFIGS / "splits/youtube_vos_train.txt").read_text().split()
    assert len(names) == len(set(names)) == 3464


def test_training_sets_are_joined_as_published(tmp_path):
    write_video(tmp_path)
    part = dict(type="VOSClipDataset", data_root=str(tmp_path), crop_size=32)
    joined = build_dataset([dict(type="RepeatDataset", times=5, dataset=part), {**part, "jump_divisor": 5}])
    assert len(joined) == 6 and joined.clip(5, np.random.default_rng(0))["img"].shape == (3, 3, 32, 32)
