// Scale codes and means: how a group's scale becomes one byte and its mean a small integer.

#include "kvkernels.h"

#include <string.h>

#pragma STDC FP_CONTRACT OFF

// The mantissa bits of the floats nearest to 2^(i/16). A table, because libraries disagree about exp2 in the last bit.
static const uint32_t sixteenths[16] = {
    0x3F800000, 0x3F85AAC3, 0x3F8B95C2, 0x3F91C3D3, 0x3F9837F0, 0x3F9EF532, 0x3FA5FED7, 0x3FAD583F,
    0x3FB504F3, 0x3FBD08A4, 0x3FC5672A, 0x3FCE248C, 0x3FD744FD, 0x3FE0CCDF, 0x3FEAC0C7, 0x3FF5257D,
};

void kv_scale_values(int anchor, int steps, float *values) {
    // The same few mantissas for every octave of codes.
    int per_octave = 1 << steps, lowest = anchor - 128 / per_octave;
    uint32_t bits[256];
    for (int step = 0; step < per_octave; step++) {
        uint32_t mantissa = sixteenths[step << (4 - steps)] & 0x007FFFFF;
        for (int octave = 0; octave < 256 >> steps; octave++) {
            int exponent = lowest + octave;
            exponent = exponent < -126 ? -126 : exponent > 127 ? 127 : exponent;
            bits[(octave << steps) + step] = mantissa | (uint32_t)(exponent + 127) << 23;
        }
    }
    memcpy(values, bits, sizeof bits);
    values[0] = 0;
}

uint8_t kv_scale_code(const float *values, int anchor, int steps, float scale) {
    uint32_t bits;
    memcpy(&bits, &scale, 4);
    int exponent = (int)(bits >> 23 & 255) - 127;
    int code = 128 + (exponent - anchor) * (1 << steps);
    code = code < 1 ? 1 : code > 255 ? 255 : code;
    double square = (double)scale * scale;
    while (code < 255 && square > (double)values[code] * values[code + 1]) code++;
    return (uint8_t)code;
}

void kv_scales_predict(uint8_t *codes, size_t groups, size_t columns, uint8_t *prediction) {
    memset(prediction, 128, columns);
    for (size_t group = 0; group < groups; group++) {
        uint8_t *row = codes + group * columns;
        for (size_t c = 0; c < columns; c++) {
            uint8_t code = row[c], expected = prediction[c];
            row[c] = (uint8_t)(code - expected);
            prediction[c] = group == 0 ? code : (uint8_t)((expected + code + 1) >> 1);
        }
    }
}

static void differ(int32_t *restrict row, const int32_t *restrict before, size_t columns) {
    for (size_t c = 0; c < columns; c++) {
        uint32_t difference = (uint32_t)row[c] - (before ? (uint32_t)before[c] : 0);
        row[c] = (int32_t)(difference << 1 ^ (uint32_t)-(int32_t)(difference >> 31));
    }
}

void kv_means_predict(int32_t *means, size_t groups, size_t columns) {
    for (size_t group = groups; group-- > 0;) {
        int32_t *row = means + group * columns;
        differ(row, group > 0 ? row - columns : NULL, columns);
    }
}
