// From values to codes, scale codes and means.
//
// Scales and means are searched on what will be stored: a candidate's error is that of its rounded scale. Loops run over rows
// outside and columns inside, so that the compiler makes vectors of columns and every sum runs in one order.

#include "kvkernels.h"

#include <math.h>
#include <string.h>

#pragma STDC FP_CONTRACT OFF

// What kv_quantize works with, laid out in the caller's scratch.
typedef struct {
    const kv_quantizer *quantizer;
    const float *values;
    size_t rows, columns, group, groups;
    float *scale, *mean;                     // [groups][columns], wanted values
    float *low, *high, *step, *offset;       // [columns] each, of one group
    float *inverse, *error, *best_error;     // [columns] each
    float *sum_x, *sum_q, *sum_qq, *sum_qx;  // [columns] each
    float *unit;                             // [columns]
    uint8_t *constant;                       // [columns]: every group of the column holds one value throughout
    uint8_t *candidate;                      // [columns]
    uint32_t *choice;                        // [columns]
    float table[256];
} state;

size_t kv_quantize_scratch(size_t rows, size_t columns, size_t group) {
    size_t groups = (rows + group - 1) / group;
    return sizeof(state) + (2 * groups + 13) * columns * sizeof(float) + columns * (2 + sizeof(uint32_t)) + 64;
}

static void lay_out(state *s) {
    size_t n = s->columns;
    float *at = (float *)(s + 1);
    s->scale = at;
    s->mean = s->scale + s->groups * n;
    float **arrays[] = {&s->low, &s->high, &s->step, &s->offset, &s->inverse, &s->error, &s->best_error,
                        &s->sum_x, &s->sum_q, &s->sum_qq, &s->sum_qx, &s->unit};
    at = s->mean + s->groups * n;
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++, at += n) *arrays[i] = at;
    s->choice = (uint32_t *)at;
    s->constant = (uint8_t *)(s->choice + n);
    s->candidate = s->constant + n;
}

static size_t rows_of(const state *s, size_t group) {
    size_t first = group * s->group;
    return s->rows - first < s->group ? s->rows - first : s->group;
}

static const float *group_values(const state *s, size_t group) { return s->values + group * s->group * s->columns; }

// MARK: wanted scales and means

static void measure_range(const float *restrict x, size_t rows, size_t n, float *restrict low, float *restrict high) {
    memcpy(low, x, n * sizeof(float));
    memcpy(high, x, n * sizeof(float));
    for (size_t r = 1; r < rows; r++) {
        for (size_t c = 0; c < n; c++) {
            float value = x[r * n + c];
            low[c] = value < low[c] ? value : low[c];
            high[c] = value > high[c] ? value : high[c];
        }
    }
}

// The mean of the group's values, or of their distances from `center` when it is given.
static void measure_mean(const float *restrict x, size_t rows, size_t n, const float *restrict center, float *restrict mean) {
    memset(mean, 0, n * sizeof(float));
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < n; c++) mean[c] += center ? fabsf(x[r * n + c] - center[c]) : x[r * n + c];
    }
    for (size_t c = 0; c < n; c++) mean[c] /= (float)rows;
}

// The mean distance from `center` of the values farther from it than `threshold` times `mean_distance`.
static void measure_centroid(const float *restrict x, size_t rows, size_t n, const float *restrict center, float threshold,
                             const float *restrict mean_distance, float *restrict count, float *restrict centroid) {
    memset(count, 0, n * sizeof(float));
    memset(centroid, 0, n * sizeof(float));
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < n; c++) {
            float distance = fabsf(x[r * n + c] - center[c]);
            int far = distance > threshold * mean_distance[c];
            count[c] += far ? 1.0f : 0.0f;
            centroid[c] += far ? distance : 0.0f;
        }
    }
    for (size_t c = 0; c < n; c++) centroid[c] = count[c] > 0 ? centroid[c] / count[c] : 0;
}

