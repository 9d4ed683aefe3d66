// From values to codes, scale codes and means.
//
// Scales and means are searched on what will be stored: a candidate's error is that of its rounded scale. Loops run over rows
// outside and the columns of a block inside, so that vectors lie across columns and every sum runs in one order.

#include "../quantize.h"
#include "vectors.h"

enum { Q = KV_QUANTIZE_BLOCK, TILE = KV_QUANTIZE_TILE, COLUMNS16 = 16 };

// A group's values in a block of columns.
typedef struct {
    const float *x;
    size_t stride, rows, width, first; // `first` column of the block
} kv_group;

enum { VECTORS = TILE / 16 };
#define EACH_VECTOR for (int v = 0; v < VECTORS; v++)
#define TILE_COLUMNS for (size_t c = 0; c < TILE; c++)
#define COLUMNS for (size_t c = 0; c < width; c++)

static void lay_out(kv_quantizing *s) {
    size_t n = s->columns;
    s->error = (double *)(s + 1);
    s->energy = s->error + n;
    s->scale = (float *)(s->energy + n);
    s->mean = s->scale + s->groups * n;
    s->extent = s->mean + s->groups * n;
    s->unit = s->extent + s->groups * n;
    s->tiles = (kv_ternary_tile *)(s->unit + n);
    s->work = (int16_t *)(s->tiles + s->groups * ((n + TILE - 1) / TILE));
    s->constant = (uint8_t *)(s->work + s->group * COLUMNS16);
    memset(s->error, 0, 2 * n * sizeof(double));
}

static kv_group group_of(const kv_quantizing *s, size_t group, size_t first) {
    size_t row = group * s->group, left = s->columns - first;
    return (kv_group){.x = s->values + row * s->columns + first, .stride = s->columns,
                      .rows = s->rows - row < s->group ? s->rows - row : s->group, .width = left < Q ? left : Q, .first = first};
}

// MARK: wanted scales and means

// A row of a tile; columns past `width` are zero.
ALWAYS void load_row(kv_group g, size_t width, size_t row, kv_f16 x[VECTORS]) {
    EACH_VECTOR x[v] = (kv_f16){0};
    memcpy(x, g.x + row * g.stride, width * sizeof(float));
}

// The last bytes of words of a tile.
ALWAYS void put_bytes(const kv_i16 words[VECTORS], size_t width, uint8_t *restrict to) {
    kv_b16 bytes[VECTORS];
    EACH_VECTOR bytes[v] = __builtin_convertvector(words[v], kv_b16);
    memcpy(to, bytes, width);
}

// Scales of a tile of uniform groups by their range; `mean` becomes the minimum, `extent` the maximum, which the search needs again.
ALWAYS void measure_uniform(kv_quantizing *s, kv_group g, size_t width, float *restrict scale, float *restrict mean,
                            float *restrict extent) {
    kv_f16 low[VECTORS], high[VECTORS], x[VECTORS], share = (kv_f16){0} + (float)(s->quantizer->levels - 1);
    load_row(g, width, 0, low);
    memcpy(high, low, sizeof high);
    for (size_t r = 1; r < g.rows; r++) {
        load_row(g, width, r, x);
        EACH_VECTOR {
            low[v] = least16(x[v], low[v]);
            high[v] = greatest16(x[v], high[v]);
        }
    }
    EACH_VECTOR x[v] = (high[v] - low[v]) / share;
    memcpy(scale, x, width * sizeof(float));
    memcpy(mean, low, width * sizeof(float));
    memcpy(extent, high, width * sizeof(float));
}

// Scales of a tile of sign groups by the mean distance from their mean, or from 0 where none is kept.
ALWAYS void measure_sign(kv_quantizing *s, kv_group g, size_t width, float *restrict scale, float *restrict mean) {
    const kv_quantizer *q = s->quantizer;
    int published = q->levels_kind == KV_LEVELS_PUBLISHED;
    kv_f16 center[VECTORS] = {0}, distance[VECTORS] = {0}, x[VECTORS], rows = (kv_f16){0} + (float)g.rows;
    if (q->keeps_mean && !published) {
        for (size_t r = 0; r < g.rows; r++) {
            load_row(g, width, r, x);
            EACH_VECTOR center[v] += x[v];
        }
        EACH_VECTOR center[v] /= rows;
    }
    for (size_t r = 0; r < g.rows; r++) {
        load_row(g, width, r, x);
        EACH_VECTOR distance[v] += magnitude16(x[v] - center[v]);
    }
    EACH_VECTOR {
        distance[v] /= rows;
        // The published levels {0, s} are the mean s/2 and the scale s/2.
        if (published) center[v] = distance[v] = distance[v] / 2;
    }
    memcpy(scale, distance, width * sizeof(float));
    memcpy(mean, center, width * sizeof(float));
}

