"""What exists for the speed of one kind of device only: the CPU.

A CPU core computes fast on what its cache holds, so the same results come from smaller pieces in another order here. On
a GPU the pieces would only be launches: every function of this folder takes the plain formula there.

- :mod:`.label_map`: the argmax of resized logits, a few classes at a time and without those that cannot win.
"""
