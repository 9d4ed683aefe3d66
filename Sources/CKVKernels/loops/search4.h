// The search for groups of four levels, which is most of the arithmetic of an encoding: five clipped ranges, then two rounds of
// least squares. Part of search.h.
//
// No candidate's squared error is summed value by value. With y a value's distance from the middle of its group's range and
// levels at -3/2, -1/2, 1/2 and 3/2 steps s, what is lost is ||y| - s| - s/2, and the sum of its squares follows from sums
// that all candidates share and the one of ||y| - s|. Likewise a line through (code, y) is fitted, and its error known, from
// how many values lie above each of three thresholds, and their sums.

enum { CANDIDATES = 5 };

// Sixteen floats, or as many words or bytes.
typedef float kv_f16 __attribute__((vector_size(64)));
typedef int32_t kv_i16 __attribute__((vector_size(64)));
typedef uint8_t kv_b16 __attribute__((vector_size(16)));

enum { VECTORS = TILE / 16 };
#define EACH_VECTOR for (int v = 0; v < VECTORS; v++)
#define TILE_COLUMNS for (size_t c = 0; c < TILE; c++)

// Some columns of a group as they are searched.
typedef struct {
    const float *y;  // [rows][TILE], distances from the middle of the range
    size_t rows;
    float sum[TILE], squares[TILE], distance[TILE]; // sums of y, y^2, |y|
} kv_tile;

// Codes of a tile's values: how many there are of ..., and the sum of code times y.
typedef struct {
    float q[TILE], qq[TILE], qy[TILE];
} kv_code_sums;

ALWAYS kv_f16 magnitude16(kv_f16 x) { return (kv_f16)((kv_i16)x & 0x7FFFFFFF); }

// Columns first..<first + width of the group about `middle`; those past `width` are zero.
ALWAYS void load_tile(kv_group g, size_t first, size_t width, const float *middle, float *restrict y, kv_tile *restrict tile) {
    kv_f16 sum[VECTORS] = {0}, squares[VECTORS] = {0}, distance[VECTORS] = {0}, center[VECTORS];
    memcpy(center, middle, sizeof center);
    for (size_t r = 0; r < g.rows; r++, y += TILE) {
        kv_f16 x[VECTORS] = {0};
        memcpy(x, g.x + r * g.stride + first, width * sizeof(float));
        EACH_VECTOR {
            x[v] -= center[v];
            sum[v] += x[v];
            squares[v] += x[v] * x[v];
            distance[v] += magnitude16(x[v]);
        }
        memcpy(y, x, sizeof x);
    }
    memcpy(tile->sum, sum, sizeof sum);
    memcpy(tile->squares, squares, sizeof squares);
    memcpy(tile->distance, distance, sizeof distance);
}

// The sum of ||y| - step| for every candidate.
ALWAYS void measure_folds(const kv_tile *tile, const float steps[CANDIDATES][TILE], float folds[restrict CANDIDATES][TILE]) {
    EACH_VECTOR {
        kv_f16 step[CANDIDATES], fold[CANDIDATES] = {0};
        for (int i = 0; i < CANDIDATES; i++) memcpy(&step[i], steps[i] + 16 * v, sizeof step[i]);
        for (size_t r = 0; r < tile->rows; r++) {
            kv_f16 x;
            memcpy(&x, tile->y + r * TILE + 16 * v, sizeof x);
            x = magnitude16(x);
            for (int i = 0; i < CANDIDATES; i++) fold[i] += magnitude16(x - step[i]);
        }
        for (int i = 0; i < CANDIDATES; i++) memcpy(folds[i] + 16 * v, &fold[i], sizeof fold[i]);
    }
}

// Counts and adds up the values that are not below a bound.
ALWAYS void count_above(kv_f16 x, kv_f16 bound, kv_i16 *restrict count, kv_f16 *restrict sum) {
#ifdef KV_HAS_AVX512
    // Compilers move the mask to a vector first.
    __mmask16 is_above = _mm512_cmp_ps_mask((__m512)x, (__m512)bound, _CMP_GE_OQ);
    *count = (kv_i16)_mm512_mask_add_epi32((__m512i)*count, is_above, (__m512i)*count, _mm512_set1_epi32(1));
    *sum = (kv_f16)_mm512_mask_add_ps((__m512)*sum, is_above, (__m512)*sum, (__m512)x);
#else
    kv_i16 is_above = x >= bound;
    *count -= is_above;
    *sum += (kv_f16)((kv_i16)x & is_above);
#endif
}

// What the codes 0 to 3 of levels offset + code * step sum to.
ALWAYS void measure_codes(const kv_tile *tile, const float *step, const float *offset, kv_code_sums *restrict sums) {
    kv_f16 size[VECTORS], first[VECTORS], bounds[3][VECTORS], above[3][VECTORS] = {0};
    kv_i16 counts[3][VECTORS] = {0};
    memcpy(size, step, sizeof size);
    memcpy(first, offset, sizeof first);
    for (int k = 0; k < 3; k++) EACH_VECTOR bounds[k][v] = first[v] + size[v] * ((float)k + 0.5f);
    for (size_t r = 0; r < tile->rows; r++) {
        kv_f16 x[VECTORS];
        memcpy(x, tile->y + r * TILE, sizeof x);
        for (int k = 0; k < 3; k++) EACH_VECTOR count_above(x[v], bounds[k][v], &counts[k][v], &above[k][v]);
    }
    EACH_VECTOR {
        kv_i16 q = counts[0][v] + counts[1][v] + counts[2][v], qq = counts[0][v] + 3 * counts[1][v] + 5 * counts[2][v];
        kv_f16 q_floats = __builtin_convertvector(q, kv_f16), qq_floats = __builtin_convertvector(qq, kv_f16);
        kv_f16 qy = above[0][v] + above[1][v] + above[2][v];
        memcpy(sums->q + 16 * v, &q_floats, sizeof q_floats);
        memcpy(sums->qq + 16 * v, &qq_floats, sizeof qq_floats);
        memcpy(sums->qy + 16 * v, &qy, sizeof qy);
    }
}

