// The loops that have one build per instruction set, and the choice between the builds.
//
// Each build compiles the same sources (loops/*.h), so all give the same bits: vectors lie across channels or tokens, nothing is
// summed across a vector, and FP_CONTRACT OFF keeps a multiply and an add apart even where the processor could fuse them.

#ifndef KERNELS_H
#define KERNELS_H

#include "kvkernels.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the loops read several bytes of a page image as one word, lowest byte first"
#endif

typedef struct {
    void (*load_rows)(kv_head head, const uint32_t *tokens, size_t count, float *rows);
    void (*store_rows)(kv_head head, const uint32_t *tokens, size_t count, const float *rows);
    void (*copy_rows)(kv_head head, const uint32_t *tokens, size_t count, const void *values);
    int (*tile_rows)(kv_head head, const uint32_t *tokens, size_t first, size_t used, size_t count, uint16_t *tile,
                     kv_rows16 *rows);
    void (*load_contiguous)(int32_t element_type, const void *values, size_t count, float *out);
    void (*exact_merge)(int32_t element_type, size_t dim, size_t stride, size_t first, size_t count,
                        const uint8_t *const *planes, const uint8_t *maxima, void *values);
    int (*angles)(double position, const double *frequencies, size_t pairs, float *cosines, float *sines);
    void (*rotate)(float *rows, size_t count, size_t dim, const uint32_t *tokens, const float *cosines, const float *sines,
                   size_t pairs, int interleaved, int direction);
    void (*fourier_forward)(size_t n, const float *tables, float *input, float *output);
    void (*fourier_inverse)(size_t n, const float *tables, float *input, float *output);
    void (*transpose)(const float *in, size_t rows, size_t columns, size_t in_stride, float *out, size_t out_stride);
    void (*mean_units)(const uint8_t *codes, size_t groups, size_t columns, const float *values, int shift, float *units);
    void (*scales_restore)(uint8_t *codes, size_t groups, size_t columns, uint8_t *prediction);
    void (*means_restore)(int32_t *means, size_t groups, size_t columns);
    void (*add_plane)(const uint8_t *plane, size_t count, int shift, int32_t *means);
    void (*expand_metadata)(const uint8_t *codes, const int32_t *means, size_t groups, size_t columns, const float *values,
                            const float *units, float *scales_out, float *means_out);
    void (*dequantize_group)(int scheme, int bits, const uint8_t *packed, size_t rows, size_t columns, const float *scales,
                             const float *means, float *out, size_t out_stride);
    void (*dequantize_group16)(int32_t element_type, int scheme, int bits, const uint8_t *packed, size_t count, size_t columns,
                               const float *scales, const float *means, const kv_rows16 *rows);
    void (*dequantize_lanes)(int scheme, int bits, const uint8_t *packed, size_t count, size_t columns, const float *scales,
                             const float *means, const uint16_t *channels, float *lanes);
    void (*dequantize_along)(int scheme, int bits, const uint8_t *packed, size_t columns, size_t count, size_t dim, size_t group,
                             const float *scales, const float *means, float *rows);
    void (*dequantize_along16)(int32_t element_type, int scheme, int bits, const uint8_t *packed, size_t columns, size_t count,
                               size_t dim, size_t group, const float *scales, const float *means, const kv_rows16 *rows);
    void (*dequantize_rotated16)(int32_t element_type, int scheme, int bits, const uint8_t *packed, size_t count, size_t columns,
                                 const float *scales, const float *means, const float *cosines, const float *sines,
                                 const kv_rows16 *rows);
    void (*store_rotated16)(int32_t element_type, const float *values, size_t count, size_t dim, const float *cosines,
                            const float *sines, const kv_rows16 *rows);
    void (*transpose_table)(const float *const *in, size_t rows, size_t columns, float *out, size_t out_stride);
    void (*flag_unsafe)(kv_head head, size_t tokens, uint8_t *flags);
    int (*load_safe)(kv_head head, const uint32_t *tokens, size_t count, float *rows);
    int (*load_keys)(kv_head head, const uint32_t *tokens, size_t count, const float *cosines, const float *sines, size_t pairs,
                     int interleaved, float *rows, float *range);
    void (*split_channels)(const float *rows, size_t count, size_t dim, const uint16_t *chosen, size_t chosen_count, float *out,
                           const uint16_t *rest, float *rest_out);
    void (*column_ranges)(const float *rows, size_t count, size_t dim, float *range);
    void (*column_variances)(const float *rows, size_t count, size_t dim, double *variance);
    void (*count_outliers)(const float *rows, size_t count, size_t dim, float limit, uint32_t *outliers);
    void (*add_errors)(const float *original, const float *decoded, size_t count, size_t dim, double *error, double *energy);
    void (*quantize)(const kv_quantizer *quantizer, const float *values, size_t rows, size_t columns, size_t group,
                     uint8_t *packed, uint8_t *scales, int32_t *means, int8_t *anchor, uint8_t *steps, double *error,
                     double *energy, void *scratch);
} kv_loops;

// The build in use: the widest that the processor runs, unless kv_use_instructions chose another.
const kv_loops *kv_loops_active(void);

extern const kv_loops kv_loops_portable;
#if defined(__x86_64__)
extern const kv_loops kv_loops_avx2;
extern const kv_loops kv_loops_avx512;
extern const kv_loops kv_loops_avx512bf16;
#endif

#endif
