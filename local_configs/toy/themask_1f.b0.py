# THE-Mask with MiT-B0 on the toy videos, stage 1, with fewer layers and queries.
_base_ = [
    "../_base_/models/themask.py",
    "../_base_/datasets/toy_themask.py",
    "../_base_/default_runtime.py",
    "../_base_/schedules/schedule_toy.py",
]
model = dict(
    pretrained=None,
    backbone=dict(type="mit_b0"),
    decode_head=dict(
        num_classes=8,
        input_shape=dict(
            res2=dict(channels=32), res3=dict(channels=64), res4=dict(channels=160), res5=dict(channels=256)
        ),
        loss_cfg=dict(train_num_points=1024),
        pixel_decoder_cfg=dict(transformer_enc_layers=2),
        transformer_decoder_cfg=dict(num_classes=8, num_queries=20, dec_layers=3),
    ),
)
optimizer = dict(lr=2e-4)
optimizer_config = dict(grad_clip=dict(max_norm=0.01, norm_type=2))
log_config = dict(interval=20)
