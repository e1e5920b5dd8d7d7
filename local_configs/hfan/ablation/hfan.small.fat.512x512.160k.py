# Ablation of HFAN-small: adaptively weighted frame and flow, not aligned.
_base_ = ["../hfan.small.512x512.160k.py"]
model = dict(decode_head=dict(select_method="fat"))
