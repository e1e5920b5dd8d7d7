# GSFM on BL30K, as its training script offers it; not in the paper.
_base_ = [
    "../_base_/models/gsfm.py",
    "../_base_/schedules/schedule_gsfm.py",
    "../_base_/default_runtime.py",
]
model = dict(bootstrap=dict(start_warm=5000, end_warm=20000))
optimizer = dict(lr=6e-5)
lr_config = dict(step=[50000])
runner = dict(max_iters=65000)
data = dict(
    samples_per_gpu=8,
    workers_per_gpu=8,
    train=dict(type="VOSClipDataset", data_root="data/BL30K", last_limit=0.8),
)
