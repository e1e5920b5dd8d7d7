# HFAN with ResNet-101; the width of the published decoder is not known; otherwise as HFAN-small.
_base_ = ["../hfan.small.512x512.160k.py"]
model = dict(
    pretrained="pretrained/resnet101.pth",
    backbone=dict(ori_type="ResNet", depth=101, norm_cfg=dict(type="SyncBN", requires_grad=True)),
    decode_head=dict(in_channels=[256, 512, 1024, 2048]),
)
