# The released name of the baseline, whose head was never released: the per-frame SegFormer takes its place.
_base_ = ["./segformer.b0.480x480.vspw2.160k.py"]
