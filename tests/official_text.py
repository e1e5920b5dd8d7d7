"""Text that many released configs share, with official names: settings of a run, and pipelines of clips."""

from __future__ import annotations

RUNTIME = """
log_config = dict(interval=50, hooks=[dict(type='TextLoggerHook', by_epoch=False)])
dist_params = dict(backend='nccl')
log_level = 'INFO'
load_from = None
resume_from = None
workflow = [('train', 1)]
cudnn_benchmark = True
"""
_PIPELINES = """
img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
crop_size = ({crop}, {crop})
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='Resize', img_scale={scale}, ratio_range=(0.5, 2.0), process_clips=True),
    dict(type='RandomCrop_clips', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip_clips', prob=0.5),
    dict(type='PhotoMetricDistortion_clips'),
    dict(type='Normalize_clips', **img_norm_cfg),
    dict(type='Pad_clips', size=crop_size, pad_val=0, seg_pad_val=255),
    dict(type='DefaultFormatBundle_clips'),
    dict(type='Collect', keys=['img', 'gt_semantic_seg']),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='MultiScaleFlipAug', img_scale=(96, 64), flip=False, transforms=[
        dict(type='AlignedResize_clips', keep_ratio=True, size_divisor=32),
        dict(type='RandomFlip_clips'),
        dict(type='Normalize_clips', **img_norm_cfg),
        dict(type='ImageToTensor_clips', keys=['img']),
        dict(type='Collect', keys=['img'],
             meta_keys=('filename', 'ori_filename', 'ori_shape', 'img_shape', 'pad_shape', 'scale_factor', 'flip',
                        'flip_direction', 'img_norm_cfg', 'all_names'))]),
]
"""


def pipelines(crop: int, scale: tuple[int, int]) -> str:
    """The official pipelines of VSPW's clips, for crops of `crop` pixels and frames of `scale` (width, height)."""
    return _PIPELINES.format(crop=crop, scale=scale)
