# HFAN-medium: MiT-B2, with a wider decoder; otherwise as HFAN-small.
_base_ = ["./hfan.small.512x512.160k.py"]
model = dict(
    pretrained="pretrained/mit_b2.pth",
    backbone=dict(ori_type="mit_b2"),
    decode_head=dict(decoder_params=dict(embed_dim=768)),
)
