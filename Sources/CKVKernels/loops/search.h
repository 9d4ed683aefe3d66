// Which scale and minimum fit the values of uniform groups best. Part of quantize.h.

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
    scale_values(s, width, t->codes, t->step);
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

ALWAYS void measure_mean(kv_group g, size_t width, float *restrict mean) {
    COLUMNS mean[c] = 0;
    for (size_t r = 0; r < g.rows; r++) {
        const float *restrict x = g.x + r * g.stride;
        COLUMNS mean[c] += x[c];
    }
    COLUMNS mean[c] /= (float)g.rows;
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

// Any number of levels and candidates.
ALWAYS void search_levels(const kv_quantizing *s, kv_group g, size_t width, const float *restrict scale,
                          const float *restrict high, const float *restrict low, kv_found *restrict found) {
    const kv_quantizer *q = s->quantizer;
    float last = (float)(q->levels - 1), ratio = 1, wanted[Q];
    kv_trial t;
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
        keep_better(width, &t, found, i == 0);
    }
    if (q->search == KV_SEARCH_LEAST_SQUARES) refine_block(s, g, width, last + 0.5f, &t, found);
}

ALWAYS void search_uniform(const kv_quantizing *s, kv_group g, size_t width, const float *restrict scale,
                           const float *restrict high, float *restrict mean, uint8_t *restrict codes) {
    float wanted[Q];
    uint8_t whole[Q];
    kv_found found;
    search_levels(s, g, width, scale, high, mean, &found);
    COLUMNS wanted[c] = scale[c] > 0 ? scale[c] : 1;
    code_scales(s, width, wanted, whole);
    COLUMNS {
        uint8_t code = s->constant[g.first + c] ? whole[c] : found.codes[c];
        codes[c] = scale[c] > 0 ? code : 0;
        mean[c] = mean[c] == high[c] ? mean[c] : found.mean[c];
    }
}

// The codes of scales of which some may be 0.
ALWAYS void code_wanted(const kv_quantizing *s, size_t width, const float *restrict scale, uint8_t *restrict codes) {
    float wanted[Q];
    uint8_t found[Q];
    COLUMNS wanted[c] = scale[c] > 0 ? scale[c] : 1;
    code_scales(s, width, wanted, found);
    COLUMNS codes[c] = scale[c] > 0 ? found[c] : 0;
}

// `mean` holds the minimum of uniform groups and becomes what fits best.
ALWAYS void search_block(const kv_quantizing *s, kv_group g, size_t width, const float *restrict scale,
                         const float *restrict extent, float *restrict mean, uint8_t *restrict codes) {
    if (s->quantizer->scheme == KV_UNIFORM) {
        search_uniform(s, g, width, scale, extent, mean, codes);
        return;
    }
    code_wanted(s, width, scale, codes);
}

#include "search4.h"
