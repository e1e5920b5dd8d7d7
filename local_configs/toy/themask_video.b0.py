# THE-Mask on the toy videos, stage 2: clips of two frames, from a checkpoint of stage 1 (--finetune-from).
_base_ = ["./themask_1f.b0.py"]
model = dict(
    decode_head=dict(type="THEMaskVideoHead", transformer_decoder_cfg=dict(type="VideoQueryDecoder", num_frames=2)),
)
data = dict(train=dict(dataset=dict(dilation=[-3])))
runner = dict(max_iters=300)
evaluation = dict(interval=300)
