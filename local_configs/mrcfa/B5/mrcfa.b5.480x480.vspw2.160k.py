# MRCFA with MiT-B5 on VSPW: 160k iterations of 8 clips (4 GPUs x 2).
_base_ = [
    "../../_base_/models/mrcfa.py",
    "../../_base_/datasets/vspw_repeat2.py",
    "../../_base_/default_runtime.py",
    "../../_base_/schedules/schedule_160k_adamw.py",
]
model = dict(
    pretrained="pretrained/mit_b5.pth",
    backbone=dict(type="mit_b5"),
    decode_head=dict(backbone="b5"),
)