// The best of the ranges clipped to the candidates; `found.mean` is the lowest level's distance from the middle.
ALWAYS void clip_tile(const kv_quantizing *s, const kv_tile *tile, const float *wanted, kv_found *restrict found) {
    float steps[CANDIDATES][TILE], folds[CANDIDATES][TILE], ratio = 1, scaled[TILE];
    uint8_t codes[CANDIDATES][TILE];
    for (int i = 0; i < CANDIDATES; i++, ratio *= s->quantizer->clip_ratio) {
        if (i > 0 && s->steps == 2) {
            // each candidate is a fourth of an octave below the one before, and so its code is the one below
            TILE_COLUMNS codes[i][c] = codes[i - 1][c] > 1 ? codes[i - 1][c] - 1 : 1;
        } else {
            TILE_COLUMNS {
                scaled[c] = wanted[c] * ratio;
                scaled[c] = scaled[c] > 0 ? scaled[c] : 1;
            }
            code_scales(s, TILE, scaled, codes[i]);
        }
        scale_values(s, TILE, codes[i], steps[i]);
    }
    measure_folds(tile, (const float(*)[TILE])steps, folds);
    float count = (float)tile->rows;
    for (int i = 0; i < CANDIDATES; i++) {
        TILE_COLUMNS {
            float step = steps[i][c];
            float error = tile->squares[c] + step * (1.25f * count * step - 2 * tile->distance[c] - folds[i][c]);
            int better = i == 0 || error < found->error[c];
            found->error[c] = better ? error : found->error[c];
            found->mean[c] = better ? step * -1.5f : found->mean[c];
            found->codes[c] = better ? codes[i][c] : found->codes[c];
        }
    }
}

// Lloyd's iteration, as in refine_block.
ALWAYS void refine_tile(const kv_quantizing *s, const kv_tile *tile, kv_found *restrict found) {
    float count = (float)tile->rows, share = 1 / count, step[TILE], offset[TILE], slope[TILE], mean_q[TILE];
    uint8_t codes[TILE], usable[TILE];
    kv_code_sums sums;
    scale_values(s, TILE, found->codes, step);
    measure_codes(tile, step, found->mean, &sums);
    for (int round = 0; round < 2; round++) {
        TILE_COLUMNS {
            mean_q[c] = sums.q[c] * share;
            float covariance = sums.qy[c] * share - mean_q[c] * (tile->sum[c] * share);
            float variance = sums.qq[c] * share - mean_q[c] * mean_q[c];
            slope[c] = covariance / variance;
            usable[c] = variance > 0 && slope[c] > s->table[1] && slope[c] < s->table[255];
            slope[c] = usable[c] ? slope[c] : 1;
        }
        code_scales(s, TILE, slope, codes);
        TILE_COLUMNS codes[c] = usable[c] ? codes[c] : found->codes[c];
        scale_values(s, TILE, codes, step);
        TILE_COLUMNS offset[c] = usable[c] ? tile->sum[c] * share - step[c] * mean_q[c] : found->mean[c];
        measure_codes(tile, step, offset, &sums);
        TILE_COLUMNS {
            float from = offset[c], about = tile->squares[c] + from * (count * from - 2 * tile->sum[c]);
            float error = about + step[c] * (step[c] * sums.qq[c] - 2 * (sums.qy[c] - from * sums.q[c]));
            int better = error < found->error[c];
            found->error[c] = better ? error : found->error[c];
            found->mean[c] = better ? from : found->mean[c];
            found->codes[c] = better ? codes[c] : found->codes[c];
        }
    }
}

ALWAYS void search_four(const kv_quantizing *s, kv_group g, size_t width, const float *restrict scale,
                        const float *restrict high, const float *restrict low, kv_found *restrict found) {
    for (size_t first = 0; first < width; first += TILE) {
        size_t used = width - first < TILE ? width - first : TILE;
        float middle[TILE] = {0}, wanted[TILE] = {0};
        kv_found best;
        kv_tile tile = {.y = s->work, .rows = g.rows};
        for (size_t c = 0; c < used; c++) {
            middle[c] = 0.5f * (low[first + c] + high[first + c]);
            wanted[c] = scale[first + c];
        }
        if (used == TILE) load_tile(g, first, TILE, middle, s->work, &tile);
        else load_tile(g, first, used, middle, s->work, &tile);
        clip_tile(s, &tile, wanted, &best);
        refine_tile(s, &tile, &best);
        for (size_t c = 0; c < used; c++) {
            found->mean[first + c] = middle[c] + best.mean[c];
            found->codes[first + c] = best.codes[c];
        }
    }
}

