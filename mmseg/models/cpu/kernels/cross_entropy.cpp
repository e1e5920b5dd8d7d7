// Cross entropy of bilinearly resized logits, and its gradient. The resized logits of one pixel exist at a time: they are
// made, turned into shares, and added to the gradient by the transpose of the resize while they are in the first cache.
#include <algorithm>
#include <cmath>

#include "parallel.h"
#include "vectors.h"

namespace {

constexpr float LOG2_E = 1.44269504f;
constexpr int64_t ROWS = 8, COLUMNS = 8;  // cells of a band and of a tile of it: squares between four neighbouring logits

// How pixels along an axis are made: of the logits firsts[i], which do not fall, and firsts[i] + 1.
struct Axis {
    const int64_t* firsts;
    const float* weights;    // (pixels, 2)
    int64_t pixels, logits;  // of the latter at least two

    int64_t cells() const { return logits - 1; }
    int64_t first_pixel(int64_t cell) const { return std::lower_bound(firsts, firsts + pixels, cell) - firsts; }
};

// The classes of a pixel, at least LANES, are copied into whole vectors. The last one holds LANES of them, too: those
// that are in the one before as well come first, `twice` in number.
struct Classes {
    int64_t count, width, last, twice;

    explicit Classes(int64_t classes)
        : count(classes), width((classes + LANES - 1) / LANES * LANES), last(width - LANES), twice(width - classes) {}

    bool has(int64_t label) const { return 0 <= label && label < count; }
    int64_t place_of(int64_t k) const { return k < last ? k : k + twice; }

    // use(i, place) for all vectors of `pixels` pixels: where they start among classes and among copies. The last ones,
    // which start before those in front of them end, come when these have long been written.
    template <class Use>
    void each_vector(int64_t pixels, const Use& use) const {
        const int64_t k = count, w = width, end = last;
        for (int64_t pixel = 0; pixel < pixels; pixel++)
            for (int64_t i = 0; i < end; i += LANES) use(pixel * k + i, pixel * w + i);
        for (int64_t pixel = 0; pixel < pixels; pixel++) use(pixel * k + k - LANES, pixel * w + end);
    }
};

struct Task {
    const float* logits;    // (n, rows.logits, columns.logits, classes)
    const int64_t* labels;  // (n, rows.pixels, columns.pixels)
    const float* weight;    // as labels, or none
    Axis rows, columns;
    Classes classes;
    int64_t ignored;
    float* grad;  // as logits, or none

    int64_t logit(int64_t sample, int64_t row, int64_t column) const {
        return ((sample * rows.logits + row) * columns.logits + column) * classes.count;
    }
};

// What a thread works in.
struct Memory {
    float* line;   // (COLUMNS + 1, width): logits of a tile, resized to one row of pixels
    float* grads;  // their gradient
    float* pixel;  // (width): the logits of a pixel, then their exponentials
    float* own;    // (width): what its own class has of the gradient, among zeros

    Memory(float* from, int64_t width)
        : line(from), grads(line + (COLUMNS + 1) * width), pixel(grads + (COLUMNS + 1) * width), own(pixel + width) {}
    static int64_t size(int64_t width) { return (2 * COLUMNS + 4) * width; }
};

// Cells of columns first .. last; whether their logits are finite in all rows of a band.
struct Tile {
    int64_t sample, first, last;
    bool finite;

    int64_t logits() const { return last - first + 1; }
};

// Of the pixels of a band.
struct Sums {
    double loss = 0, product = 1;  // the logarithm of the latter is a part of the former
    int64_t hits = 0;
    bool wrong = false;  // a label is no class

