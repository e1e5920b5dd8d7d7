# Ablation of HFAN-small: the sum of aligned frame and flow.
_base_ = ["../hfan.small.512x512.160k.py"]
model = dict(decode_head=dict(select_method="fam"))
