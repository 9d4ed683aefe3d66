// Byte planes of values that are kept bit for bit, back to rows of values (exact.c has the way there).

#include "transpose.h"

typedef uint8_t kv_b16 __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint16_t kv_h16 __attribute__((vector_size(32), aligned(1), may_alias));
typedef uint16_t kv_h8 __attribute__((vector_size(16), aligned(1), may_alias));

// Channels c..<c + 8 of 16 tokens: lane i of vector k is channel k of token i.
static inline void merge_block(const uint8_t *high, const uint8_t *low, size_t stride, const uint8_t *maxima, uint16_t *out,
                               size_t out_stride) {
    kv_h16 a[8], b[8];
    for (int i = 0; i < 8; i++) {
        kv_b16 top = maxima[i] - *(const kv_b16 *)(high + (size_t)i * stride);
        kv_h16 bits = __builtin_convertvector(top, kv_h16) << 8
            | __builtin_convertvector(*(const kv_b16 *)(low + (size_t)i * stride), kv_h16);
        a[i] = bits >> 1 | bits << 15;
    }
    for (int i = 0; i < 8; i += 2) {
        b[i] = __builtin_shufflevector(a[i], a[i + 1], 0, 16, 1, 17, 2, 18, 3, 19, 8, 24, 9, 25, 10, 26, 11, 27);
        b[i + 1] = __builtin_shufflevector(a[i], a[i + 1], 4, 20, 5, 21, 6, 22, 7, 23, 12, 28, 13, 29, 14, 30, 15, 31);
    }
    // Pairs of two channels each, for tokens 0 1 2 3 and 4 5 6 7 (and 8 later), in b[even] and b[odd].
    for (int i = 0; i < 8; i += 4) {
        for (int j = 0; j < 2; j++) {
            a[i + 2 * j] =
                __builtin_shufflevector(b[i + j], b[i + j + 2], 0, 1, 16, 17, 2, 3, 18, 19, 8, 9, 24, 25, 10, 11, 26, 27);
            a[i + 2 * j + 1] =
                __builtin_shufflevector(b[i + j], b[i + j + 2], 4, 5, 20, 21, 6, 7, 22, 23, 12, 13, 28, 29, 14, 15, 30, 31);
        }
    }
    // Four channels of tokens 2 j and 2 j + 1, in a[j] the first four and in a[j + 4] the others.
    for (int j = 0; j < 4; j++) {
        b[2 * j] = __builtin_shufflevector(a[j], a[j + 4], 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27);
        b[2 * j + 1] = __builtin_shufflevector(a[j], a[j + 4], 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
    }
    for (int i = 0; i < 8; i++) {
        *(kv_h8 *)(out + (size_t)i * out_stride) = __builtin_shufflevector(b[i], b[i], 0, 1, 2, 3, 4, 5, 6, 7);
        *(kv_h8 *)(out + (size_t)(i + 8) * out_stride) = __builtin_shufflevector(b[i], b[i], 8, 9, 10, 11, 12, 13, 14, 15);
    }
}

static inline uint16_t merged16(uint8_t maximum, uint8_t high, uint8_t low) {
    uint16_t bits = (uint16_t)((uint8_t)(maximum - high) << 8 | low);
    return (uint16_t)(bits >> 1 | bits << 15);
}

static void merge16(size_t dim, size_t stride, size_t count, const uint8_t *high, const uint8_t *low, const uint8_t *maxima,
                    uint16_t *out) {
    size_t whole_channels = dim & ~(size_t)7, whole_tokens = count & ~(size_t)15;
    for (size_t i = 0; i < whole_tokens; i += 16) {
        for (size_t c = 0; c < whole_channels; c += 8) {
            merge_block(high + c * stride + i, low + c * stride + i, stride, maxima + c, out + i * dim + c, dim);
        }
    }
    for (size_t c = 0; c < dim; c++) {
        for (size_t i = c < whole_channels ? whole_tokens : 0; i < count; i++) {
            out[i * dim + c] = merged16(maxima[c], high[c * stride + i], low[c * stride + i]);
        }
    }
}

static void merge32(size_t dim, size_t stride, size_t first, size_t count, const uint8_t *const *planes, const uint8_t *maxima,
                    kv_word *out) {
    uint32_t block[8][KV_LANES];
    for (size_t c = 0; c < dim; c += 8) {
        size_t channels = dim - c < 8 ? dim - c : 8;
        for (size_t i = 0; i < count; i += KV_LANES) {
            size_t width = count - i < KV_LANES ? count - i : KV_LANES;
            for (size_t k = 0; k < channels; k++) {
                size_t at = (c + k) * stride + first + i;
                const uint8_t *a = planes[0] + at, *b = planes[1] + at, *d = planes[2] + at, *e = planes[3] + at;
                for (size_t w = 0; w < width; w++) {
                    uint32_t top = (uint8_t)(maxima[c + k] - a[w]);
                    uint32_t bits = top << 24 | (uint32_t)b[w] << 16 | (uint32_t)d[w] << 8 | e[w];
                    block[k][w] = bits >> 1 | bits << 31;
                }
            }
            transpose_words(block[0], channels, width, KV_LANES, out + i * dim + c, dim);
        }
    }
}

static void exact_merge(int32_t element_type, size_t dim, size_t stride, size_t first, size_t count,
                        const uint8_t *const *planes, const uint8_t *maxima, void *values) {
    if (element_type == KV_FLOAT32) merge32(dim, stride, first, count, planes, maxima, values);
    else merge16(dim, stride, count, planes[0] + first, planes[1] + first, maxima, values);
}
