// Rotary position embedding and its undoing (RoPE, arXiv 2104.09864, equation 34).

#include "kvkernels.h"

#pragma STDC FP_CONTRACT OFF

static void rotate_halves(float *restrict first, float *restrict second, const float *restrict cosines,
                          const float *restrict sines, size_t pairs, float sign) {
    for (size_t p = 0; p < pairs; p++) {
        float a = first[p], b = second[p], sine = sign * sines[p];
        first[p] = a * cosines[p] - b * sine;
        second[p] = b * cosines[p] + a * sine;
    }
}

static void rotate_interleaved(float *restrict row, const float *restrict cosines, const float *restrict sines, size_t pairs,
                               float sign) {
    for (size_t p = 0; p < pairs; p++) {
        float a = row[2 * p], b = row[2 * p + 1], sine = sign * sines[p];
        row[2 * p] = a * cosines[p] - b * sine;
        row[2 * p + 1] = b * cosines[p] + a * sine;
    }
}

void kv_rotate(float *rows, size_t count, size_t dim, const uint32_t *tokens, const float *cosines, const float *sines,
               size_t pairs, int interleaved, int direction) {
    float sign = (float)direction;
    for (size_t i = 0; i < count; i++) {
        float *row = rows + i * dim;
        const float *c = cosines + tokens[i] * pairs, *s = sines + tokens[i] * pairs;
        if (interleaved) rotate_interleaved(row, c, s, pairs, sign);
        else rotate_halves(row, row + pairs, c, s, pairs, sign);
    }
}
