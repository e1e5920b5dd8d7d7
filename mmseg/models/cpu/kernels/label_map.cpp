// The best class at every pixel of resized logits. A tile of the result is made at a time, of the classes that can win in
// it, and its scores never leave the first cache.
#include <atomic>
#include <cmath>

#include "parallel.h"
#include "vectors.h"

namespace {

constexpr int64_t ROWS = 32, COLUMNS = 16;  // pixels of a tile
constexpr int WIDTH = COLUMNS / LANES;      // vectors in a row of it
constexpr float ROUNDING = 16 * 1.1920929e-7f;  // of weighted sums, whose weights may miss a sum of 1 by a few units

constexpr int MOST_CLASSES = 255, TOGETHER = 4;  // classes of a map, and those that are resized together

typedef uint8_t Bytes __attribute__((vector_size(LANES)));

// How pixels along an axis are made: window i of them from logits starts[i] .. starts[i] + span.
struct Axis {
    const int64_t* starts;
    const float* weights;  // (windows, span, pixels of a window)
    int64_t span;
};

struct Map {
    const float* logits;  // (classes, height, width)
    int64_t classes, height, width;
    Axis rows;        // windows of one pixel
    Axis columns;     // windows of COLUMNS pixels
    uint8_t* labels;  // (label_rows, label_columns)
    int64_t label_rows, label_columns, tiles;  // tiles: windows of columns
};

// What a thread works in.
struct Memory {
    float* lines;             // (height, TOGETHER, COLUMNS): classes, resized across
    float *highest, *lowest;  // (width): extremes of a class, of the logits in the height of a tile
    float *limits, *scales;   // (tiles): what a class has to reach; the largest logit by magnitude
    float* tops;              // (tiles, classes): the largest logit of each class

    Memory(float* from, const Map& map)
        : lines(from), highest(lines + map.height * TOGETHER * COLUMNS), lowest(highest + padded(map.width)),
          limits(lowest + padded(map.width)), scales(limits + map.tiles), tops(scales + map.tiles) {}

    static int64_t padded(int64_t width) { return 2 * (width + LANES); }  // for vectors that reach over the end

