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
        uint8_t *restrict to = codes + r * g.stride;
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
        uint8_t *restrict to = codes + r * g.stride;
        COLUMNS {
            int32_t is_high = x[c] >= threshold[c];
            float above = high[c], below = low[c], difference = x[c] - (is_high ? above : below);
            to[c] = (uint8_t)is_high;
            losses->error[c] += difference * difference;
            losses->energy[c] += x[c] * x[c];
        }
    }
}

// What a code's difference from its value leaves to win by moving it up or down a level; -infinity where there is none.
typedef struct {
    float up[Q], down[Q];
} kv_gains;

// Leaves the gains of each row in `gains` and the differences' sums in `sum`.
ALWAYS void code_ternary(kv_group g, size_t width, const float *restrict step, const float *restrict threshold,
                         const float *restrict offset, uint8_t *restrict codes, kv_gains *restrict gains, float *restrict sum,
                         kv_losses *restrict losses) {
    COLUMNS sum[c] = losses->error[c] = losses->energy[c] = 0;
    for (size_t r = 0; r < g.rows; r++) {
        const float *restrict x = g.x + r * g.stride;
        uint8_t *restrict to = codes + r * g.stride;
        kv_gains *restrict gain = gains + r;
        COLUMNS {
            float value = x[c] - offset[c], size = step[c], limit = threshold[c];
            int is_high = value > limit, is_low = value < -limit;
            float level = is_high ? size : is_low ? -size : 0;
            int32_t code = is_high ? 2 : is_low ? 0 : 1;
            float difference = x[c] - (offset[c] + level);
            to[c] = (uint8_t)code;
            gain->up[c] = is_high ? -INFINITY : difference;
            gain->down[c] = is_low ? -INFINITY : -difference;
            sum[c] += difference;
            losses->error[c] += difference * difference;
            losses->energy[c] += x[c] * x[c];
        }
    }
}

// Moves the chosen codes by `shift`; where that is not 0, `left` is the difference from then on.
ALWAYS void move_codes(kv_group g, size_t width, const int32_t *restrict choice, const int32_t *restrict shift,
                       const float *restrict left, uint8_t *restrict codes, kv_gains *restrict gains) {
    COLUMNS {
        uint8_t *code = codes + (size_t)choice[c] * g.stride + c;
        kv_gains *gain = gains + choice[c];
        int32_t moved = *code + shift[c];
        float up = moved < 2 ? left[c] : -INFINITY, down = moved > 0 ? -left[c] : -INFINITY;
        *code = (uint8_t)moved;
        gain->up[c] = shift[c] ? up : gain->up[c];
        gain->down[c] = shift[c] ? down : gain->down[c];
    }
}

// Attention averages values over many tokens, so an error shared by a group's tokens hurts more than errors that cancel. Up to
// three times, the code whose move by one level raises the squared error least is moved against the group's summed error, as
// long as squared error + balance / rows * summed error squared falls.
//
// A move by one step against a difference d in its direction changes the squared error by step^2 - 2 d step: the best one has
// the greatest d.
ALWAYS void balance_ternary(const kv_quantizing *s, kv_group g, size_t width, const float *restrict step, float *restrict sum,
                            uint8_t *restrict codes, kv_gains *restrict gains, kv_losses *restrict losses) {
    float weight = s->quantizer->balance / (float)g.rows, best[Q], left[Q];
    int32_t choice[Q], shift[Q];
    for (int round = 0; round < 3; round++) {
        COLUMNS {
            best[c] = -INFINITY;
            choice[c] = 0;
        }
        for (size_t r = 0; r < g.rows; r++) {
            const kv_gains *restrict gain = gains + r;
            COLUMNS {
                float up = gain->up[c], down = gain->down[c], own = sum[c] > 0 ? up : down;
                choice[c] = own > best[c] ? (int32_t)r : choice[c];
                best[c] = own > best[c] ? own : best[c];
            }
        }
        COLUMNS {
            float move = sum[c] > 0 ? 1.0f : -1.0f, along = sum[c] * move, moved = along - step[c];
            float change = step[c] * (step[c] - 2 * best[c]);
            int pays = (step[c] > 0) & (change + weight * (moved * moved - along * along) < 0);
            shift[c] = pays ? (int32_t)move : 0;
            left[c] = (best[c] - step[c]) * move;
            sum[c] = pays ? sum[c] - move * step[c] : sum[c];
            losses->error[c] += pays ? change : 0;
        }
        move_codes(g, width, choice, shift, left, codes, gains);
    }
}

ALWAYS void code_rows(kv_quantizing *s, kv_group g, size_t width, const float *step, const float *inverse, const float *offset,
                      const float *threshold, uint8_t *codes) {
    const kv_quantizer *q = s->quantizer;
    kv_losses losses;
    float sum[Q];
    if (q->scheme == KV_UNIFORM) {
        code_uniform(g, width, (float)(q->levels - 1) + 0.5f, step, inverse, offset, codes, &losses);
    } else if (q->scheme == KV_SIGN) {
        code_sign(g, width, step, threshold, offset, codes, &losses);
    } else {
        code_ternary(g, width, step, threshold, offset, codes, (kv_gains *)s->work, sum, &losses);
        if (q->balance > 0) balance_ternary(s, g, width, step, sum, codes, (kv_gains *)s->work, &losses);
    }
    add_losses(s, g, width, &losses);
}

ALWAYS void code_block(kv_quantizing *s, kv_group g, size_t width, const uint8_t *scales, const int32_t *means,
                       const float *extent, uint8_t *codes) {
    const kv_quantizer *q = s->quantizer;
    float step[Q], inverse[Q], offset[Q], threshold[Q], distance[Q];
    scale_values(s, width, scales, step);
    COLUMNS {
        inverse[c] = step[c] > 0 && !s->constant[g.first + c] ? 1 / step[c] : 0;
        offset[c] = (float)means[c] * s->unit[g.first + c];
    }
    if (q->scheme == KV_SIGN) {
        // The published codes are signs, whatever their levels.
        int published = q->levels_kind == KV_LEVELS_PUBLISHED;
        COLUMNS threshold[c] = step[c] > 0 ? (published ? 0 : offset[c]) : INFINITY;
    } else if (q->scheme == KV_TERNARY) {
        // Without means the distances are those that were measured.
        if (q->keeps_mean) measure_distance(g, width, offset, distance);
        else memcpy(distance, extent, width * sizeof(float));
        COLUMNS threshold[c] = step[c] > 0 ? q->threshold * distance[c] : INFINITY;
    }
    code_rows(s, g, width, step, inverse, offset, threshold, codes);
}
