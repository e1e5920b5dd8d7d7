# AdamW at a fixed 1e-5, ten times that for the head, for 4k iterations.
optimizer = dict(
    type="AdamW",
    lr=1e-5,
    betas=(0.9, 0.999),
    weight_decay=0.01,
    paramwise_cfg=dict(
        custom_keys={"pos_block": dict(decay_mult=0.0), "norm": dict(decay_mult=0.0), "head": dict(lr_mult=10.0)}
    ),
)
optimizer_config = dict()
lr_config = dict(policy="fixed")
runner = dict(type="IterBasedRunner", max_iters=4000)
checkpoint_config = dict(by_epoch=False, interval=4000)
evaluation = dict(interval=4000, metric=["VOS"])
