// The search for groups of four levels, which is most of the arithmetic of an encoding: five clipped ranges, then two rounds of
// least squares. Part of search.h.
//
// Values are searched as integers of 16 bits, twice as many to a vector as floats: their distances from the middle of their group's
// range, y, in units of a 1023rd of half of it, of a larger share for groups of more than 32 rows. A choice between scales needs no more.
// So few bits let a group's sums fit 16 bits too.
//
// No candidate's squared error is summed value by value. With levels at -3/2, -1/2, 1/2 and 3/2 steps s, what is lost of a value is
// ||y| - s| - s/2, and the sum of its squares follows from sums that all candidates share and the one of ||y| - s|. Likewise a line
// through (code, y) is fitted, and its error known, from how many values lie above each of three thresholds, and their sums.
// The sum of y^2, which all candidates share, is left out of every error.

enum { CANDIDATES = 5, REACH_MAX = 1023, SUM_MAX = 32767, ROWS_MAX = 64 };

typedef int16_t kv_s16 __attribute__((vector_size(2 * COLUMNS16)));

// Sixteen columns of a group as they are searched. All but the unit is in units.
typedef struct {
    const int16_t *y; // [rows][COLUMNS16]
    size_t rows;
    float reach;                // the greatest |y|
    kv_f16 sum, distance;       // sums of y and |y|
    kv_f16 middle, unit, units; // `units` in one
} kv_tile;

// The best found; `mean` is the lowest level's distance from the middle.
typedef struct {
    kv_f16 mean, error;
    kv_i16 code;
} kv_best;

// Codes of a tile's values: the sums of code, code^2 and code times y.
typedef struct {
    kv_f16 q, qq, qy;
} kv_code_sums;

static int searches_four(const kv_quantizing *s) {
    const kv_quantizer *q = s->quantizer;
    return q->scheme == KV_UNIFORM && q->levels == 4 && q->search == KV_SEARCH_LEAST_SQUARES && q->clip_candidates == CANDIDATES
        && s->group <= ROWS_MAX && s->bounds_hold;
}

ALWAYS kv_s16 magnitude_of(kv_s16 x) { return __builtin_elementwise_max(x, -x); }
ALWAYS kv_f16 floats_of(kv_s16 x) { return __builtin_convertvector(x, kv_f16); }

// The nearest integers, of halves the even ones. Magnitudes are below 2^15: then the sum's last bits are those of the integer.
ALWAYS kv_s16 nearest(kv_f16 x) { return __builtin_convertvector((kv_i16)(x + 0x1.8p23f), kv_s16); }

ALWAYS kv_s16 load_y(const kv_tile *tile, size_t row) {
    kv_s16 y;
    memcpy(&y, tile->y + row * COLUMNS16, sizeof y);
    return y;
}

// The group's `width` columns, others zero, between their least and their greatest values. Where all are alike, or nearly so that the
// unit is no normal float, they lie in the middle.
ALWAYS kv_tile load_tile(kv_group g, size_t width, kv_f16 low, kv_f16 high, int16_t *restrict y) {
    kv_tile tile = {.y = y, .rows = g.rows, .reach = SUM_MAX / (int)g.rows < REACH_MAX ? SUM_MAX / (int)g.rows : REACH_MAX};
    kv_f16 none = {0}, half = 0.5f * high - 0.5f * low;
    kv_s16 sum = {0}, distance = {0};
    kv_which is_wide = is_above(half, none + 0x1p-110f);
    tile.middle = 0.5f * low + 0.5f * high;
    tile.unit = only_where(is_wide, half / tile.reach);
    tile.units = only_where(is_wide, tile.reach / pick(is_wide, half, none + 1));
    for (size_t r = 0; r < g.rows; r++, y += COLUMNS16) {
        kv_f16 x = {0};
        memcpy(&x, g.x + r * g.stride, width * sizeof(float));
        kv_s16 whole = nearest((x - tile.middle) * tile.units);
        sum += whole;
        distance += magnitude_of(whole);
        memcpy(y, &whole, sizeof whole);
    }
    tile.sum = floats_of(sum);
    tile.distance = floats_of(distance);
    return tile;
}

ALWAYS void keep_if(kv_which is_better, kv_f16 error, kv_f16 mean, kv_i16 code, kv_best *restrict best) {
    best->error = pick(is_better, error, best->error);
    best->mean = pick(is_better, mean, best->mean);
    best->code = (kv_i16)pick(is_better, (kv_f16)code, (kv_f16)best->code);
}

// The sum of ||y| - step| for every candidate.
ALWAYS void measure_folds(const kv_tile *tile, const kv_s16 step[CANDIDATES], kv_s16 fold[CANDIDATES]) {
    for (int i = 0; i < CANDIDATES; i++) fold[i] = (kv_s16){0};
    for (size_t r = 0; r < tile->rows; r++) {
        kv_s16 y = magnitude_of(load_y(tile, r));
        for (int i = 0; i < CANDIDATES; i++) fold[i] += magnitude_of(y - step[i]);
    }
}

