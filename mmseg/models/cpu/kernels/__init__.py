"""What PyTorch's operators leave on a CPU, as small kernels in C++.

They are compiled for the processor when they are first needed, in a few seconds, and kept in the user's cache. Without
a compiler (g++, clang++, or what ``CXX`` names), or with ``MMSEG_KERNELS=off``, the operators of PyTorch do the same.

- :mod:`.library`: compiles, keeps and loads them.
- :mod:`.attention`: attention whose logits stay in the first cache, also of windows to rows of a table.
- :mod:`.passes`: depth-wise convolution with GELU, GELU, layer norm, sums of resized maps.
- :mod:`.cross_entropy`: cross entropy of resized logits with its gradient, pixel by pixel in the first cache.
- :mod:`.label_map`: the best classes of resized logits, tile by tile in the first cache.
"""
