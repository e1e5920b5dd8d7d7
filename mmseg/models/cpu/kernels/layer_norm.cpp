// Layer norm of rows.
#include <cmath>

#include "parallel.h"
#include "vectors.h"

namespace {

constexpr int ROWS = 4;  // at a time, whose sums do not wait for each other

struct Norm {
    const float *weight, *bias;  // (C) each, or none
    int64_t channels;            // C
    float eps;
};

// use(c, count) for vectors of `count` channels, of which the last one may be smaller.
template <class Use>
inline __attribute__((always_inline)) void each_vector(int64_t channels, const Use& use) {
    int64_t c = 0;
    for (; c + LANES <= channels; c += LANES) use(c, LANES);
    if (c < channels) use(c, channels - c);
}

// x and out (COUNT, C): (x - mean) / sqrt(variance + eps) * weight + bias.
template <int COUNT>
void norm_rows(const Norm& norm, const float* x, float* out) {
    const int64_t channels = norm.channels;
    Vector sums[COUNT] = {}, squares[COUNT] = {};
    float means[COUNT], factors[COUNT];
    each_vector(channels, [&](int64_t c, int64_t count) __attribute__((always_inline)) {
        for (int i = 0; i < COUNT; i++) sums[i] += load_some(x + i * channels + c, count);
    });
    for (int i = 0; i < COUNT; i++) means[i] = sum_of(sums[i]) / channels;
    each_vector(channels, [&](int64_t c, int64_t count) __attribute__((always_inline)) {
        for (int i = 0; i < COUNT; i++) {
            float distances[LANES];
            store(distances, load_some(x + i * channels + c, count) - means[i]);
            const Vector distance = load_some(distances, count);  // zeros behind the last channel
            squares[i] += distance * distance;
        }
    });
    for (int i = 0; i < COUNT; i++) factors[i] = 1.0f / std::sqrt(sum_of(squares[i]) / channels + norm.eps);
    each_vector(channels, [&](int64_t c, int64_t count) __attribute__((always_inline)) {
        const Vector weight = norm.weight ? load_some(norm.weight + c, count) : all(1.0f);
        const Vector bias = norm.bias ? load_some(norm.bias + c, count) : Vector{};
        for (int i = 0; i < COUNT; i++) {
            const Vector y = (load_some(x + i * channels + c, count) - means[i]) * factors[i];
            store_some(out + i * channels + c, y * weight + bias, count);
        }
    });
}

}  // namespace

// x and out (rows, C); weight and bias (C), or none.
extern "C" void layer_norm(const float* x, const float* weight, const float* bias, float* out, int64_t rows,
                           int64_t channels, float eps, int64_t threads) {
    const Norm norm{weight, bias, channels, eps};
    in_parallel((rows + ROWS - 1) / ROWS, threads, [&](int64_t first, int64_t last, int64_t) {
        int64_t row = first * ROWS;
        for (; row + ROWS <= rows && row < last * ROWS; row += ROWS)
            norm_rows<ROWS>(norm, x + row * channels, out + row * channels);
        for (; row < rows && row < last * ROWS; row++) norm_rows<1>(norm, x + row * channels, out + row * channels);
    });
}
