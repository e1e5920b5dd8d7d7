# Per-frame SegFormer with MiT-B2 on VSPW, the baseline of CFFM and MRCFA: their per-frame branch trained alone.
_base_ = [
    "../../_base_/models/segformer.py",
    "../../_base_/datasets/vspw_repeat2.py",
    "../../_base_/default_runtime.py",
    "../../_base_/schedules/schedule_160k_adamw.py",
]
model = dict(
    pretrained="pretrained/mit_b2.pth",
    backbone=dict(type="mit_b2"),
    decode_head=dict(fuse_norm="BN"),
)
