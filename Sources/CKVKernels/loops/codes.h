// From codes of a few bits to values: mean + level(code) * scale, the level an integer.
//
// A byte holds consecutive rows of one column, the first in the lowest bits. Read along columns, a vector of bytes gives vectors
// of whole rows; read along rows, the bytes of one column are a string of bits, of which a 32-bit word gives a vector of rows.

static inline float level_of(uint32_t code, int scheme) {
    int32_t level = scheme == KV_SIGN ? 2 * (int32_t)code - 1 : scheme == KV_TERNARY ? (int32_t)code - 1 : (int32_t)code;
    return (float)level;
}

// MARK: a row after the other

enum { BLOCK = 32 };

// `width` columns of a group, at most BLOCK. All that decides the loops' shape is constant where this is inlined.
__attribute__((always_inline)) static inline void dequantize_block(
    int scheme, int bits, const uint8_t *packed, size_t stride, size_t rows, size_t width, const float *scales,
    const float *means, float *out, size_t out_stride) {
    size_t per_byte = 8 / (size_t)bits;
    float scale[BLOCK], mean[BLOCK];
    for (size_t c = 0; c < width; c++) scale[c] = scales[c];
    for (size_t c = 0; c < width; c++) mean[c] = means[c];
    for (size_t row = 0; row < rows; row++) {
        const uint8_t *restrict from = packed + row / per_byte * stride;
        uint32_t shift = (uint32_t)(row % per_byte) * (uint32_t)bits;
        float *restrict to = out + row * out_stride;
        for (size_t c = 0; c < width; c++) {
            uint32_t code = (uint32_t)from[c] >> shift & ((1u << bits) - 1);
            to[c] = mean[c] + level_of(code, scheme) * scale[c];
        }
    }
}

__attribute__((always_inline)) static inline void dequantize_bits(
    int scheme, int bits, const uint8_t *packed, size_t rows, size_t columns, const float *scales, const float *means, float *out,
    size_t out_stride) {
    size_t c = 0;
    for (; c + BLOCK <= columns; c += BLOCK) {
        dequantize_block(scheme, bits, packed + c, columns, rows, BLOCK, scales + c, means + c, out + c, out_stride);
    }
    if (c < columns) {
        dequantize_block(scheme, bits, packed + c, columns, rows, columns - c, scales + c, means + c, out + c, out_stride);
    }
}

// Calls a function with scheme and bits as constants. Sign codes have 1 bit and ternary ones 2 wherever the encoder wrote them,
// but an image may say otherwise.
#define WITH_CONSTANTS(function, ...)                                                   \
    do {                                                                                \
        if (scheme == KV_UNIFORM && bits == 1) function(KV_UNIFORM, 1, __VA_ARGS__);     \
        else if (scheme == KV_UNIFORM && bits == 2) function(KV_UNIFORM, 2, __VA_ARGS__); \
        else if (scheme == KV_UNIFORM && bits == 4) function(KV_UNIFORM, 4, __VA_ARGS__); \
        else if (scheme == KV_UNIFORM && bits == 8) function(KV_UNIFORM, 8, __VA_ARGS__); \
        else if (scheme == KV_SIGN && bits == 1) function(KV_SIGN, 1, __VA_ARGS__);       \
        else if (scheme == KV_TERNARY && bits == 2) function(KV_TERNARY, 2, __VA_ARGS__); \
        else function(scheme, bits, __VA_ARGS__);                                       \
    } while (0)

static void dequantize_group(int scheme, int bits, const uint8_t *packed, size_t rows, size_t columns, const float *scales,
                             const float *means, float *out, size_t out_stride) {
    WITH_CONSTANTS(dequantize_bits, packed, rows, columns, scales, means, out, out_stride);
}

// MARK: a column after the other

typedef uint32_t kv_code_word __attribute__((aligned(1), may_alias));

// Joins four bytes each of `width` columns, at most BLOCK, to words. Of the rows of bytes only `byte_rows` are there.
__attribute__((always_inline)) static inline void join_bytes(const uint8_t *packed, size_t stride, size_t byte_rows, size_t width,
                                                             uint32_t *restrict words) {
    if (byte_rows >= 4) {
        const uint8_t *a = packed, *b = a + stride, *c = b + stride, *d = c + stride;
        for (size_t i = 0; i < width; i++) {
            words[i] = (uint32_t)a[i] | (uint32_t)b[i] << 8 | (uint32_t)c[i] << 16 | (uint32_t)d[i] << 24;
        }
        return;
    }
    for (size_t i = 0; i < width; i++) {
        words[i] = 0;
        for (size_t b = 0; b < byte_rows; b++) words[i] |= (uint32_t)packed[b * stride + i] << (8 * b);
    }
}

