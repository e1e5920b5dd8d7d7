# The toy videos as THE-Mask reads them, see vspw_themask.py.
_base_ = ["./toy.py"]
data = dict(
    train=dict(dataset=dict(type="VSPWClipDataset", dilation=[0])),
    val=dict(type="VSPWClipDataset", dilation=[], test_size=1),
    test=dict(type="VSPWClipDataset", dilation=[], test_size=1),
)