static void measure_group(state *s, size_t group) {
    const kv_quantizer *q = s->quantizer;
    const float *x = group_values(s, group);
    size_t n = s->columns, rows = rows_of(s, group);
    float *scale = s->scale + group * n, *mean = s->mean + group * n;
    if (q->scheme == KV_UNIFORM) {
        measure_range(x, rows, n, s->low, s->high);
        for (size_t c = 0; c < n; c++) {
            scale[c] = (s->high[c] - s->low[c]) / (float)(q->levels - 1);
            mean[c] = s->low[c];
        }
        return;
    }
    int published = q->levels_kind == KV_LEVELS_PUBLISHED;
    if (q->keeps_mean && !published) measure_mean(x, rows, n, NULL, mean);
    else memset(mean, 0, n * sizeof(float));
    measure_mean(x, rows, n, mean, s->sum_x);
    if (q->scheme == KV_SIGN) {
        // The published levels {0, s} are the mean s/2 and the scale s/2.
        for (size_t c = 0; c < n; c++) {
            scale[c] = published ? s->sum_x[c] / 2 : s->sum_x[c];
            mean[c] = published ? scale[c] : mean[c];
        }
    } else if (q->levels_kind != KV_LEVELS_CENTROID) {
        for (size_t c = 0; c < n; c++) scale[c] = published ? 1 : s->sum_x[c];
    } else {
        measure_centroid(x, rows, n, mean, q->threshold, s->sum_x, s->sum_q, scale);
    }
}

// A column of constant groups has no spread to take its unit from: it gets a unit of 2^-10 of its largest mean, so that
// bfloat16 and float16 constants come back as they were. In other columns scales are raised until every mean fits 20 bits.
static void settle_columns(state *s) {
    const kv_quantizer *q = s->quantizer;
    size_t n = s->columns;
    int precision = q->scheme == KV_SIGN ? 13 : 10;
    for (size_t c = 0; c < n; c++) {
        float largest = 0, spread = 0;
        for (size_t g = 0; g < s->groups; g++) {
            float magnitude = fabsf(s->mean[g * n + c]);
            largest = magnitude > largest ? magnitude : largest;
            spread = s->scale[g * n + c] > spread ? s->scale[g * n + c] : spread;
        }
        s->constant[c] = spread == 0 && largest > 0x1p-100f;
        if (s->constant[c]) {
            float scale = ldexpf(1, ilogbf(largest) - precision + q->mean_shift);
            for (size_t g = 0; g < s->groups; g++) s->scale[g * n + c] = scale;
        } else {
            float floor = ldexpf(largest, q->mean_shift - 20);
            for (size_t g = 0; g < s->groups; g++) {
                float *scale = s->scale + g * n + c;
                *scale = *scale > 0 && *scale < floor ? floor : *scale;
            }
        }
    }
}

// Centers the codes on the median scale and takes the finest steps, up to steps_max, whose range holds all of them.
static void choose_anchor(const state *s, int *anchor, int *steps) {
    uint32_t histogram[256] = {0}, total = 0, below = 0;
    for (size_t i = 0; i < s->groups * s->columns; i++) {
        uint32_t bits;
        memcpy(&bits, s->scale + i, 4);
        if (bits == 0) continue;
        histogram[bits >> 23 & 255]++;
        total++;
    }
    *steps = s->quantizer->steps_max;
    *anchor = 0;
    if (total == 0) return;
    int lowest = 0, highest = 255, median = 0;
    while (histogram[lowest] == 0) lowest++;
    while (histogram[highest] == 0) highest--;
    for (median = lowest; (below += histogram[median]) * 2 < total;) median++;
    // One octave above for rounding, two below for the search.
    while (*steps > 0 && highest - lowest + 4 > 254 >> *steps) (*steps)--;
    int reach = 127 >> *steps, exponent = median - 127;
    if (exponent > lowest - 127 - 2 + reach) exponent = lowest - 127 - 2 + reach;
    if (exponent < highest - 127 + 2 - reach) exponent = highest - 127 + 2 - reach;
    *anchor = exponent < -90 ? -90 : exponent > 90 ? 90 : exponent;
}

// MARK: search

