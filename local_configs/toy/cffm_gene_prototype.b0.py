# CFFM++ step 2 on the toy videos.
_base_ = ["./cffm.b0.py"]
model = dict(decode_head=dict(type="CFFMPrototypeHead", save_path="./cluster_centers/"))
data = dict(test=dict(split="train_val_generate_prototype", dilation=[]))
