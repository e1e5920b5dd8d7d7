# CFFM with MiT-B1; the other backbones override the type, the channels and the depth of the decoder.
_base_ = ["./segformer.py"]
model = dict(
    type="ClipSegmentor",
    pretrained="pretrained/mit_b1.pth",
    backbone=dict(type="mit_b1"),
    decode_head=dict(type="CFFMHead", decoder_params=dict(embed_dim=256, depths=2), num_clips=4),
)
