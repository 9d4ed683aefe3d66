// What quantizing (loops/quantize.h) needs of memory.

#include "quantize.h"

size_t kv_quantize_scratch(size_t rows, size_t columns, size_t group) {
    size_t groups = (rows + group - 1) / group;
    size_t tiles = groups * ((columns + KV_QUANTIZE_TILE - 1) / KV_QUANTIZE_TILE);
    size_t floats = (3 * groups + 1) * columns;
    return sizeof(kv_quantizing) + 2 * columns * sizeof(double) + floats * sizeof(float) + tiles * sizeof(kv_ternary_tile)
        + group * 16 * sizeof(int16_t) + columns;
}
