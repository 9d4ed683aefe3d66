// Between a caller's strided tensors and the codec's float rows.

#include "kvkernels.h"

#include <string.h>

#pragma STDC FP_CONTRACT OFF

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

static inline uint16_t load16(const char *at) {
    uint16_t bits;
    memcpy(&bits, at, sizeof bits);
    return bits;
}

static size_t element_bytes(int32_t type) { return type == KV_FLOAT32 ? 4 : 2; }

static const char *token_base(kv_head head, size_t token) {
    return (const char *)head.base + (ptrdiff_t)token * head.token_stride * (ptrdiff_t)element_bytes(head.element_type);
}

static void load_row(kv_head head, const char *from, float *restrict row) {
    size_t dim = head.dim;
    ptrdiff_t stride = head.channel_stride;
    if (head.element_type == KV_BFLOAT16) {
        if (stride == 1) {
            for (size_t c = 0; c < dim; c++) row[c] = from_bfloat16(load16(from + 2 * c));
        } else {
            for (size_t c = 0; c < dim; c++) row[c] = from_bfloat16(load16(from + 2 * (ptrdiff_t)c * stride));
        }
    } else if (head.element_type == KV_FLOAT16) {
        if (stride == 1) {
            for (size_t c = 0; c < dim; c++) row[c] = from_float16(load16(from + 2 * c));
        } else {
            for (size_t c = 0; c < dim; c++) row[c] = from_float16(load16(from + 2 * (ptrdiff_t)c * stride));
        }
    } else if (stride == 1) {
        memcpy(row, from, 4 * dim);
    } else {
        for (size_t c = 0; c < dim; c++) memcpy(row + c, from + 4 * (ptrdiff_t)c * stride, 4);
    }
}

void kv_load_rows(kv_head head, const uint32_t *tokens, size_t count, float *rows) {
    for (size_t i = 0; i < count; i++) load_row(head, token_base(head, tokens[i]), rows + i * head.dim);
}

static void store_row16(const float *restrict row, size_t dim, int32_t type, uint16_t *restrict halves) {
    if (type == KV_BFLOAT16) {
        for (size_t c = 0; c < dim; c++) halves[c] = to_bfloat16(row[c]);
    } else {
        for (size_t c = 0; c < dim; c++) halves[c] = to_float16(row[c]);
    }
}

// Puts a row of `dim` values of `size` bytes each at a token's channels.
static void place_row(char *to, ptrdiff_t stride, const void *values, size_t dim, size_t size) {
    if (stride == 1) {
        memcpy(to, values, dim * size);
        return;
    }
    for (size_t c = 0; c < dim; c++) {
        memcpy(to + (ptrdiff_t)c * stride * (ptrdiff_t)size, (const char *)values + c * size, size);
    }
}

void kv_store_rows(kv_head head, const uint32_t *tokens, size_t count, const float *rows) {
    uint16_t halves[1024];
    for (size_t i = 0; i < count; i++) {
        const float *row = rows + i * head.dim;
        char *to = (char *)token_base(head, tokens[i]);
        if (head.element_type == KV_FLOAT32) {
            place_row(to, head.channel_stride, row, head.dim, 4);
        } else {
            store_row16(row, head.dim, head.element_type, halves);
            place_row(to, head.channel_stride, halves, head.dim, 2);
        }
    }
}

void kv_copy_rows(kv_head head, const uint32_t *tokens, size_t count, const void *values) {
    size_t size = element_bytes(head.element_type);
    for (size_t i = 0; i < count; i++) {
        char *to = (char *)token_base(head, tokens[i]);
        place_row(to, head.channel_stride, (const char *)values + i * head.dim * size, head.dim, size);
    }
}

void kv_flag_unsafe(kv_head head, size_t tokens, uint8_t *flags) {
    // The bits of 2^60 as a float; a half is unsafe only when it is not finite.
    const uint32_t limit = 0x5D800000;
    for (size_t token = 0; token < tokens; token++) {
        const char *from = token_base(head, token);
        uint32_t largest = 0;
        ptrdiff_t stride = head.channel_stride;
        if (head.element_type == KV_FLOAT32) {
            for (size_t c = 0; c < head.dim; c++) {
                uint32_t bits;
                memcpy(&bits, from + 4 * (ptrdiff_t)c * stride, 4);
                bits &= 0x7FFFFFFF;
                largest = bits > largest ? bits : largest;
            }
        } else {
            uint16_t largest16 = 0;
            if (stride == 1) {
                for (size_t c = 0; c < head.dim; c++) {
                    uint16_t bits = load16(from + 2 * c) & 0x7FFF;
                    largest16 = bits > largest16 ? bits : largest16;
                }
            } else {
                for (size_t c = 0; c < head.dim; c++) {
                    uint16_t bits = load16(from + 2 * (ptrdiff_t)c * stride) & 0x7FFF;
                    largest16 = bits > largest16 ? bits : largest16;
                }
            }
            if (head.element_type == KV_BFLOAT16) largest = (uint32_t)largest16 << 16;
            else largest = largest16 >= 0x7C00 ? limit + 1 : 0;
        }
        if (largest > limit) flags[token] = 1;
    }
}

void kv_add_energy(kv_head head, size_t tokens, double *energy) {
    float row[1024];
    for (size_t token = 0; token < tokens; token++) {
        load_row(head, token_base(head, token), row);
        double sum = 0;
        for (size_t c = 0; c < head.dim; c++) sum += (double)row[c] * row[c];
        energy[token] += sum;
    }
}

void kv_load_contiguous(int32_t element_type, const void *values, size_t count, float *out) {
    const char *from = values;
    if (element_type == KV_FLOAT32) memcpy(out, from, 4 * count);
    else if (element_type == KV_BFLOAT16) for (size_t i = 0; i < count; i++) out[i] = from_bfloat16(load16(from + 2 * i));
    else for (size_t i = 0; i < count; i++) out[i] = from_float16(load16(from + 2 * i));
}
