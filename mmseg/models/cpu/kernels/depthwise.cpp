// 3x3 convolution of every channel by itself with the exact GELU of it, of maps that are stored channels last.
#include "gelu.h"
#include "parallel.h"

namespace {

constexpr int COLUMNS = 4;           // of the result that share weights in registers
constexpr int64_t CHANNELS = 512;    // at a time, whose weights stay in the first cache
constexpr int64_t PARTS = 10;        // vectors of a panel: nine weights and the bias of LANES channels

using Places = const float* [3][COLUMNS + 2];  // the pixels around some of the result, (C) each

template <int COUNT, bool WHOLE>
inline __attribute__((always_inline)) void convolve(const Places& places, int64_t c, int64_t have, const float* panel,
                                                    float* out, int64_t step) {
    Vector sums[COUNT];
    for (auto& sum : sums) sum = load(panel + 9 * LANES);
    for (int row = 0; row < 3; row++) {
        Vector weights[3];
        for (int k = 0; k < 3; k++) weights[k] = load(panel + (3 * row + k) * LANES);
        for (int j = 0; j < COUNT + 2; j++) {
            const Vector x = WHOLE ? load(places[row][j] + c) : load_some(places[row][j] + c, have);
            for (int k = 0; k < 3; k++)
                if (j >= k && j - k < COUNT) sums[j - k] += weights[k] * x;
        }
    }
    for (int i = 0; i < COUNT; i++) {
        const Vector y = gelu_of(sums[i]);
        WHOLE ? store(out + i * step + c, y) : store_some(out + i * step + c, y, have);
    }
}

template <int COUNT>
void convolve_channels(const Places& places, int64_t first, int64_t last, const float* panels, float* out, int64_t step) {
    int64_t c = first;
    for (; c + LANES <= last; c += LANES)
        convolve<COUNT, true>(places, c, LANES, panels + c * PARTS, out, step);
    if (c < last) convolve<COUNT, false>(places, c, last - c, panels + c * PARTS, out, step);
}

// A row (w, C) of the result from three (w, C), none where the map ends. `zeros` (C) stands for pixels outside of it.
void convolve_row(const float* const* rows, const float* panels, const float* zeros, float* out, int64_t w, int64_t c) {
    static constexpr decltype(&convolve_channels<1>) functions[COLUMNS] = {
        convolve_channels<1>, convolve_channels<2>, convolve_channels<3>, convolve_channels<4>};
    for (int64_t first = 0; first < c; first += CHANNELS)
        for (int64_t x = 0; x < w; x += COLUMNS) {
            const int64_t count = w - x < COLUMNS ? w - x : COLUMNS;
            Places places;
            for (int row = 0; row < 3; row++)
                for (int64_t j = 0; j < count + 2; j++) {
                    const int64_t column = x + j - 1;
                    places[row][j] = rows[row] && column >= 0 && column < w ? rows[row] + column * c : zeros;
                }
            functions[count - 1](places, first, first + CHANNELS < c ? first + CHANNELS : c, panels, out + x * c, c);
        }
}

}  // namespace

extern "C" {

// Floats of `memory` that depthwise_gelu() wants.
int64_t depthwise_memory(int64_t channels) { return (channels + LANES - 1) / LANES * LANES * (PARTS + 1); }

// rows: n times (h + 2) of them, (w, C) each, or none for zeros; weight (C, 3, 3); bias (C), or none; out (n, h, w, C).
void depthwise_gelu(const float* const* rows, const float* weight, const float* bias, float* out, int64_t n, int64_t h,
                    int64_t w, int64_t c, float* memory, int64_t threads) {
    float *zeros = memory, *panels = memory + (c + LANES - 1) / LANES * LANES;
    std::memset(memory, 0, 4 * depthwise_memory(c));
    for (int64_t i = 0; i < c; i++) {
        float* panel = panels + i / LANES * LANES * PARTS + i % LANES;
        for (int64_t k = 0; k < 9; k++) panel[k * LANES] = weight[i * 9 + k];
        if (bias) panel[9 * LANES] = bias[i];
    }
    in_parallel(n * h, threads, [&](int64_t first, int64_t last, int64_t) {
        for (int64_t i = first; i < last; i++)
            convolve_row(rows + i / h * (h + 2) + i % h, panels, zeros, out + i * w * c, w, c);
    });
}
}
