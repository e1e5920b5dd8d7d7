# AdamW at 1e-4, a tenth of that for the backbone, gradients clipped to a norm of 0.01; poly decay to 0, no warm-up.
optimizer = dict(
    type="AdamW",
    lr=1e-4,
    betas=(0.9, 0.999),
    weight_decay=0.05,
    # the first hit alone counts: norms of the backbone decay
    paramwise_cfg=dict(custom_keys={"backbone": dict(lr_mult=0.1), "norm": dict(decay_mult=0.0)}),
)
optimizer_config = dict(grad_clip=dict(max_norm=0.01, norm_type=2))
lr_config = dict(policy="poly", power=0.9, min_lr=0.0, by_epoch=False)
runner = dict(type="IterBasedRunner", max_iters=160000)
checkpoint_config = dict(by_epoch=False, interval=4000)
evaluation = dict(interval=170000, metric="mIoU")  # once, at the end
