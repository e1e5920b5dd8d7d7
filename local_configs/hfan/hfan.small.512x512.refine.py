# HFAN-small goes on with DAVIS: 4k iterations of 16 frames (2 GPUs x 8); tested in sliding windows, as published.
_base_ = [
    "../_base_/models/hfan.py",
    "../_base_/datasets/davis2seg.py",
    "../_base_/default_runtime.py",
    "../_base_/schedules/schedule_4k_adamw.py",
]
model = dict(test_cfg=dict(mode="slide", crop_size=(512, 512), stride=(271, 271)))
load_from = "hfan-small/iter_160000.pth"  # of the first stage, which was given --work-dir hfan-small
