// What kv_quantize works with.

#ifndef QUANTIZE_H
#define QUANTIZE_H

#include "kvkernels.h"

// Columns that are quantized together: a group of 32 rows of them is 8 KB and stays in the L1 cache while it is searched.
enum { KV_QUANTIZE_BLOCK = 64 };

// Laid out in the caller's scratch.
typedef struct {
    const kv_quantizer *quantizer;
    const float *values;
    size_t rows, columns, group, groups;
    float *scale, *mean;  // [groups][columns], wanted values
    float *unit;          // [columns]
    float *differences;   // [group][KV_QUANTIZE_BLOCK]
    uint8_t *constant;    // [columns]: every group of the column holds one value throughout
    int anchor, steps;
    float table[256];     // the values of the scale codes
    double bounds[16];    // the squares between neighbouring scale codes of an octave, for mantissas
    int bounds_hold;      // whether they do for every scale code
} kv_quantizing;

#endif
