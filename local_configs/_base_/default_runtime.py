log_config = dict(interval=50, hooks=[dict(type="TextLoggerHook", by_epoch=False), dict(type="TensorboardLoggerHook")])
dist_params = dict(backend="nccl")  # gloo is taken where there are no GPUs
log_level = "INFO"
load_from = None
resume_from = None
workflow = [("train", 1)]
cudnn_benchmark = True
