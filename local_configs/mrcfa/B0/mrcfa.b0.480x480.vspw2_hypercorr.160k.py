# The released name of mrcfa.b0.480x480.vspw2.160k.py.
_base_ = ["./mrcfa.b0.480x480.vspw2.160k.py"]
