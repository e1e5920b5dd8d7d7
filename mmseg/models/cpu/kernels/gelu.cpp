// The exact GELU of numbers in a row.
#include "gelu.h"
#include "parallel.h"

extern "C" void gelu(const float* x, float* out, int64_t count, int64_t threads) {
    in_parallel((count + LANES - 1) / LANES, threads, [&](int64_t first, int64_t last, int64_t) {
        for (int64_t i = first * LANES; i < last * LANES; i += LANES) {
            if (count - i >= LANES) store(out + i, gelu_of(load(x + i)));
            else store_some(out + i, gelu_of(load_some(x + i, count - i)), count - i);
        }
    });
}
