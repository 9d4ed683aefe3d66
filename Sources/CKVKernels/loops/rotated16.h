// Keys whose rotary embedding pairs the two halves of all channels, turned and rounded to 16 bits in registers.

#include "rows16.h"

typedef float kv_floats __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t kv_levels32 __attribute__((vector_size(64)));

enum { FLOATS = 16 };

// mean + level(code) * scale for the codes at `shift` of the bytes `from`.
__attribute__((always_inline)) static inline kv_floats expand_floats(int scheme, int bits, const uint8_t *from, uint32_t shift,
                                                                     kv_floats scale, kv_floats mean) {
    kv_levels32 codes = __builtin_convertvector(*(const kv_bytes16 *)from, kv_levels32);
    codes = codes >> (int32_t)shift & ((1 << bits) - 1);
    if (scheme == KV_SIGN) codes = 2 * codes - 1;
    if (scheme == KV_TERNARY) codes = codes - 1;
    return mean + __builtin_convertvector(codes, kv_floats) * scale;
}

#if defined(KV_HAS_AVX) && !defined(KV_HAS_AVX512)
// Puts a block of bfloat16 that are no NaNs.
__attribute__((always_inline)) static inline void put_numbers(const __m256 values[4], int streams, uint16_t *to) {
    for (size_t k = 0; k < 2; k++) {
        __m256i halves = halves_of_words(words_of_numbers(values[2 * k]), words_of_numbers(values[2 * k + 1]));
        if (streams) _mm256_stream_si256((__m256i *)(to + 16 * k), halves);
        else _mm256_storeu_si256((__m256i *)(to + 16 * k), halves);
    }
}

// put_rotated to bfloat16, where that gives no NaN.
//
// Returns: 0 where there may be one; then nothing is put.
__attribute__((always_inline)) static inline int put_rotated_numbers(const kv_floats a[2], const kv_floats b[2],
                                                                     const float *cosines, const float *sines, size_t pairs,
                                                                     int streams, uint16_t *to) {
    __m256 first[4], second[4], sum = _mm256_setzero_ps();
    for (size_t k = 0; k < 4; k++) {
        __m256 x = _mm256_loadu_ps(cosines + 8 * k), y = _mm256_loadu_ps(sines + 8 * k), p, q;
        memcpy(&p, (const float *)a + 8 * k, sizeof p);
        memcpy(&q, (const float *)b + 8 * k, sizeof q);
        first[k] = _mm256_sub_ps(_mm256_mul_ps(p, x), _mm256_mul_ps(q, y));
        second[k] = _mm256_add_ps(_mm256_mul_ps(q, x), _mm256_mul_ps(p, y));
        // of a NaN comes a NaN
        sum = _mm256_add_ps(sum, _mm256_add_ps(first[k], second[k]));
    }
    if (_mm256_movemask_ps(_mm256_cmp_ps(sum, sum, _CMP_UNORD_Q))) return 0;
    put_numbers(first, streams, to);
    put_numbers(second, streams, to + pairs);
    return 1;
}
#endif

// Turns a block of channels and those that they are paired with.
__attribute__((always_inline)) static inline void put_rotated(int32_t type, const kv_floats a[2], const kv_floats b[2],
                                                              const float *cosines, const float *sines, size_t pairs, int streams,
                                                              uint16_t *to) {
#if defined(KV_HAS_AVX) && !defined(KV_HAS_AVX512)
    if (type == KV_BFLOAT16 && put_rotated_numbers(a, b, cosines, sines, pairs, streams, to)) return;
#endif
    float first[BLOCK], second[BLOCK];
    for (size_t k = 0; k < 2; k++) {
        kv_floats x = *(const kv_floats *)(cosines + k * FLOATS), y = *(const kv_floats *)(sines + k * FLOATS);
        *(kv_floats *)(first + k * FLOATS) = a[k] * x - b[k] * y;
        *(kv_floats *)(second + k * FLOATS) = b[k] * x + a[k] * y;
    }
    kv_block16 block;
    store_values16(first, BLOCK, type, (kv_u16 *)&block);
    put_block16(to, streams, block);
    store_values16(second, BLOCK, type, (kv_u16 *)&block);
    put_block16(to + pairs, streams, block);
}

