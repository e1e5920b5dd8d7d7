# GSFM, stage 0, on the still images of tools/make_toy_dataset.py data/toy_davis --layout davis.
_base_ = ["../gsfm/stage0.py"]
model = dict(pretrained=None, norm_eval=False, bootstrap=dict(start_warm=100, end_warm=200))
optimizer = dict(lr=1e-4)
lr_config = dict(step=[250])
runner = dict(max_iters=300)
checkpoint_config = dict(interval=300)
log_config = dict(interval=20)
amp = None
data = dict(
    samples_per_gpu=4,
    workers_per_gpu=2,
    train=dict(_delete_=True, type="StaticImageDataset", data_root="data/toy_davis/static", crop_size=96),
)
