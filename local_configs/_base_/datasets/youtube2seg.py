# Trained on YouTube-VOS with optical flow (tools/prepare_davis.py), tested on DAVIS-2016.
_base_ = ["./davis2seg.py"]
data = dict(
    samples_per_gpu=16,
    workers_per_gpu=16,
    train=dict(
        _delete_=True,
        type="VOSDataset",
        data_root="data/YouTube2SEG",
        img1_dir="frame/train",
        img2_dir="flow/train",
        ann_dir="mask/train",
        pipeline={{_base_.train_pipeline}},
    ),
)
