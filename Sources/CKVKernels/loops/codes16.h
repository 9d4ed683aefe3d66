// Codes of at most 2 bits straight to 16-bit elements, written where they belong.
//
// A group of a column has no more than four values. Rounded once, they are then only chosen from, which takes a fraction of the
// work of computing and rounding every element.

#include "rows16.h"

typedef uint8_t kv_bytes __attribute__((vector_size(BLOCK), aligned(1), may_alias));

// Rounds what the codes of `width` columns, at most BLOCK, stand for.
__attribute__((always_inline)) static inline void round_levels(int32_t type, int scheme, size_t width, const float *scales,
                                                               const float *means, uint16_t rounded[4][BLOCK]) {
    for (uint32_t code = 0; code < 4; code++) {
        float values[BLOCK];
        for (size_t c = 0; c < width; c++) values[c] = means[c] + level_of(code, scheme) * scales[c];
        store_values16(values, width, type, rounded[code]);
    }
}

// All ones where the code's bit is set.
static inline uint16_t mask_of(uint16_t bits, int bit) { return (uint16_t)((int16_t)(uint16_t)(bits << (15 - bit)) >> 15); }

// MARK: a row after the other

// What the codes of a block of columns stand for.
typedef struct {
    kv_block16 level[4];
} kv_levels;

// The values of one row of a block, whose codes begin at `shift` of the bytes `from`.
__attribute__((always_inline)) static inline kv_block16 choose(int bits, const uint8_t *from, uint32_t shift,
                                                               const kv_levels *v) {
#ifdef KV_HAS_AVX512
    __m256i codes = _mm256_loadu_si256((const __m256i *)from);
    __mmask32 low = _mm256_test_epi8_mask(codes, _mm256_set1_epi8((char)(1u << shift)));
    __m512i odd = _mm512_mask_mov_epi16((__m512i)v->level[0], low, (__m512i)v->level[1]);
    if (bits == 1) return (kv_block16)odd;
    __mmask32 high = _mm256_test_epi8_mask(codes, _mm256_set1_epi8((char)(2u << shift)));
    __m512i upper = _mm512_mask_mov_epi16((__m512i)v->level[2], low, (__m512i)v->level[3]);
    return (kv_block16)_mm512_mask_mov_epi16(odd, high, upper);
#else
    kv_block16 codes = __builtin_convertvector(*(const kv_bytes *)from, kv_block16);
    kv_block16 bit = (kv_block16){0} + (uint16_t)(1u << shift);
    kv_block16 is_low = (kv_block16)((codes & bit) != 0);
    kv_block16 odd = v->level[0] ^ ((v->level[0] ^ v->level[1]) & is_low);
    if (bits == 1) return odd;
    kv_block16 is_high = (kv_block16)((codes & (bit << 1)) != 0);
    kv_block16 upper = v->level[2] ^ ((v->level[2] ^ v->level[3]) & is_low);
    return odd ^ ((odd ^ upper) & is_high);
#endif
}

// Columns c..<c + width, at most BLOCK. All that decides the loops' shape is constant where this is inlined.
__attribute__((always_inline)) static inline void choose_block(
    int scheme, int bits, int32_t type, const uint8_t *packed, size_t count, size_t columns, size_t c, size_t width,
    const float *scales, const float *means, const kv_rows16 *rows) {
    size_t per_byte = 8 / (size_t)bits;
    uint16_t rounded[4][BLOCK];
    round_levels(type, scheme, width, scales + c, means + c, rounded);
    kv_levels v;
    if (width == BLOCK) memcpy(&v, rounded, sizeof v);
    for (size_t row = 0; row < count; row++) {
        uint16_t *restrict to = rows->row[row];
        if (!to) continue;
        const uint8_t *restrict from = packed + row / per_byte * columns + c;
        uint32_t shift = (uint32_t)(row % per_byte) * (uint32_t)bits;
        if (width == BLOCK) {
            put_block16(to + c, rows->streams, choose(bits, from, shift, &v));
        } else {
            for (size_t i = 0; i < width; i++) to[c + i] = rounded[(from[i] >> shift) & ((1u << bits) - 1)][i];
        }
    }
}

