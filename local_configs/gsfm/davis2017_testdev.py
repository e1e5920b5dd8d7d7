# GSFM on DAVIS-2017 test-dev: --format-only writes the zip for its server.
_base_ = ["./davis2017_val.py"]
data = dict(
    test=dict(
        data_root="data/DAVIS/2017/test-dev",
        split="ImageSets/2017/test-dev.txt",
        palette_file="../trainval/Annotations/480p/blackswan/00000.png",
    )
)