// Channels c..<c + BLOCK of codes and those that they are paired with.
__attribute__((always_inline)) static inline void rotated_block(
    int scheme, int bits, int32_t type, const uint8_t *packed, size_t count, size_t columns, size_t c, const float *scales,
    const float *means, const float *cosines, const float *sines, const kv_rows16 *rows) {
    size_t per_byte = 8 / (size_t)bits, pairs = columns / 2;
    kv_floats scale[4], mean[4];
    for (size_t k = 0; k < 4; k++) {
        size_t at = c + k / 2 * pairs + k % 2 * FLOATS;
        scale[k] = *(const kv_floats *)(scales + at);
        mean[k] = *(const kv_floats *)(means + at);
    }
    for (size_t row = 0; row < count; row++) {
        uint16_t *to = rows->row[row];
        if (!to) continue;
        const uint8_t *from = packed + row / per_byte * columns + c;
        uint32_t shift = (uint32_t)(row % per_byte) * (uint32_t)bits;
        size_t angle = rows->token[row] * pairs + c;
        kv_floats a[2], b[2];
        for (size_t k = 0; k < 2; k++) {
            a[k] = expand_floats(scheme, bits, from + k * FLOATS, shift, scale[k], mean[k]);
            b[k] = expand_floats(scheme, bits, from + pairs + k * FLOATS, shift, scale[2 + k], mean[2 + k]);
        }
        put_rotated(type, a, b, cosines + angle, sines + angle, pairs, rows->streams, to + c);
    }
}

__attribute__((always_inline)) static inline void rotated_bits(
    int scheme, int bits, int32_t type, const uint8_t *packed, size_t count, size_t columns, const float *scales,
    const float *means, const float *cosines, const float *sines, const kv_rows16 *rows) {
    for (size_t c = 0; c < columns / 2; c += BLOCK) {
        if (type == KV_BFLOAT16) {
            rotated_block(scheme, bits, KV_BFLOAT16, packed, count, columns, c, scales, means, cosines, sines, rows);
        } else {
            rotated_block(scheme, bits, KV_FLOAT16, packed, count, columns, c, scales, means, cosines, sines, rows);
        }
    }
}

static void dequantize_rotated16(int32_t element_type, int scheme, int bits, const uint8_t *packed, size_t count, size_t columns,
                                 const float *scales, const float *means, const float *cosines, const float *sines,
                                 const kv_rows16 *rows) {
    WITH_CONSTANTS(rotated_bits, element_type, packed, count, columns, scales, means, cosines, sines, rows);
}

__attribute__((always_inline)) static inline void rotate_row16(int32_t type, const float *row, size_t pairs, const float *cosines,
                                                               const float *sines, int streams, uint16_t *to) {
    for (size_t c = 0; c < pairs; c += BLOCK) {
        const kv_floats *a = (const kv_floats *)(row + c), *b = (const kv_floats *)(row + pairs + c);
        put_rotated(type, a, b, cosines + c, sines + c, pairs, streams, to + c);
    }
}

static void store_rotated16(int32_t element_type, const float *values, size_t count, size_t dim, const float *cosines,
                            const float *sines, const kv_rows16 *rows) {
    size_t pairs = dim / 2;
    for (size_t i = 0; i < count; i++) {
        uint16_t *to = rows->row[i];
        if (!to) continue;
        const float *row = values + i * dim, *x = cosines + rows->token[i] * pairs, *y = sines + rows->token[i] * pairs;
        if (element_type == KV_BFLOAT16) rotate_row16(KV_BFLOAT16, row, pairs, x, y, rows->streams, to);
        else rotate_row16(KV_FLOAT16, row, pairs, x, y, rows->streams, to);
    }
}
