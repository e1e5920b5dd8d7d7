"""Every key of every shipped config with values that cannot be: one clear error each, never a traceback or silence.

The keys are collected from the configs themselves and go through the functions that a run calls. A key that several
configs have in the same place of the same class or section is tried once.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from mmengine.config import Config

from mmseg import compat
from mmseg.config import check_config, load_config, override
from mmseg.datasets import build_dataset
from mmseg.engine.lr import Schedule
from mmseg.engine.optim import build_optimizer
from mmseg.errors import SegError
from mmseg.models import build_backbone, build_head, build_segmentor
from mmseg.sections import TABLE
from tests.datasets.vos_folder import write_vos
from tests.datasets.vos_folders import write_davis, write_youtube
from tests.datasets.vspw_folder import write_vspw

CONFIGS = Path(__file__).parents[1] / "local_configs"
SHIPPED = sorted((p for p in CONFIGS.rglob("*.py") if "_base_" not in p.parts), key=lambda p: "toy" not in p.parts)
OTHER_TYPE = object()
WRONG = {"wrong type": OTHER_TYPE, "-7": -7, "None": None, "[]": [], "dict": {"nested": 1}, "True": True}

# What may be: None for nothing or the default, an empty list where nothing is a choice, and a name of any kind.
NONE = (
    "ClipSegmentor.pretrained ClipSegmentor.train_cfg ClipSegmentor.test_cfg FrameSegmentor.pretrained "
    "FrameSegmentor.train_cfg FrameSegmentor.test_cfg CFFMHead.decoder_params CFFMHead.loss_decode "
    "CFFMPrototypeHead.decoder_params CFFMPrototypeHead.loss_decode CFFMPlusHead.decoder_params "
    "CFFMPlusHead.loss_decode MRCFAHead.decoder_params MRCFAHead.loss_decode SegFormerHead.decoder_params "
    "SegFormerHead.loss_decode VSPWDataset.pipeline Resize.ratio_range Resize.size_divisor "
    "RandomFlip.prob data_root optimizer.paramwise_cfg optimizer_config lr_config.warmup checkpoint_config "
    "checkpoint_config.interval evaluation evaluation.interval evaluation.metric log_config log_level dist_params "
    "dist_params.backend cudnn_benchmark BlockSegmentor.train_cfg BlockSegmentor.test_cfg VSPWClipDataset.pipeline "
    "THEMaskFrameHead.loss_cfg THEMaskFrameHead.loss_cfg.matcher_cfg THEMaskVideoHead.loss_cfg "
    "THEMaskVideoHead.loss_cfg.matcher_cfg optimizer_config.grad_clip "
    "TwoStreamSegmentor.train_cfg TwoStreamSegmentor.test_cfg HFANHead.decoder_params HFANHead.loss_decode "
    "TwoStream.norm_cfg VOSDataset.ann_dir VOSDataset.pipeline DAVISDataset.palette_file DAVISDataset.pipeline "
    "DAVISDataset.split GSFM.bootstrap GSFM.test_cfg VOSClipDataset.split YouTubeVOSDataset.palette_file "
    "YouTubeVOSDataset.pipeline VSPWDataset.split VSPWClipDataset.split"
)
ACCEPTED = {
    **dict.fromkeys(NONE.split(), "None"),
    "ClipSegmentor.pretrained": "wrong type",  # a name of a file
    "BlockSegmentor.pretrained": "wrong type",
    "TwoStreamSegmentor.pretrained": "wrong type",
    "GSFM.norm_eval": "True",
    "GSFM.test_cfg.include_last": "True",
    "VSPWDataset.dilation": "[]",  # no references
    "VSPWClipDataset.dilation": "[]",
    "VSPWClipDataset.dilation.N": "-7",
    "THEMaskFrameHead.loss_cfg.two_round_after_warmup": "True",
    "log_config.hooks": "[]",
    "MultiScaleFlipAug.flip": "True",
    "VSPWDataset.dilation.N": "-7",
    "Normalize.mean.N": "-7",
    "Pad.pad_val": "-7",
    "load_from": "wrong type",  # a name of a file
    "resume_from": "wrong type",
}


class Case(NamedTuple):
    """A key of a config, where it was found first."""

    key: str  # in its class or section, such as "RandomCrop.crop_size"
    path: str  # in the config, such as "data.train.dataset.pipeline.3.crop_size"
    config: Path
    value: Any


def cases(configs: Mapping[Path, Config]) -> Iterator[Case]:
    """Every key of every config, each once."""
    known = set()
    for config, loaded in configs.items():
        for section in TABLE:
            for key, path, value in keys(loaded.get(section), section, section):
                if section in loaded and key not in known:
                    known.add(key)
                    yield Case(key, path, config, value)


def keys(node: Any, owner: str, path: str) -> Iterator[tuple[str, str, Any]]:
    """(key in its class, dotted path, value) of an entry of a config and of all below it."""
    yield owner, path, node
    if isinstance(node, Mapping):
        owner = node.get("type", owner) if path not in TABLE or path == "model" else owner
        for name, value in node.items():
            yield from keys(value, f"{owner}.{name}", f"{path}.{name}")
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from keys(value, owner if isinstance(value, Mapping) else f"{owner}.N", f"{path}.{number}")


def use(config: Config, path: str, value: Any, whole_model: bool = False) -> None:
    """What a run does with the section of a key that has got this value."""
    cfg = override(config, {path: value})
    check_config(cfg, tell=True)
    with torch.device("meta"):
        if path.startswith("model") and whole_model:
            build_segmentor(cfg.model)
        elif path.startswith("model.decode_head."):
            build_head(cfg.model.decode_head)
        elif path.startswith("model.backbone."):
            build_backbone(cfg.model.backbone)
        elif path.startswith(("model", "train_cfg", "test_cfg")):
            build_segmentor(cfg.model, cfg.get("train_cfg"), cfg.get("test_cfg"))
    for name in ("train", "val", "test"):
        if path.startswith(f"data.{name}"):
            build_dataset(cfg.data[name], f"data.{name}", **({} if name == "train" else {"test_mode": True}))
    if path.startswith(("optimizer", "lr_config")):
        Schedule(build_optimizer(torch.nn.Linear(1, 1), cfg.optimizer), cfg.lr_config, 10)


@pytest.fixture(autouse=True)
def no_initial_values(monkeypatch):
    """Models are built without memory here, where drawing their weights is most of the work."""
    for name in ("kaiming_normal_", "kaiming_uniform_", "normal_", "orthogonal_", "trunc_normal_", "uniform_",
                 "xavier_normal_", "xavier_uniform_", "constant_", "ones_", "zeros_"):  # fmt: skip
        monkeypatch.setattr(torch.nn.init, name, lambda tensor, *args, **kwargs: tensor)


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    """In the layouts of DAVIS, of VSPW and of frames with flow."""
    video = {"name": "one", "frames": 4, "size": [30, 40], "ids": [1], "cell": 10, "first": {"0": [1]}, "report": [0]}
    folder = tmp_path_factory.mktemp("data")
    root = write_davis(folder, [video], "trainval", "val.txt") / "trainval"
    write_youtube(folder, [video], "valid")
    (root / "ImageSets/2017/train.txt").write_text("one\n")
    masks = root / "Annotations/480p/one"
    for t in range(1, 4):  # training needs a mask for every frame
        shutil.copy(masks / "00000.png", masks / f"{t:05d}.png")
    write_vspw(root, train={"a": 12}, val={"b": 12}, classes=8)
    write_vos(root, {"a": 3}, "train")
    return write_vos(root, {"b": 3}, "val")


@pytest.fixture(scope="module")
def config(data_root) -> Config:
    return load_config(SHIPPED[0], {"data_root": str(data_root), "data.test.pipeline.1.flip": True})


def root_of(config: Path, data_root: Path) -> str:
    """The folder with data for a config; YouTube-VOS has the same names for others than DAVIS."""
    return str(data_root.parents[2] / "YouTube/valid" if config.name.startswith("youtube") else data_root)


def test_no_traceback_and_no_silence(data_root, caplog):
    configs = {path: load_config(path, {"data_root": root_of(path, data_root)}) for path in SHIPPED}
    tried, problems, accepted = 0, [], {}
    for case in cases(configs):
        for label, wrong in WRONG.items():
            if wrong is OTHER_TYPE:
                wrong = 7.5 if isinstance(case.value, str) else "wrong"
            if wrong == case.value and type(wrong) is type(case.value):
                continue
            tried += 1
            key = re.sub(r"(\.\d+)+$", "", case.path)  # an entry of a list is told by the key of the list
            where = key.rpartition(".")[0] or key
            caplog.clear()
            compat._told.clear()
            try:
                use(configs[case.config], case.path, wrong)
            except SegError as error:
                if where not in str(error) or not (error.expected and error.action):
                    problems.append(f"{case.path} = {wrong!r}: {error}")
            except Exception as error:
                problems.append(f"{case.path} = {wrong!r}: {type(error).__name__}: {error}")
            else:
                if any(f"{path} = " in caplog.text for path in (case.path, where)):  # a warning
                    continue
                accepted.setdefault(case.key, []).append(label)
    assert tried > 500
    assert not problems, "\n".join(problems)
    assert {key: ", ".join(labels) for key, labels in accepted.items()} == ACCEPTED


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("optimizer.lr", "abc"),
        ("optimizer.betas", 1),
        ("optimizer.betas", [0.9, 1.5]),
        ("optimizer.betas.1", 1.0),
        ("optimizer.eps", -1e-8),
        ("optimizer.weight_decay", -1),
        ("optimizer.type", "Adamm"),
        ("optimizer.paramwise_cfg.custom_keys.norm.decay_mlt", 0.0),
        ("lr_config.power", "x"),
        ("lr_config.policy", "polly"),
        ("lr_config.warmup_ratio", -3),
        ("lr_config.gamma", 0.1),  # of another policy
        ("runner.max_iters", True),
        ("runner.max_iters", 1.5),
        ("checkpoint_config.interval", "x"),
        ("checkpoint_config.interval", 0),
        ("log_config.interval", 0),
        ("optimizer_config.grad_clip", 5),
        ("optimizer_config.grad_clip", {"max_norm": -1}),
        ("optimizer_config.grad_clip", {"norm_type": 2}),
        ("data.train", 5),
        ("data.train.times", 0),
        ("data.train.dataset", 5),
        ("data.train.dataset.dilation", 5),
        ("data.train.dataset.dilation", [-3, -9, -6]),
        ("data.train.dataset.dilation", [-9, -6.5, -3]),
        ("data.test.dilation", [3, 6, 9]),
        ("data.test.dilation", [-3, -3, -3]),
        ("data.test.frame_rate", 0),
        ("data.train.dataset.pipeline", 5),
        ("data.train.dataset.pipeline.2", 5),
        ("data.train.dataset.pipeline.2.img_scale", [0, 0]),
        ("data.train.dataset.pipeline.2.ratio_range", [2.0, 0.5]),
        ("data.train.dataset.pipeline.3.cat_max_ratio", 2),
        ("data.test.pipeline.1.img_scale", [160]),
        ("data.test.pipeline.1.transforms.0.size_divisor", 0),
        ("model.decode_head.num_classes", "abc"),
        ("model.decode_head.num_classes", True),
        ("model.decode_head.in_channels", 5),
        ("model.decode_head.in_channels", [64, 128, 320, 512]),  # of another backbone
        ("model.decode_head.dropout_ratio", 2),
        ("model.decode_head.decoder_params.embed_dims", 256),
        ("model.decode_head.decoder_params.embed_dim", 100),
        ("model.decode_head.loss_decode.loss_weight", "x"),
        ("model.decode_head", 5),
        ("model.backbone.type", "mit_b9"),
        ("model.test_cfg", {"mode": "slide"}),
        ("model.test_cfg", {"mode": "whole", "crop_size": (3, 3)}),
        ("log_level", "FOO"),
        ("seed", 10**23),
        ("seed", -1),
        ("amp", {"dtype": "float8"}),
        ("compile", {"mod": "default"}),
        ("compile", {"backend": "inductr"}),
        ("evaluation.save_best", ""),
        ("data.train.dataset.pipeline.0.type", "os.getcwd"),  # something, but no transform
        ("float32_matmul_precision", "low"),
    ],
)
def test_values_that_people_have_written(config, path, value):
    with pytest.raises(SegError) as error:
        use(config, path, value, whole_model=True)
    assert (path.rpartition(".")[0] or path) in str(error.value) and error.value.action
