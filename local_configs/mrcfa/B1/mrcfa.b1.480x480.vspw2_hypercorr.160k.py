# The released name of mrcfa.b1.480x480.vspw2.160k.py.
_base_ = ["./mrcfa.b1.480x480.vspw2.160k.py"]
