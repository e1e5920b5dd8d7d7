# GSFM, stage 3: DAVIS-2017 (five times) and YouTube-VOS, up to two objects, from a stage-0 checkpoint (--load-from).
# Published with 8 processes.
_base_ = [
    "../_base_/models/gsfm.py",
    "../_base_/datasets/davis2017_val.py",  # what a checkpoint is tested on without another config
    "../_base_/schedules/schedule_gsfm.py",
    "../_base_/default_runtime.py",
]
data = dict(
    samples_per_gpu=8,
    workers_per_gpu=8,
    train=[
        dict(
            type="RepeatDataset",
            times=5,
            dataset=dict(
                type="VOSClipDataset",
                data_root="data/DAVIS/2017/trainval",
                split="ImageSets/2017/train.txt",
                resolution="480p",
            ),
        ),
        dict(
            type="VOSClipDataset",
            data_root="data/YouTube/train_480p",
            split="{{ fileDirname }}/splits/youtube_vos_train.txt",  # without a few that are badly annotated
            jump_divisor=5,  # every fifth frame is annotated
        ),
    ],
)
