// The search for groups of four levels, which is most of the arithmetic of an encoding: five clipped ranges, then two rounds of
// least squares. Part of search.h.
//
// No candidate's squared error is summed value by value. With y a value's distance from the middle of its group's range and
// levels at -3/2, -1/2, 1/2 and 3/2 steps s, what is lost is ||y| - s| - s/2, and the sum of its squares follows from sums
// that all candidates share and the one of ||y| - s|. Likewise a line through (code, y) is fitted, and its error known, from
// how many values lie above each of three thresholds, and their sums.

enum { CANDIDATES = 5 };

// Some columns of a group as they are searched.
typedef struct {
    const float *y;  // [rows][TILE], distances from the middle of the range
    size_t rows;
    kv_f16 sum[VECTORS], squares[VECTORS], distance[VECTORS]; // sums of y, y^2, |y|
} kv_tile;

// The best found; `mean` is the lowest level's distance from the middle.
typedef struct {
    kv_f16 mean[VECTORS], error[VECTORS];
    kv_i16 code[VECTORS];
} kv_best;

// Codes of a tile's values: how many there are of ..., and the sum of code times y.
typedef struct {
    kv_f16 q[VECTORS], qq[VECTORS], qy[VECTORS];
} kv_code_sums;

static int searches_four(const kv_quantizing *s) {
    const kv_quantizer *q = s->quantizer;
    return q->scheme == KV_UNIFORM && q->levels == 4 && q->search == KV_SEARCH_LEAST_SQUARES && q->clip_candidates == CANDIDATES
        && s->bounds_hold;
}

// The group about `middle`.
ALWAYS kv_tile load_tile(kv_group g, size_t width, const kv_f16 middle[VECTORS], float *restrict y) {
    kv_tile tile = {.y = y, .rows = g.rows};
    for (size_t r = 0; r < g.rows; r++, y += TILE) {
        kv_f16 x[VECTORS];
        load_row(g, width, r, x);
        EACH_VECTOR {
            x[v] -= middle[v];
            tile.sum[v] += x[v];
            tile.squares[v] += x[v] * x[v];
            tile.distance[v] += magnitude16(x[v]);
        }
        memcpy(y, x, sizeof x);
    }
    return tile;
}

// The sum of ||y| - step| for every candidate, of one vector.
ALWAYS void measure_folds(const kv_tile *tile, int v, const kv_f16 step[CANDIDATES], kv_f16 fold[CANDIDATES]) {
    for (int i = 0; i < CANDIDATES; i++) fold[i] = (kv_f16){0};
    for (size_t r = 0; r < tile->rows; r++) {
        kv_f16 x;
        memcpy(&x, tile->y + r * TILE + 16 * v, sizeof x);
        x = magnitude16(x);
        for (int i = 0; i < CANDIDATES; i++) fold[i] += magnitude16(x - step[i]);
    }
}

// Counts and adds up the values that are not below a bound.
ALWAYS void count_above(kv_f16 x, kv_f16 bound, kv_i16 *restrict count, kv_f16 *restrict sum) {
    kv_which is_counted = is_from(x, bound);
    *count = add_where(is_counted, *count, (kv_i16){0} + 1);
    *sum = sum_where(is_counted, *sum, x);
}

// What the codes 0 to 3 of levels offset + code * step sum to.
ALWAYS kv_code_sums measure_codes(const kv_tile *tile, const kv_f16 step[VECTORS], const kv_f16 offset[VECTORS]) {
    kv_f16 bounds[3][VECTORS], above[3][VECTORS] = {0};
    kv_i16 counts[3][VECTORS] = {0};
    kv_code_sums sums;
    for (int k = 0; k < 3; k++) EACH_VECTOR bounds[k][v] = offset[v] + step[v] * ((float)k + 0.5f);
    for (size_t r = 0; r < tile->rows; r++) {
        kv_f16 x[VECTORS];
        memcpy(x, tile->y + r * TILE, sizeof x);
        for (int k = 0; k < 3; k++) EACH_VECTOR count_above(x[v], bounds[k][v], &counts[k][v], &above[k][v]);
    }
    EACH_VECTOR {
        sums.q[v] = __builtin_convertvector(counts[0][v] + counts[1][v] + counts[2][v], kv_f16);
        sums.qq[v] = __builtin_convertvector(counts[0][v] + 3 * counts[1][v] + 5 * counts[2][v], kv_f16);
        sums.qy[v] = above[0][v] + above[1][v] + above[2][v];
    }
    return sums;
}

ALWAYS void keep_if(kv_which is_better, int v, kv_f16 error, kv_f16 mean, kv_i16 code, kv_best *restrict best) {
    best->error[v] = pick(is_better, error, best->error[v]);
    best->mean[v] = pick(is_better, mean, best->mean[v]);
    best->code[v] = (kv_i16)pick(is_better, (kv_f16)code, (kv_f16)best->code[v]);
}

