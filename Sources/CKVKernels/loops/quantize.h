// From values to codes, scale codes and means.
//
// Scales and means are searched on what will be stored: a candidate's error is that of its rounded scale. Loops run over rows
// outside and the columns of a block inside, so that vectors lie across columns and every sum runs in one order.

#include "../quantize.h"

enum { Q = KV_QUANTIZE_BLOCK };

// A group's values in a block of columns.
typedef struct {
    const float *x;
    size_t stride, rows, width, first; // `first` column of the block
} kv_group;

#define ALWAYS __attribute__((always_inline)) static inline
#define COLUMNS for (size_t c = 0; c < width; c++)

static void lay_out(kv_quantizing *s) {
    size_t n = s->columns;
    s->scale = (float *)(s + 1);
    s->mean = s->scale + s->groups * n;
    s->unit = s->mean + s->groups * n;
    s->differences = s->unit + n;
    s->constant = (uint8_t *)(s->differences + s->group * Q);
}

static kv_group group_of(const kv_quantizing *s, size_t group, size_t first) {
    size_t row = group * s->group, left = s->columns - first;
    return (kv_group){.x = s->values + row * s->columns + first, .stride = s->columns,
                      .rows = s->rows - row < s->group ? s->rows - row : s->group, .width = left < Q ? left : Q, .first = first};
}

// MARK: wanted scales and means

ALWAYS void measure_range(kv_group g, size_t width, float *restrict low, float *restrict high) {
    COLUMNS low[c] = high[c] = g.x[c];
    for (size_t r = 1; r < g.rows; r++) {
        const float *restrict x = g.x + r * g.stride;
        COLUMNS {
            low[c] = x[c] < low[c] ? x[c] : low[c];
            high[c] = x[c] > high[c] ? x[c] : high[c];
        }
    }
}

ALWAYS void measure_mean(kv_group g, size_t width, float *restrict mean) {
    COLUMNS mean[c] = 0;
    for (size_t r = 0; r < g.rows; r++) {
        const float *restrict x = g.x + r * g.stride;
        COLUMNS mean[c] += x[c];
    }
    COLUMNS mean[c] /= (float)g.rows;
}

// The mean of the values' distances from `center`.
ALWAYS void measure_distance(kv_group g, size_t width, const float *restrict center, float *restrict mean) {
    COLUMNS mean[c] = 0;
    for (size_t r = 0; r < g.rows; r++) {
        const float *restrict x = g.x + r * g.stride;
        COLUMNS mean[c] += fabsf(x[c] - center[c]);
    }
    COLUMNS mean[c] /= (float)g.rows;
}

// The mean distance from `center` of the values farther from it than `threshold` times `mean_distance`.
ALWAYS void measure_centroid(kv_group g, size_t width, const float *restrict center, float threshold,
                             const float *restrict mean_distance, float *restrict centroid) {
    float count[Q], limit[Q];
    COLUMNS {
        count[c] = 0;
        limit[c] = threshold * mean_distance[c];
        centroid[c] = 0;
    }
    for (size_t r = 0; r < g.rows; r++) {
        const float *restrict x = g.x + r * g.stride;
        COLUMNS {
            float distance = fabsf(x[c] - center[c]);
            int far = distance > limit[c];
            count[c] += far ? 1.0f : 0.0f;
            centroid[c] += far ? distance : 0.0f;
        }
    }
    COLUMNS centroid[c] = count[c] > 0 ? centroid[c] / count[c] : 0;
}

