# HFAN-small (MiT-B1) on YouTube-VOS: 160k iterations of 32 frames (2 GPUs x 16), from ImageNet weights.
_base_ = [
    "../_base_/models/hfan.py",
    "../_base_/datasets/youtube2seg.py",
    "../_base_/default_runtime.py",
    "../_base_/schedules/schedule_160k_adamw.py",
]
lr_config = dict(warmup_iters=3000)
checkpoint_config = dict(interval=16000)
evaluation = dict(interval=16000, metric=["VOS"])
