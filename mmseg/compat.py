"""Official names in our house: the one place that knows how the released code called things.

Official config files run unmodified because :func:`mmseg.registry.build` translates every config dict here before it
looks its type up: the types of segmentor and head together, since the same segmentor stands before heads that
work differently, and all others one by one. Keys of published files that have no effect here stand in one table; they
are dropped with a warning, unless they ask for what is done anyway. Sections of related software that nothing here
reads are known as well, so that the answer to them is what to write instead.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Mapping
from typing import Any

from mmseg.errors import ConfigError

logger = logging.getLogger("mmseg.compat")

_CLIPS = "EncoderDecoder_clips"

# official (segmentor, head) -> (our segmentor, our head, keys of the head unless given)
_SYSTEMS: dict[tuple[str, str], tuple[str, str, dict[str, Any]]] = {
    (_CLIPS, "CFFMHead_clips_resize1_8"): ("ClipSegmentor", "CFFMHead", {}),
    (_CLIPS, "CFFMHead_clips_resize1_8_gene_prototype"): ("ClipSegmentor", "CFFMPrototypeHead", {}),
    (_CLIPS, "CFFMHead_clips_resize1_8_finetune_w_prototype3"): ("ClipSegmentor", "CFFMPlusHead", {}),
    (_CLIPS, "SegFormerHead_clips2_resize_1_8_hypercorrelation2_topk_ensemble4"): ("ClipSegmentor", "MRCFAHead", {}),
    (_CLIPS, "THEMask1fHead"): ("BlockSegmentor", "THEMaskFrameHead", {}),
    (_CLIPS, "THEMaskHead"): ("BlockSegmentor", "THEMaskVideoHead", {}),
    # named by MRCFA's baseline config and never released: the per-frame branch with batch norm
    (_CLIPS, "SegFormerHead_clips2_resize_1_8"): ("FrameSegmentor", "SegFormerHead", {"fuse_norm": "BN"}),
    ("EncoderDecoder", "HFANVOS_Head"): ("TwoStreamSegmentor", "HFANHead", {}),
}
_SEGMENTORS = {"EncoderDecoder": "FrameSegmentor", _CLIPS: "ClipSegmentor"}  # before a head with a name of ours

# registry -> official type -> (our type, keys unless given)
_TYPES: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "model": {
        **{head: (name, added) for (_, head), (_, name, added) in _SYSTEMS.items()},
        "HFANVOS": ("TwoStream", {}),
        "MSDeformAttnPixelDecoder": ("DeformablePixelDecoder", {}),
        "MultiScaleMaskedTransformerDecoder": ("FrameQueryDecoder", {}),
        "VideoMultiScaleMaskedTransformerDecoder": ("VideoQueryDecoder", {}),
    },
    "dataset": {
        "VSPWDataset2": ("VSPWDataset", {}),
        "VSPWDataset_multiFrameTest": ("VSPWClipDataset", {}),  # THE-Mask's alone
    },
    "transform": {
        "LoadImageFromFile": ("LoadFrames", {}),
        "LoadImagesFromFile": ("LoadFrames", {}),
        "LoadAnnotations": ("LoadLabels", {}),
        "RandomCrop_clips": ("RandomCrop", {}),
        "RandomFlip_clips": ("RandomFlip", {}),
        "PhotoMetricDistortion_clips": ("PhotoMetricDistortion", {}),
        "PhotoMetricDistortionMultiImages": ("PhotoMetricDistortion", {}),
        "Normalize_clips": ("Normalize", {}),
        "NormalizeMultiImages": ("Normalize", {}),
        "Pad_clips": ("Pad", {}),
        "AlignedResize": ("Resize", {"size_divisor": 32}),
        "AlignedResize_clips": ("Resize", {"size_divisor": 32}),
        "DefaultFormatBundle_clips": ("PackClip", {}),
        "DefaultFormatBundle": ("PackClip", {}),
        "ImageToTensor_clips": ("ImageToTensor", {}),
    },
}

# head -> official data set -> ours, where the released code of a method has a class of its own under a common name
_DATA_SETS: dict[str, dict[str, str]] = {
    head: {"VSPWDataset2": "VSPWClipDataset"}
    for head in ("THEMask1fHead", "THEMaskHead", "THEMaskFrameHead", "THEMaskVideoHead")
}
_NO_CLIPS = 32  # test_size of THE-Mask's base config, which gives none

# class (or a base of it) or section -> key -> (values that ask for what is done anyway, what is done)
_ANY = object()
_told: set[str] = set()  # warnings of this process
_WITHOUT_EFFECT: dict[str, dict[str, tuple[Any, str]]] = {
    "Segmentor": {"train_cfg": (({}, None), "there are no settings of the training")},
    "FusionHead": {
        "norm_cfg": (
            ({"type": "SyncBN", "requires_grad": True},),
            "the norm is that of fuse_norm, batch norm being that of all processes",
        )
    },
    "MaskHead": {"loss_weight": ((1.0,), "loss_cfg has the weights of the losses")},
    "MRCFAHead": {"decoder_params.depths": ((), "there are no blocks to be counted")},
    "MixVisionTransformer": {"style": (("pytorch",), "MiT has one style")},
    "SegFormerHead": {
        "num_clips": ((), "every frame is predicted by itself"),
        "hypercorre": ((False,), "every frame is predicted by itself"),
        "decoder_params.depths": ((), "there are no blocks to be counted"),
    },
    "VSPWDataset": {
        "img_dir": ((), "frames are in data/<video>/origin, or where frames_dir says"),
        "ann_dir": ((), "masks are in data/<video>/mask, or where masks_dir says"),
    },
    "LoadFrames": {
        "to_float32": ((False,), "frames are 8-bit until they are normalised"),
        "color_type": (("color",), "frames are read in colour"),
        "imdecode_backend": (("cv2",), "frames are read by OpenCV"),
        "file_client_args": (({"backend": "disk"},), "files are read from the disk"),
    },
    "LoadLabels": {
        "imdecode_backend": (_ANY, "masks are read by Pillow"),
        "file_client_args": (({"backend": "disk"},), "files are read from the disk"),
    },
    "data": {
        "persistent_workers": ((True,), "data workers stay for the whole run"),
        "pin_memory": ((True, None), "memory is pinned where batches go to a GPU"),
    },
    "checkpoint_config": {"create_symlink": ((True,), "latest.pth always stands for the newest checkpoint")},
    "evaluation": {
        "efficient_test": (_ANY, "frames are evaluated one by one"),
        "pre_eval": (_ANY, "frames are evaluated one by one"),
        "gpu_collect": ((False,), "what the processes have counted is added up, no results are collected"),
    },
    "optimizer_config": {"type": (("OptimizerHook", "Fp16OptimizerHook"), "there is one kind of update")},
    "config": {
        "gpu_ids": (_ANY, "--gpu-ids and the launcher choose the GPUs"),
        "device": (_ANY, "the launcher chooses the device"),
        "default_scope": (("mmseg",), "there is one scope"),
        "opencv_num_threads": (_ANY, "data workers use one thread each"),
        "mp_start_method": (_ANY, "data workers are forked"),
    },
    "Resize": {"process_clips": (_ANY, "clips and single frames are the same here")},
}


# custom_keys of published optimisers for parts that not every model has: embeddings of positions; norms, which ResNet
# calls bn1
PUBLISHED_CUSTOM_KEYS = {"pos_block", "absolute_pos_embed", "relative_position_bias_table", "norm"}

# Files of weights as the released code loads them: of these systems the state dict alone, of others with this `meta`.
BARE_FILES = ("GSFM",)
OFFICIAL_META = ("CLASSES", "PALETTE")

# Sections and names of related software that nothing here reads -> what to write instead.
INSTEAD = {
    "fp16": "amp=dict(dtype='float16')",
    "optim_wrapper": "optimizer=dict(...), optimizer_config=dict(grad_clip=...) and amp=dict(dtype=...)",
    "param_scheduler": "lr_config=dict(policy='poly', ...)",
    "momentum_config": "optimizer=dict(betas=...) or dict(momentum=...), which stay as they are",
    "default_hooks": "checkpoint_config, evaluation and log_config",
    "hooks": "checkpoint_config, evaluation and log_config",
    "log_processor": "log_config=dict(interval=...)",
    "vis_backends": "log_config=dict(hooks=[dict(type='TensorboardLoggerHook')])",
    "visualizer": "log_config=dict(hooks=[dict(type='TensorboardLoggerHook')])",
    "auto_scale_lr": "optimizer=dict(lr=...) for the number of clips of an iteration",
    "lr": "optimizer=dict(lr=...)",
    "samples_per_gpu": "data=dict(samples_per_gpu=...)",
    "workers_per_gpu": "data=dict(workers_per_gpu=...)",
    "batch_size": "data=dict(samples_per_gpu=...)",
    "num_workers": "data=dict(workers_per_gpu=...)",
    "train_dataloader": "data=dict(samples_per_gpu=..., workers_per_gpu=..., train=dict(...))",
    "val_dataloader": "data=dict(val=dict(...))",
    "test_dataloader": "data=dict(test=dict(...))",
    "val_evaluator": "evaluation=dict(metric=...)",
    "test_evaluator": "--eval of tools/test.py",
    "val_cfg": "evaluation=dict(interval=...)",
    "data_preprocessor": "Normalize and Pad in the pipelines",
    "tta_model": "--aug-test of tools/test.py",
    "tta_pipeline": "--aug-test of tools/test.py, and MultiScaleFlipAug in data.test.pipeline",
    "max_iters": "runner=dict(type='IterBasedRunner', max_iters=...)",
    "total_iters": "runner=dict(type='IterBasedRunner', max_iters=...)",
    "max_epochs": "runner=dict(type='IterBasedRunner', max_iters=...)",
    "total_epochs": "runner=dict(type='IterBasedRunner', max_iters=...)",
    "env_cfg": "dist_params=dict(backend=...) and cudnn_benchmark",
    "randomness": "seed and deterministic",
    "resume": "resume_from, or --auto-resume",
    "auto_resume": "--auto-resume of tools/train.py",
    "launcher": "--launcher",
}


def translate(registry: str, cfg: dict[str, Any], place: str = "model") -> dict[str, Any]:
    """`cfg` with an official type name and its keys replaced by ours; any other dict comes back as it is.

    Raises:
        ConfigError: an official segmentor before an official head that it never had.
    """
    name = cfg["type"]
    if not isinstance(name, str):
        return cfg
    if registry == "model" and name in _SEGMENTORS:
        return {**cfg, "type": _segmentor(name, cfg.get("decode_head"), place)}
    if name not in _TYPES.get(registry, {}):
        return cfg
    ours, added = _TYPES[registry][name]
    return {**added, **cfg, "type": ours}


def _segmentor(name: str, head: Any, place: str) -> str:
    """Our segmentor for an official one and its head."""
    head_type = head.get("type") if isinstance(head, Mapping) else None
    if not isinstance(head_type, str) or head_type not in _TYPES["model"]:
        return _SEGMENTORS[name]
    if (name, head_type) not in _SYSTEMS:
        known = [segmentor for segmentor, known_head in _SYSTEMS if known_head == head_type]
        raise ConfigError(
            f"{place}.type = {name!r} with decode_head.type = {head_type!r}", " or ".join(known), f"set {place}.type"
        )
    return _SYSTEMS[name, head_type][0]


def data_set(head: Any, cfg: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The keys of a data set's config that the method of `head` takes in another way than others do.

    Args:
        head: type of the decode head.
        cfg: of the data set, with an official name or with ours.
        place: its dotted path.
    """
    name = cfg.get("type")
    changes: dict[str, Any] = {}
    if isinstance(head, str) and isinstance(name, str) and name in _DATA_SETS.get(head, {}):
        changes["type"] = _DATA_SETS[head][name]
    if name == "VSPWDataset_multiFrameTest" and place == "data.val" and cfg.get("test_size") == _NO_CLIPS:
        _warn_once(f"{place}.test_size = {_NO_CLIPS} gives no clips: frames are validated one by one (test_size = 1)")
        changes["test_size"] = 1
    return changes


