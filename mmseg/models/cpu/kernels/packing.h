// Keys and values in the order in which products read them.
#pragma once
#include "products.h"

// Keys (M, d) and values (M, d) of one head.
template <class Number>
struct Packed {
    Word* keys;               // panels (d words, PANEL) of PANEL keys each, the last one of LANES keys if that is enough
    Word* values;             // panels (M words, PANEL) of PANEL channels each
    int64_t count, dim, row;  // M, d, M in whole vectors

    Packed(Word* memory, int64_t m, int64_t d)
        : keys(memory), values(memory + key_size(m, d)), count(m), dim(d), row(whole(m, LANES)) {}

    static int64_t key_size(int64_t m, int64_t d) { return whole(m, LANES) * (d / PER_WORD<Number>); }
    static int64_t size(int64_t m, int64_t d) { return key_size(m, d) + value_words(m) * whole(d, PANEL); }
    static int64_t value_words(int64_t m) { return whole(m, PER_WORD<Number>) / PER_WORD<Number>; }

    int64_t key_words() const { return dim / PER_WORD<Number>; }
    int64_t width(int64_t first) const { return row - first < PANEL ? LANES : PANEL; }  // of the panel of this key
    const Word* key_panel(int64_t first) const { return keys + first * key_words(); }
    const Word* value_panel(int64_t channel) const { return values + channel * value_words(count); }

    void put_key(int64_t i, const Number* key) {
        const int64_t first = i / PANEL * PANEL, step = width(first);
        Word* to = keys + first * key_words() + i - first;
        for (int64_t c = 0; c < key_words(); c++) std::memcpy(to + c * step, key + c * PER_WORD<Number>, sizeof(Word));
    }

    // Keys i .. i + 3, for i and words of a key that are divisible by four.
    void put_four_keys(int64_t i, const Number* const (&from)[4]) {
        const int64_t first = i / PANEL * PANEL, step = width(first);
        Word* to = keys + first * key_words() + i - first;
        for (int64_t c = 0; c < key_words(); c += 4) {
            Four part[4];
            for (int j = 0; j < 4; j++) part[j] = *reinterpret_cast<const UnalignedFour*>(from[j] + c * PER_WORD<Number>);
            transpose(part);
            for (int j = 0; j < 4; j++) *reinterpret_cast<UnalignedFour*>(to + (c + j) * step) = part[j];
        }
    }

    // What lies beyond the keys in the last panel.
    void fill() {
        const int64_t first = (row - 1) / PANEL * PANEL, step = width(first);
        for (int64_t c = 0; c < key_words(); c++)
            for (int64_t i = count; i < row; i++) keys[first * key_words() + c * step + i - first] = 0;
    }

    // The values of one word: of `first`, and in bfloat16 of `second`, too, if there is one.
    void put_values(int64_t word, const Number* first, const Number* second) {
        for (int64_t c = 0; c < dim; c += LANES) {
            Word* to = values + c / PANEL * PANEL * value_words(count) + word * PANEL + c % PANEL;
            const int64_t have = dim - c < LANES ? dim - c : LANES;
            store(to, joined(first + c, second ? second + c : nullptr, have));
            if (have < LANES || c + LANES == dim)  // to the end of the panel
                for (int64_t j = c % PANEL + LANES; j < PANEL; j++) to[j - c % PANEL] = 0;
        }
    }

    static Vector joined(const float* first, const float*, int64_t have) {
        return have == LANES ? load(first) : load_some(first, have);
    }
    static Vector joined(const BFloat16* first, const BFloat16* second, int64_t have) {
        const auto bits = [have](const BFloat16* from) {  // as the upper halves
            return reinterpret_cast<Bits>(!from ? Vector{} : have == LANES ? load(from) : load_some(from, have));
        };
        return reinterpret_cast<Vector>(bits(first) >> 16 | bits(second));
    }
};

// Packs keys and values of `heads` heads with d numbers each: those of key i stand at key(i) and value(i), head by head.
template <class Number, class Key, class Value>
void pack(Word* memory, int64_t heads, int64_t count, int64_t dim, const Key& key, const Value& value) {
    const auto head = [=](int64_t h) { return Packed<Number>(memory + h * Packed<Number>::size(count, dim), count, dim); };
    int64_t i = 0;
    for (; dim / PER_WORD<Number> % 4 == 0 && i + 4 <= count; i += 4)
        for (int64_t h = 0; h < heads; h++) {
            const int64_t c = h * dim;
            head(h).put_four_keys(i, {key(i) + c, key(i + 1) + c, key(i + 2) + c, key(i + 3) + c});
        }
    for (; i < count; i++)
        for (int64_t h = 0; h < heads; h++) head(h).put_key(i, key(i) + h * dim);
    for (i = 0; i < count; i += PER_WORD<Number>)
        for (int64_t h = 0; h < heads; h++) {
            const int64_t c = h * dim;
            const Number* second = PER_WORD<Number> > 1 && i + 1 < count ? value(i + 1) + c : nullptr;
            head(h).put_values(i / PER_WORD<Number>, value(i) + c, second);
        }
    for (int64_t h = 0; h < heads; h++) head(h).fill();
}