    // factor * (log(total) - picked): the logarithm of a product is that of many pixels.
    void add(float total, float picked, float factor) {
        if (factor == 1) {
            product *= total;
            loss -= picked;
            if (!(product < 1e200)) settle();
        } else {
            loss += factor * (std::log(total) - picked);
        }
    }
    void settle() {
        loss += std::log(product);
        product = 1;
    }
};

inline Integers lanes_from(int64_t first) {
    Integers numbers{};
    for (int i = 0; i < LANES; i++) numbers[i] = i;
    return numbers + static_cast<int32_t>(first);
}

// A mean of neighbouring logits into `pixel`; returns the highest class.
inline float mix(const Classes& classes, const float* left, const float* shares, float* pixel) {
    const int64_t last = classes.last;
    const float *right = left + classes.width, share = shares[0], other = shares[1];
    Vector top = all(-INFINITY);
    for (int64_t i = 0; i < last; i += LANES) {
        const Vector z = share * load(left + i) + other * load(right + i);
        store(pixel + i, z);
        top = larger(z, top);
    }
    const Vector z = share * load(left + last) + other * load(right + last);
    const Vector once = lanes_from(0) < static_cast<int32_t>(classes.twice) ? all(-INFINITY) : z;
    store(pixel + last, once);
    return joined(larger(once, top), [](Four x, Four y) { return x > y ? x : y; });
}

// Whether `pixel` holds `highest` in front of a place.
bool comes_earlier(const float* pixel, float highest, int64_t place) {
    Integers found{};
    for (int64_t i = 0; i < place; i += LANES)
        found |= (load(pixel + i) == highest) & (lanes_from(i) < static_cast<int32_t>(place));
    for (int i = 0; i < LANES; i++)
        if (found[i]) return true;
    return false;
}

// Logits in `pixel` become exponentials of what they miss to the highest one; returns their sum.
inline float exponentials(int64_t width, float highest, float* pixel) {
    Vector sum{};
    for (int64_t i = 0; i < width; i += LANES) {
        const Vector e = exp2_of((load(pixel + i) - highest) * LOG2_E, EXP2_EXACT);
        store(pixel + i, e);
        sum += e;
    }
    return joined(sum, [](Four x, Four y) { return x + y; });
}

// Adds scale * m.pixel - m.own to the gradients on both sides of a pixel.
inline void add_gradient(int64_t width, const Memory& m, float scale, const float* shares, float* left) {
    const float share = shares[0], other = shares[1];
    float* right = left + width;
    for (int64_t i = 0; i < width; i += LANES) {
        const Vector grad = load(m.pixel + i) * scale - load(m.own + i);
        store(left + i, load(left + i) + share * grad);
        store(right + i, load(right + i) + other * grad);
    }
}

// One pixel, of m.line and to m.grads. `index` is that of its label.
inline void add_pixel(const Task& task, const Tile& tile, int64_t index, int64_t column, const Memory& m, Sums& sums) {
    const Classes& classes = task.classes;
    const int64_t label = task.labels[index];
    const bool valid = label != task.ignored;
    if (!classes.has(label)) {
        sums.wrong |= valid;
        if (valid || tile.finite) return;  // an ignored pixel has no gradient, unless it is no number
    }
    const int64_t place = classes.place_of(std::clamp<int64_t>(label, 0, classes.count - 1));
    const int64_t start = (task.columns.firsts[column] - tile.first) * classes.width;
    const float* shares = task.columns.weights + 2 * column;
    const float highest = mix(classes, m.line + start, shares, m.pixel), picked = m.pixel[place] - highest;
    const bool hit = picked == 0 && classes.has(label) && !comes_earlier(m.pixel, highest, place);
    const float factor = !valid ? 0 : task.weight ? task.weight[index] : 1;
    m.own[place] = factor;  // long before it is read in a vector
    const float total = exponentials(classes.width, highest, m.pixel);
    if (valid) sums.add(total, picked, factor);
    sums.hits += hit && total == total;
    if (task.grad) add_gradient(classes.width, m, factor / total, shares, m.grads + start);
    m.own[place] = 0;
}

// m.line: between two rows of logits.
void make_line(const Task& task, const Tile& tile, const float* upper, const float* shares, const Memory& m) {
    const float *lower = upper + task.columns.logits * task.classes.count, share = shares[0], other = shares[1];
    task.classes.each_vector(tile.logits(), [=](int64_t i, int64_t place) {
        store(m.line + place, share * load(upper + i) + other * load(lower + i));
    });
}

// Adds m.grads to the gradients of two rows of logits, and clears it.
void flush(const Task& task, const Tile& tile, float* upper, const float* shares, const Memory& m) {
    float* lower = upper + task.columns.logits * task.classes.count;
    const float share = shares[0], other = shares[1];
    task.classes.each_vector(tile.logits(), [=](int64_t i, int64_t place) {
        const Vector grad = load(m.grads + place);
        store(upper + i, load(upper + i) + share * grad);
        store(lower + i, load(lower + i) + other * grad);
        store(m.grads + place, Vector{});
    });
}

bool all_finite(const Task& task, const Tile& tile, int64_t top, int64_t bottom) {
    Vector nothing{};
    for (int64_t row = top; row <= bottom; row++) {
        const float* logits = task.logits + task.logit(tile.sample, row, tile.first);
        task.classes.each_vector(tile.logits(), [&nothing, logits](int64_t i, int64_t) {
            const Vector x = load(logits + i);
            nothing += x - x;  // no number for an infinity or what is none
        });
    }
    return sum_of(nothing) == 0;
}

// The pixels in the rows of cells top .. bottom.
void add_band(const Task& task, int64_t sample, int64_t top, int64_t bottom, const Memory& m, Sums& sums) {
    const Axis &rows = task.rows, &columns = task.columns;
    std::fill_n(m.grads, (COLUMNS + 1) * task.classes.width, 0.0f);
    std::fill_n(m.own, task.classes.width, 0.0f);
    for (int64_t first = 0; first < columns.cells(); first += COLUMNS) {
        Tile tile{sample, first, std::min(first + COLUMNS, columns.cells()), true};
        tile.finite = all_finite(task, tile, top, bottom);
        const int64_t left = columns.first_pixel(tile.first), right = columns.first_pixel(tile.last);
        for (int64_t row = rows.first_pixel(top); row < rows.first_pixel(bottom); row++) {
            const int64_t logits = task.logit(sample, rows.firsts[row], first);
            const float* shares = rows.weights + 2 * row;
            make_line(task, tile, task.logits + logits, shares, m);
            for (int64_t column = left; column < right; column++)
                add_pixel(task, tile, (sample * rows.pixels + row) * columns.pixels + column, column, m, sums);
            if (task.grad) flush(task, tile, task.grad + logits, shares, m);
        }
    }
    sums.settle();
}

}  // namespace

