// softmax(q k^T + bias) v. A few queries at a time meet all keys, so that their logits never leave the first cache.
#include <cmath>
#include <utility>

#include "packing.h"
#include "parallel.h"

namespace {

constexpr float LOG2_E = 1.44269504f;

template <class Number>
struct Rows {
    const Number* query;  // (ROWS, d)
    int64_t stride;
    float scale;
    const Number* bias;  // (ROWS, M), or none
    int64_t bias_stride;
    Number* out;  // (ROWS, d)
    int64_t out_stride;

    void advance(int64_t count) {
        query += count * stride, out += count * out_stride;
        if (bias) bias += count * bias_stride;
    }
};

// Memory for MOST_ROWS rows, in floats: logits, and in bfloat16 what the exponentials are rounded to.
template <class Number>
int64_t size_of_logits(int64_t keys) {
    return MOST_ROWS * whole(keys, LANES) * (PER_WORD<Number> == 1 ? 2 : 3) / 2;
}

// Logits, times log2(e), of the keys of one panel.
template <int ROWS, int WIDTH, class Number>
inline void logits_of(const Packed<Number>& p, const Rows<Number>& rows, int64_t first, float* logits) {
    Vector sums[ROWS][WIDTH];
    multiply<ROWS, WIDTH>(rows.query, rows.stride, p.key_panel(first), p.key_words(), sums);
    UNROLLED for (int i = 0; i < ROWS; i++)
        UNROLLED for (int j = 0; j < WIDTH; j++) {
            const int64_t place = first + j * LANES, left = p.count - place;
            sums[i][j] *= rows.scale * LOG2_E;
            if (rows.bias) {
                const Number* bias = rows.bias + i * rows.bias_stride + place;
                sums[i][j] += LOG2_E * (left < LANES ? load_some(bias, left) : load(bias));
            }
            store(logits + i * p.row + place, sums[i][j]);
        }
}

// 2 ^ (logits - largest) of a row, as numbers that may lie in its place; returns one over their sum.
template <class Number>
inline float exponentials(float* logits, int64_t count, int64_t row, Number* out) {
    for (int64_t i = count; i < row; i++) logits[i] = -INFINITY;  // keys that fill the last panel
    Vector best = load(logits);
    for (int64_t i = LANES; i < row; i += LANES) best = larger(load(logits + i), best);
    const float top = largest_of(best);
    Vector sum{};
    for (int64_t i = 0; i < row; i += LANES) {
        const Vector x = exp2_of(load(logits + i) - top);
        store(out + i, x);
        sum += x;
    }
    return 1.0f / sum_of(sum);
}

inline float* shares_of(float* logits, int64_t, float*) { return logits; }
inline BFloat16* shares_of(float* logits, int64_t row, BFloat16*) {
    return reinterpret_cast<BFloat16*>(logits + MOST_ROWS * row);
}

template <int ROWS, class Number>
void attend_rows(const Packed<Number>& p, const Rows<Number>& rows, float* logits) {
    for (int64_t first = 0; first < p.row; first += PANEL)
        p.width(first) == PANEL ? logits_of<ROWS, 2>(p, rows, first, logits) : logits_of<ROWS, 1>(p, rows, first, logits);
    Number* shares = shares_of(logits, p.row, static_cast<Number*>(nullptr));  // (ROWS, M in whole vectors)
    float factors[ROWS];
    for (int i = 0; i < ROWS; i++) factors[i] = exponentials(logits + i * p.row, p.count, p.row, shares + i * p.row);
    for (int64_t c = 0; c < p.dim; c += PANEL) {
        Vector sums[ROWS][2];
        multiply<ROWS, 2>(shares, p.row, p.value_panel(c), Packed<Number>::value_words(p.count), sums);
        UNROLLED for (int i = 0; i < ROWS; i++)
            UNROLLED for (int j = 0; j < 2; j++) {
                Number* place = rows.out + i * rows.out_stride + c + j * LANES;
                const int64_t left = p.dim - c - j * LANES;
                if (left >= LANES) store(place, sums[i][j] * factors[i]);
                else if (left > 0) store_some(place, sums[i][j] * factors[i], left);
            }
    }
}

template <class Number, int... I>
inline void attend_number(int rows, const Packed<Number>& p, const Rows<Number>& of, float* logits,
                          std::integer_sequence<int, I...>) {
    using Attend = void (*)(const Packed<Number>&, const Rows<Number>&, float*);
    static constexpr Attend by_rows[] = {attend_rows<I + 1, Number>...};
    by_rows[rows - 1](p, of, logits);
}

// `count` queries in steps of nearly the same number.
template <class Number>
void attend_all(const Packed<Number>& p, Rows<Number> rows, int64_t count, float* logits) {
    const int64_t steps = (count + MOST_ROWS - 1) / MOST_ROWS;
    for (int64_t s = 0; s < steps; s++) {
        const int now = static_cast<int>(count * (s + 1) / steps - count * s / steps);
        attend_number(now, p, rows, logits, std::make_integer_sequence<int, MOST_ROWS>{});
        rows.advance(now);
    }
}

// q (n, heads, length, d), k and v (n, heads, keys, d) by strides; out (n, length, heads, d) without gaps.
template <class Number>
void attend(const Number* q, const int64_t* q_strides, const Number* k, const int64_t* k_strides, const Number* v,
            const int64_t* v_strides, Number* out, int64_t n, int64_t heads, int64_t length, int64_t keys, int64_t dim,
            float scale, float* memory, int64_t threads) {
    const int64_t of_head = Packed<Number>::size(keys, dim);
    float* logits = memory + n * heads * of_head;
    in_parallel(n * heads, threads, [&](int64_t first, int64_t last, int64_t) {
        for (int64_t i = first; i < last; i++) {
            const Number *key = k + i / heads * k_strides[0] + i % heads * k_strides[1],
                         *value = v + i / heads * v_strides[0] + i % heads * v_strides[1];
            pack<Number>(memory + i * of_head, 1, keys, dim, [&](int64_t m) { return key + m * k_strides[2]; },
                         [&](int64_t m) { return value + m * v_strides[2]; });
        }
    });
    constexpr int64_t BLOCK = 16 * MOST_ROWS;  // queries of a piece of work
    const int64_t blocks = (length + BLOCK - 1) / BLOCK;
    in_parallel(n * heads * blocks, threads, [&](int64_t first, int64_t last, int64_t thread) {
        for (int64_t i = first; i < last; i++) {
            const int64_t head = i / blocks, row = i % blocks * BLOCK, j = head / heads, h = head % heads;
            const Number* query = q + j * q_strides[0] + h * q_strides[1] + row * q_strides[2];
            Number* result = out + ((j * length + row) * heads + h) * dim;
            attend_all(Packed<Number>(memory + head * of_head, keys, dim),
                       {query, q_strides[2], scale, nullptr, 0, result, heads * dim},
                       length - row < BLOCK ? length - row : BLOCK, logits + thread * size_of_logits<Number>(keys));
        }
    });
}

// Asks for the rows first .. last of those that are listed, `length` numbers each.
template <class Number>
void prefetch(const Number* table, const int64_t* listed, int64_t first, int64_t last, int64_t length) {
    constexpr int64_t LINE = 64 / sizeof(Number);
    for (int64_t i = first; i < last; i++)
        for (int64_t c = 0; c < length; c += LINE)
            __builtin_prefetch(table + listed[i] * length + c, 0, 2);  // to the second cache
}

// Windows that attend to rows of a table. query and out (windows, length, heads * d), table (rows, 2 * heads * d) of keys
// and values. The window order[i] has the keys rows[starts[i] .. starts[i + 1]] and the bias (heads, length, pitches[i])
// at biases[i].
template <class Number>
void attend_windows(const Number* query, const Number* table, const int64_t* order, const int64_t* rows,
                    const int64_t* starts, const Number* const* biases, const int64_t* pitches, Number* out,
                    int64_t windows, int64_t length, int64_t heads, int64_t dim, float scale, float* memory,
                    int64_t of_thread, int64_t threads) {
    const int64_t channels = heads * dim;
    in_parallel(windows, threads, [&](int64_t first, int64_t last, int64_t thread) {
        float* logits = memory + thread * of_thread;
        for (int64_t i = first; i < last; i++) {
            const int64_t count = starts[i + 1] - starts[i];
            float* packed = logits + size_of_logits<Number>(count);
            const int64_t* own = rows + starts[i];
            const auto key = [&](int64_t m) { return table + own[m] * 2 * channels; };
            pack<Number>(packed, heads, count, dim, key, [&](int64_t m) { return key(m) + channels; });
            for (int64_t h = 0; h < heads; h++) {
                const int64_t next = i + 1 < last ? starts[i + 2] - starts[i + 1] : 0;  // its rows come meanwhile
                prefetch(table, rows + starts[i + 1], next * h / heads, next * (h + 1) / heads, 2 * channels);
                const int64_t place = order[i] * length * channels + h * dim;
                const Number* bias = biases[i] + h * length * pitches[i];
                attend_all(Packed<Number>(packed + h * Packed<Number>::size(count, dim), count, dim),
                           {query + place, channels, scale, bias, pitches[i], out + place, channels}, length, logits);
            }
        }
    });
}

}  // namespace