// A column of constant groups has no spread to take its unit from: it gets a unit of 2^-10 of its largest mean, so that
// bfloat16 and float16 constants come back as they were. In other columns scales are raised until every mean fits 20 bits.
static void settle_columns(kv_quantizing *s) {
    const kv_quantizer *q = s->quantizer;
    size_t n = s->columns;
    int precision = q->scheme == KV_SIGN ? 13 : 10;
    // 2^(mean_shift - 20): a power of two, so that the product is exact wherever it is normal.
    float share = ldexpf(1, q->mean_shift - 20);
    for (size_t first = 0; first < n; first += Q) {
        size_t width = n - first < Q ? n - first : Q;
        float largest[Q], spread[Q];
        COLUMNS largest[c] = spread[c] = 0;
        for (size_t g = 0; g < s->groups; g++) {
            const float *mean = s->mean + g * n + first, *scale = s->scale + g * n + first;
            COLUMNS {
                float magnitude = fabsf(mean[c]);
                largest[c] = magnitude > largest[c] ? magnitude : largest[c];
                spread[c] = scale[c] > spread[c] ? scale[c] : spread[c];
            }
        }
        COLUMNS s->constant[first + c] = spread[c] == 0 && largest[c] > 0x1p-100f;
        for (size_t g = 0; g < s->groups; g++) {
            float *scale = s->scale + g * n + first;
            COLUMNS {
                float floor = largest[c] * share;
                scale[c] = scale[c] > 0 && scale[c] < floor ? floor : scale[c];
            }
        }
        COLUMNS {
            if (!s->constant[first + c]) continue;
            float scale = ldexpf(1, ilogbf(largest[c]) - precision + q->mean_shift);
            for (size_t g = 0; g < s->groups; g++) s->scale[g * n + first + c] = scale;
        }
    }
}

// How many of the wanted scales, none of them negative, have bits below a bound.
static size_t count_below(const kv_quantizing *s, uint32_t bound) {
    uint32_t count = 0;
    for (size_t i = 0; i < s->groups * s->columns; i++) count += bits_of_float(s->scale[i]) < bound;
    return count;
}

// The exponents, as they are in a float's bits, of the least, the median and the greatest of the wanted scales that are not 0. The median
// is found bit by bit: to count exponents one after the other takes longer.
static void find_exponents(const kv_quantizing *s, size_t zeros, int *lowest, int *median, int *highest) {
    size_t count = s->groups * s->columns;
    uint32_t least = UINT32_MAX, greatest = 0, below = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = bits_of_float(s->scale[i]), from_one = bits - 1;
        least = from_one < least ? from_one : least; // zeros come last
        greatest = bits > greatest ? bits : greatest;
    }
    for (uint32_t bit = 128; bit > 0; bit /= 2) {
        if (2 * (count_below(s, (below | bit) << 23) - zeros) < count - zeros) below |= bit;
    }
    *lowest = (int)((least + 1) >> 23);
    *median = (int)below;
    *highest = (int)(greatest >> 23);
}

// Centers the codes on the median scale and takes the finest steps, up to steps_max, whose range holds all of them.
static void choose_anchor(kv_quantizing *s) {
    size_t zeros = count_below(s, 1);
    s->steps = s->quantizer->steps_max;
    s->anchor = 0;
    if (zeros == s->groups * s->columns) return;
    int lowest, median, highest;
    find_exponents(s, zeros, &lowest, &median, &highest);
    // One octave above for rounding, two below for the search.
    while (s->steps > 0 && highest - lowest + 4 > 254 >> s->steps) s->steps--;
    int reach = 127 >> s->steps, exponent = median - 127;
    if (exponent > lowest - 127 - 2 + reach) exponent = lowest - 127 - 2 + reach;
    if (exponent < highest - 127 + 2 - reach) exponent = highest - 127 + 2 - reach;
    s->anchor = exponent < -90 ? -90 : exponent > 90 ? 90 : exponent;
}

// MARK: scale codes

// The least float above 1 whose square is greater than the double.
static float least_beyond(double square) {
    float root = (float)sqrt(square);
    while ((double)root * root > square) root = nextafterf(root, 0);
    while ((double)root * root <= square) root = nextafterf(root, 4);
    return root;
}

