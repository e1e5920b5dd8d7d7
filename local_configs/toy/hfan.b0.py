# HFAN with MiT-B0 on toy videos of moving objects: python tools/make_toy_dataset.py data/toy_flow --layout davis2seg
_base_ = [
    "../_base_/models/hfan.py",
    "../_base_/datasets/toy_flow.py",
    "../_base_/default_runtime.py",
    "../_base_/schedules/schedule_toy.py",
]
model = dict(
    pretrained=None,
    backbone=dict(ori_type="mit_b0"),
    decode_head=dict(in_channels=[32, 64, 160, 256]),
)
runner = dict(max_iters=200)
checkpoint_config = dict(interval=200)
evaluation = dict(interval=200, metric=["VOS"])
log_config = dict(interval=20)
