# Small videos of moving objects with optical flow (tools/make_toy_dataset.py DIR --layout davis2seg).
dataset_type = "VOSDataset"
data_root = "data/toy_flow"  # of all three sections below
img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
crop_size = (96, 96)
train_pipeline = [
    dict(type="LoadFrames"),
    dict(type="LoadLabels"),
    dict(type="Resize", img_scale=(160, 96), ratio_range=(0.75, 1.5)),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="Normalize", **img_norm_cfg),
    dict(type="Pad", size=crop_size, pad_val=0, seg_pad_val=0),
    dict(type="PackClip"),
    dict(type="Collect", keys=["img", "gt_semantic_seg"]),
]
test_pipeline = [
    dict(type="LoadFrames"),
    dict(
        type="MultiScaleFlipAug",
        img_scale=(160, 96),
        flip=False,
        transforms=[
            dict(type="Resize", keep_ratio=True),
            dict(type="ResizeToMultiple", size_divisor=32),
            dict(type="RandomFlip"),
            dict(type="Normalize", **img_norm_cfg),
            dict(type="ImageToTensor", keys=["img"]),
            dict(type="Collect", keys=["img"]),
        ],
    ),
]
val_set = dict(type=dataset_type, img1_dir="frame/val", img2_dir="flow/val", ann_dir="mask/val", pipeline=test_pipeline)
data = dict(
    samples_per_gpu=8,
    workers_per_gpu=1,
    train=dict(
        type="RepeatDataset",
        times=15,
        dataset=dict(
            type=dataset_type,
            img1_dir="frame/train",
            img2_dir="flow/train",
            ann_dir="mask/train",
            pipeline=train_pipeline,
        ),
    ),
    val=val_set,
    test=val_set,
)