static void measure_error(const float *restrict x, size_t rows, size_t n, float last, const float *restrict step,
                          const float *restrict offset, const float *restrict inverse, float *restrict error) {
    memset(error, 0, n * sizeof(float));
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < n; c++) {
            float value = x[r * n + c], code = (value - offset[c]) * inverse[c] + 0.5f;
            code = code > 0 ? code : 0;
            code = code < last ? code : last;
            float difference = value - (offset[c] + (float)(int32_t)code * step[c]);
            error[c] += difference * difference;
        }
    }
}

// The same, with the sums that a least-squares line through (code, value) needs.
static void measure_fit(state *s, const float *restrict x, size_t rows, float last) {
    size_t n = s->columns;
    const float *restrict step = s->step, *restrict offset = s->offset, *restrict inverse = s->inverse;
    float *restrict error = s->error, *restrict sum_q = s->sum_q, *restrict sum_qq = s->sum_qq, *restrict sum_qx = s->sum_qx;
    memset(error, 0, n * sizeof(float));
    memset(sum_q, 0, n * sizeof(float));
    memset(sum_qq, 0, n * sizeof(float));
    memset(sum_qx, 0, n * sizeof(float));
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < n; c++) {
            float value = x[r * n + c], code = (value - offset[c]) * inverse[c] + 0.5f;
            code = code > 0 ? code : 0;
            code = code < last ? code : last;
            code = (float)(int32_t)code;
            float difference = value - (offset[c] + code * step[c]);
            error[c] += difference * difference;
            sum_q[c] += code;
            sum_qq[c] += code * code;
            sum_qx[c] += code * value;
        }
    }
}

// Takes the scale codes in `candidate` and the offsets in `offset` where their error is below the best so far.
static void keep_better(state *s, uint8_t *codes, float *mean, int first) {
    for (size_t c = 0; c < s->columns; c++) {
        int better = first || s->error[c] < s->best_error[c];
        s->best_error[c] = better ? s->error[c] : s->best_error[c];
        codes[c] = better ? s->candidate[c] : codes[c];
        mean[c] = better ? s->offset[c] : mean[c];
    }
}

// Lloyd's iteration for evenly spaced levels: fit scale and offset to the codes, recode, keep what got better.
static void refine_group(state *s, const float *x, size_t rows, float last, int anchor, int steps, uint8_t *codes, float *mean) {
    size_t n = s->columns;
    measure_mean(x, rows, n, NULL, s->sum_x);
    for (size_t c = 0; c < n; c++) {
        s->step[c] = s->table[codes[c]];
        s->inverse[c] = 1 / s->step[c];
        s->offset[c] = mean[c];
    }
    measure_fit(s, x, rows, last);
    for (int round = 0; round < 2; round++) {
        for (size_t c = 0; c < n; c++) {
            float count = (float)rows, mean_q = s->sum_q[c] / count;
            float covariance = s->sum_qx[c] / count - mean_q * s->sum_x[c];
            float variance = s->sum_qq[c] / count - mean_q * mean_q;
            float slope = covariance / variance;
            int usable = variance > 0 && slope > s->table[1] && slope < s->table[255];
            s->candidate[c] = usable ? kv_scale_code(s->table, anchor, steps, slope) : codes[c];
            s->step[c] = s->table[s->candidate[c]];
            s->inverse[c] = 1 / s->step[c];
            s->offset[c] = usable ? s->sum_x[c] - s->step[c] * mean_q : mean[c];
        }
        measure_fit(s, x, rows, last);
        keep_better(s, codes, mean, 0);
    }
}

