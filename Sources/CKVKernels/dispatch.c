// Which build of the loops runs, and the public names of the loops.

#include "kernels.h"

#include <stdatomic.h>

static _Atomic(const kv_loops *) active;

static const kv_loops *build(int number) {
#if defined(__x86_64__)
    if (number == KV_AVX512_BF16 && __builtin_cpu_supports("x86-64-v4") && __builtin_cpu_supports("avx512bf16")) {
        return &kv_loops_avx512bf16;
    }
    if (number == KV_AVX512 && __builtin_cpu_supports("x86-64-v4")) return &kv_loops_avx512;
    if (number == KV_AVX2 && __builtin_cpu_supports("x86-64-v3")) return &kv_loops_avx2;
#endif
    return number == KV_PORTABLE ? &kv_loops_portable : NULL;
}

// Threads that meet here at first all store the same pointer.
const kv_loops *kv_loops_active(void) {
    const kv_loops *loops = atomic_load_explicit(&active, memory_order_relaxed);
    for (int number = KV_AVX512_BF16; !loops; number--) {
        loops = build(number);
        if (loops) atomic_store_explicit(&active, loops, memory_order_relaxed);
    }
    return loops;
}

int kv_use_instructions(int number) {
    const kv_loops *loops = build(number);
    if (loops) atomic_store_explicit(&active, loops, memory_order_relaxed);
    return loops != NULL;
}

void kv_load_rows(kv_head head, const uint32_t *tokens, size_t count, float *rows) {
    kv_loops_active()->load_rows(head, tokens, count, rows);
}

void kv_store_rows(kv_head head, const uint32_t *tokens, size_t count, const float *rows) {
    kv_loops_active()->store_rows(head, tokens, count, rows);
}

void kv_copy_rows(kv_head head, const uint32_t *tokens, size_t count, const void *values) {
    kv_loops_active()->copy_rows(head, tokens, count, values);
}

int kv_tile_rows(kv_head head, const uint32_t *tokens, size_t first, size_t used, size_t count, uint16_t *tile, kv_rows16 *rows) {
    return kv_loops_active()->tile_rows(head, tokens, first, used, count, tile, rows);
}

void kv_finish_stores(void) {
#if defined(__x86_64__)
    __builtin_ia32_sfence();
#endif
}

void kv_load_contiguous(int32_t element_type, const void *values, size_t count, float *out) {
    kv_loops_active()->load_contiguous(element_type, values, count, out);
}

void kv_exact_merge(int32_t element_type, size_t dim, size_t stride, size_t first, size_t count,
                    const uint8_t *const *planes, const uint8_t *maxima, void *values) {
    kv_loops_active()->exact_merge(element_type, dim, stride, first, count, planes, maxima, values);
}

void kv_rotate(float *rows, size_t count, size_t dim, const uint32_t *tokens, const float *cosines, const float *sines,
               size_t pairs, int interleaved, int direction) {
    kv_loops_active()->rotate(rows, count, dim, tokens, cosines, sines, pairs, interleaved, direction);
}

void kv_fourier_forward(size_t n, const float *tables, float *input, float *output) {
    kv_loops_active()->fourier_forward(n, tables, input, output);
}

void kv_fourier_inverse(size_t n, const float *tables, float *input, float *output) {
    kv_loops_active()->fourier_inverse(n, tables, input, output);
}

void kv_transpose(const float *in, size_t rows, size_t columns, size_t in_stride, float *out, size_t out_stride) {
    kv_loops_active()->transpose(in, rows, columns, in_stride, out, out_stride);
}

void kv_mean_units(const uint8_t *codes, size_t groups, size_t columns, const float *values, int shift, float *units) {
    kv_loops_active()->mean_units(codes, groups, columns, values, shift, units);
}

void kv_scales_restore(uint8_t *codes, size_t groups, size_t columns, uint8_t *prediction) {
    kv_loops_active()->scales_restore(codes, groups, columns, prediction);
}

void kv_means_restore(int32_t *means, size_t groups, size_t columns) {
    kv_loops_active()->means_restore(means, groups, columns);
}

void kv_add_plane(const uint8_t *plane, size_t count, int shift, int32_t *means) {
    kv_loops_active()->add_plane(plane, count, shift, means);
}

void kv_expand_metadata(const uint8_t *codes, const int32_t *means, size_t groups, size_t columns, const float *values,
                        const float *units, float *scales_out, float *means_out) {
    kv_loops_active()->expand_metadata(codes, means, groups, columns, values, units, scales_out, means_out);
}

