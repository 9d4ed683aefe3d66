// Between a caller's strided tensors and the codec's float rows.

#include "../tensor.h"
#include "streaming.h"

static inline float float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t bits_of_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float from_bfloat16(uint16_t bits) { return float_of_bits((uint32_t)bits << 16); }

static inline float from_float16(uint16_t bits) {
    // The exponent of a half sits in the low bits of a float's, 112 too low; multiplying repairs normals and subnormals alike.
    float scaled = float_of_bits((uint32_t)(bits & 0x7FFF) << 13) * 0x1p112f;
    uint32_t special = (bits & 0x7C00) == 0x7C00 ? 0x7F800000u : 0;
    return float_of_bits(bits_of_float(scaled) | special | (uint32_t)(bits & 0x8000) << 16);
}

static inline uint16_t to_bfloat16(float value) {
    uint32_t bits = bits_of_float(value);
    uint32_t rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
    uint32_t quiet = bits >> 16 | 0x40;
    return (uint16_t)((bits & 0x7FFFFFFF) > 0x7F800000 ? quiet : rounded);
}

static inline uint16_t to_float16(float value) {
    uint32_t bits = bits_of_float(value);
    uint32_t magnitude = bits & 0x7FFFFFFF;
    uint32_t normal = (magnitude - 0x38000000 + 0xFFF + (magnitude >> 13 & 1)) >> 13;
    // Added to 1/2, a magnitude below 2^-14 lands in the last bits of the sum, rounded to a half's smallest step.
    uint32_t subnormal = bits_of_float(float_of_bits(magnitude) + 0.5f) - 0x3F000000;
    uint32_t special = magnitude > 0x7F800000 ? 0x7E00 | (magnitude >> 13 & 0x1FF) : 0x7C00;
    uint32_t half = magnitude >= 0x47800000 ? special : magnitude < 0x38800000 ? subnormal : normal;
    return (uint16_t)(half | (bits >> 16 & 0x8000));
}

static void load_row16(const kv_u16 *restrict from, size_t dim, int32_t type, float *restrict row) {
    if (type == KV_BFLOAT16) {
        for (size_t c = 0; c < dim; c++) row[c] = from_bfloat16(from[c]);
    } else {
        for (size_t c = 0; c < dim; c++) row[c] = from_float16(from[c]);
    }
}

static void load_rows(kv_head head, const uint32_t *tokens, size_t count, float *rows) {
    size_t dim = head.dim;
    ptrdiff_t stride = head.channel_stride;
    for (size_t i = 0; i < count; i++) {
        const char *from = token_base(head, tokens[i]);
        float *row = rows + i * dim;
        if (head.element_type == KV_FLOAT32) {
            if (stride == 1) memcpy(row, from, 4 * dim);
            else for (size_t c = 0; c < dim; c++) memcpy(row + c, from + 4 * (ptrdiff_t)c * stride, 4);
        } else if (stride == 1) {
            load_row16((const kv_u16 *)from, dim, head.element_type, row);
        } else if (head.element_type == KV_BFLOAT16) {
            for (size_t c = 0; c < dim; c++) row[c] = from_bfloat16(((const kv_u16 *)from)[(ptrdiff_t)c * stride]);
        } else {
            for (size_t c = 0; c < dim; c++) row[c] = from_float16(((const kv_u16 *)from)[(ptrdiff_t)c * stride]);
        }
    }
}

static void load_contiguous(int32_t element_type, const void *values, size_t count, float *out) {
    if (element_type == KV_FLOAT32) memcpy(out, values, 4 * count);
    else load_row16(values, count, element_type, out);
}

#if defined(KV_HAS_AVX) && !defined(KV_HAS_AVX512)
// to_bfloat16 of eight values none of which is a NaN, in words.
__attribute__((always_inline)) static inline __m256i words_of_numbers(__m256 value) {
    __m256i bits = _mm256_castps_si256(value);
    __m256i last = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    return _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, last), _mm256_set1_epi32(0x7FFF)), 16);
}

// Two vectors of words to one of halves, in order.
__attribute__((always_inline)) static inline __m256i halves_of_words(__m256i low, __m256i high) {
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(low, high), 0xD8);
}

