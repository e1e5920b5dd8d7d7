# THE-Mask with MiT-B0 on VSPW, stage 2: clips. Trained by --finetune-from a checkpoint of stage 1, see docs/themask.md.
_base_ = ["./1f_themask_mit_b0.py"]
model = dict(
    decode_head=dict(type="THEMaskVideoHead", transformer_decoder_cfg=dict(type="VideoQueryDecoder")),
)
