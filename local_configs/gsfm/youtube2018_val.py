# GSFM on YouTube-VOS 2018 val.
_base_ = ["./youtube2019_val.py"]
data = dict(test=dict(data_root="data/YouTube2018/valid"))
