# Adam on all parameters, half precision on GPUs, the rate divided by ten once. Published with 8 GPUs; the rate is not
# scaled with their number.
optimizer = dict(type="Adam", lr=4e-5, weight_decay=1e-7)
optimizer_config = dict()
lr_config = dict(policy="step", step=[25000], gamma=0.1, by_epoch=False)
runner = dict(type="IterBasedRunner", max_iters=30000)
checkpoint_config = dict(by_epoch=False, interval=10000)
amp = dict(dtype="float16")
find_unused_parameters = False