#define KERNELS(NUMBER, NAME)                                                                                         \
    /* Floats of `memory` that a thread wants, with keys and values of some heads. */                                 \
    int64_t attend_memory_##NAME(int64_t keys, int64_t dim, int64_t heads) {                                          \
        return size_of_logits<NUMBER>(keys) + heads * Packed<NUMBER>::size(keys, dim);                                \
    }                                                                                                                 \
    void attend_##NAME(const NUMBER* q, const int64_t* q_strides, const NUMBER* k, const int64_t* k_strides,          \
                       const NUMBER* v, const int64_t* v_strides, NUMBER* out, int64_t n, int64_t heads,              \
                       int64_t length, int64_t keys, int64_t dim, float scale, float* memory, int64_t threads) {      \
        attend(q, q_strides, k, k_strides, v, v_strides, out, n, heads, length, keys, dim, scale, memory, threads);   \
    }                                                                                                                 \
    void attend_windows_##NAME(const NUMBER* query, const NUMBER* table, const int64_t* order, const int64_t* rows,   \
                               const int64_t* starts, const NUMBER* const* biases, const int64_t* pitches,            \
                               NUMBER* out, int64_t windows, int64_t length, int64_t heads, int64_t dim, float scale, \
                               float* memory, int64_t of_thread, int64_t threads) {                                   \
        attend_windows(query, table, order, rows, starts, biases, pitches, out, windows, length, heads, dim, scale,   \
                       memory, of_thread, threads);                                                                   \
    }

extern "C" {
KERNELS(float, float32)
#if defined(__AVX512BF16__)
KERNELS(BFloat16, bfloat16)
#endif
}