extern "C" {

// Bands of a map of logits, and floats of `memory` for each thread.
int64_t cross_entropy_bands(int64_t height) { return (height - 1 + ROWS - 1) / ROWS; }
int64_t cross_entropy_memory(int64_t classes) { return Memory::size(Classes(classes).width); }

// Of logits (n, height, width, classes) that are resized to labels (n, label_rows, label_columns): row y is made of the
// logits row_firsts[y] and row_firsts[y] + 1 with row_weights (label_rows, 2); columns likewise. Sums over bands of
// pixels are left in losses and hits (n, bands), hits of -1 where a label is neither `ignored` nor a class. The gradient
// of the sum of all is added to `grad`, as logits, if there is one. At least two rows and columns, and LANES classes.
void cross_entropy(const float* logits, const int64_t* labels, const float* weight, const int64_t* row_firsts,
                   const float* row_weights, const int64_t* column_firsts, const float* column_weights, int64_t n,
                   int64_t height, int64_t width, int64_t classes, int64_t label_rows, int64_t label_columns,
                   int64_t ignored, float* grad, double* losses, int64_t* hits, float* memory, int64_t threads) {
    const Task task{logits, labels, weight, {row_firsts, row_weights, label_rows, height},
                    {column_firsts, column_weights, label_columns, width}, Classes(classes), ignored, grad};
    const int64_t bands = cross_entropy_bands(height);
    for (int64_t odd = 0; odd < 2; odd++) {  // neighbouring bands share a row of the gradient
        const int64_t count = (bands + 1 - odd) / 2;
        in_parallel(n * count, threads, [&](int64_t from, int64_t to, int64_t thread) {
            const Memory m(memory + thread * cross_entropy_memory(classes), task.classes.width);
            for (int64_t i = from; i < to; i++) {
                const int64_t sample = i / count, band = i % count * 2 + odd, top = band * ROWS;
                Sums sums;
                add_band(task, sample, top, std::min(top + ROWS, task.rows.cells()), m, sums);
                losses[sample * bands + band] = sums.loss;
                hits[sample * bands + band] = sums.wrong ? -1 : sums.hits;
            }
        });
    }
}
}
