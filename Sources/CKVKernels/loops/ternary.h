// Ternary groups: minus a step, zero, plus a step. Part of quantize.h.
//
// A code is zero where |x| is at most a share of the group's mean magnitude. That does not depend on the step, so codes are known
// before any scale is, and with them the sum of the values' differences from their levels, which tells which way codes are moved.

// Sums of a tile's values, of their magnitudes and of their squares.
ALWAYS void sum_tile(kv_group g, size_t width, float *restrict sum, float *restrict distance,
                     float *restrict squares) {
    kv_f16 sums[VECTORS] = {0}, distances[VECTORS] = {0}, energies[VECTORS] = {0};
    for (size_t r = 0; r < g.rows; r++) {
        kv_f16 x[VECTORS] = {0};
        memcpy(x, g.x + r * g.stride, width * sizeof(float));
        EACH_VECTOR {
            sums[v] += x[v];
            distances[v] += magnitude16(x[v]);
            energies[v] += x[v] * x[v];
        }
    }
    memcpy(sum, sums, sizeof sums);
    memcpy(distance, distances, sizeof distances);
    memcpy(squares, energies, sizeof energies);
}

// What a value that is coded as 2, or as 0, does to a word of four codes 1: the last byte are the codes, the first two count them.
enum { UP = 1 << 16, DOWN = 1 << 24, ALL_ONES = 0x55 };

// The code of one row, which begins at `shift`.
ALWAYS void code_ternary_row(const kv_f16 x[VECTORS], const kv_f16 limit[VECTORS], int shift, kv_f16 beyond[VECTORS],
                             kv_i16 words[VECTORS]) {
    EACH_VECTOR {
        kv_which is_top = is_above(x[v], limit[v]), is_bottom = is_below(x[v], -limit[v]);
        beyond[v] = less_where(is_bottom, sum_where(is_top, beyond[v], x[v]), x[v]);
        words[v] = add_where(is_top, words[v], (kv_i16){0} + (UP + (1 << shift)));
        words[v] = add_where(is_bottom, words[v], (kv_i16){0} + (DOWN - (1 << shift)));
    }
}

// Codes of a tile, four rows to a byte, and the mean magnitude of the values whose codes are not zero.
ALWAYS void code_ternary(kv_group g, size_t width, kv_ternary_tile *restrict tile, float *restrict centroid,
                         uint8_t *restrict packed) {
    kv_f16 limit[VECTORS], beyond[VECTORS] = {0}, x[VECTORS];
    kv_i16 ups[VECTORS] = {0}, downs[VECTORS] = {0};
    memcpy(limit, tile->limit, sizeof limit);
    for (size_t row = 0; row < g.rows; row += 4, packed += g.stride) {
        kv_i16 words[VECTORS];
        int rows = g.rows - row < 4 ? (int)(g.rows - row) : 4;
        EACH_VECTOR words[v] = (kv_i16){0} + (ALL_ONES & ((1 << 2 * rows) - 1));
        for (int i = 0; i < rows; i++) {
            load_row(g, width, row + (size_t)i, x);
            code_ternary_row(x, limit, 2 * i, beyond, words);
        }
        EACH_VECTOR {
            ups[v] += words[v] >> 16 & 0xFF;
            downs[v] += words[v] >> 24 & 0xFF;
        }
        put_bytes(words, width, packed);
    }
    EACH_VECTOR {
        kv_f16 count = __builtin_convertvector(ups[v] + downs[v], kv_f16), one = (kv_f16){0} + 1;
        kv_f16 excess = __builtin_convertvector(ups[v] - downs[v], kv_f16);
        // the sum is 0 where the count is
        kv_f16 mean = beyond[v] / greatest16(count, one);
        memcpy(centroid + 16 * v, &mean, sizeof mean);
        memcpy(tile->excess + 16 * v, &excess, sizeof excess);
    }
}

// Measures and codes a tile of a group; its scales are those that are wanted.
ALWAYS void measure_ternary(kv_quantizing *s, kv_group g, size_t width, kv_ternary_tile *restrict tile,
                            float *restrict scale, uint8_t *restrict packed) {
    const kv_quantizer *q = s->quantizer;
    float distance[TILE], squares[TILE], centroid[TILE], wanted[TILE];
    sum_tile(g, width, tile->sum, distance, squares);
    TILE_COLUMNS {
        distance[c] /= (float)g.rows;
        tile->limit[c] = q->threshold * distance[c];
    }
    code_ternary(g, width, tile, centroid, packed);
    int kind = q->levels_kind;
    TILE_COLUMNS wanted[c] = kind == KV_LEVELS_CENTROID ? centroid[c] : kind == KV_LEVELS_PUBLISHED ? 1 : distance[c];
    memcpy(scale, wanted, width * sizeof(float));
    double *restrict energy = s->energy + g.first;
    for (size_t c = 0; c < width; c++) energy[c] += squares[c];
}

