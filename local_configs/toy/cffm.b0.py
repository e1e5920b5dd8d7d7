# CFFM with MiT-B0 on the toy videos of the quickstart.
_base_ = [
    "../_base_/models/cffm.py",
    "../_base_/datasets/toy.py",
    "../_base_/default_runtime.py",
    "../_base_/schedules/schedule_toy.py",
]
model = dict(
    pretrained=None,
    backbone=dict(type="mit_b0"),
    decode_head=dict(in_channels=[32, 64, 160, 256], num_classes=8, decoder_params=dict(depths=1)),
)
log_config = dict(interval=20)
