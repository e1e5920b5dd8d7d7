# GSFM, stage 3, on the videos of tools/make_toy_dataset.py data/toy_davis --layout davis, from the toy stage 0.
_base_ = ["../gsfm/stage3.py"]
model = dict(pretrained=None, norm_eval=False, bootstrap=dict(start_warm=100, end_warm=200))
optimizer = dict(lr=1e-4)
lr_config = dict(step=[250])
runner = dict(max_iters=300)
checkpoint_config = dict(interval=300)
evaluation = dict(interval=300)
log_config = dict(interval=20)
amp = None
val = dict(
    type="DAVISDataset",
    data_root="data/toy_davis/DAVIS/2017/trainval",
    split="ImageSets/2017/val.txt",
    pipeline={{_base_.test_pipeline}},
)
data = dict(
    samples_per_gpu=4,
    workers_per_gpu=2,
    train=dict(
        _delete_=True,
        type="VOSClipDataset",
        data_root="data/toy_davis/DAVIS/2017/trainval",
        split="ImageSets/2017/train.txt",
        resolution="480p",
        crop_size=96,
    ),
    val=val,
    test=dict(_delete_=True, **val),
)
