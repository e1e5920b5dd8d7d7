# GSFM on YouTube-VOS 2019 val: --format-only writes the zip for its server.
_base_ = ["../_base_/models/gsfm.py", "../_base_/default_runtime.py"]
data = dict(
    test=dict(
        type="YouTubeVOSDataset",
        data_root="data/YouTube/valid",
        img_dir="../all_frames/valid_all_frames/JPEGImages",
        palette_file="Annotations/0a49f5265b/00000.png",
        pipeline=[
            dict(type="Normalize", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
            dict(type="ResizeShortSide", size=480, interpolation="bicubic"),
            dict(type="ImageToTensor", keys=["img"]),
            dict(type="Collect", keys=["img"]),
        ],
    )
)