def official_names(registry: str) -> list[str]:
    """The official type names that :func:`translate` accepts for a registry."""
    return [*_TYPES.get(registry, {}), *(_SEGMENTORS if registry == "model" else ())]


def effective(
    names: Iterable[str], cfg: Mapping[str, Any], place: str, taken: Container[str] = (), tell: bool = True
) -> dict[str, Any]:
    """`cfg` without the keys of published files that have no effect here.

    One that asks for something else than what is done is answered with a warning in the log, once.

    Args:
        names: of the class that `cfg` describes and of its bases, or of the section that it is.
        place: dotted path of `cfg`, for the warning.
        taken: keys that have an effect after all.
        tell: whether to warn.
    """
    known = {key: entry for name in names for key, entry in _WITHOUT_EFFECT.get(name, {}).items() if key not in taken}
    rest = dict(cfg)
    for path, (harmless, reason) in known.items():
        outer, _, key = path.rpartition(".")
        holder = rest.get(outer) if outer else rest
        if not isinstance(holder, Mapping) or key not in holder:
            continue
        if tell and harmless is not _ANY and holder[key] not in harmless:
            _warn_once(f"{place}.{path} = {holder[key]!r} has no effect here: {reason}")
        left = {name: value for name, value in holder.items() if name != key}
        rest = {**rest, outer: left} if outer else left
    return rest


def _warn_once(message: str) -> None:
    if message not in _told:
        _told.add(message)
        logger.warning("%s", message)
