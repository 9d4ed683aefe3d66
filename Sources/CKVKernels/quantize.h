// What kv_quantize works with.

#ifndef QUANTIZE_H
#define QUANTIZE_H

#include "kvkernels.h"

// Columns that are quantized together: a group of 32 rows of them is 8 KB and stays in the L1 cache while it is searched. A tile of
// them is what the registers hold.
enum { KV_QUANTIZE_BLOCK = 64, KV_QUANTIZE_TILE = 32 };

// What a tile of ternary groups is known by between measuring and balancing.
typedef struct {
    float limit[KV_QUANTIZE_TILE];  // above it in magnitude, codes are not zero
    float excess[KV_QUANTIZE_TILE]; // how many are positive, less the negative ones
    float sum[KV_QUANTIZE_TILE];    // of all values
} kv_ternary_tile;

// Laid out in the caller's scratch.
typedef struct {
    const kv_quantizer *quantizer;
    const float *values;
    size_t rows, columns, group, groups;
    size_t group_bytes;      // of a whole group's packed codes
    double *error, *energy; // [columns], of what is coded
    float *scale, *mean;    // [groups][columns], wanted values
    float *extent;          // [groups][columns], the maxima of uniform groups
    float *unit;            // [columns]
    kv_ternary_tile *tiles; // [groups][tiles of columns]
    int16_t *work;          // [group][16]
    uint8_t *constant;    // [columns]: every group of the column holds one value throughout
    int anchor, steps;
    float table[256];     // the values of the scale codes
    float bounds[16];     // the mantissas from which on the next scale code of an octave is nearer
    uint32_t mantissas[16]; // of an octave's scale codes, as bits
    int lowest;           // exponent of scale code 0, were it no zero
    int bounds_hold;      // whether every octave of the table is like the others
} kv_quantizing;

#endif
