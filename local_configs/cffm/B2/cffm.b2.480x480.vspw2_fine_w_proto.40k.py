# CFFM++ step 3: train the prototype branch on a frozen CFFM-B2 (start with --load-from CFFM_CHECKPOINT).
_base_ = ["./cffm.b2.480x480.vspw2.160k.py"]
model = dict(decode_head=dict(type="CFFMPlusHead", save_path="./cluster_centers/"))
optimizer = dict(
    lr=2e-4,
    paramwise_cfg=dict(custom_keys={"head": dict(lr_mult=1.0)}),
)
runner = dict(max_iters=40000)
evaluation = dict(interval=40000)  # the released config never evaluates
