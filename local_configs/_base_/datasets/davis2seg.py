# DAVIS-2016 with optical flow (tools/prepare_davis.py): trained 15 times per pass over the list, tested on val.
dataset_type = "VOSDataset"
data_root = "data/DAVIS2SEG"  # of all three sections below
img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
crop_size = (512, 512)
train_pipeline = [
    dict(type="LoadFrames"),
    dict(type="LoadLabels"),
    dict(type="Resize", img_scale=(2048, 512), ratio_range=(0.5, 2.0)),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),  # flow is mirrored as a picture, its colours stay
    dict(type="PhotoMetricDistortion"),
    dict(type="Normalize", **img_norm_cfg),
    dict(type="Pad", size=crop_size, pad_val=0, seg_pad_val=0),  # padding is trained as background
    dict(type="PackClip"),
    dict(type="Collect", keys=["img", "gt_semantic_seg"]),
]
test_pipeline = [
    dict(type="LoadFrames"),
    dict(
        type="MultiScaleFlipAug",
        img_scale=(2048, 512),
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
train_set = dict(
    type=dataset_type,
    img1_dir="frame/train",
    img2_dir="flow/train",
    ann_dir="mask/train",
    pipeline=train_pipeline,
)
val_set = dict(
    type=dataset_type,
    img1_dir="frame/val",
    img2_dir="flow/val",
    ann_dir="mask/val",
    pipeline=test_pipeline,
)
data = dict(
    samples_per_gpu=8,
    workers_per_gpu=8,
    train=dict(type="RepeatDataset", times=15, dataset=train_set),
    val=val_set,
    test=val_set,
)
