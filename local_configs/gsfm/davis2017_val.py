# GSFM on DAVIS-2017 val, at 480p. MOSE, LVOS: other data_root, split and resolution.
_base_ = ["../_base_/models/gsfm.py", "../_base_/datasets/davis2017_val.py", "../_base_/default_runtime.py"]