// The values of a whole word of codes.
__attribute__((always_inline)) static inline void expand_word(int scheme, int bits, uint32_t word, float scale, float mean,
                                                              float *restrict out) {
    if (bits == 1) {
        float low = mean + level_of(0, scheme) * scale, high = mean + level_of(1, scheme) * scale;
        for (int w = 0; w < 32; w++) out[w] = word >> w & 1 ? high : low;
        return;
    }
#ifdef KV_HAS_AVX
    if (bits == 2) {
        // The four values there are, in both halves of a vector; the low two bits of each lane choose one.
        float values[4];
        for (uint32_t code = 0; code < 4; code++) values[code] = mean + level_of(code, scheme) * scale;
        __m256 choice = _mm256_broadcast_ps((const __m128 *)values);
        __m256i all = _mm256_set1_epi32((int)word), shifts = _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14);
        _mm256_storeu_ps(out, _mm256_permutevar_ps(choice, _mm256_srlv_epi32(all, shifts)));
        all = _mm256_srli_epi32(all, 16);
        _mm256_storeu_ps(out + 8, _mm256_permutevar_ps(choice, _mm256_srlv_epi32(all, shifts)));
        return;
    }
#endif
    for (int w = 0; w < 32 / bits; w++) {
        out[w] = mean + level_of(word >> (w * bits) & ((1u << bits) - 1), scheme) * scale;
    }
}

// Whole vectors of lanes; those past `count` get the value of code 0.
__attribute__((always_inline)) static inline void lanes_bits(
    int scheme, int bits, const uint8_t *packed, size_t count, size_t columns, const float *scales, const float *means,
    const uint16_t *channels, float *lanes) {
    size_t per_byte = 8 / (size_t)bits, byte_rows = (count + per_byte - 1) / per_byte;
    for (size_t first = 0; first < columns; first += BLOCK) {
        size_t width = columns - first < BLOCK ? columns - first : BLOCK;
        uint32_t words[8][BLOCK];
        for (size_t k = 0; k < (size_t)bits; k++) {
            size_t left = byte_rows > 4 * k ? byte_rows - 4 * k : 0;
            const uint8_t *from = packed + (left > 0 ? 4 * k * columns : 0) + first;
            if (width == BLOCK) join_bytes(from, columns, left, BLOCK, words[k]);
            else join_bytes(from, columns, left, width, words[k]);
        }
        for (size_t i = 0; i < width; i++) {
            size_t c = first + i;
            float *out = lanes + (channels ? channels[c] : c) * KV_LANES;
            for (size_t k = 0; k < (size_t)bits; k++) {
                expand_word(scheme, bits, words[k][i], scales[c], means[c], out + k * (32 / (size_t)bits));
            }
        }
    }
}

static void dequantize_lanes(int scheme, int bits, const uint8_t *packed, size_t count, size_t columns, const float *scales,
                             const float *means, const uint16_t *channels, float *lanes) {
    WITH_CONSTANTS(lanes_bits, packed, count, columns, scales, means, channels, lanes);
}

// MARK: groups along channels

// `count` values of one group from its string of codes.
__attribute__((always_inline)) static inline void expand_string(int scheme, int bits, const uint8_t *string, size_t count,
                                                                float scale, float mean, float *restrict out) {
    size_t per_word = 32 / (size_t)bits, i = 0;
    for (; i + per_word <= count; i += per_word) {
        expand_word(scheme, bits, *(const kv_code_word *)(string + i / per_word * 4), scale, mean, out + i);
    }
    for (; i < count; i++) {
        uint32_t code = (uint32_t)string[i * (size_t)bits / 8] >> (i * (size_t)bits % 8) & ((1u << bits) - 1);
        out[i] = mean + level_of(code, scheme) * scale;
    }
}