static void search_uniform(state *s, size_t group, int anchor, int steps, uint8_t *codes) {
    const kv_quantizer *q = s->quantizer;
    const float *x = group_values(s, group);
    size_t n = s->columns, rows = rows_of(s, group);
    float *scale = s->scale + group * n, *mean = s->mean + group * n;
    float last = (float)(q->levels - 1), ratio = 1;
    measure_range(x, rows, n, s->low, s->high);
    int candidates = q->search == KV_SEARCH_MINMAX ? 1 : q->clip_candidates;
    for (int i = 0; i < candidates; i++, ratio *= q->clip_ratio) {
        for (size_t c = 0; c < n; c++) {
            float wanted = scale[c] * ratio;
            s->candidate[c] = kv_scale_code(s->table, anchor, steps, wanted > 0 ? wanted : 1);
            s->step[c] = s->table[s->candidate[c]];
            s->inverse[c] = 1 / s->step[c];
            s->offset[c] = 0.5f * (s->low[c] + s->high[c]) - s->step[c] * (0.5f * last);
        }
        measure_error(x, rows, n, last + 0.5f, s->step, s->offset, s->inverse, s->error);
        keep_better(s, codes, mean, i == 0);
    }
    if (q->search == KV_SEARCH_LEAST_SQUARES) refine_group(s, x, rows, last + 0.5f, anchor, steps, codes, mean);
    for (size_t c = 0; c < n; c++) {
        int flat = s->low[c] == s->high[c];
        codes[c] = scale[c] > 0 ? (s->constant[c] ? kv_scale_code(s->table, anchor, steps, scale[c]) : codes[c]) : 0;
        mean[c] = flat ? s->low[c] : mean[c];
    }
}

static void search_group(state *s, size_t group, int anchor, int steps, uint8_t *codes) {
    if (s->quantizer->scheme == KV_UNIFORM) {
        search_uniform(s, group, anchor, steps, codes);
        return;
    }
    const float *scale = s->scale + group * s->columns;
    for (size_t c = 0; c < s->columns; c++) {
        codes[c] = scale[c] > 0 ? kv_scale_code(s->table, anchor, steps, scale[c]) : 0;
    }
}

// MARK: codes

static int32_t round_mean(float mean, float unit) {
    if (unit == 0) return 0;
    float ratio = mean / unit;
    ratio = ratio < -8388607.0f ? -8388607.0f : ratio > 8388607.0f ? 8388607.0f : ratio;
    return (int32_t)(ratio + (ratio < 0 ? -0.5f : 0.5f));
}

static void round_means(state *s, const uint8_t *scales, int32_t *means) {
    const kv_quantizer *q = s->quantizer;
    int keeps = q->scheme == KV_UNIFORM || q->keeps_mean;
    kv_mean_units(scales, s->groups, s->columns, s->table, q->mean_shift, s->unit);
    for (size_t g = 0; g < s->groups; g++) {
        for (size_t c = 0; c < s->columns; c++) {
            size_t at = g * s->columns + c;
            int32_t mean = keeps ? round_mean(s->mean[at], s->unit[c]) : 0;
            // The upper sign level of a constant group is the constant.
            means[at] = s->constant[c] && q->scheme == KV_SIGN ? mean - (1 << q->mean_shift) : mean;
        }
    }
}

static void code_uniform(const float *restrict x, size_t rows, size_t n, float last, const float *restrict inverse,
                         const float *restrict offset, uint8_t *restrict codes) {
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < n; c++) {
            float code = (x[r * n + c] - offset[c]) * inverse[c] + 0.5f;
            code = code > 0 ? code : 0;
            code = code < last ? code : last;
            codes[r * n + c] = (uint8_t)(int32_t)code;
        }
    }
}

static void code_sign(const float *restrict x, size_t rows, size_t n, const float *restrict step, const float *restrict threshold,
                      uint8_t *restrict codes) {
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < n; c++) codes[r * n + c] = x[r * n + c] >= threshold[c] && step[c] > 0;
    }
}

static void code_ternary(const float *restrict x, size_t rows, size_t n, const float *restrict threshold,
                         const float *restrict offset, uint8_t *restrict codes) {
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < n; c++) {
            float value = x[r * n + c] - offset[c];
            codes[r * n + c] = (uint8_t)(1 + (value > threshold[c]) - (value < -threshold[c]));
        }
    }
}

