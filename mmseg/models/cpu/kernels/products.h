// Products of matrices whose sums stay in registers, in float32, or in bfloat16 with sums in float32.
#pragma once
#include "vectors.h"

constexpr int64_t PANEL = 2 * LANES;            // columns of a product
constexpr int MOST_ROWS = (REGISTERS - 3) / 2;  // rows of it

// Loops whose sums must stay in registers.
#if defined(__clang__)
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define UNROLLED _Pragma("GCC unroll 32")
#endif

// A word is one float, or the bits of two numbers of bfloat16 that are multiplied and added up in one step.
using Word = float;
template <class Number>
constexpr int64_t PER_WORD = sizeof(Word) / sizeof(Number);

constexpr int64_t whole(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

template <class Number>
struct Step;

template <>
struct Step<float> {
    static Vector left(const float* from) { return all(*from); }
    static Vector right(const Word* from) { return load(from); }
    static void add(Vector& sum, Vector left, Vector right) { sum += left * right; }
};

#if defined(__AVX512BF16__)
template <>
struct Step<BFloat16> {
    static Integers left(const BFloat16* from) {
        int32_t both;
        std::memcpy(&both, from, sizeof both);
        return both + Integers{};
    }
    static Integers right(const Word* from) { return reinterpret_cast<Integers>(load(from)); }
    static void add(Vector& sum, Integers left, Integers right) {
        sum = reinterpret_cast<Vector>(_mm512_dpbf16_ps(
            reinterpret_cast<__m512>(sum), reinterpret_cast<__m512bh>(left), reinterpret_cast<__m512bh>(right)));
    }
};
#endif

// Sums (ROWS, WIDTH * LANES) = a (ROWS, words) b (words, WIDTH * LANES), rows of `a` at a distance of `stride` numbers.
template <int ROWS, int WIDTH, class Number>
inline __attribute__((always_inline)) void multiply(const Number* a, int64_t stride, const Word* b, int64_t words,
                                                    Vector (&sums)[ROWS][WIDTH]) {
    UNROLLED for (int i = 0; i < ROWS; i++)
        UNROLLED for (int j = 0; j < WIDTH; j++) sums[i][j] = Vector{};
    for (int64_t k = 0; k < words; k++) {
        decltype(Step<Number>::right(b)) right[WIDTH];
        UNROLLED for (int j = 0; j < WIDTH; j++) right[j] = Step<Number>::right(b + (k * WIDTH + j) * LANES);
        UNROLLED for (int i = 0; i < ROWS; i++) {
            const auto left = Step<Number>::left(a + i * stride + k * PER_WORD<Number>);
            UNROLLED for (int j = 0; j < WIDTH; j++) Step<Number>::add(sums[i][j], left, right[j]);
        }
    }
}