    static int64_t size(int64_t classes, int64_t height, int64_t width, int64_t tiles) {
        return height * TOGETHER * COLUMNS + 2 * padded(width) + tiles * (2 + classes);
    }
};

// Rows of logits that the rows of pixels first .. last are made of.
struct Band {
    int64_t first, last;    // pixels
    int64_t top, count;     // logits
};

inline float largest(float x, float y) { return x > y ? x : y; }
inline float smallest(float x, float y) { return x < y ? x : y; }

// The extremes of the columns of `rows` (count, width); whether all numbers are finite.
bool extremes(const float* rows, int64_t count, int64_t width, float* highest, float* lowest) {
    Vector nothing{};
    for (int64_t place = 0; place < width; place += LANES) {
        const int64_t left = width - place, have = width < LANES ? width : LANES;
        const int64_t c = left < have ? width - have : place;  // the last ones may be seen twice
        const auto at = [&](int64_t r) {
            const float* from = rows + r * width + c;
            return have < LANES ? load_some(from, have) : load(from);
        };
        Vector high = at(0), low = high;
        nothing += high - high;  // no number for an infinity or what is none
        for (int64_t r = 1; r < count; r++) {
            const Vector x = at(r);
            nothing += x - x;
            high = x > high ? x : high;
            low = x < low ? x : low;
        }
        store(highest + c, high);
        store(lowest + c, low);
    }
    return sum_of(nothing) == 0;
}

// Replaces each of them by the extreme of itself and of those behind it, as many together as the largest power of two in
// `span`, which it returns.
int64_t widen(int64_t width, int64_t span, float* highest, float* lowest) {
    int64_t reach = 1;
    for (; 2 * reach <= span; reach *= 2)
        for (int64_t c = 0; c < width; c += LANES) {
            const Vector high = load(highest + c), low = load(lowest + c);
            const Vector next_high = load(highest + c + reach), next_low = load(lowest + c + reach);
            store(highest + c, next_high > high ? next_high : high);
            store(lowest + c, next_low < low ? next_low : low);
        }
    return reach;
}

// Fills limits and tops; returns whether all logits are finite. A weighted mean lies between the smallest and the
// largest logit that it is made of, so that a class cannot win where its largest is below the smallest of another one.
bool find_limits(const Map& map, const Band& band, const Memory& m) {
    for (int64_t k = 0; k < map.classes; k++) {
        const float* rows = map.logits + (k * map.height + band.top) * map.width;
        if (!extremes(rows, band.count, map.width, m.highest, m.lowest)) return false;
        const int64_t reach = widen(map.width, map.columns.span, m.highest, m.lowest);
        for (int64_t t = 0; t < map.tiles; t++) {
            const int64_t first = map.columns.starts[t], second = first + map.columns.span - reach;
            const float top = largest(m.highest[first], m.highest[second]);
            const float bottom = smallest(m.lowest[first], m.lowest[second]), scale = largest(top, -bottom);
            m.limits[t] = k ? largest(m.limits[t], bottom) : bottom;
            m.scales[t] = k ? largest(m.scales[t], scale) : scale;
            m.tops[t * map.classes + k] = top;
        }
    }
    for (int64_t t = 0; t < map.tiles; t++) m.limits[t] -= ROUNDING * m.scales[t];
    return true;
}

struct Best {
    Vector scores[ROWS][WIDTH];
    Integers labels[ROWS][WIDTH];
};

// Resizes the classes labels[0 .. NUMBER] of a tile, across into m.lines (band.count, NUMBER, COLUMNS) and down, and keeps
// them where they are better than those before.
template <int NUMBER>
void compare(const Map& map, const Band& band, int64_t tile, const int* labels, const Memory& m, Best& best) {
    const float* logits[NUMBER];
    for (int n = 0; n < NUMBER; n++)
        logits[n] = map.logits + (labels[n] * map.height + band.top) * map.width + map.columns.starts[tile];
    const float* weights = map.columns.weights + tile * map.columns.span * COLUMNS;
    for (int64_t r = 0; r < band.count; r++) {
        Vector sums[NUMBER][WIDTH] = {};
        for (int64_t s = 0; s < map.columns.span; s++)
            for (int j = 0; j < WIDTH; j++) {
                const Vector weight = load(weights + s * COLUMNS + j * LANES);
                for (int n = 0; n < NUMBER; n++) sums[n][j] += weight * logits[n][r * map.width + s];
            }
        for (int n = 0; n < NUMBER; n++)
            for (int j = 0; j < WIDTH; j++) store(m.lines + (r * NUMBER + n) * COLUMNS + j * LANES, sums[n][j]);
    }
    for (int64_t y = band.first; y < band.last; y++) {
        const float* shares = map.rows.weights + y * map.rows.span;
        for (int j = 0; j < WIDTH; j++) {
            const float* line = m.lines + (map.rows.starts[y] - band.top) * NUMBER * COLUMNS + j * LANES;
            Vector score[NUMBER];
            for (int n = 0; n < NUMBER; n++) score[n] = load(line + n * COLUMNS) * shares[0];
            for (int64_t i = 1; i < map.rows.span; i++)
                for (int n = 0; n < NUMBER; n++) score[n] += load(line + (i * NUMBER + n) * COLUMNS) * shares[i];
            Vector top = best.scores[y - band.first][j];
            Integers label = best.labels[y - band.first][j];
            for (int n = 0; n < NUMBER; n++) {
                const Integers better = score[n] > top;
                top = better ? score[n] : top;
                label = better ? Integers{} + labels[n] : label;
            }
            best.scores[y - band.first][j] = top;
            best.labels[y - band.first][j] = label;
        }
    }
}

void write(const Map& map, const Band& band, int64_t tile, const Best& best) {
    for (int64_t y = band.first; y < band.last; y++)
        for (int j = 0; j < WIDTH; j++) {
            const int64_t column = tile * COLUMNS + j * LANES, left = map.label_columns - column;
            const Bytes bytes = __builtin_convertvector(best.labels[y - band.first][j], Bytes);
            if (left > 0) std::memcpy(map.labels + y * map.label_columns + column, &bytes, left < LANES ? left : LANES);
        }
}

void make_tile(const Map& map, const Band& band, int64_t tile, const Memory& m) {
    int labels[MOST_CLASSES], count = 0, done = 0;
    for (int64_t k = 0; k < map.classes; k++)
        if (m.tops[tile * map.classes + k] >= m.limits[tile]) labels[count++] = static_cast<int>(k);
    Best best;
    for (int64_t y = 0; y < band.last - band.first; y++)
        for (int j = 0; j < WIDTH; j++) {
            best.scores[y][j] = all(-INFINITY);
            best.labels[y][j] = Integers{} + labels[0];
        }
    if (count == 1) done = 1;
    for (; count - done >= TOGETHER; done += TOGETHER) compare<TOGETHER>(map, band, tile, labels + done, m, best);
    for (; done < count; done++) compare<1>(map, band, tile, labels + done, m, best);
    write(map, band, tile, best);
}

}  // namespace

extern "C" {

int64_t label_map_columns_of_tile() { return COLUMNS; }

// Floats of `memory` for each thread.
int64_t label_map_memory(int64_t classes, int64_t height, int64_t width, int64_t tiles) {
    return Memory::size(classes, height, width, tiles);
}

// labels (label_rows, label_columns) of logits (classes, height, width). Row y is made of the logits row_starts[y] and
// those behind it with row_weights (label_rows, row_span), the columns t * COLUMNS and those behind it of the logits
// column_starts[t] and those behind it with column_weights (tiles, column_span, COLUMNS). Starts do not fall. Returns 0,
// and labels that are not complete, if a logit is not finite: a weight of zero would make no number of it.
int64_t label_map(const float* logits, const int64_t* row_starts, const float* row_weights, const int64_t* column_starts,
                  const float* column_weights, uint8_t* labels, int64_t classes, int64_t height, int64_t width,
                  int64_t row_span, int64_t column_span, int64_t label_rows, int64_t label_columns, float* memory,
                  int64_t threads) {
    const int64_t tiles = (label_columns + COLUMNS - 1) / COLUMNS, bands = (label_rows + ROWS - 1) / ROWS;
    const Map map{logits, classes, height, width, {row_starts, row_weights, row_span},
                  {column_starts, column_weights, column_span}, labels, label_rows, label_columns, tiles};
    std::atomic<bool> finite{true};
    in_parallel(bands, threads, [&](int64_t from, int64_t to, int64_t thread) {
        const Memory m(memory + thread * Memory::size(classes, height, width, tiles), map);
        for (int64_t b = from; b < to && finite; b++) {
            const int64_t first = b * ROWS, last = first + ROWS < label_rows ? first + ROWS : label_rows;
            const Band band{first, last, row_starts[first], row_starts[last - 1] + row_span - row_starts[first]};
            if (!find_limits(map, band, m)) finite = false;
            else
                for (int64_t t = 0; t < tiles; t++) make_tile(map, band, t, m);
        }
    });
    return finite;
}
}
