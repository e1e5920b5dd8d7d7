// The exact GELU, x Phi(x).
#pragma once
#include "vectors.h"

// To 1e-7 of |x|. As in PyTorch it is no number for -infinity.
static inline Vector gelu_of(Vector x) {
    Integers bits;
    std::memcpy(&bits, &x, sizeof bits);
    bits &= 0x7fffffff;
    Vector size;  // |x|
    std::memcpy(&size, &bits, sizeof size);
    // log2(Phi(-|x|)): least maximum of the error of Phi for |x| <= 6.5, and falling behind that
    Vector y = all(-2.83491992e-06f);
    y = y * size + 3.93777409e-05f;
    y = y * size - 0.000186180332f;
    y = y * size - 0.000136936447f;
    y = y * size + 0.00706342049f;
    y = y * size - 0.0524961799f;
    y = y * size - 0.45920819f;
    y = y * size - 1.15110517f;
    y = y * size - 1.0f;
    const Vector tail = exp2_of(y);
    return x * (x < 0.0f ? tail : 1.0f - tail);
}
