# THE-Mask with MiT-B0 on VSPW, stage 1: single frames, 160k iterations of 8 frames (4 GPUs x 2).
_base_ = [
    "../_base_/models/themask.py",
    "../_base_/datasets/vspw_themask.py",
    "../_base_/default_runtime.py",
    "../_base_/schedules/schedule_160k_themask.py",
]
model = dict(
    pretrained="pretrained/mit_b0.pth",
    backbone=dict(type="mit_b0"),
    decode_head=dict(
        input_shape=dict(
            res2=dict(channels=32), res3=dict(channels=64), res4=dict(channels=160), res5=dict(channels=256)
        )
    ),
)
