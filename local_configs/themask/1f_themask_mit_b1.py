# THE-Mask with MiT-B1 on VSPW, stage 1: single frames, 160k iterations of 8 frames (4 GPUs x 2).
_base_ = [
    "../_base_/models/themask.py",
    "../_base_/datasets/vspw_themask.py",
    "../_base_/default_runtime.py",
    "../_base_/schedules/schedule_160k_themask.py",
]
model = dict(
    pretrained="pretrained/mit_b1.pth",
    backbone=dict(type="mit_b1"),
)
