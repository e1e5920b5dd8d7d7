# CFFM++ step 3 on the toy videos.
_base_ = ["./cffm.b0.py"]
model = dict(decode_head=dict(type="CFFMPlusHead", save_path="./cluster_centers/"))
runner = dict(max_iters=300)
evaluation = dict(interval=300)
