# VSPW-480p as THE-Mask reads it: a dilation of [0] is one frame, [-3] two, [-9, -6, -3] four; test_size is 1, 2 or 4.
_base_ = ["./vspw_repeat2.py"]
data = dict(
    train=dict(dataset=dict(type="VSPWClipDataset", dilation=[0])),
    val=dict(type="VSPWClipDataset", dilation=[], test_size=1),
    test=dict(type="VSPWClipDataset", dilation=[], test_size=1),
)
