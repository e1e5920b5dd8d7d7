# GSFM after BL30K (stage 1), as its training script offers it; not in the paper.
_base_ = ["./stage3.py"]
model = dict(bootstrap=dict(start_warm=3000, end_warm=10000))
optimizer = dict(lr=6e-5)
lr_config = dict(step=[30000])
runner = dict(max_iters=40000)
