# DAVIS-2017 val at 480p, with the masks of first frames given.
_base_ = ["./gsfm_test.py"]
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
