# HFAN with Swin-Tiny; the width of the published decoder is not known; otherwise as HFAN-small.
_base_ = ["../hfan.small.512x512.160k.py"]
model = dict(
    pretrained="pretrained/swin_tiny_patch4_window7_224.pth",
    backbone=dict(
        ori_type="SwinTransformer", embed_dims=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), window_size=7
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
)