// Attention averages values over many tokens, so an error shared by a group's tokens hurts more than errors that cancel. Up to
// three times, the code whose move by one level raises the squared error least is moved against the group's summed error, as
// long as squared error + balance / rows * summed error squared falls.
static void balance_ternary(state *s, const float *restrict x, size_t rows, uint8_t *restrict codes) {
    size_t n = s->columns;
    const float *restrict step = s->step, *restrict offset = s->offset;
    float *restrict sum = s->sum_x, *restrict cost = s->error, weight = s->quantizer->balance / (float)rows;
    uint32_t *restrict choice = s->choice;
    memset(sum, 0, n * sizeof(float));
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < n; c++) sum[c] += x[r * n + c] - (offset[c] + ((float)codes[r * n + c] - 1) * step[c]);
    }
    for (int round = 0; round < 3; round++) {
        for (size_t c = 0; c < n; c++) {
            cost[c] = INFINITY;
            choice[c] = 0;
        }
        for (size_t r = 0; r < rows; r++) {
            for (size_t c = 0; c < n; c++) {
                float code = (float)codes[r * n + c], move = sum[c] > 0 ? 1.0f : -1.0f;
                float difference = x[r * n + c] - (offset[c] + (code - 1) * step[c]);
                float change = step[c] * step[c] - 2 * difference * move * step[c];
                change = code + move >= 0 && code + move <= 2 ? change : INFINITY;
                choice[c] = change < cost[c] ? (uint32_t)r : choice[c];
                cost[c] = change < cost[c] ? change : cost[c];
            }
        }
        for (size_t c = 0; c < n; c++) {
            float move = sum[c] > 0 ? 1.0f : -1.0f, moved = sum[c] - move * step[c];
            if (step[c] > 0 && cost[c] + weight * (moved * moved - sum[c] * sum[c]) < 0) {
                codes[choice[c] * n + c] = (uint8_t)((float)codes[choice[c] * n + c] + move);
                sum[c] = moved;
            }
        }
    }
}

static void code_group(state *s, size_t group, const uint8_t *scales, const int32_t *means, uint8_t *codes) {
    const kv_quantizer *q = s->quantizer;
    const float *x = group_values(s, group);
    size_t n = s->columns, rows = rows_of(s, group);
    for (size_t c = 0; c < n; c++) {
        s->step[c] = s->table[scales[group * n + c]];
        s->inverse[c] = s->step[c] > 0 ? 1 / s->step[c] : 0;
        s->offset[c] = (float)means[group * n + c] * s->unit[c];
    }
    codes += group * s->group * n;
    if (q->scheme == KV_UNIFORM) {
        for (size_t c = 0; c < n; c++) s->inverse[c] = s->constant[c] ? 0 : s->inverse[c];
        code_uniform(x, rows, n, (float)(q->levels - 1) + 0.5f, s->inverse, s->offset, codes);
    } else if (q->scheme == KV_SIGN) {
        // The published codes are signs, whatever their levels.
        int published = q->levels_kind == KV_LEVELS_PUBLISHED;
        for (size_t c = 0; c < n; c++) s->low[c] = published ? 0 : s->offset[c];
        code_sign(x, rows, n, s->step, s->low, codes);
    } else {
        measure_mean(x, rows, n, s->offset, s->low);
        for (size_t c = 0; c < n; c++) s->low[c] = s->step[c] > 0 ? q->threshold * s->low[c] : INFINITY;
        code_ternary(x, rows, n, s->low, s->offset, codes);
        if (q->balance > 0) balance_ternary(s, x, rows, codes);
    }
}

void kv_quantize(const kv_quantizer *quantizer, const float *values, size_t rows, size_t columns, size_t group,
                 uint8_t *codes, uint8_t *scales, int32_t *means, int8_t *anchor, uint8_t *steps, void *scratch) {
    state *s = scratch;
    *s = (state){.quantizer = quantizer, .values = values, .rows = rows, .columns = columns, .group = group,
                 .groups = (rows + group - 1) / group};
    lay_out(s);
    for (size_t g = 0; g < s->groups; g++) measure_group(s, g);
    settle_columns(s);
    int chosen_anchor, chosen_steps;
    choose_anchor(s, &chosen_anchor, &chosen_steps);
    kv_scale_values(chosen_anchor, chosen_steps, s->table);
    for (size_t g = 0; g < s->groups; g++) search_group(s, g, chosen_anchor, chosen_steps, scales + g * columns);
    round_means(s, scales, means);
    for (size_t g = 0; g < s->groups; g++) code_group(s, g, scales, means, codes);
    *anchor = (int8_t)chosen_anchor;
    *steps = (uint8_t)chosen_steps;
}
