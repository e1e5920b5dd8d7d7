# Ablation of HFAN-small: the sum of frame and flow.
_base_ = ["../hfan.small.512x512.refine.py"]
model = dict(decode_head=dict(select_method="base"))
load_from = "hfan-small-base/iter_160000.pth"  # of the first stage, with --work-dir hfan-small-base
