# Ablation of HFAN-small: the flow alone.
_base_ = ["../hfan.small.512x512.160k.py"]
model = dict(decode_head=dict(select_method="fw"))