// to_bfloat16 of eight values, in words.
__attribute__((always_inline)) static inline __m256i words_of_bfloat16(const float *values) {
    __m256 value = _mm256_loadu_ps(values);
    __m256 is_nan = _mm256_cmp_ps(value, value, _CMP_UNORD_Q);
    __m256i bits = _mm256_castps_si256(value), high = _mm256_srli_epi32(bits, 16), quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
    __m256i carry = _mm256_add_epi32(_mm256_and_si256(high, _mm256_set1_epi32(1)), _mm256_set1_epi32(0x7FFF));
    __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, carry), 16);
    return _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(is_nan));
}
#endif

// Inlined, so that where the count is a constant nothing is left of the loops.
__attribute__((always_inline)) static inline void store_values16(const float *restrict row, size_t count, int32_t type,
                                                                 kv_u16 *restrict halves) {
    size_t c = 0;
    if (type == KV_BFLOAT16) {
#ifdef KV_HAS_AVX512_BF16
        // The instruction rounds and quiets NaNs just as to_bfloat16 does, but takes subnormals for zero.
        for (; c + 32 <= count; c += 32) {
            enum { SUBNORMAL = 0x20 };
            __m512 low = _mm512_loadu_ps(row + c), high = _mm512_loadu_ps(row + c + 16);
            if (_mm512_fpclass_ps_mask(low, SUBNORMAL) | _mm512_fpclass_ps_mask(high, SUBNORMAL)) {
                for (size_t i = c; i < c + 32; i++) halves[i] = to_bfloat16(row[i]);
            } else {
                _mm512_storeu_si512(halves + c, (__m512i)_mm512_cvtne2ps_pbh(high, low));
            }
        }
        if (c + 16 <= count) {
            __m512 values = _mm512_loadu_ps(row + c);
            if (!_mm512_fpclass_ps_mask(values, 0x20)) {
                _mm256_storeu_si256((__m256i *)(halves + c), (__m256i)_mm512_cvtneps_pbh(values));
                c += 16;
            }
        }
#endif
#if defined(KV_HAS_AVX) && !defined(KV_HAS_AVX512)
        for (; c + 16 <= count; c += 16) {
            __m256i words = halves_of_words(words_of_bfloat16(row + c), words_of_bfloat16(row + c + 8));
            _mm256_storeu_si256((__m256i *)(halves + c), words);
        }
#endif
        for (; c < count; c++) halves[c] = to_bfloat16(row[c]);
        return;
    }
#ifdef KV_HAS_AVX
    // Rounds and quiets NaNs just as to_float16 does.
    for (; c + 8 <= count; c += 8) {
        __m128i eight = _mm256_cvtps_ph(_mm256_loadu_ps(row + c), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128((__m128i *)(halves + c), eight);
    }
#endif
    for (; c < count; c++) halves[c] = to_float16(row[c]);
}

// A row of whole cache lines, written past the caches.
static inline void stream_row16(const float *restrict row, size_t dim, int32_t type, uint16_t *restrict line) {
    enum { PER_LINE = 32 };
    for (size_t c = 0; c < dim; c += PER_LINE) {
        _Alignas(64) uint16_t halves[PER_LINE];
        store_values16(row + c, PER_LINE, type, halves);
        stream_lines(line + c, halves, sizeof halves);
    }
}

static void store_rows(kv_head head, const uint32_t *tokens, size_t count, const float *rows) {
    uint16_t halves[1024];
    int streams = rows_are_lines(head);
    for (size_t i = 0; i < count; i++) {
        const float *row = rows + i * head.dim;
        char *to = (char *)token_base(head, tokens[i]);
        if (head.element_type == KV_FLOAT32) {
            if (streams) stream_lines(to, row, 4 * (size_t)head.dim);
            else place_row(to, head.channel_stride, row, head.dim, 4);
        } else if (streams) {
            stream_row16(row, head.dim, head.element_type, (uint16_t *)to);
        } else if (head.channel_stride == 1) {
            store_values16(row, head.dim, head.element_type, (kv_u16 *)to);
        } else {
            store_values16(row, head.dim, head.element_type, halves);
            place_row(to, head.channel_stride, halves, head.dim, 2);
        }
    }
}

static void copy_rows(kv_head head, const uint32_t *tokens, size_t count, const void *values) {
    size_t size = element_bytes(head.element_type);
    int streams = rows_are_lines(head);
    for (size_t i = 0; i < count; i++) {
        char *to = (char *)token_base(head, tokens[i]);
        const char *from = (const char *)values + i * head.dim * size;
        if (streams) stream_lines(to, from, head.dim * size);
        else place_row(to, head.channel_stride, from, head.dim, size);
    }
}
