// softmax(q k^T + bias) v. A few queries at a time meet all keys, so that their logits never leave the first cache.
#include <cmath>
#include <utility>

#include "parallel.h"
#include "vectors.h"

namespace {

constexpr int64_t PANEL = 2 * LANES;                        // keys, or channels of values, of a product in registers
constexpr int MOST_ROWS = (REGISTERS - 3) / 2;              // queries of such a product
constexpr float LOG2_E = 1.44269504f;

constexpr int64_t whole(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

// Sums (ROWS, WIDTH * LANES) += a (ROWS, depth) b (depth, WIDTH * LANES), rows of `a` at a distance of `stride`.
template <int ROWS, int WIDTH>
inline __attribute__((always_inline)) void multiply(const float* a, int64_t stride, const float* b, int64_t depth,
                                                    Vector (&sums)[ROWS][WIDTH]) {
    for (auto& row : sums)
        for (auto& sum : row) sum = Vector{};
    for (int64_t k = 0; k < depth; k++) {
        Vector right[WIDTH];
        for (int j = 0; j < WIDTH; j++) right[j] = load(b + k * WIDTH * LANES + j * LANES);
        for (int i = 0; i < ROWS; i++) {
            const Vector left = all(a[i * stride + k]);
            for (int j = 0; j < WIDTH; j++) sums[i][j] += left * right[j];
        }
    }
}

// Keys (M, d) and values (M, d) of one head in the order in which products read them.
struct Packed {
    float* keys;     // panels (d, PANEL) of PANEL keys each, the last one (d, LANES) if that is enough
    float* values;   // panels (M, PANEL) of PANEL channels each
    int64_t count, dim, row;  // M, d, M in whole vectors

    Packed(float* memory, int64_t m, int64_t d)
        : keys(memory), values(memory + whole(m, LANES) * d), count(m), dim(d), row(whole(m, LANES)) {}

    static int64_t size(int64_t m, int64_t d) { return whole(m, LANES) * d + m * whole(d, PANEL); }

    int64_t width(int64_t first) const { return row - first < PANEL ? LANES : PANEL; }  // of the panel of this key

    void put(int64_t i, const float* key, const float* value, float scale) {
        const int64_t first = i / PANEL * PANEL, step = width(first);
        float* place = keys + first * dim + i - first;
        for (int64_t c = 0; c < dim; c++) place[c * step] = key[c] * scale;
        for (int64_t c = 0; c < dim; c += PANEL) {
            float* part = values + c * count + i * PANEL;
            const int64_t have = dim - c < PANEL ? dim - c : PANEL;
            std::memcpy(part, value + c, 4 * have);
            for (int64_t j = have; j < PANEL; j++) part[j] = 0;
        }
    }

    void fill() {  // what the last panel of keys holds beyond them
        const int64_t first = row / PANEL * PANEL < row ? row / PANEL * PANEL : row - PANEL, step = width(first);
        for (int64_t c = 0; c < dim; c++)
            for (int64_t i = count; i < row; i++) keys[first * dim + c * step + i - first] = 0;
    }
};

struct Rows {
    const float* query;  // (ROWS, d)
    int64_t stride;
    const float* bias;  // (ROWS, M), or none
    float* out;         // (ROWS, d)
    int64_t out_stride;
};

template <int ROWS, int WIDTH>
inline void logits_of(const Packed& p, const Rows& rows, int64_t first, float* logits) {
    Vector sums[ROWS][WIDTH];
    multiply<ROWS, WIDTH>(rows.query, rows.stride, p.keys + first * p.dim, p.dim, sums);
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < WIDTH; j++) {
            const int64_t place = first + j * LANES, left = p.count - place;
            if (rows.bias) {
                const float* bias = rows.bias + i * p.count + place;
                sums[i][j] += LOG2_E * (left < LANES ? load_some(bias, left) : load(bias));
            }
            store(logits + i * p.row + place, sums[i][j]);
        }
}

// 2 ^ (logits - largest) in their place; one over their sum.
inline float exponentials(float* logits, int64_t count, int64_t row) {
    for (int64_t i = count; i < row; i++) logits[i] = -INFINITY;  // keys that fill the last panel
    Vector best = load(logits);
    for (int64_t i = LANES; i < row; i += LANES) best = larger(load(logits + i), best);
    const float top = largest_of(best);
    Vector sum{};
    for (int64_t i = 0; i < row; i += LANES) {
        const Vector x = exp2_of(load(logits + i) - top);
        store(logits + i, x);
        sum += x;
    }
    return 1.0f / sum_of(sum);
}

template <int ROWS>
void attend_rows(const Packed& p, const Rows& rows, float* logits) {
    for (int64_t first = 0; first < p.row; first += PANEL)
        p.width(first) == PANEL ? logits_of<ROWS, 2>(p, rows, first, logits) : logits_of<ROWS, 1>(p, rows, first, logits);
    float shares[ROWS];
    for (int i = 0; i < ROWS; i++) shares[i] = exponentials(logits + i * p.row, p.count, p.row);
    for (int64_t c = 0; c < p.dim; c += PANEL) {
        Vector sums[ROWS][2];
        multiply<ROWS, 2>(logits, p.row, p.values + c * p.count, p.count, sums);
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < 2; j++) {
                float* place = rows.out + i * rows.out_stride + c + j * LANES;
                const int64_t left = p.dim - c - j * LANES;
                if (left >= LANES) store(place, sums[i][j] * shares[i]);
                else if (left > 0) store_some(place, sums[i][j] * shares[i], left);
            }
    }
}

