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
    double *error, *energy; // [columns], of what is coded
    float *scale, *mean;    // [groups][columns], wanted values
    float *extent;          // [groups][columns], what was measured beside them
    float *unit;            // [columns]
    float *work;            // [group][2][KV_QUANTIZE_BLOCK]
    uint8_t *constant;    // [columns]: every group of the column holds one value throughout
    int anchor, steps;
    float table[256];     // the values of the scale codes
    float bounds[16];     // the mantissas from which on the next scale code of an octave is nearer
    uint32_t mantissas[16]; // of an octave's scale codes, as bits
    int lowest;           // exponent of scale code 0, were it no zero
    int bounds_hold;      // whether every octave of the table is like the others
} kv_quantizing;

#endif
