// Codes of at most 2 bits straight to 16-bit elements.
//
// A group of a column has no more than four values. Rounded once, they are then only chosen from, which takes a fraction of the
// work of computing and rounding every element.

// The values of codes 0...3 as what each of the code's bits, and both together, flip in the value of code 0.
typedef struct {
    uint16_t zero[BLOCK], low[BLOCK], high[BLOCK], both[BLOCK];
} kv_choices;

// Rounds what the codes of `width` columns stand for.
__attribute__((always_inline)) static inline void round_levels(int32_t type, int scheme, size_t width, const float *scales,
                                                               const float *means, kv_choices *choices) {
    uint16_t rounded[4][BLOCK];
    for (uint32_t code = 0; code < 4; code++) {
        float values[BLOCK];
        for (size_t c = 0; c < width; c++) values[c] = means[c] + level_of(code, scheme) * scales[c];
        store_values16(values, width, type, rounded[code]);
    }
    for (size_t c = 0; c < width; c++) {
        choices->zero[c] = rounded[0][c];
        choices->low[c] = rounded[0][c] ^ rounded[1][c];
        choices->high[c] = rounded[0][c] ^ rounded[2][c];
        choices->both[c] = rounded[0][c] ^ rounded[1][c] ^ rounded[2][c] ^ rounded[3][c];
    }
}

typedef uint8_t kv_bytes __attribute__((vector_size(BLOCK), aligned(1), may_alias));
typedef uint16_t kv_block __attribute__((vector_size(2 * BLOCK), aligned(2), may_alias));

// The values of a block of codes of which the low bit is that of `low` in each lane of `codes`, the high bit that of `high`.
__attribute__((always_inline)) static inline kv_block choose(int bits, kv_block codes, kv_block low, kv_block high, kv_block zero,
                                                             kv_block on_low, kv_block on_high, kv_block on_both) {
    kv_block is_low = (kv_block)((codes & low) != 0);
    if (bits == 1) return zero ^ (on_low & is_low);
    kv_block is_high = (kv_block)((codes & high) != 0);
    return zero ^ (on_low & is_low) ^ (on_high & is_high) ^ (on_both & is_low & is_high);
}

// All ones where the code's bit is set.
static inline uint16_t mask_of(uint16_t bits, int bit) { return (uint16_t)((int16_t)(uint16_t)(bits << (15 - bit)) >> 15); }

__attribute__((always_inline)) static inline void choose_block(
    int scheme, int bits, int32_t type, const uint8_t *packed, size_t stride, size_t rows, size_t width, const float *scales,
    const float *means, uint16_t *out, size_t out_stride) {
    size_t per_byte = 8 / (size_t)bits;
    kv_choices v;
    round_levels(type, scheme, width, scales, means, &v);
    if (width == BLOCK) {
        kv_block zero = *(kv_block *)v.zero, on_low = *(kv_block *)v.low;
        kv_block on_high = *(kv_block *)v.high, on_both = *(kv_block *)v.both;
        for (size_t row = 0; row < rows; row++) {
            kv_block codes = __builtin_convertvector(*(const kv_bytes *)(packed + row / per_byte * stride), kv_block);
            kv_block low = (kv_block){0} + (uint16_t)(1u << (row % per_byte * (size_t)bits));
            *(kv_block *)(out + row * out_stride) = choose(bits, codes, low, low << 1, zero, on_low, on_high, on_both);
        }
        return;
    }
    for (size_t row = 0; row < rows; row++) {
        const uint8_t *restrict from = packed + row / per_byte * stride;
        int bit = (int)(row % per_byte) * bits;
        uint16_t *restrict to = out + row * out_stride;
        for (size_t c = 0; c < width; c++) {
            uint16_t low = mask_of(from[c], bit), high = bits > 1 ? mask_of(from[c], bit + 1) : 0;
            to[c] = v.zero[c] ^ (v.low[c] & low) ^ (v.high[c] & high) ^ (v.both[c] & low & high);
        }
    }
}

