// Byte planes of values that are kept bit for bit.
//
// A float's exponent straddles two bytes. Rotated left by one bit, the exponent of bfloat16 and float32 fills the top byte by
// itself and the sign joins the mantissa, which does not compress. Along a channel exponents stay close to their maximum, so
// the top plane holds the distance from it.

#include "kvkernels.h"

#include <string.h>

static void split16(kv_head head, const uint32_t *tokens, size_t count, uint8_t *const *planes) {
    for (size_t i = 0; i < count; i++) {
        const char *from = (const char *)head.base + (ptrdiff_t)tokens[i] * head.token_stride * 2;
        for (size_t c = 0; c < head.dim; c++) {
            uint16_t bits;
            memcpy(&bits, from + (ptrdiff_t)c * head.channel_stride * 2, 2);
            bits = (uint16_t)(bits << 1 | bits >> 15);
            planes[0][c * count + i] = (uint8_t)(bits >> 8);
            planes[1][c * count + i] = (uint8_t)bits;
        }
    }
}

static void split32(kv_head head, const uint32_t *tokens, size_t count, uint8_t *const *planes) {
    for (size_t i = 0; i < count; i++) {
        const char *from = (const char *)head.base + (ptrdiff_t)tokens[i] * head.token_stride * 4;
        for (size_t c = 0; c < head.dim; c++) {
            uint32_t bits;
            memcpy(&bits, from + (ptrdiff_t)c * head.channel_stride * 4, 4);
            bits = bits << 1 | bits >> 31;
            for (int p = 0; p < 4; p++) planes[p][c * count + i] = (uint8_t)(bits >> (24 - 8 * p));
        }
    }
}

void kv_exact_split(kv_head head, const uint32_t *tokens, size_t count, uint8_t *const *planes, uint8_t *maxima) {
    if (head.element_type == KV_FLOAT32) split32(head, tokens, count, planes);
    else split16(head, tokens, count, planes);
    for (size_t c = 0; c < head.dim; c++) {
        uint8_t *row = planes[0] + c * count;
        uint8_t maximum = 0;
        for (size_t i = 0; i < count; i++) maximum = row[i] > maximum ? row[i] : maximum;
        for (size_t i = 0; i < count; i++) row[i] = (uint8_t)(maximum - row[i]);
        maxima[c] = maximum;
    }
}

void kv_exact_merge(int32_t element_type, size_t dim, size_t stride, size_t first, size_t count,
                    const uint8_t *const *planes, const uint8_t *maxima, void *values) {
    if (element_type == KV_FLOAT32) {
        uint32_t *out = values;
        for (size_t c = 0; c < dim; c++) {
            for (size_t i = 0; i < count; i++) {
                size_t at = c * stride + first + i;
                uint32_t bits = (uint32_t)(uint8_t)(maxima[c] - planes[0][at]) << 24 | (uint32_t)planes[1][at] << 16
                    | (uint32_t)planes[2][at] << 8 | planes[3][at];
                out[i * dim + c] = bits >> 1 | bits << 31;
            }
        }
        return;
    }
    uint16_t *out = values;
    for (size_t c = 0; c < dim; c++) {
        const uint8_t *high = planes[0] + c * stride + first, *low = planes[1] + c * stride + first;
        for (size_t i = 0; i < count; i++) {
            uint16_t bits = (uint16_t)((uint8_t)(maxima[c] - high[i]) << 8 | low[i]);
            out[i * dim + c] = (uint16_t)(bits >> 1 | bits << 15);
        }
    }
}
