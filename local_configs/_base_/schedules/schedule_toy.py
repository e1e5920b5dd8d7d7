# From random weights to a usable network within minutes: one high learning rate for all layers.
optimizer = dict(
    type="AdamW",
    lr=6e-4,
    betas=(0.9, 0.999),
    weight_decay=0.01,
    paramwise_cfg=dict(custom_keys={"norm": dict(decay_mult=0.0)}),
)
optimizer_config = dict()
lr_config = dict(
    policy="poly", warmup="linear", warmup_iters=100, warmup_ratio=1e-6, power=1.0, min_lr=0.0, by_epoch=False
)
runner = dict(type="IterBasedRunner", max_iters=600)
checkpoint_config = dict(by_epoch=False, interval=200, max_keep_ckpts=2)
evaluation = dict(interval=600, metric="mIoU")