// The best of the ranges clipped to the candidates.
ALWAYS void clip_tile(const kv_quantizing *s, const kv_tile *tile, kv_f16 wanted, kv_best *restrict best) {
    kv_f16 none = {0}, reach = none + tile->reach, count = none + (float)tile->rows, step[CANDIDATES];
    kv_i16 code[CANDIDATES], one = (kv_i16){0} + 1;
    kv_s16 whole[CANDIDATES], fold[CANDIDATES];
    float ratio = 1;
    for (int i = 0; i < CANDIDATES; i++, ratio *= s->quantizer->clip_ratio) {
        // With four steps each candidate is a fourth of an octave below the one before, and so its code is the one below.
        if (i > 0 && s->steps == 2) code[i] = __builtin_elementwise_max(code[i - 1] - 1, one);
        else code[i] = code_scales16(s, greatest16(wanted * ratio, none + 0x1p-126f));
        step[i] = scale_values16(s, code[i]) * tile->units;
        whole[i] = nearest(least16(step[i], reach));
    }
    measure_folds(tile, whole, fold);
    best->error = none + INFINITY;
    for (int i = 0; i < CANDIDATES; i++) {
        // A step beyond all values leaves each of them the more of it.
        kv_f16 beyond = greatest16(step[i] - reach, none), used = floats_of(whole[i]) + beyond;
        kv_f16 error = used * (1.25f * count * used - 2 * tile->distance - (floats_of(fold[i]) + count * beyond));
        keep_if(is_below(error, best->error), error, step[i] * -1.5f, code[i], best);
    }
}

// What the codes 0 to 3 of levels offset + code * step sum to.
ALWAYS kv_code_sums measure_codes(const kv_tile *tile, kv_f16 step, kv_f16 offset) {
    kv_s16 below[3], above[3] = {0}, counts[3] = {0};
    kv_f16 reach = (kv_f16){0} + (tile->reach + 1);
    for (int k = 0; k < 3; k++) {
        // The greatest integer below the bound.
        below[k] = nearest(greatest16(least16(offset + step * ((float)k + 0.5f) - 0.5f, reach), -reach));
    }
    for (size_t r = 0; r < tile->rows; r++) {
        kv_s16 y = load_y(tile, r);
        for (int k = 0; k < 3; k++) {
            kv_s16 is_above = y > below[k];
            counts[k] -= is_above;
            above[k] += y & is_above;
        }
    }
    return (kv_code_sums){.q = floats_of(counts[0] + counts[1] + counts[2]),
                          .qq = floats_of(counts[0] + 3 * counts[1] + 5 * counts[2]),
                          .qy = floats_of(above[0]) + floats_of(above[1]) + floats_of(above[2])};
}

// Lloyd's iteration, as in refine_block.
ALWAYS void refine_tile(const kv_quantizing *s, const kv_tile *tile, kv_best *restrict best) {
    float rows = (float)tile->rows, share = 1 / rows;
    kv_f16 none = {0}, least = none + s->table[1], greatest = none + s->table[255];
    kv_code_sums sums = measure_codes(tile, scale_values16(s, best->code) * tile->units, best->mean);
    for (int round = 0; round < 2; round++) {
        kv_f16 mean_q = sums.q * share, mean_y = tile->sum * share;
        kv_f16 covariance = sums.qy * share - mean_q * mean_y, variance = sums.qq * share - mean_q * mean_q;
        kv_which varies = is_above(variance, none);
        kv_f16 slope = covariance / pick(varies, variance, none + 1) * tile->unit;
        // Beyond the table, or of codes that are all the same, there is nothing to fit: what was found is tried again.
        kv_which is_usable = is_above(only_where(is_below(slope, greatest), only_where(varies, slope)), least);
        kv_i16 fitted = code_scales16(s, pick(is_usable, slope, none + 1));
        kv_i16 code = (kv_i16)pick(is_usable, (kv_f16)fitted, (kv_f16)best->code);
        kv_f16 step = scale_values16(s, code) * tile->units, from = pick(is_usable, mean_y - step * mean_q, best->mean);
        sums = measure_codes(tile, step, from);
        kv_f16 error = from * (rows * from - 2 * tile->sum) + step * (step * sums.qq - 2 * (sums.qy - from * sums.q));
        keep_if(is_below(error, best->error), error, from, code, best);
    }
}

ALWAYS kv_f16 load_floats(const float *from, size_t width) {
    kv_f16 values = {0};
    memcpy(&values, from, width * sizeof(float));
    return values;
}

// search_uniform of at most sixteen columns, the first of them in `g`.
ALWAYS void search_four(const kv_quantizing *s, kv_group g, size_t width, const float *restrict scale, const float *restrict high,
                        float *restrict mean, uint8_t *restrict codes) {
    kv_f16 low = load_floats(mean, width), top = load_floats(high, width), wanted = load_floats(scale, width), none = {0};
    kv_best best;
    kv_tile tile = load_tile(g, width, low, top, s->work);
    clip_tile(s, &tile, wanted, &best);
    refine_tile(s, &tile, &best);
    kv_b16 bytes = {0};
    memcpy(&bytes, s->constant + g.first, width);
    kv_which is_constant = is_above(__builtin_convertvector(bytes, kv_f16), none);
    kv_f16 whole = (kv_f16)code_scales16(s, greatest16(wanted, none + 0x1p-126f));
    kv_f16 code = pick(is_constant, whole, (kv_f16)best.code);
    code = only_where(is_above(wanted, none), code);
    best.mean = pick(is_below(low, top), tile.middle + best.mean * tile.unit, low);
    bytes = __builtin_convertvector((kv_i16)code, kv_b16);
    memcpy(mean, &best.mean, width * sizeof(float));
    memcpy(codes, &bytes, width);
}