void kv_dequantize_group(int scheme, int bits, const uint8_t *packed, size_t rows, size_t columns, const float *scales,
                         const float *means, float *out, size_t out_stride) {
    kv_loops_active()->dequantize_group(scheme, bits, packed, rows, columns, scales, means, out, out_stride);
}

void kv_dequantize_group16(int32_t element_type, int scheme, int bits, const uint8_t *packed, size_t count, size_t columns,
                           const float *scales, const float *means, const kv_rows16 *rows) {
    kv_loops_active()->dequantize_group16(element_type, scheme, bits, packed, count, columns, scales, means, rows);
}

void kv_dequantize_lanes(int scheme, int bits, const uint8_t *packed, size_t count, size_t columns, const float *scales,
                         const float *means, const uint16_t *channels, float *lanes) {
    kv_loops_active()->dequantize_lanes(scheme, bits, packed, count, columns, scales, means, channels, lanes);
}

void kv_dequantize_along(int scheme, int bits, const uint8_t *packed, size_t columns, size_t count, size_t dim, size_t group,
                         const float *scales, const float *means, float *rows) {
    kv_loops_active()->dequantize_along(scheme, bits, packed, columns, count, dim, group, scales, means, rows);
}

void kv_dequantize_along16(int32_t element_type, int scheme, int bits, const uint8_t *packed, size_t columns, size_t count,
                           size_t dim, size_t group, const float *scales, const float *means, const kv_rows16 *rows) {
    kv_loops_active()->dequantize_along16(element_type, scheme, bits, packed, columns, count, dim, group, scales, means, rows);
}

void kv_dequantize_rotated16(int32_t element_type, int scheme, int bits, const uint8_t *packed, size_t count, size_t columns,
                             const float *scales, const float *means, const float *cosines, const float *sines,
                             const kv_rows16 *rows) {
    kv_loops_active()->dequantize_rotated16(
        element_type, scheme, bits, packed, count, columns, scales, means, cosines, sines, rows);
}

void kv_store_rotated16(int32_t element_type, const float *values, size_t count, size_t dim, const float *cosines,
                        const float *sines, const kv_rows16 *rows) {
    kv_loops_active()->store_rotated16(element_type, values, count, dim, cosines, sines, rows);
}

void kv_transpose_table(const float *const *in, size_t rows, size_t columns, float *out, size_t out_stride) {
    kv_loops_active()->transpose_table(in, rows, columns, out, out_stride);
}

void kv_quantize(const kv_quantizer *quantizer, const float *values, size_t rows, size_t columns, size_t group,
                 uint8_t *packed, uint8_t *scales, int32_t *means, int8_t *anchor, uint8_t *steps, double *error,
                 double *energy, void *scratch) {
    kv_loops_active()->quantize(quantizer, values, rows, columns, group, packed, scales, means, anchor, steps, error, energy,
                                scratch);
}

void kv_flag_unsafe(kv_head head, size_t tokens, uint8_t *flags) {
    kv_loops_active()->flag_unsafe(head, tokens, flags);
}

int kv_load_safe(kv_head head, const uint32_t *tokens, size_t count, float *rows) {
    return kv_loops_active()->load_safe(head, tokens, count, rows);
}

int kv_load_keys(kv_head head, const uint32_t *tokens, size_t count, const float *cosines, const float *sines, size_t pairs,
                 int interleaved, float *rows, float *range) {
    return kv_loops_active()->load_keys(head, tokens, count, cosines, sines, pairs, interleaved, rows, range);
}

void kv_split_channels(const float *rows, size_t count, size_t dim, const uint16_t *chosen, size_t chosen_count, float *out,
                       const uint16_t *rest, float *rest_out) {
    kv_loops_active()->split_channels(rows, count, dim, chosen, chosen_count, out, rest, rest_out);
}

void kv_column_ranges(const float *rows, size_t count, size_t dim, float *range) {
    kv_loops_active()->column_ranges(rows, count, dim, range);
}

void kv_column_variances(const float *rows, size_t count, size_t dim, double *variance) {
    kv_loops_active()->column_variances(rows, count, dim, variance);
}

void kv_count_outliers(const float *rows, size_t count, size_t dim, float limit, uint32_t *outliers) {
    kv_loops_active()->count_outliers(rows, count, dim, limit, outliers);
}

void kv_add_errors(const float *original, const float *decoded, size_t count, size_t dim, double *error, double *energy) {
    kv_loops_active()->add_errors(original, decoded, count, dim, error, energy);
}