// The three values of each column that moving up a level, or down where `direction` is negative, brings nearest to their code's
// level: the bits of how far they lie beyond it, best first; negative where there is none. The last bits, `row_bits`, say which row
// it is, the first row by the greatest number, so the distances are a little off. `error` becomes what is lost without any move.
ALWAYS void find_moves(kv_group g, size_t width, const float *step, const float *direction, const float *limits, int32_t row_bits,
                       int32_t moves[restrict 3][TILE], float *restrict error) {
    kv_f16 limit[VECTORS], size[VECTORS], lost[VECTORS] = {0}, x[VECTORS];
    kv_i16 turn[VECTORS], best[3][VECTORS];
    memcpy(size, step, sizeof size);
    memcpy(limit, limits, sizeof limit);
    memcpy(turn, direction, sizeof turn);
    EACH_VECTOR turn[v] &= INT32_MIN;
    for (int k = 0; k < 3; k++) EACH_VECTOR best[k][v] = (kv_i16){0} - 1;
    for (size_t r = 0; r < g.rows; r++) {
        load_row(g, width, r, x);
        EACH_VECTOR {
            kv_f16 along = (kv_f16)((kv_i16)x[v] ^ turn[v]);
            kv_which is_top = is_above(along, limit[v]), is_bottom = is_below(along, -limit[v]);
            kv_f16 difference = less_where(is_top, along + only_where(is_bottom, size[v]), size[v]);
            lost[v] += difference * difference;
            // Distances that are not negative are ordered as their bits are.
            kv_i16 distance = or_where(is_top, (kv_i16)difference, (kv_i16){0} + INT32_MIN);
            distance = (distance & ~row_bits) | (row_bits - (int32_t)r);
            kv_i16 second = __builtin_elementwise_min(distance, best[0][v]);
            best[0][v] = __builtin_elementwise_max(distance, best[0][v]);
            best[2][v] = __builtin_elementwise_max(__builtin_elementwise_min(second, best[1][v]), best[2][v]);
            best[1][v] = __builtin_elementwise_max(second, best[1][v]);
        }
    }
    memcpy(moves, best, sizeof best);
    memcpy(error, lost, sizeof lost);
}

typedef struct {
    uint8_t byte[TILE];
} kv_tile_bytes;

// Adds three changes to the bytes that they are for. All bytes are gone through: to reach one in each column takes longer.
ALWAYS void move_codes(kv_group g, size_t width, const kv_tile_bytes at[3], const kv_tile_bytes change[3], uint8_t *restrict packed) {
    for (size_t row = 0; 4 * row < g.rows; row++) {
        uint8_t *restrict bytes = packed + row * g.stride;
        for (size_t c = 0; c < width; c++) {
            uint8_t byte = bytes[c];
            for (int k = 0; k < 3; k++) byte = (uint8_t)(byte + (at[k].byte[c] == (uint8_t)row ? change[k].byte[c] : 0));
            bytes[c] = byte;
        }
    }
}

// Attention averages values over many tokens, so an error shared by a group's tokens hurts more than errors that cancel. Up to
// three times, the code whose move by one level raises the squared error least is moved against the group's summed error, as
// long as that error does not change its sign and squared error + balance / rows * summed error squared falls.
//
// A move by one step against a difference d in its direction changes the squared error by step^2 - 2 d step: the best one has
// the greatest d. Values on the other side of their level, d < 0, stay.
ALWAYS void balance_ternary(const kv_quantizing *s, kv_group g, size_t width, const kv_ternary_tile *tile,
                            const float *restrict step, float *restrict error, uint8_t *restrict packed) {
    float weight = s->quantizer->balance / (float)g.rows, left[TILE], direction[TILE];
    int32_t row_bits = 7;
    while ((size_t)row_bits < g.rows - 1) row_bits = 2 * row_bits + 1;
    TILE_COLUMNS {
        float sum = tile->sum[c] - step[c] * tile->excess[c];
        direction[c] = sum < 0 ? -1.0f : 1.0f;
        left[c] = fabsf(sum);
    }
    int32_t moves[3][TILE];
    find_moves(g, width, step, direction, tile->limit, row_bits, moves, error);
    kv_tile_bytes change[3], at[3];
    for (int k = 0; k < 3; k++) {
        TILE_COLUMNS {
            int32_t bits = moves[k][c];
            float best = float_of_bits((uint32_t)bits), moved = left[c] - step[c], gain = step[c] * (step[c] - 2 * best);
            int pays = (bits >= 0) & (left[c] > 0) & (weight > 0) & (gain + weight * (moved * moved - left[c] * left[c]) < 0);
            int32_t row = pays ? row_bits - (bits & row_bits) : 0;
            change[k].byte[c] = (uint8_t)((pays ? (int32_t)direction[c] : 0) * (1 << 2 * (row & 3)));
            at[k].byte[c] = (uint8_t)(row / 4);
            error[c] += pays ? gain : 0;
            left[c] = pays ? moved : 0;
        }
    }
    move_codes(g, width, (const kv_tile_bytes *)at, (const kv_tile_bytes *)change, packed);
}

// Brings what is measured of a tile to its scale codes, which are chosen by now.
ALWAYS void finish_ternary(kv_quantizing *s, kv_group g, size_t width, const kv_ternary_tile *tile,
                           const uint8_t *restrict scales, uint8_t *restrict packed) {
    float step[TILE], error[TILE];
    uint8_t codes[TILE] = {0};
    memcpy(codes, scales, width);
    scale_values(s, TILE, codes, step);
    balance_ternary(s, g, width, tile, step, error, packed);
    double *restrict total = s->error + g.first;
    for (size_t c = 0; c < width; c++) total[c] += error[c];
}