// Groups have 8 channels or more.
enum { TOKENS = 16, STRING_WORDS = 1024 / 4, STRING_GROUPS = 1024 / 8 };

typedef uint32_t kv_words __attribute__((vector_size(64)));
typedef uint8_t kv_bytes16 __attribute__((vector_size(16), aligned(1), may_alias));

// Four bytes each of TOKENS columns as words.
static inline kv_words join_whole(const uint8_t *packed, size_t stride) {
    kv_words word = __builtin_convertvector(*(const kv_bytes16 *)packed, kv_words);
    word |= __builtin_convertvector(*(const kv_bytes16 *)(packed + stride), kv_words) << 8;
    word |= __builtin_convertvector(*(const kv_bytes16 *)(packed + 2 * stride), kv_words) << 16;
    return word | __builtin_convertvector(*(const kv_bytes16 *)(packed + 3 * stride), kv_words) << 24;
}

// The codes of `width` tokens, at most TOKENS. Those of one token are a string of bits from its first channel to its last, as
// every group but the last fills whole bytes.
__attribute__((always_inline)) static inline void join_strings(int bits, const uint8_t *packed, size_t columns, size_t dim,
                                                               size_t width, uint32_t strings[TOKENS][STRING_WORDS]) {
    size_t byte_rows = (dim * (size_t)bits + 7) / 8, b = 0;
    if (width == TOKENS) {
        for (; b + 16 <= byte_rows; b += 16) {
            kv_words words[4], pairs[4];
            for (size_t k = 0; k < 4; k++) words[k] = join_whole(packed + (b + 4 * k) * columns, columns);
            // Word k of each token to neighbours of word k + 1, then those pairs to fours: token t's are in vector t % 4.
            for (size_t k = 0; k < 2; k++) {
                pairs[k] = __builtin_shufflevector(words[2 * k], words[2 * k + 1], 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12,
                                                   28, 13, 29);
                pairs[2 + k] = __builtin_shufflevector(words[2 * k], words[2 * k + 1], 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27,
                                                       14, 30, 15, 31);
            }
            for (size_t k = 0; k < 2; k++) {
                kv_words even = __builtin_shufflevector(pairs[2 * k], pairs[2 * k + 1], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25,
                                                        12, 13, 28, 29);
                kv_words odd = __builtin_shufflevector(pairs[2 * k], pairs[2 * k + 1], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27,
                                                       14, 15, 30, 31);
                for (size_t t = 0; t < 4; t++) {
                    memcpy(&strings[4 * t + 2 * k][b / 4], (const uint32_t *)&even + 4 * t, 16);
                    memcpy(&strings[4 * t + 2 * k + 1][b / 4], (const uint32_t *)&odd + 4 * t, 16);
                }
            }
        }
    }
    for (; b < byte_rows; b += 4) {
        uint32_t words[TOKENS];
        const uint8_t *from = packed + b * columns;
        if (width == TOKENS) join_bytes(from, columns, byte_rows - b, TOKENS, words);
        else join_bytes(from, columns, byte_rows - b, width, words);
        for (size_t i = 0; i < width; i++) strings[i][b / 4] = words[i];
    }
}

__attribute__((always_inline)) static inline void along_bits(
    int scheme, int bits, const uint8_t *packed, size_t columns, size_t count, size_t dim, size_t group, const float *scales,
    const float *means, float *rows) {
    uint32_t strings[TOKENS][STRING_WORDS];
    for (size_t first = 0; first < count; first += TOKENS) {
        size_t width = count - first < TOKENS ? count - first : TOKENS;
        join_strings(bits, packed + first, columns, dim, width, strings);
        for (size_t i = 0; i < width; i++) {
            const uint8_t *string = (const uint8_t *)strings[i];
            float *row = rows + (first + i) * dim;
            for (size_t g = 0, c = 0; c < dim; g++, c += group) {
                size_t at = g * columns + first + i, own = dim - c < group ? dim - c : group;
                expand_string(scheme, bits, string + c * (size_t)bits / 8, own, scales[at], means[at], row + c);
            }
        }
    }
}

static void dequantize_along(int scheme, int bits, const uint8_t *packed, size_t columns, size_t count, size_t dim, size_t group,
                             const float *scales, const float *means, float *rows) {
    WITH_CONSTANTS(along_bits, packed, columns, count, dim, group, scales, means, rows);
}