static void fill_tables(kv_quantizing *s) {
    int per_octave = 1 << s->steps;
    kv_scale_values(s->anchor, s->steps, s->table);
    // Between 2^-126 and 2^127 the values of one octave are those of the next times two.
    s->lowest = s->anchor - 128 / per_octave;
    s->bounds_hold = s->lowest > -126 && s->anchor + 128 / per_octave < 127;
    // Code 128 is the anchor's power of two: the last octave that is whole lies below it.
    const float *values = s->table + 128 - per_octave;
    double unit = ldexp(1, 2 * (1 - s->anchor));
    for (int k = 0; k < per_octave; k++) {
        s->bounds[k] = least_beyond((double)values[k] * values[k + 1] * unit);
        s->mantissas[k] = bits_of_float(values[k]) & 0x007FFFFF;
    }
}

// kv_scale_code of a block of positive scales.
ALWAYS void code_scales(const kv_quantizing *s, size_t width, const float *restrict scale, uint8_t *restrict codes) {
    int holds = s->bounds_hold;
    COLUMNS holds &= scale[c] >= 0x1p-126f;
    if (!holds) {
        COLUMNS codes[c] = kv_scale_code(s->table, s->anchor, s->steps, scale[c]);
        return;
    }
    float mantissa[Q];
    int32_t code[Q];
    COLUMNS {
        uint32_t bits = bits_of_float(scale[c]);
        mantissa[c] = float_of_bits((bits & 0x007FFFFF) | 0x3F800000);
        code[c] = 128 + (((int32_t)(bits >> 23) - 127 - s->anchor) << s->steps);
    }
    for (int k = 0; k < 1 << s->steps; k++) {
        float bound = s->bounds[k];
        COLUMNS code[c] += mantissa[c] >= bound;
    }
    COLUMNS codes[c] = (uint8_t)(code[c] < 1 ? 1 : code[c] > 255 ? 255 : code[c]);
}

// The values of scale codes. Up to four mantissas are chosen from, not looked up: vectors have no quick way to do that.
ALWAYS void scale_values(const kv_quantizing *s, size_t width, const uint8_t *restrict codes, float *restrict values) {
    if (!s->bounds_hold || s->steps > 2) {
        COLUMNS values[c] = s->table[codes[c]];
        return;
    }
    int steps = s->steps;
    uint32_t last = (1u << steps) - 1, m[4];
    for (uint32_t k = 0; k < 4; k++) m[k] = s->mantissas[k & last];
    COLUMNS {
        uint32_t code = codes[c], step = code & last, exponent = (uint32_t)(s->lowest + 127) + (code >> steps);
        uint32_t low = step & 1 ? m[1] : m[0], high = step & 1 ? m[3] : m[2];
        uint32_t bits = (step & 2 ? high : low) | exponent << 23;
        values[c] = float_of_bits(code > 0 ? bits : 0);
    }
}

// The same for sixteen scale codes of a table whose octaves are alike, of at most four steps where there is no permutation.
ALWAYS kv_f16 scale_values16(const kv_quantizing *s, kv_i16 code) {
    kv_i16 step = code & ((1 << s->steps) - 1), exponent = (code >> s->steps) + (s->lowest + 127);
#ifdef KV_HAS_AVX512
    kv_i16 mantissa = (kv_i16)_mm512_permutexvar_epi32((__m512i)step, _mm512_loadu_si512(s->mantissas));
#else
    kv_i16 mantissa = {0};
    for (int k = 0; k < 1 << s->steps; k++) mantissa |= (step == k) & (int32_t)s->mantissas[k];
#endif
    return only_where(is_above(__builtin_convertvector(code, kv_f16), (kv_f16){0}), (kv_f16)(mantissa | exponent << 23));
}

// kv_scale_code of sixteen scales, none of them below 2^-126, likewise.
ALWAYS kv_i16 code_scales16(const kv_quantizing *s, kv_f16 scale) {
    kv_f16 mantissa = (kv_f16)(((kv_i16)scale & 0x007FFFFF) | 0x3F800000);
    kv_i16 code = ((((kv_i16)scale >> 23) - (127 + s->anchor)) << s->steps) + 128, one = (kv_i16){0} + 1;
    for (int k = 0; k < 1 << s->steps; k++) code = add_where(is_from(mantissa, (kv_f16){0} + s->bounds[k]), code, one);
    return __builtin_elementwise_min(__builtin_elementwise_max(code, one), one * 255);
}

#include "search.h"
#include "coding.h"
#include "ternary.h"

