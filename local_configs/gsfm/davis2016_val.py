# GSFM on DAVIS-2016 val: one object, 20 memory positions as in the published script.
_base_ = ["./davis2017_val.py"]
model = dict(test_cfg=dict(top_k=20))
data = dict(
    test=dict(
        data_root="data/DAVIS/2016",
        split="../2017/trainval/ImageSets/2016/val.txt",
        single_object=True,
        palette_file=None,
    )
)
