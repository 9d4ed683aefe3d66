// From codes of a few bits to values: mean + level(code) * scale, the level an integer.
//
// A byte holds consecutive rows of one column, the first in the lowest bits. Read along columns, a vector of bytes gives vectors of
// whole rows; read along rows, the bytes of one column are a string of bits, of which a 32-bit word gives a vector of rows.

static inline float level_of(uint32_t code, int scheme) {
    int32_t level = scheme == KV_SIGN ? 2 * (int32_t)code - 1 : scheme == KV_TERNARY ? (int32_t)code - 1 : (int32_t)code;
    return (float)level;
}

// MARK: a row after the other

enum { BLOCK = 32 };

// `width` columns of a group, at most BLOCK. All that decides the loops' shape is constant where this is inlined.
__attribute__((always_inline)) static inline void dequantize_block(
    int scheme, int bits, const uint8_t *packed, size_t stride, size_t rows, size_t width, const float *scales, const float *means,
    float *out, size_t out_stride) {
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

// Calls a function with scheme and bits as constants. Sign codes have 1 bit and ternary ones 2 wherever the encoder wrote them, but an
// image may say otherwise.
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

// `count` values from the string of bits in `words`.
__attribute__((always_inline)) static inline void expand_words(int scheme, int bits, const kv_code_word *words, size_t count,
                                                               float scale, float mean, float *restrict out) {
    size_t per_word = 32 / (size_t)bits, i = 0;
    uint32_t mask = (1u << bits) - 1;
    for (; i + per_word <= count; i += per_word) {
        uint32_t word = words[i / per_word];
        for (size_t w = 0; w < per_word; w++) {
            out[i + w] = mean + level_of(word >> (w * (size_t)bits) & mask, scheme) * scale;
        }
    }
    for (; i < count; i++) {
        uint32_t code = words[i / per_word] >> (i % per_word * (size_t)bits) & mask;
        out[i] = mean + level_of(code, scheme) * scale;
    }
}

// Whole vectors of lanes; those past `count` get the value of code 0.
__attribute__((always_inline)) static inline void lanes_bits(
    int scheme, int bits, const uint8_t *packed, size_t count, size_t columns, const float *scales, const float *means,
    const uint16_t *channels, float *lanes) {
    size_t per_byte = 8 / (size_t)bits, byte_rows = (count + per_byte - 1) / per_byte;
    for (size_t c = 0; c < columns; c++) {
        uint32_t words[8] = {0};
        for (size_t b = 0; b < byte_rows; b++) words[b / 4] |= (uint32_t)packed[b * columns + c] << (8 * (b % 4));
        float *out = lanes + (channels ? channels[c] : c) * KV_LANES;
        expand_words(scheme, bits, words, KV_LANES, scales[c], means[c], out);
    }
}

static void dequantize_lanes(int scheme, int bits, const uint8_t *packed, size_t count, size_t columns, const float *scales,
                             const float *means, const uint16_t *channels, float *lanes) {
    WITH_CONSTANTS(lanes_bits, packed, count, columns, scales, means, channels, lanes);
}

// The codes of a token are a string of bits from its first channel to its last, as every group but the last fills whole bytes.
__attribute__((always_inline)) static inline void along_bits(
    int scheme, int bits, const uint8_t *packed, size_t columns, size_t count, size_t dim, size_t group, const float *scales,
    const float *means, float *rows) {
    size_t byte_rows = (dim * (size_t)bits + 7) / 8;
    for (size_t first = 0; first < count; first += 8) {
        size_t width = count - first < 8 ? count - first : 8;
        uint8_t strings[8][1024 + sizeof(kv_code_word)];
        for (size_t i = 0; i < width; i++) memset(strings[i] + byte_rows, 0, sizeof(kv_code_word));
        for (size_t b = 0; b < byte_rows; b++) {
            const uint8_t *from = packed + b * columns + first;
            for (size_t i = 0; i < width; i++) strings[i][b] = from[i];
        }
        for (size_t i = 0; i < width; i++) {
            for (size_t g = 0, channel = 0; channel < dim; g++, channel += group) {
                size_t rest = dim - channel < group ? dim - channel : group, at = g * columns + first + i;
                // A group is a multiple of 8 channels; at 1 or 2 bits it may start within a word.
                const kv_code_word *own = (const kv_code_word *)(strings[i] + channel * (size_t)bits / 8);
                expand_words(scheme, bits, own, rest, scales[at], means[at], rows + (first + i) * dim + channel);
            }
        }
    }
}

static void dequantize_along(int scheme, int bits, const uint8_t *packed, size_t columns, size_t count, size_t dim, size_t group,
                             const float *scales, const float *means, float *rows) {
    WITH_CONSTANTS(along_bits, packed, columns, count, dim, group, scales, means, rows);
}
