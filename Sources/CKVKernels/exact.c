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
