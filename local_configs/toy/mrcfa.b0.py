# MRCFA with MiT-B0 on the toy videos.
_base_ = [
    "../_base_/models/mrcfa.py",
    "../_base_/datasets/toy.py",
    "../_base_/default_runtime.py",
    "../_base_/schedules/schedule_toy.py",
]
model = dict(
    pretrained=None,
    backbone=dict(type="mit_b0"),
    decode_head=dict(in_channels=[32, 64, 160, 256], num_classes=8, backbone="b0"),
)
log_config = dict(interval=20)