// The best of the ranges clipped to the candidates.
ALWAYS void clip_tile(const kv_quantizing *s, const kv_tile *tile, const kv_f16 wanted[VECTORS], kv_best *restrict best) {
    kv_f16 count = (kv_f16){0} + (float)tile->rows;
    EACH_VECTOR {
        kv_i16 code[CANDIDATES], one = (kv_i16){0} + 1;
        kv_f16 step[CANDIDATES], fold[CANDIDATES];
        float ratio = 1;
        for (int i = 0; i < CANDIDATES; i++, ratio *= s->quantizer->clip_ratio) {
            // With four steps each candidate is a fourth of an octave below the one before, and so its code is the one below.
            if (i > 0 && s->steps == 2) code[i] = __builtin_elementwise_max(code[i - 1] - 1, one);
            else code[i] = code_scales16(s, greatest16(wanted[v] * ratio, (kv_f16){0} + 0x1p-126f));
            step[i] = scale_values16(s, code[i]);
        }
        measure_folds(tile, v, step, fold);
        for (int i = 0; i < CANDIDATES; i++) {
            kv_f16 error = tile->squares[v] + step[i] * (1.25f * count * step[i] - 2 * tile->distance[v] - fold[i]);
            if (i == 0) best->error[v] = (kv_f16){0} + INFINITY;
            keep_if(is_below(error, best->error[v]), v, error, step[i] * -1.5f, code[i], best);
        }
    }
}

// Lloyd's iteration, as in refine_block.
ALWAYS void refine_tile(const kv_quantizing *s, const kv_tile *tile, kv_best *restrict best) {
    float rows = (float)tile->rows, share = 1 / rows;
    kv_f16 step[VECTORS], offset[VECTORS], none = {0}, least = none + s->table[1], greatest = none + s->table[255];
    kv_i16 code[VECTORS];
    EACH_VECTOR step[v] = scale_values16(s, best->code[v]);
    kv_code_sums sums = measure_codes(tile, step, best->mean);
    for (int round = 0; round < 2; round++) {
        EACH_VECTOR {
            kv_f16 mean_q = sums.q[v] * share, mean_y = tile->sum[v] * share;
            kv_f16 covariance = sums.qy[v] * share - mean_q * mean_y, variance = sums.qq[v] * share - mean_q * mean_q;
            kv_f16 slope = covariance / pick(is_above(variance, none), variance, none + 1);
            // Beyond the table, or of codes that are all the same, there is nothing to fit: what was found is tried again.
            kv_which is_usable = is_above(only_where(is_below(slope, greatest), only_where(is_above(variance, none), slope)), least);
            kv_i16 fitted = code_scales16(s, pick(is_usable, slope, none + 1));
            code[v] = (kv_i16)pick(is_usable, (kv_f16)fitted, (kv_f16)best->code[v]);
            step[v] = scale_values16(s, code[v]);
            offset[v] = pick(is_usable, mean_y - step[v] * mean_q, best->mean[v]);
        }
        sums = measure_codes(tile, step, offset);
        EACH_VECTOR {
            kv_f16 from = offset[v], about = tile->squares[v] + from * (rows * from - 2 * tile->sum[v]);
            kv_f16 error = about + step[v] * (step[v] * sums.qq[v] - 2 * (sums.qy[v] - from * sums.q[v]));
            keep_if(is_below(error, best->error[v]), v, error, from, code[v], best);
        }
    }
}

// search_uniform of a tile.
ALWAYS void search_four(const kv_quantizing *s, kv_group g, size_t width, const float *restrict scale, const float *restrict high,
                        float *restrict mean, uint8_t *restrict codes) {
    kv_f16 low[VECTORS] = {0}, top[VECTORS] = {0}, wanted[VECTORS] = {0}, middle[VECTORS], none = {0};
    kv_best best;
    memcpy(low, mean, width * sizeof(float));
    memcpy(top, high, width * sizeof(float));
    memcpy(wanted, scale, width * sizeof(float));
    EACH_VECTOR middle[v] = 0.5f * (low[v] + top[v]);
    kv_tile tile = load_tile(g, width, middle, s->work);
    clip_tile(s, &tile, wanted, &best);
    refine_tile(s, &tile, &best);
    uint8_t constant[TILE] = {0};
    memcpy(constant, s->constant + g.first, width);
    EACH_VECTOR {
        kv_b16 bytes;
        memcpy(&bytes, constant + 16 * v, sizeof bytes);
        kv_which is_constant = is_above(__builtin_convertvector(bytes, kv_f16), none);
        kv_f16 whole = (kv_f16)code_scales16(s, greatest16(wanted[v], none + 0x1p-126f));
        kv_f16 code = pick(is_constant, whole, (kv_f16)best.code[v]);
        best.code[v] = (kv_i16)only_where(is_above(wanted[v], none), code);
        best.mean[v] = pick(is_below(low[v], top[v]), middle[v] + best.mean[v], low[v]);
    }
    memcpy(mean, best.mean, width * sizeof(float));
    put_bytes(best.code, width, codes);
}
