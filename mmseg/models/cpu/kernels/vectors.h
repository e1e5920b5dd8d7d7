// Vectors of floats as wide as the processor's, by the vector extensions of gcc and clang.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int LANES = 16, REGISTERS = 32;
#else  // AVX2
constexpr int LANES = 8, REGISTERS = 16;
#endif

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef int32_t Integers __attribute__((vector_size(4 * LANES)));
typedef float Unaligned __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static inline Vector load(const float* from) { return *reinterpret_cast<const Unaligned*>(from); }
static inline void store(float* to, Vector x) { *reinterpret_cast<Unaligned*>(to) = x; }
static inline Vector all(float x) { return x - Vector{}; }  // -0 stays -0
static inline Vector larger(Vector x, Vector y) { return x > y ? x : y; }  // y, if one of them is no number

// The first `count` numbers; zeros behind them.
static inline Vector load_some(const float* from, int64_t count) {
    Vector x{};
    std::memcpy(&x, from, 4 * count);
    return x;
}

static inline void store_some(float* to, Vector x, int64_t count) { std::memcpy(to, &x, 4 * count); }

// bfloat16: the upper half of a float.
struct BFloat16 {
    uint16_t bits;
};
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));
typedef uint16_t UnalignedHalves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

static inline Bits load_bits(const BFloat16* from) {
    return __builtin_convertvector(Halves(*reinterpret_cast<const UnalignedHalves*>(from)), Bits);
}

static inline Vector load(const BFloat16* from) { return reinterpret_cast<Vector>(load_bits(from) << 16); }

static inline Vector load_some(const BFloat16* from, int64_t count) {
    BFloat16 some[LANES] = {};
    std::memcpy(some, from, 2 * count);
    return load(some);
}

// Rounded to the nearest one, of two to the even one.
static inline Halves rounded(Vector x) {
#if defined(__AVX512BF16__)
    const auto halves = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(x));
    return reinterpret_cast<const Halves&>(halves);
#else
    const Bits bits = reinterpret_cast<Bits>(x), number = reinterpret_cast<Bits>(x == x);
    const Bits upper = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return __builtin_convertvector((upper & number) | (0x7fc0 & ~number), Halves);
#endif
}

static inline void store(BFloat16* to, Vector x) {
    *reinterpret_cast<UnalignedHalves*>(to) = UnalignedHalves(rounded(x));
}

static inline void store_some(BFloat16* to, Vector x, int64_t count) {
    const Halves halves = rounded(x);
    std::memcpy(to, &halves, 2 * count);
}

static inline float largest_of(Vector x) {
    float best = x[0];
    for (int i = 1; i < LANES; i++) best = x[i] > best ? x[i] : best;
    return best;
}

static inline float sum_of(Vector x) {
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
}

// Four vectors of four numbers, transposed in place.
typedef float Four __attribute__((vector_size(16)));
typedef float UnalignedFour __attribute__((vector_size(16), aligned(4), may_alias));

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLED(x, y, a, b, c, d) __builtin_shufflevector(x, y, a, b, c, d)
#else
typedef int32_t FourIntegers __attribute__((vector_size(16)));
#define SHUFFLED(x, y, a, b, c, d) __builtin_shuffle(x, y, FourIntegers{a, b, c, d})
#endif

static inline void transpose(Four (&x)[4]) {
    const Four low = SHUFFLED(x[0], x[1], 0, 4, 1, 5), low2 = SHUFFLED(x[2], x[3], 0, 4, 1, 5),
               high = SHUFFLED(x[0], x[1], 2, 6, 3, 7), high2 = SHUFFLED(x[2], x[3], 2, 6, 3, 7);
    x[0] = SHUFFLED(low, low2, 0, 1, 4, 5);
    x[1] = SHUFFLED(low, low2, 2, 3, 6, 7);
    x[2] = SHUFFLED(high, high2, 0, 1, 4, 5);
    x[3] = SHUFFLED(high, high2, 2, 3, 6, 7);
}

// All numbers of `x`, joined in pairs.
template <class Join>
static inline float joined(Vector x, const Join& join) {
    Four parts[LANES / 4];
    std::memcpy(parts, &x, sizeof parts);
    for (int count = LANES / 8; count; count /= 2)
        for (int i = 0; i < count; i++) parts[i] = join(parts[i], parts[i + count]);
    const Four pairs = join(parts[0], SHUFFLED(parts[0], parts[0], 2, 3, 0, 1));
    return join(pairs, SHUFFLED(pairs, pairs, 1, 0, 3, 2))[0];
}

// Polynomials of 2^x for |x| <= 0.5, highest power first: to 1e-7 of it, and to 2e-8, less than rounding.
constexpr float EXP2[] = {0.00132647273f, 0.00967151299f, 0.0555073358f, 0.240222424f, 0.693147004f, 1.0f};
constexpr float EXP2_EXACT[] = {0.00015353362f, 0.00133988750f, 0.00961843692f, 0.0555033237f,
                                0.240226477f,   0.693147182f,   1.0f};

// 2^x for x <= 127; zero where that is less than 2^-126. What is no number stays none.
template <int COUNT>
static inline Vector exp2_of(Vector x, const float (&polynomial)[COUNT]) {
    const Vector shifted = x + 12582912.0f;       // 1.5 * 2^23: the last bits are round(x)
    const Vector rest = x - (shifted - 12582912.0f);  // -0.5 .. 0.5
    Vector y = all(polynomial[0]);
    for (int i = 1; i < COUNT; i++) y = y * rest + polynomial[i];
    Integers exponent;
    std::memcpy(&exponent, &shifted, sizeof exponent);
    exponent = (exponent + 127) << 23;
    Vector power;
    std::memcpy(&power, &exponent, sizeof power);
    return x < all(-126.0f) ? Vector{} : y * power;
}

static inline Vector exp2_of(Vector x) { return exp2_of(x, EXP2); }
