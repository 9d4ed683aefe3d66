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

// What is lost of some rows of a block, and the values' own squares.
typedef struct {
    float error[Q], energy[Q];
} kv_losses;

static void add_losses(kv_quantizing *s, kv_group g, size_t width, const kv_losses *losses) {
    double *restrict error = s->error + g.first, *restrict energy = s->energy + g.first;
    COLUMNS {
        error[c] += losses->error[c];
        energy[c] += losses->energy[c];
    }
}

ALWAYS void code_uniform(kv_group g, size_t width, float last, const float *restrict step, const float *restrict inverse,
                         const float *restrict offset, uint8_t *restrict codes, kv_losses *restrict losses) {
    COLUMNS losses->error[c] = losses->energy[c] = 0;
    for (size_t r = 0; r < g.rows; r++) {
        const float *restrict x = g.x + r * g.stride;
        uint8_t *restrict to = codes + r * Q;
        COLUMNS {
            float code = code_of(x[c], offset[c], inverse[c], last), difference = x[c] - (offset[c] + code * step[c]);
            to[c] = (uint8_t)(int32_t)code;
            losses->error[c] += difference * difference;
            losses->energy[c] += x[c] * x[c];
        }
    }
}

ALWAYS void code_sign(kv_group g, size_t width, const float *restrict step, const float *restrict threshold,
                      const float *restrict offset, uint8_t *restrict codes, kv_losses *restrict losses) {
    float low[Q], high[Q];
    COLUMNS {
        low[c] = offset[c] - step[c];
        high[c] = offset[c] + step[c];
        losses->error[c] = losses->energy[c] = 0;
    }
    for (size_t r = 0; r < g.rows; r++) {
        const float *restrict x = g.x + r * g.stride;
        uint8_t *restrict to = codes + r * Q;
        COLUMNS {
            int32_t is_high = x[c] >= threshold[c];
            float above = high[c], below = low[c], difference = x[c] - (is_high ? above : below);
            to[c] = (uint8_t)is_high;
            losses->error[c] += difference * difference;
            losses->energy[c] += x[c] * x[c];
        }
    }
}

// Codes [rows][Q] of a block into bytes `stride` apart, consecutive rows of a column in a byte, the first in its lowest bits.
ALWAYS void pack_block(const uint8_t *restrict codes, size_t rows, size_t width, int bits, size_t stride,
                       uint8_t *restrict packed) {
    size_t per_byte = 8 / (size_t)bits;
    for (size_t row = 0; row < rows; row += per_byte, packed += stride) {
        size_t count = rows - row < per_byte ? rows - row : per_byte;
        uint8_t bytes[Q];
        memcpy(bytes, codes + row * Q, Q);
        for (size_t i = 1; i < count; i++) {
            const uint8_t *from = codes + (row + i) * Q;
            COLUMNS bytes[c] |= (uint8_t)(from[c] << (i * (size_t)bits));
        }
        memcpy(packed, bytes, width);
    }
}

ALWAYS void code_block(kv_quantizing *s, kv_group g, size_t width, const uint8_t *scales, const int32_t *means,
                       uint8_t *packed) {
    const kv_quantizer *q = s->quantizer;
    float step[Q], inverse[Q], offset[Q], threshold[Q];
    kv_losses losses;
    scale_values(s, width, scales, step);
    COLUMNS {
        inverse[c] = step[c] > 0 && !s->constant[g.first + c] ? 1 / step[c] : 0;
        offset[c] = (float)means[c] * s->unit[g.first + c];
    }
    if (q->scheme == KV_UNIFORM) {
        code_uniform(g, width, (float)(q->levels - 1) + 0.5f, step, inverse, offset, s->codes, &losses);
    } else {
        // The published codes are signs, whatever their levels.
        int published = q->levels_kind == KV_LEVELS_PUBLISHED;
        COLUMNS threshold[c] = step[c] > 0 ? (published ? 0 : offset[c]) : INFINITY;
        code_sign(g, width, step, threshold, offset, s->codes, &losses);
    }
    add_losses(s, g, width, &losses);
    if (q->code_bits == 1) pack_block(s->codes, g.rows, width, 1, g.stride, packed);
    else if (q->code_bits == 2) pack_block(s->codes, g.rows, width, 2, g.stride, packed);
    else pack_block(s->codes, g.rows, width, q->code_bits, g.stride, packed);
}
