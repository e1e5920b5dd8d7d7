# GSFM, stage 0: synthetic clips of still images, one object. Published with 8 processes.
_base_ = [
    "../_base_/models/gsfm.py",
    "../_base_/schedules/schedule_gsfm.py",
    "../_base_/default_runtime.py",
]
model = dict(single_object=True, bootstrap=dict(start_warm=3000, end_warm=10000))
lr_config = dict(step=[20000])
runner = dict(max_iters=40000)
data = dict(
    samples_per_gpu=16,
    workers_per_gpu=8,
    train=[
        dict(type="StaticImageDataset", data_root="data/static/fss", layout="classes"),
        dict(type="StaticImageDataset", data_root="data/static/DUTS-TR"),
        dict(type="StaticImageDataset", data_root="data/static/DUTS-TE"),
        dict(type="StaticImageDataset", data_root="data/static/ecssd"),
        dict(type="RepeatDataset", times=5, dataset=dict(type="StaticImageDataset", data_root="data/static/BIG_small")),
        dict(
            type="RepeatDataset", times=5, dataset=dict(type="StaticImageDataset", data_root="data/static/HRSOD_small")
        ),
    ],
)