__attribute__((always_inline)) static inline void choose_bits(
    int scheme, int bits, int32_t type, const uint8_t *packed, size_t count, size_t columns, const float *scales,
    const float *means, const kv_rows16 *rows) {
    size_t c = 0;
    for (; c + BLOCK <= columns; c += BLOCK) {
        choose_block(scheme, bits, type, packed, count, columns, c, BLOCK, scales, means, rows);
    }
    if (c < columns) choose_block(scheme, bits, type, packed, count, columns, c, columns - c, scales, means, rows);
}

static void dequantize_group16(int32_t element_type, int scheme, int bits, const uint8_t *packed, size_t count, size_t columns,
                               const float *scales, const float *means, const kv_rows16 *rows) {
    WITH_CONSTANTS(choose_bits, element_type, packed, count, columns, scales, means, rows);
}

// MARK: a column after the other

// The values of a block of codes of one group, from its string of bits.
__attribute__((always_inline)) static inline kv_block16 choose_whole(int bits, const uint8_t *string, uint64_t levels) {
    typedef uint16_t halves4 __attribute__((vector_size(8), aligned(1), may_alias));
    halves4 own = {0};
    memcpy(&own, string, BLOCK * (size_t)bits / 8);
    // Each lane gets the half word that its code is in.
#ifdef KV_HAS_AVX512
    uint64_t all;
    memcpy(&all, &own, sizeof all);
    __m512i codes = _mm512_set1_epi64((long long)all), table = _mm512_set1_epi64((long long)levels);
    if (bits == 1) {
        const __m512i spread = _mm512_set_epi64(0x0302030203020302, 0x0302030203020302, 0x0302030203020302, 0x0302030203020302,
                                                0x0100010001000100, 0x0100010001000100, 0x0100010001000100, 0x0100010001000100);
        const __m512i bit = _mm512_set4_epi64((long long)0x8000400020001000, 0x0800040002000100, 0x0080004000200010,
                                              0x0008000400020001);
        // Bits 16 w ... 16 w + 15 are those of lanes 16 w on.
        __mmask32 is_set = _mm512_test_epi16_mask(_mm512_shuffle_epi8(codes, spread), bit);
        __m512i clear = _mm512_set1_epi16((short)levels), set = _mm512_set1_epi16((short)(levels >> 16));
        return (kv_block16)_mm512_mask_mov_epi16(clear, is_set, set);
    }
    const __m512i spread = _mm512_set_epi64(0x0706070607060706, 0x0706070607060706, 0x0504050405040504, 0x0504050405040504,
                                            0x0302030203020302, 0x0302030203020302, 0x0100010001000100, 0x0100010001000100);
    const __m512i shift = _mm512_set4_epi64(0x000E000C000A0008, 0x0006000400020000, 0x000E000C000A0008, 0x0006000400020000);
    // A permutation looks at the low five bits of a lane; the four values are there eight times over.
    return (kv_block16)_mm512_permutexvar_epi16(_mm512_srlv_epi16(_mm512_shuffle_epi8(codes, spread), shift), table);
#else
#ifdef KV_HAS_AVX
    if (bits == 2) {
        uint64_t all;
        memcpy(&all, &own, sizeof all);
        __m256i words = _mm256_set1_epi64x((long long)all), table = _mm256_set1_epi64x((long long)levels), values[2];
        const __m256i spread = _mm256_set_epi64x(0x0302030203020302, 0x0302030203020302, 0x0100010001000100, 0x0100010001000100);
        // A lane's code to the top of it.
        const __m256i lift = _mm256_set_epi64x(0x0001000400100040, 0x0100040010004000, 0x0001000400100040, 0x0100040010004000);
        for (int k = 0; k < 2; k++) {
            __m256i halves = _mm256_shuffle_epi8(words, _mm256_add_epi8(spread, _mm256_set1_epi8((char)(4 * k))));
            __m256i code = _mm256_srli_epi16(_mm256_mullo_epi16(halves, lift), 14);
            // Bytes 2 code and 2 code + 1 of the table.
            __m256i bytes = _mm256_add_epi16(_mm256_mullo_epi16(code, _mm256_set1_epi16(0x0202)), _mm256_set1_epi16(0x0100));
            values[k] = _mm256_shuffle_epi8(table, bytes);
        }
        kv_block16 block;
        memcpy(&block, values, sizeof block);
        return block;
    }
#endif
    const kv_block16 none = {0};
    kv_block16 codes, low;
    if (bits == 1) {
        codes = __builtin_shufflevector(own, own, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1);
        low = (kv_block16){1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768,
                           1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};
    } else {
        codes = __builtin_shufflevector(own, own, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1,
                                        2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
        low = (kv_block16){1, 4, 16, 64, 256, 1024, 4096, 16384, 1, 4, 16, 64, 256, 1024, 4096, 16384,
                           1, 4, 16, 64, 256, 1024, 4096, 16384, 1, 4, 16, 64, 256, 1024, 4096, 16384};
    }
    uint16_t zero = (uint16_t)levels, on_low = zero ^ (uint16_t)(levels >> 16), on_high = zero ^ (uint16_t)(levels >> 32);
    uint16_t on_both = on_low ^ (uint16_t)(levels >> 32) ^ (uint16_t)(levels >> 48);
    kv_block16 is_low = (kv_block16)((codes & low) != 0);
    kv_block16 odd = (none + zero) ^ ((none + on_low) & is_low);
    if (bits == 1) return odd;
    kv_block16 is_high = (kv_block16)((codes & (low << 1)) != 0);
    return odd ^ ((none + on_high) & is_high) ^ ((none + on_both) & is_low & is_high);
#endif
}

// `count` elements of one group from its string of codes; 16 bits of `levels` each for the four codes.
__attribute__((always_inline)) static inline void choose_string(int bits, const uint8_t *string, size_t count, uint64_t levels,
                                                                int streams, uint16_t *restrict out) {
    size_t i = 0;
    for (; i + BLOCK <= count; i += BLOCK) {
        put_block16(out + i, streams, choose_whole(bits, string + i * (size_t)bits / 8, levels));
    }
    for (; i < count; i++) {
        int code = string[i * (size_t)bits / 8] >> (i * (size_t)bits % 8) & ((1 << bits) - 1);
        out[i] = (uint16_t)(levels >> (16 * code));
    }
}

__attribute__((always_inline)) static inline void choose_along(
    int scheme, int bits, int32_t type, const uint8_t *packed, size_t columns, size_t count, size_t dim, size_t group,
    const float *scales, const float *means, const kv_rows16 *rows) {
    uint32_t strings[TOKENS][STRING_WORDS];
    uint64_t levels[STRING_GROUPS][TOKENS];
    for (size_t first = 0; first < count; first += TOKENS) {
        size_t width = count - first < TOKENS ? count - first : TOKENS;
        join_strings(bits, packed + first, columns, dim, width, strings);
        for (size_t g = 0; g * group < dim; g++) {
            const float *scale = scales + g * columns + first, *mean = means + g * columns + first;
            uint16_t rounded[4][BLOCK];
            if (width == TOKENS) round_levels(type, scheme, TOKENS, scale, mean, rounded);
            else round_levels(type, scheme, width, scale, mean, rounded);
            for (size_t i = 0; i < width; i++) {
                levels[g][i] = (uint64_t)rounded[0][i] | (uint64_t)rounded[1][i] << 16 | (uint64_t)rounded[2][i] << 32
                    | (uint64_t)rounded[3][i] << 48;
            }
        }
        for (size_t i = 0; i < width; i++) {
            uint16_t *to = rows->row[first + i];
            if (!to) continue;
            // The usual shape, without the bookkeeping of any shape, which takes as long as the values.
            if (group == BLOCK && dim % BLOCK == 0) {
                for (size_t g = 0; g < dim / BLOCK; g++) {
                    const uint8_t *string = (const uint8_t *)strings[i] + g * (BLOCK / 8) * (size_t)bits;
                    put_block16(to + g * BLOCK, rows->streams, choose_whole(bits, string, levels[g][i]));
                }
                continue;
            }
            for (size_t g = 0, c = 0; c < dim; g++, c += group) {
                size_t own = dim - c < group ? dim - c : group;
                const uint8_t *string = (const uint8_t *)strings[i] + c * (size_t)bits / 8;
                choose_string(bits, string, own, levels[g][i], rows->streams, to + c);
            }
        }
    }
}

static void dequantize_along16(int32_t element_type, int scheme, int bits, const uint8_t *packed, size_t columns, size_t count,
                               size_t dim, size_t group, const float *scales, const float *means, const kv_rows16 *rows) {
    WITH_CONSTANTS(choose_along, element_type, packed, columns, count, dim, group, scales, means, rows);
}
