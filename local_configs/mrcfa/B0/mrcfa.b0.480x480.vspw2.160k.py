# MRCFA with MiT-B0 on VSPW: 160k iterations of 8 clips (4 GPUs x 2).
_base_ = [
    "../../_base_/models/mrcfa.py",
    "../../_base_/datasets/vspw_repeat2.py",
    "../../_base_/default_runtime.py",
    "../../_base_/schedules/schedule_160k_adamw.py",
]
model = dict(
    pretrained="pretrained/mit_b0.pth",
    backbone=dict(type="mit_b0"),
    decode_head=dict(in_channels=[32, 64, 160, 256], backbone="b0"),
)
