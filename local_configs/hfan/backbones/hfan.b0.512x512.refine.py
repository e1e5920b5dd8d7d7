# HFAN with MiT-B0; otherwise as HFAN-small.
_base_ = ["../hfan.small.512x512.refine.py"]
model = dict(
    pretrained="pretrained/mit_b0.pth",
    backbone=dict(ori_type="mit_b0"),
    decode_head=dict(in_channels=[32, 64, 160, 256]),
)
load_from = "hfan-b0/iter_160000.pth"  # of the first stage, with --work-dir hfan-b0
