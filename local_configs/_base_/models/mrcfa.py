# MRCFA with MiT-B1; the other backbones override both types and the channels.
_base_ = ["./segformer.py"]
model = dict(
    type="ClipSegmentor",
    pretrained="pretrained/mit_b1.pth",
    backbone=dict(type="mit_b1"),
    decode_head=dict(type="MRCFAHead", num_clips=4, hypercorre=True, backbone="b1"),
)
