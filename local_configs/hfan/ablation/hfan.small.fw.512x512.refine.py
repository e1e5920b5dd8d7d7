# Ablation of HFAN-small: the flow alone.
_base_ = ["../hfan.small.512x512.refine.py"]
model = dict(decode_head=dict(select_method="fw"))
load_from = "hfan-small-fw/iter_160000.pth"  # of the first stage, with --work-dir hfan-small-fw
