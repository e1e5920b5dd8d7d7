# CFFM++ step 2: one prototype file per video of train, val and test, from a CFFM-B0 checkpoint (run with dist_test.sh).
_base_ = ["./cffm.b0.480x480.vspw2.160k.py"]
model = dict(decode_head=dict(type="CFFMPrototypeHead", save_path="./cluster_centers/"))
data = dict(test=dict(split="train_val_generate_prototype", dilation=[]))
