# Ablation of HFAN-small: the sum of aligned frame and flow.
_base_ = ["../hfan.small.512x512.refine.py"]
model = dict(decode_head=dict(select_method="fam"))
load_from = "hfan-small-fam/iter_160000.pth"  # of the first stage, with --work-dir hfan-small-fam
