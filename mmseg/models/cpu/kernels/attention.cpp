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

    float* place(int64_t i) const { return keys + i / PANEL * PANEL * dim + i % PANEL; }  // of the first number of key i

    void put_key(int64_t i, const float* key, float scale) {
        float* to = place(i);
        const int64_t step = width(i / PANEL * PANEL);
        for (int64_t c = 0; c < dim; c++) to[c * step] = key[c] * scale;
    }

    // Keys i .. i + 3, for i and d that are divisible by four.
    void put_four_keys(int64_t i, const float* const (&from)[4], float scale) {
        float* to = place(i);
        const int64_t step = width(i / PANEL * PANEL);
        for (int64_t c = 0; c < dim; c += 4) {
            Four part[4];
            for (int j = 0; j < 4; j++) part[j] = *reinterpret_cast<const UnalignedFour*>(from[j] + c) * scale;
            transpose(part);
            for (int j = 0; j < 4; j++) *reinterpret_cast<UnalignedFour*>(to + (c + j) * step) = part[j];
        }
    }

    void put_value(int64_t i, const float* value) {
        for (int64_t c = 0; c < dim; c += PANEL) {
            float* part = values + c * count + i * PANEL;
            const int64_t have = dim - c < PANEL ? dim - c : PANEL;
            if (have == PANEL) {
                store(part, load(value + c));
                store(part + LANES, load(value + c + LANES));
                continue;
            }
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

// Packs the keys and values of `heads` heads, d numbers each: those of key i stand at key(i) and value(i), head after head.
template <class Key, class Value>
void pack(float* memory, int64_t heads, int64_t count, int64_t dim, float scale, const Key& key, const Value& value) {
    const int64_t size = Packed::size(count, dim);
    int64_t i = 0;
    for (; dim % 4 == 0 && i + 4 <= count; i += 4)
        for (int64_t h = 0; h < heads; h++) {
            const float* const from[4] = {key(i) + h * dim, key(i + 1) + h * dim, key(i + 2) + h * dim, key(i + 3) + h * dim};
            Packed(memory + h * size, count, dim).put_four_keys(i, from, scale);
        }
    for (; i < count; i++)
        for (int64_t h = 0; h < heads; h++) Packed(memory + h * size, count, dim).put_key(i, key(i) + h * dim, scale);
    for (i = 0; i < count; i++)
        for (int64_t h = 0; h < heads; h++) Packed(memory + h * size, count, dim).put_value(i, value(i) + h * dim);
    for (int64_t h = 0; h < heads; h++) Packed(memory + h * size, count, dim).fill();
}

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

// Asks for the rows first .. last of those that are listed, `length` numbers each.
void prefetch(const float* table, const int64_t* listed, int64_t first, int64_t last, int64_t length) {
    constexpr int64_t LINE = 64 / sizeof(float);
    for (int64_t i = first; i < last; i++)
        for (int64_t c = 0; c < length; c += LINE) __builtin_prefetch(table + listed[i] * length + c, 0, 2);  // to the second cache
}

}  // namespace

extern "C" {

// Floats of `memory` that the functions below want for each thread, and attend() for each head of each sample besides.
int64_t attend_memory_of_thread(int64_t keys, int64_t dim, int64_t heads) {
    return MOST_ROWS * whole(keys, LANES) + heads * Packed::size(keys, dim);
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
            const float *key = k + i / heads * k_strides[0] + i % heads * k_strides[1],
                        *value = v + i / heads * v_strides[0] + i % heads * v_strides[1];
            pack(memory + i * of_head, 1, keys, dim, scale * LOG2_E, [&](int64_t m) { return key + m * k_strides[2]; },
                 [&](int64_t m) { return value + m * v_strides[2]; });
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
            float* packed = logits + MOST_ROWS * whole(count, LANES);
            const int64_t* own = rows + starts[i];
            const auto key = [&](int64_t m) { return table + own[m] * 2 * channels; };
            pack(packed, heads, count, dim, scale * LOG2_E, key, [&](int64_t m) { return key(m) + channels; });
            for (int64_t h = 0; h < heads; h++) {
                const int64_t next = i + 1 < last ? starts[i + 2] - starts[i + 1] : 0;  // its rows come meanwhile
                prefetch(table, rows + starts[i + 1], next * h / heads, next * (h + 1) / heads, 2 * channels);
                const int64_t place = order[i] * length * channels + h * dim;
                const Rows all_rows{query + place, channels, biases[i] + h * length * count, out + place, channels};
                attend_all(Packed(packed + h * Packed::size(count, dim), count, dim), all_rows, length, logits);
            }
        }
    });
}
}
