# HFAN-large: MiT-B3, with a wider decoder; otherwise as HFAN-small.
_base_ = ["./hfan.small.512x512.160k.py"]
model = dict(
    pretrained="pretrained/mit_b3.pth",
    backbone=dict(ori_type="mit_b3"),
    decode_head=dict(decoder_params=dict(embed_dim=768)),
)
