# HFAN with MiT-B0; otherwise as HFAN-small.
_base_ = ["../hfan.small.512x512.160k.py"]
model = dict(
    pretrained="pretrained/mit_b0.pth",
    backbone=dict(ori_type="mit_b0"),
    decode_head=dict(in_channels=[32, 64, 160, 256]),
)