__attribute__((always_inline)) static inline void choose_bits(
    int scheme, int bits, int32_t type, const uint8_t *packed, size_t rows, size_t columns, const float *scales,
    const float *means, uint16_t *out) {
    size_t c = 0;
    for (; c + BLOCK <= columns; c += BLOCK) {
        choose_block(scheme, bits, type, packed + c, columns, rows, BLOCK, scales + c, means + c, out + c, columns);
    }
    if (c < columns) {
        choose_block(scheme, bits, type, packed + c, columns, rows, columns - c, scales + c, means + c, out + c, columns);
    }
}

static void dequantize_group16(int32_t element_type, int scheme, int bits, const uint8_t *packed, size_t rows, size_t columns,
                               const float *scales, const float *means, uint16_t *out) {
    WITH_CONSTANTS(choose_bits, element_type, packed, rows, columns, scales, means, out);
}

// `count` elements of one group from its string of codes; the choices are those of column `c`.
__attribute__((always_inline)) static inline void choose_string(int bits, const uint8_t *string, size_t count,
                                                                const kv_choices *v, size_t c, uint16_t *restrict out) {
    uint16_t zero = v->zero[c], on_low = v->low[c], on_high = v->high[c], on_both = v->both[c];
    size_t i = 0;
    for (; i + BLOCK <= count; i += BLOCK) {
        typedef uint16_t halves4 __attribute__((vector_size(8), aligned(1), may_alias));
        const kv_block none = {0};
        // Each lane gets the half word that its code is in, and looks at the code's own bits.
        halves4 own = {0};
        memcpy(&own, string + i * (size_t)bits / 8, BLOCK * (size_t)bits / 8);
        kv_block codes, low;
        if (bits == 1) {
            codes = __builtin_shufflevector(own, own, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                            1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1);
            low = (kv_block){1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768,
                             1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};
        } else {
            codes = __builtin_shufflevector(own, own, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1,
                                            2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
            low = (kv_block){1, 4, 16, 64, 256, 1024, 4096, 16384, 1, 4, 16, 64, 256, 1024, 4096, 16384,
                             1, 4, 16, 64, 256, 1024, 4096, 16384, 1, 4, 16, 64, 256, 1024, 4096, 16384};
        }
        *(kv_block *)(out + i) = choose(bits, codes, low, low << 1, none + zero, none + on_low, none + on_high, none + on_both);
    }
    for (; i < count; i++) {
        int code = string[i * (size_t)bits / 8] >> (i * (size_t)bits % 8);
        uint16_t low = mask_of((uint16_t)code, 0), high = bits > 1 ? mask_of((uint16_t)code, 1) : 0;
        out[i] = zero ^ (on_low & low) ^ (on_high & high) ^ (on_both & low & high);
    }
}

__attribute__((always_inline)) static inline void choose_along(
    int scheme, int bits, int32_t type, const uint8_t *packed, size_t columns, size_t count, size_t dim, size_t group,
    const float *scales, const float *means, uint16_t *rows) {
    uint32_t strings[TOKENS][STRING_WORDS];
    for (size_t first = 0; first < count; first += TOKENS) {
        size_t width = count - first < TOKENS ? count - first : TOKENS;
        join_strings(bits, packed + first, columns, dim, width, strings);
        for (size_t g = 0, c = 0; c < dim; g++, c += group) {
            size_t own = dim - c < group ? dim - c : group;
            kv_choices v;
            round_levels(type, scheme, width, scales + g * columns + first, means + g * columns + first, &v);
            for (size_t i = 0; i < width; i++) {
                const uint8_t *string = (const uint8_t *)strings[i] + c * (size_t)bits / 8;
                choose_string(bits, string, own, &v, i, rows + (first + i) * dim + c);
            }
        }
    }
}

static void dequantize_along16(int32_t element_type, int scheme, int bits, const uint8_t *packed, size_t columns, size_t count,
                               size_t dim, size_t group, const float *scales, const float *means, uint16_t *rows) {
    WITH_CONSTANTS(choose_along, element_type, packed, columns, count, dim, group, scales, means, rows);
}
