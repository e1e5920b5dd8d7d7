# GSFM on DAVIS-2017 val, at 480p. MOSE, LVOS: other data_root, split and resolution.
_base_ = ["../_base_/models/gsfm.py", "../_base_/datasets/gsfm_test.py", "../_base_/default_runtime.py"]
data = dict(
    test=dict(
        type="DAVISDataset",
        data_root="data/DAVIS/2017/trainval",
        split="ImageSets/2017/val.txt",
        resolution="480p",
        palette_file="Annotations/480p/blackswan/00000.png",
        pipeline={{_base_.test_pipeline}},
    )
)
