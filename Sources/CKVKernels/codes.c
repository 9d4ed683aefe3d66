// Codes of a few bits in bytes, and back to values.
//
// A byte holds consecutive tokens of one channel, and bytes of neighbouring channels are neighbours: expanding a vector of
// bytes gives vectors of whole rows without any transposition.

#include "kvkernels.h"

#pragma STDC FP_CONTRACT OFF

uint8_t *kv_pack_group(const uint8_t *codes, size_t rows, size_t columns, int bits, uint8_t *restrict packed) {
    size_t per_byte = 8 / (size_t)bits;
    for (size_t row = 0; row < rows; row += per_byte) {
        size_t count = rows - row < per_byte ? rows - row : per_byte;
        for (size_t c = 0; c < columns; c++) packed[c] = codes[row * columns + c];
        for (size_t i = 1; i < count; i++) {
            const uint8_t *from = codes + (row + i) * columns;
            for (size_t c = 0; c < columns; c++) packed[c] |= (uint8_t)(from[c] << (i * (size_t)bits));
        }
        packed += columns;
    }
    return packed;
}

static void dequantize_row(const uint8_t *restrict packed, int shift, int mask, float slope, float offset, size_t columns,
                           const float *restrict scales, const float *restrict means, float *restrict out) {
    for (size_t c = 0; c < columns; c++) {
        float level = slope * (float)(packed[c] >> shift & mask) + offset;
        out[c] = means[c] + level * scales[c];
    }
}

void kv_dequantize_group(int scheme, int bits, const uint8_t *packed, size_t rows, size_t columns, const float *scales,
                         const float *means, float *out, size_t out_stride) {
    size_t per_byte = 8 / (size_t)bits;
    float slope = scheme == KV_SIGN ? 2 : 1, offset = scheme == KV_UNIFORM ? 0 : -1;
    for (size_t row = 0; row < rows; row++) {
        const uint8_t *from = packed + row / per_byte * columns;
        int shift = (int)(row % per_byte) * bits;
        dequantize_row(from, shift, (1 << bits) - 1, slope, offset, columns, scales, means, out + row * out_stride);
    }
}