// Calls a function for each block of a group, whole blocks with their width as a constant.
#define EACH_BLOCK(group, call)                                       \
    for (size_t first = 0; first < s->columns; first += Q) {          \
        kv_group g = group_of(s, group, first);                       \
        size_t at = (group) * s->columns + first;                     \
        if (g.width == Q) { enum { width = Q }; call; }               \
        else { size_t width = g.width; call; }                        \
    }

// The same with sixteen columns.
#define EACH_SIXTEEN(group, call)                                     \
    for (size_t first = 0; first < s->columns; first += COLUMNS16) {  \
        kv_group g = group_of(s, group, first);                       \
        size_t at = (group) * s->columns + first;                     \
        if (g.width >= COLUMNS16) { enum { width = COLUMNS16 }; call; } \
        else { size_t width = g.width; call; }                        \
    }

// The same with tiles.
#define EACH_TILE(group, call)                                        \
    for (size_t first = 0; first < s->columns; first += TILE) {       \
        kv_group g = group_of(s, group, first);                       \
        size_t at = (group) * s->columns + first;                     \
        if (g.width >= TILE) { enum { width = TILE }; call; }         \
        else { size_t width = g.width; call; }                        \
    }

static void quantize_levels(kv_quantizing *s, uint8_t *scales, int32_t *means, uint8_t *packed) {
    for (size_t i = 0; i < s->groups; i++) {
        if (s->quantizer->scheme == KV_UNIFORM) EACH_TILE(i, measure_uniform(s, g, width, s->scale + at, s->mean + at, s->extent + at))
        else EACH_TILE(i, measure_sign(s, g, width, s->scale + at, s->mean + at))
    }
    settle_columns(s);
    choose_anchor(s);
    fill_tables(s);
    for (size_t i = 0; i < s->groups; i++) {
        if (searches_four(s)) EACH_SIXTEEN(i, search_four(s, g, width, s->scale + at, s->extent + at, s->mean + at, scales + at))
        else EACH_BLOCK(i, search_block(s, g, width, s->scale + at, s->extent + at, s->mean + at, scales + at))
    }
    round_means(s, scales, means);
    for (size_t i = 0; i < s->groups; i++) {
        uint8_t *to = packed + i * s->group_bytes;
        if (s->quantizer->scheme == KV_UNIFORM) EACH_TILE(i, code_uniform(s, g, width, scales + at, means + at, to + first))
        else EACH_TILE(i, code_sign(s, g, width, scales + at, means + at, to + first))
    }
}

static void quantize_ternary(kv_quantizing *s, uint8_t *scales, int32_t *means, uint8_t *packed) {
    size_t n = s->columns;
    kv_ternary_tile *tile = s->tiles;
    for (size_t i = 0; i < s->groups; i++) {
        EACH_TILE(i, measure_ternary(s, g, width, tile++, s->scale + at, packed + i * s->group_bytes + first));
    }
    choose_anchor(s);
    fill_tables(s);
    for (size_t i = 0; i < s->groups; i++) {
        EACH_BLOCK(i, code_wanted(s, width, s->scale + at, scales + at));
    }
    memset(means, 0, s->groups * n * sizeof(int32_t));
    tile = s->tiles;
    for (size_t i = 0; i < s->groups; i++) {
        EACH_TILE(i, finish_ternary(s, g, width, tile++, scales + at, packed + i * s->group_bytes + first));
    }
}

static void quantize(const kv_quantizer *quantizer, const float *values, size_t rows, size_t columns, size_t group,
                     uint8_t *packed, uint8_t *scales, int32_t *means, int8_t *anchor, uint8_t *steps, double *error,
                     double *energy, void *scratch) {
    kv_quantizing *s = scratch;
    *s = (kv_quantizing){.quantizer = quantizer, .values = values, .rows = rows, .columns = columns, .group = group,
                         .groups = (rows + group - 1) / group, .group_bytes = group * (size_t)quantizer->code_bits / 8 * columns};
    lay_out(s);
    if (quantizer->scheme == KV_TERNARY) quantize_ternary(s, scales, means, packed);
    else quantize_levels(s, scales, means, packed);
    *error = *energy = 0;
    for (size_t c = 0; c < columns; c++) {
        *error += s->error[c];
        *energy += s->energy[c];
    }
    *anchor = (int8_t)s->anchor;
    *steps = (uint8_t)s->steps;
}

#undef EACH_BLOCK
#undef EACH_TILE
#undef EACH_SIXTEEN
#undef EACH_VECTOR
#undef TILE_COLUMNS
#undef COLUMNS
