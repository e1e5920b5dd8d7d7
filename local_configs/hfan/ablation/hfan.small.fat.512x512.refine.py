# Ablation of HFAN-small: adaptively weighted frame and flow, not aligned.
_base_ = ["../hfan.small.512x512.refine.py"]
model = dict(decode_head=dict(select_method="fat"))
load_from = "hfan-small-fat/iter_160000.pth"  # of the first stage, with --work-dir hfan-small-fat
