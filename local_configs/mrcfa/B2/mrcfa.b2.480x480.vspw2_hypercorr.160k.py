# The released name of mrcfa.b2.480x480.vspw2.160k.py.
_base_ = ["./mrcfa.b2.480x480.vspw2.160k.py"]
