// From values, scale codes and means to codes, and what is lost. Part of quantize.h.

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

// What a tile's codes stand for, and what is lost.
typedef struct {
    kv_f16 step[VECTORS], offset[VECTORS], error[VECTORS], energy[VECTORS];
} kv_coding;

ALWAYS kv_coding begin_coding(const kv_quantizing *s, kv_group g, size_t width, const uint8_t *scales, const int32_t *means) {
    kv_coding coding = {0};
    float step[TILE], offset[TILE] = {0};
    uint8_t codes[TILE] = {0};
    memcpy(codes, scales, width);
    scale_values(s, TILE, codes, step);
    COLUMNS offset[c] = (float)means[c] * s->unit[g.first + c];
    memcpy(coding.step, step, sizeof step);
    memcpy(coding.offset, offset, sizeof offset);
    return coding;
}

static void add_losses(kv_quantizing *s, kv_group g, size_t width, const kv_coding *coding) {
    float lost[TILE], squares[TILE];
    memcpy(lost, coding->error, sizeof lost);
    memcpy(squares, coding->energy, sizeof squares);
    double *restrict error = s->error + g.first, *restrict energy = s->energy + g.first;
    COLUMNS {
        error[c] += lost[c];
        energy[c] += squares[c];
    }
}

// From here on floats are integers; the last bits of such a float are those of the integer above it.
#define FIRST_WHOLE 0x1p23f

// Adds the codes of a row, which begin at `shift`, to `words`.
ALWAYS void code_uniform_row(const kv_f16 x[VECTORS], float last, const kv_f16 inverse[VECTORS], int shift,
                             kv_coding *restrict t, kv_i16 words[VECTORS]) {
    kv_f16 none = (kv_f16){0} + FIRST_WHOLE;
    EACH_VECTOR {
        kv_f16 above = x[v] - t->offset[v], code = above * inverse[v] + FIRST_WHOLE;
        code = least16(greatest16(code, none), none + last);
        kv_f16 difference = above - (code - FIRST_WHOLE) * t->step[v];
        words[v] |= (kv_i16)code << shift;
        t->error[v] += difference * difference;
        t->energy[v] += x[v] * x[v];
    }
}

ALWAYS void code_uniform_rows(kv_group g, size_t width, int bits, float last, const kv_f16 inverse[VECTORS],
                              kv_coding *restrict t, uint8_t *restrict packed) {
    size_t per_byte = 8 / (size_t)bits;
    for (size_t row = 0; row < g.rows; row += per_byte, packed += g.stride) {
        kv_i16 words[VECTORS] = {0};
        for (size_t i = 0; i < per_byte && row + i < g.rows; i++) {
            kv_f16 x[VECTORS];
            load_row(g, width, row + i, x);
            code_uniform_row(x, last, inverse, (int)i * bits, t, words);
        }
        put_bytes(words, width, packed);
    }
}

ALWAYS void code_uniform(kv_quantizing *s, kv_group g, size_t width, const uint8_t *scales, const int32_t *means,
                         uint8_t *restrict packed) {
    kv_coding t = begin_coding(s, g, width, scales, means);
    float step[TILE], shares[TILE] = {0}, last = (float)(s->quantizer->levels - 1);
    memcpy(step, t.step, sizeof step);
    COLUMNS shares[c] = step[c] > 0 && !s->constant[g.first + c] ? 1 / step[c] : 0;
    kv_f16 inverse[VECTORS];
    memcpy(inverse, shares, sizeof inverse);
    int bits = s->quantizer->code_bits;
    if (bits == 2) code_uniform_rows(g, width, 2, last, inverse, &t, packed);
    else code_uniform_rows(g, width, bits, last, inverse, &t, packed);
    add_losses(s, g, width, &t);
}

ALWAYS void code_sign(kv_quantizing *s, kv_group g, size_t width, const uint8_t *scales, const int32_t *means,
                      uint8_t *restrict packed) {
    kv_coding t = begin_coding(s, g, width, scales, means);
    // The published codes are signs, whatever their levels. Without a scale all codes are 0.
    int published = s->quantizer->levels_kind == KV_LEVELS_PUBLISHED;
    kv_f16 low[VECTORS], high[VECTORS], threshold[VECTORS];
    EACH_VECTOR {
        low[v] = t.offset[v] - t.step[v];
        high[v] = t.offset[v] + t.step[v];
        threshold[v] = pick(is_above(t.step[v], (kv_f16){0}), published ? (kv_f16){0} : t.offset[v], (kv_f16){0} + INFINITY);
    }
    for (size_t row = 0; row < g.rows; row += 8, packed += g.stride) {
        kv_i16 words[VECTORS] = {0};
        for (size_t i = 0; i < 8 && row + i < g.rows; i++) {
            kv_f16 x[VECTORS];
            load_row(g, width, row + i, x);
            EACH_VECTOR {
                kv_which is_high = is_from(x[v], threshold[v]);
                kv_f16 difference = x[v] - pick(is_high, high[v], low[v]);
                words[v] = or_where(is_high, words[v], (kv_i16){0} + (1 << i));
                t.error[v] += difference * difference;
                t.energy[v] += x[v] * x[v];
            }
        }
        put_bytes(words, width, packed);
    }
    add_losses(s, g, width, &t);
}