using AttendRows = void (*)(const Packed&, const Rows&, float*);

template <int... I>
inline AttendRows attend_number(int rows, std::integer_sequence<int, I...>) {
    static constexpr AttendRows all_of_them[] = {attend_rows<I + 1>...};
    return all_of_them[rows - 1];
}

// `count` queries in steps of nearly the same number.
void attend_all(const Packed& p, Rows rows, int64_t count, float* logits) {
    const int64_t steps = (count + MOST_ROWS - 1) / MOST_ROWS;
    for (int64_t s = 0; s < steps; s++) {
        const int now = static_cast<int>(count * (s + 1) / steps - count * s / steps);
        attend_number(now, std::make_integer_sequence<int, MOST_ROWS>{})(p, rows, logits);
        rows.query += now * rows.stride;
        rows.out += now * rows.out_stride;
        if (rows.bias) rows.bias += now * p.count;
    }
}

}  // namespace

extern "C" {

// Floats of `memory` that the functions below want for each thread, and attend() for each head of each sample besides.
int64_t attend_memory_of_thread(int64_t keys, int64_t dim, int64_t packed) {
    return MOST_ROWS * whole(keys, LANES) + (packed ? Packed::size(keys, dim) : 0);
}
int64_t attend_memory_of_head(int64_t keys, int64_t dim) { return Packed::size(keys, dim); }

// q (n, heads, length, d), k and v (n, heads, keys, d) by strides; out (n, length, heads, d) without gaps.
void attend(const float* q, const int64_t* q_strides, const float* k, const int64_t* k_strides, const float* v,
            const int64_t* v_strides, float* out, int64_t n, int64_t heads, int64_t length, int64_t keys, int64_t dim,
            float scale, float* memory, int64_t threads) {
    const int64_t of_head = Packed::size(keys, dim), of_thread = MOST_ROWS * whole(keys, LANES);
    float* logits = memory + n * heads * of_head;
    in_parallel(n * heads, threads, [&](int64_t first, int64_t last, int64_t) {
        for (int64_t i = first; i < last; i++) {
            Packed packed(memory + i * of_head, keys, dim);
            const float *key = k + i / heads * k_strides[0] + i % heads * k_strides[1],
                        *value = v + i / heads * v_strides[0] + i % heads * v_strides[1];
            for (int64_t m = 0; m < keys; m++) packed.put(m, key + m * k_strides[2], value + m * v_strides[2], scale * LOG2_E);
            packed.fill();
        }
    });
    constexpr int64_t BLOCK = 16 * MOST_ROWS;  // queries of a piece of work
    const int64_t blocks = (length + BLOCK - 1) / BLOCK;
    in_parallel(n * heads * blocks, threads, [&](int64_t first, int64_t last, int64_t thread) {
        for (int64_t i = first; i < last; i++) {
            const int64_t head = i / blocks, row = i % blocks * BLOCK, j = head / heads, h = head % heads;
            const Rows rows{q + j * q_strides[0] + h * q_strides[1] + row * q_strides[2], q_strides[2], nullptr,
                            out + ((j * length + row) * heads + h) * dim, heads * dim};
            attend_all(Packed(memory + head * of_head, keys, dim), rows, length - row < BLOCK ? length - row : BLOCK,
                       logits + thread * of_thread);
        }
    });
}

// Windows that attend to rows of a table. query and out (windows, length, heads * d), table (rows, 2 * heads * d) of keys
// and values. The window order[i] has the keys rows[starts[i] .. starts[i + 1]] and the bias (heads, length, of them) at
// biases[i].
void attend_windows(const float* query, const float* table, const int64_t* order, const int64_t* rows,
                    const int64_t* starts, const float* const* biases, float* out, int64_t windows, int64_t length,
                    int64_t heads, int64_t dim, float scale, float* memory, int64_t of_thread, int64_t threads) {
    const int64_t channels = heads * dim;
    in_parallel(windows, threads, [&](int64_t first, int64_t last, int64_t thread) {
        float* logits = memory + thread * of_thread;
        for (int64_t i = first; i < last; i++) {
            const int64_t count = starts[i + 1] - starts[i];
            float* packed_memory = logits + MOST_ROWS * whole(count, LANES);
            for (int64_t h = 0; h < heads; h++) {
                Packed packed(packed_memory, count, dim);
                for (int64_t m = 0; m < count; m++) {
                    const float* key = table + rows[starts[i] + m] * 2 * channels + h * dim;
                    packed.put(m, key, key + channels, scale * LOG2_E);
                }
                packed.fill();
                const int64_t place = order[i] * length * channels + h * dim;
                attend_all(packed, {query + place, channels, biases[i] + h * length * count, out + place, channels}, length,
                           logits);
            }
        }
    });
}
}
