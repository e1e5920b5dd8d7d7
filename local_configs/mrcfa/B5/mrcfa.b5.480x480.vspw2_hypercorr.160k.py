# The released name of mrcfa.b5.480x480.vspw2.160k.py.
_base_ = ["./mrcfa.b5.480x480.vspw2.160k.py"]
