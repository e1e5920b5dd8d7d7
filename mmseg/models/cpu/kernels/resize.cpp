// Bilinear resizing (half-pixel centres, no antialiasing) of maps that are stored channels last, added to another map.
#include "parallel.h"
#include "vectors.h"

namespace {

// Where a pixel of a line of `resized` lies in one of `length`: between `low` and `high`.
struct Place {
    int64_t low, high;
    float share;  // of `high`

    Place(int64_t pixel, int64_t length, int64_t resized) {
        const float position = (pixel + 0.5f) * (static_cast<float>(length) / resized) - 0.5f;
        const float source = position < 0 ? 0 : position;
        low = static_cast<int64_t>(source) < length - 1 ? static_cast<int64_t>(source) : length - 1;
        high = low + (low < length - 1);
        share = source - low;
    }
};

// out (count) = or += (1 - share) * low + share * high.
template <bool ADD>
inline void mix(const float* low, const float* high, float share, float* out, int64_t count) {
    int64_t c = 0;
    for (; c + LANES <= count; c += LANES) {
        const Vector y = (1.0f - share) * load(low + c) + share * load(high + c);
        store(out + c, ADD ? load(out + c) + y : y);
    }
    if (c < count) {
        const Vector y = (1.0f - share) * load_some(low + c, count - c) + share * load_some(high + c, count - c);
        store_some(out + c, ADD ? load_some(out + c, count - c) + y : y, count - c);
    }
}

}  // namespace

// out (n, h, w, C) += resized maps, `count` of them: maps[i] (n, heights[i], widths[i], C). `memory` holds for each thread
// a row of the widest.
extern "C" void add_resized(float* out, const float* const* maps, const int64_t* heights, const int64_t* widths,
                            int64_t count, int64_t n, int64_t h, int64_t w, int64_t c, float* memory, int64_t of_thread,
                            int64_t threads) {
    in_parallel(n * h, threads, [&](int64_t first, int64_t last, int64_t thread) {
        float* row = memory + thread * of_thread;
        for (int64_t i = first; i < last; i++)
            for (int64_t m = 0; m < count; m++) {
                const int64_t width = widths[m];
                const Place y(i % h, heights[m], h);
                const float* map = maps[m] + i / h * heights[m] * width * c;
                mix<false>(map + y.low * width * c, map + y.high * width * c, y.share, row, width * c);
                for (int64_t j = 0; j < w; j++) {
                    const Place x(j, width, w);
                    mix<true>(row + x.low * c, row + x.high * c, x.share, out + (i * w + j) * c, c);
                }
            }
    });
}