ALWAYS void measure_block(const kv_quantizer *q, kv_group g, size_t width, float *restrict scale, float *restrict mean) {
    if (q->scheme == KV_UNIFORM) {
        float low[Q], high[Q];
        measure_range(g, width, low, high);
        COLUMNS {
            scale[c] = (high[c] - low[c]) / (float)(q->levels - 1);
            mean[c] = low[c];
        }
        return;
    }
    int published = q->levels_kind == KV_LEVELS_PUBLISHED;
    float center[Q], distance[Q], centroid[Q];
    if (q->keeps_mean && !published) measure_mean(g, width, center);
    else COLUMNS center[c] = 0;
    measure_distance(g, width, center, distance);
    COLUMNS mean[c] = center[c];
    if (q->scheme == KV_SIGN) {
        // The published levels {0, s} are the mean s/2 and the scale s/2.
        COLUMNS scale[c] = published ? distance[c] / 2 : distance[c];
        if (published) COLUMNS mean[c] = scale[c];
    } else if (q->levels_kind != KV_LEVELS_CENTROID) {
        COLUMNS scale[c] = published ? 1 : distance[c];
    } else {
        measure_centroid(g, width, center, q->threshold, distance, centroid);
        COLUMNS scale[c] = centroid[c];
    }
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

// Centers the codes on the median scale and takes the finest steps, up to steps_max, whose range holds all of them.
static void choose_anchor(kv_quantizing *s) {
    uint32_t histogram[256] = {0}, total = 0, below = 0;
    for (size_t i = 0; i < s->groups * s->columns; i++) {
        uint32_t bits;
        memcpy(&bits, s->scale + i, 4);
        if (bits == 0) continue;
        histogram[bits >> 23 & 255]++;
        total++;
    }
    s->steps = s->quantizer->steps_max;
    s->anchor = 0;
    if (total == 0) return;
    int lowest = 0, highest = 255, median = 0;
    while (histogram[lowest] == 0) lowest++;
    while (histogram[highest] == 0) highest--;
    for (median = lowest; (below += histogram[median]) * 2 < total;) median++;
    // One octave above for rounding, two below for the search.
    while (s->steps > 0 && highest - lowest + 4 > 254 >> s->steps) s->steps--;
    int reach = 127 >> s->steps, exponent = median - 127;
    if (exponent > lowest - 127 - 2 + reach) exponent = lowest - 127 - 2 + reach;
    if (exponent < highest - 127 + 2 - reach) exponent = highest - 127 + 2 - reach;
    s->anchor = exponent < -90 ? -90 : exponent > 90 ? 90 : exponent;
}

// MARK: scale codes

static void fill_tables(kv_quantizing *s) {
    int per_octave = 1 << s->steps;
    kv_scale_values(s->anchor, s->steps, s->table);
    // Between 2^-126 and 2^127 the values of one octave are those of the next times two.
    s->bounds_hold = s->anchor - 128 / per_octave > -126 && s->anchor + 128 / per_octave < 127;
    // Code 128 is the anchor's power of two: the last octave that is whole lies below it.
    const float *values = s->table + 128 - per_octave;
    double unit = ldexp(1, 2 * (1 - s->anchor));
    for (int k = 0; k < per_octave; k++) s->bounds[k] = (double)values[k] * values[k + 1] * unit;
}

// kv_scale_code of a block of positive scales.
ALWAYS void code_scales(const kv_quantizing *s, size_t width, const float *restrict scale, uint8_t *restrict codes) {
    int holds = s->bounds_hold;
    COLUMNS holds &= scale[c] >= 0x1p-126f;
    if (!holds) {
        COLUMNS codes[c] = kv_scale_code(s->table, s->anchor, s->steps, scale[c]);
        return;
    }
    double square[Q];
    int32_t code[Q];
    COLUMNS {
        uint32_t bits = bits_of_float(scale[c]);
        double mantissa = float_of_bits((bits & 0x007FFFFF) | 0x3F800000);
        square[c] = mantissa * mantissa;
        code[c] = 128 + (((int32_t)(bits >> 23) - 127 - s->anchor) << s->steps);
    }
    for (int k = 0; k < 1 << s->steps; k++) {
        double bound = s->bounds[k];
        COLUMNS code[c] += square[c] > bound;
    }
    COLUMNS codes[c] = (uint8_t)(code[c] < 1 ? 1 : code[c] > 255 ? 255 : code[c]);
}

// MARK: search

// What is tried for a group's columns, and how well it fits.
typedef struct {
    float step[Q], offset[Q], inverse[Q], error[Q];
    float sum_q[Q], sum_qq[Q], sum_qx[Q];
    uint8_t codes[Q];
} kv_trial;

// The best found.
typedef struct {
    float mean[Q], error[Q];
    uint8_t codes[Q];
} kv_found;

ALWAYS float code_of(float value, float offset, float inverse, float last) {
    float code = (value - offset) * inverse + 0.5f;
    code = code > 0 ? code : 0;
    return (float)(int32_t)(code < last ? code : last);
}

ALWAYS void measure_error(kv_group g, size_t width, float last, kv_trial *restrict t) {
    COLUMNS t->error[c] = 0;
    for (size_t r = 0; r < g.rows; r++) {
        const float *restrict x = g.x + r * g.stride;
        COLUMNS {
            float difference = x[c] - (t->offset[c] + code_of(x[c], t->offset[c], t->inverse[c], last) * t->step[c]);
            t->error[c] += difference * difference;
        }
    }
}

// The same, with the sums that a least-squares line through (code, value) needs.
ALWAYS void measure_fit(kv_group g, size_t width, float last, kv_trial *restrict t) {
    COLUMNS t->error[c] = t->sum_q[c] = t->sum_qq[c] = t->sum_qx[c] = 0;
    for (size_t r = 0; r < g.rows; r++) {
        const float *restrict x = g.x + r * g.stride;
        COLUMNS {
            float code = code_of(x[c], t->offset[c], t->inverse[c], last);
            float difference = x[c] - (t->offset[c] + code * t->step[c]);
            t->error[c] += difference * difference;
            t->sum_q[c] += code;
            t->sum_qq[c] += code * code;
            t->sum_qx[c] += code * x[c];
        }
    }
}

ALWAYS void take_codes(const kv_quantizing *s, size_t width, kv_trial *t) {
    COLUMNS t->step[c] = s->table[t->codes[c]];
    COLUMNS t->inverse[c] = 1 / t->step[c];
}

ALWAYS void keep_better(size_t width, const kv_trial *t, kv_found *found, int first) {
    COLUMNS {
        int better = first || t->error[c] < found->error[c];
        found->error[c] = better ? t->error[c] : found->error[c];
        found->mean[c] = better ? t->offset[c] : found->mean[c];
        found->codes[c] = better ? t->codes[c] : found->codes[c];
    }
}

// Lloyd's iteration for evenly spaced levels: fit scale and offset to the codes, recode, keep what got better.
ALWAYS void refine_block(const kv_quantizing *s, kv_group g, size_t width, float last, kv_trial *t, kv_found *found) {
    float mean_x[Q], slope[Q];
    measure_mean(g, width, mean_x);
    memcpy(t->codes, found->codes, sizeof t->codes);
    COLUMNS t->offset[c] = found->mean[c];
    take_codes(s, width, t);
    measure_fit(g, width, last, t);
    for (int round = 0; round < 2; round++) {
        float count = (float)g.rows, mean_q[Q];
        uint8_t usable[Q], fitted[Q];
        COLUMNS {
            mean_q[c] = t->sum_q[c] / count;
            float covariance = t->sum_qx[c] / count - mean_q[c] * mean_x[c];
            float variance = t->sum_qq[c] / count - mean_q[c] * mean_q[c];
            slope[c] = covariance / variance;
            usable[c] = variance > 0 && slope[c] > s->table[1] && slope[c] < s->table[255];
            slope[c] = usable[c] ? slope[c] : 1;
        }
        code_scales(s, width, slope, fitted);
        COLUMNS t->codes[c] = usable[c] ? fitted[c] : found->codes[c];
        take_codes(s, width, t);
        COLUMNS t->offset[c] = usable[c] ? mean_x[c] - t->step[c] * mean_q[c] : found->mean[c];
        measure_fit(g, width, last, t);
        keep_better(width, t, found, 0);
    }
}

ALWAYS void search_uniform(const kv_quantizing *s, kv_group g, size_t width, const float *restrict scale, float *restrict mean,
                           uint8_t *restrict codes) {
    const kv_quantizer *q = s->quantizer;
    float last = (float)(q->levels - 1), ratio = 1, low[Q], high[Q], wanted[Q];
    kv_trial t;
    kv_found found;
    measure_range(g, width, low, high);
    int candidates = q->search == KV_SEARCH_MINMAX ? 1 : q->clip_candidates;
    for (int i = 0; i < candidates; i++, ratio *= q->clip_ratio) {
        COLUMNS {
            wanted[c] = scale[c] * ratio;
            wanted[c] = wanted[c] > 0 ? wanted[c] : 1;
        }
        code_scales(s, width, wanted, t.codes);
        take_codes(s, width, &t);
        COLUMNS t.offset[c] = 0.5f * (low[c] + high[c]) - t.step[c] * (0.5f * last);
        measure_error(g, width, last + 0.5f, &t);
        keep_better(width, &t, &found, i == 0);
    }
    if (q->search == KV_SEARCH_LEAST_SQUARES) refine_block(s, g, width, last + 0.5f, &t, &found);
    COLUMNS wanted[c] = scale[c] > 0 ? scale[c] : 1;
    code_scales(s, width, wanted, t.codes);
    COLUMNS {
        uint8_t code = s->constant[g.first + c] ? t.codes[c] : found.codes[c];
        codes[c] = scale[c] > 0 ? code : 0;
        mean[c] = low[c] == high[c] ? low[c] : found.mean[c];
    }
}

ALWAYS void search_block(const kv_quantizing *s, kv_group g, size_t width, const float *restrict scale, float *restrict mean,
                         uint8_t *restrict codes) {
    if (s->quantizer->scheme == KV_UNIFORM) {
        search_uniform(s, g, width, scale, mean, codes);
        return;
    }
    float wanted[Q];
    uint8_t found[Q];
    COLUMNS wanted[c] = scale[c] > 0 ? scale[c] : 1;
    code_scales(s, width, wanted, found);
    COLUMNS codes[c] = scale[c] > 0 ? found[c] : 0;
}

// MARK: codes

static inline int32_t round_mean(float mean, float unit) {
    float ratio = mean / (unit == 0 ? 1 : unit);
    ratio = ratio < -8388607.0f ? -8388607.0f : ratio > 8388607.0f ? 8388607.0f : ratio;
    return unit == 0 ? 0 : (int32_t)(ratio + (ratio < 0 ? -0.5f : 0.5f));
}

static void round_means(kv_quantizing *s, const uint8_t *scales, int32_t *means) {
    const kv_quantizer *q = s->quantizer;
    int keeps = q->scheme == KV_UNIFORM || q->keeps_mean;
    int32_t lift = q->scheme == KV_SIGN ? 1 << q->mean_shift : 0;
    size_t n = s->columns;
    mean_units(scales, s->groups, n, s->table, q->mean_shift, s->unit);
    for (size_t g = 0; g < s->groups; g++) {
        const float *restrict mean = s->mean + g * n;
        int32_t *restrict out = means + g * n;
        for (size_t c = 0; c < n; c++) {
            int32_t rounded = keeps ? round_mean(mean[c], s->unit[c]) : 0;
            // The upper sign level of a constant group is the constant.
            out[c] = s->constant[c] ? rounded - lift : rounded;
        }
    }
}

ALWAYS void code_uniform(kv_group g, size_t width, float last, const float *restrict inverse, const float *restrict offset,
                         uint8_t *restrict codes) {
    for (size_t r = 0; r < g.rows; r++) {
        const float *restrict x = g.x + r * g.stride;
        uint8_t *restrict to = codes + r * g.stride;
        COLUMNS to[c] = (uint8_t)(int32_t)code_of(x[c], offset[c], inverse[c], last);
    }
}

ALWAYS void code_sign(kv_group g, size_t width, const float *restrict step, const float *restrict threshold,
                      uint8_t *restrict codes) {
    for (size_t r = 0; r < g.rows; r++) {
        const float *restrict x = g.x + r * g.stride;
        uint8_t *restrict to = codes + r * g.stride;
        COLUMNS to[c] = x[c] >= threshold[c] && step[c] > 0;
    }
}

ALWAYS void code_ternary(kv_group g, size_t width, const float *restrict threshold, const float *restrict offset,
                         uint8_t *restrict codes) {
    for (size_t r = 0; r < g.rows; r++) {
        const float *restrict x = g.x + r * g.stride;
        uint8_t *restrict to = codes + r * g.stride;
        COLUMNS {
            float value = x[c] - offset[c];
            to[c] = (uint8_t)(1 + (value > threshold[c]) - (value < -threshold[c]));
        }
    }
}

// Attention averages values over many tokens, so an error shared by a group's tokens hurts more than errors that cancel. Up to
// three times, the code whose move by one level raises the squared error least is moved against the group's summed error, as
// long as squared error + balance / rows * summed error squared falls.
ALWAYS void balance_ternary(const kv_quantizing *s, kv_group g, size_t width, const float *restrict step,
                            const float *restrict offset, uint8_t *restrict codes) {
    float weight = s->quantizer->balance / (float)g.rows, sum[Q], cost[Q];
    uint32_t choice[Q];
    COLUMNS sum[c] = 0;
    for (size_t r = 0; r < g.rows; r++) {
        const float *restrict x = g.x + r * g.stride;
        const uint8_t *restrict from = codes + r * g.stride;
        float *restrict difference = s->differences + r * Q;
        COLUMNS {
            difference[c] = x[c] - (offset[c] + ((float)from[c] - 1) * step[c]);
            sum[c] += difference[c];
        }
    }
    for (int round = 0; round < 3; round++) {
        COLUMNS {
            cost[c] = INFINITY;
            choice[c] = 0;
        }
        for (size_t r = 0; r < g.rows; r++) {
            const uint8_t *restrict from = codes + r * g.stride;
            const float *restrict difference = s->differences + r * Q;
            COLUMNS {
                float move = sum[c] > 0 ? 1.0f : -1.0f, end = sum[c] > 0 ? 2.0f : 0.0f;
                float change = step[c] * step[c] - 2 * difference[c] * move * step[c];
                change = (float)from[c] != end ? change : INFINITY;
                choice[c] = change < cost[c] ? (uint32_t)r : choice[c];
                cost[c] = change < cost[c] ? change : cost[c];
            }
        }
        COLUMNS {
            float move = sum[c] > 0 ? 1.0f : -1.0f, moved = sum[c] - move * step[c];
            if (step[c] > 0 && cost[c] + weight * (moved * moved - sum[c] * sum[c]) < 0) {
                uint8_t *code = codes + choice[c] * g.stride + c;
                *code = (uint8_t)((float)*code + move);
                s->differences[choice[c] * Q + c] = g.x[choice[c] * g.stride + c] - (offset[c] + ((float)*code - 1) * step[c]);
                sum[c] = moved;
            }
        }
    }
}

ALWAYS void code_block(const kv_quantizing *s, kv_group g, size_t width, const uint8_t *scales, const int32_t *means,
                       uint8_t *codes) {
    const kv_quantizer *q = s->quantizer;
    float step[Q], inverse[Q], offset[Q], threshold[Q];
    COLUMNS step[c] = s->table[scales[c]];
    COLUMNS {
        inverse[c] = step[c] > 0 ? 1 / step[c] : 0;
        offset[c] = (float)means[c] * s->unit[g.first + c];
    }
    if (q->scheme == KV_UNIFORM) {
        COLUMNS inverse[c] = s->constant[g.first + c] ? 0 : inverse[c];
        code_uniform(g, width, (float)(q->levels - 1) + 0.5f, inverse, offset, codes);
    } else if (q->scheme == KV_SIGN) {
        // The published codes are signs, whatever their levels.
        int published = q->levels_kind == KV_LEVELS_PUBLISHED;
        COLUMNS threshold[c] = published ? 0 : offset[c];
        code_sign(g, width, step, threshold, codes);
    } else {
        float distance[Q];
        measure_distance(g, width, offset, distance);
        COLUMNS threshold[c] = step[c] > 0 ? q->threshold * distance[c] : INFINITY;
        code_ternary(g, width, threshold, offset, codes);
        if (q->balance > 0) balance_ternary(s, g, width, step, offset, codes);
    }
}

// Calls a function for each block of a group, whole blocks with their width as a constant.
#define EACH_BLOCK(group, call)                                       \
    for (size_t first = 0; first < s->columns; first += Q) {          \
        kv_group g = group_of(s, group, first);                       \
        size_t at = (group) * s->columns + first;                     \
        if (g.width == Q) { enum { width = Q }; call; }               \
        else { size_t width = g.width; call; }                        \
    }

static void quantize(const kv_quantizer *quantizer, const float *values, size_t rows, size_t columns, size_t group,
                     uint8_t *codes, uint8_t *scales, int32_t *means, int8_t *anchor, uint8_t *steps, void *scratch) {
    kv_quantizing *s = scratch;
    *s = (kv_quantizing){.quantizer = quantizer, .values = values, .rows = rows, .columns = columns, .group = group,
                         .groups = (rows + group - 1) / group};
    lay_out(s);
    for (size_t i = 0; i < s->groups; i++) EACH_BLOCK(i, measure_block(quantizer, g, width, s->scale + at, s->mean + at));
    settle_columns(s);
    choose_anchor(s);
    fill_tables(s);
    for (size_t i = 0; i < s->groups; i++) EACH_BLOCK(i, search_block(s, g, width, s->scale + at, s->mean + at, scales + at));
    round_means(s, scales, means);
    for (size_t i = 0; i < s->groups; i++) {
        EACH_BLOCK(i, code_block(s, g, width, scales + at, means + at, codes + i * group * columns + first));
    }
    *anchor = (int8_t)s->anchor;
    *steps = (uint8_t)s->steps;
}

#undef EACH_BLOCK
#undef COLUMNS
#undef ALWAYS
