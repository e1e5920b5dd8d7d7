"""What exists for the speed of one kind of device only: the CPU.

A CPU core computes fast on what its cache holds, so the same results come from smaller pieces in another order here. On
a GPU the pieces would only be launches. Every function of this folder looks at the device of its input, once, and takes
the plain formula anywhere else; layers call them and know nothing of it.

- :mod:`.bfloat16`: whether the processor has instructions for it, and a step that is slow in it.
- :mod:`.linear`: matrix products through oneDNN, twice as fast on processors that are not Intel's.
- :mod:`.attention`: attention by a kernel, in bfloat16 without one in slices of the logits that fit the cache.
- :mod:`.focal`: focal attention without masks, a few windows of a kind at a time.
- :mod:`.pieces`: perceptrons and affinities a few tokens, rows or pictures at a time.
- :mod:`.samples`: gradients of residual branches, a few samples at a time.
- :mod:`.layout`: strides by which oneDNN and the resize take their fast code.
- :mod:`.tokens`: GELU, layer norm, and the sum of maps of several sizes.
- :mod:`.kernels`: C++ for what PyTorch's operators leave, where there is a compiler.
- :mod:`.label_map`: the argmax of resized logits, a few classes at a time and without those that cannot win.
- :mod:`.winograd`: 3x3 convolutions with a fifth of the multiplications, and 1x1 ones on one thread.
- :mod:`.fourier`: parts of the spectra of maps by matrix products.
- :mod:`.pages`: memory that stays with the process instead of being asked for again.
"""
