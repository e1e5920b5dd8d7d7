# Ablation of HFAN-small: the frame alone.
_base_ = ["../hfan.small.512x512.refine.py"]
model = dict(decode_head=dict(select_method="im"))
load_from = "hfan-small-im/iter_160000.pth"  # of the first stage, with --work-dir hfan-small-im
