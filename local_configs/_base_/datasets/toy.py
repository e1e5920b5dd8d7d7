# Small videos in the VSPW layout (tools/make_toy_dataset.py, tools/convert_to_vspw.py), at a fifth of the size of VSPW.
dataset_type = "VSPWDataset"
data_root = "data/toy"  # of all three sections below
img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
crop_size = (96, 96)
dilation = [-9, -6, -3]
reduce_zero_label = True  # in masks 0 is ignored and v is class v - 1; False: v is class v
data_set = dict(type=dataset_type, dilation=dilation, reduce_zero_label=reduce_zero_label)
train_pipeline = [
    dict(type="LoadFrames"),
    dict(type="LoadLabels"),
    dict(type="Resize", img_scale=(160, 96), ratio_range=(0.75, 1.5)),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="Normalize", **img_norm_cfg),
    dict(type="Pad", size=crop_size, pad_val=0, seg_pad_val=255),
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
            dict(type="Resize", keep_ratio=True, size_divisor=32),
            dict(type="RandomFlip"),
            dict(type="Normalize", **img_norm_cfg),
            dict(type="ImageToTensor", keys=["img"]),
            dict(type="Collect", keys=["img"]),
        ],
    ),
]
data = dict(
    samples_per_gpu=4,
    workers_per_gpu=1,
    train=dict(
        type="RepeatDataset",
        times=50,
        dataset=dict(**data_set, split="train", pipeline=train_pipeline),
    ),
    val=dict(**data_set, split="val", pipeline=test_pipeline),
    test=dict(**data_set, split="val", pipeline=test_pipeline),
)
