// The loops of the codec: everything that runs once per element.
//
// Results are the same bits on every processor: no operation is fused or reordered (FP_CONTRACT OFF, no -ffast-math), sums run
// along tokens in order, and vectors lie across channels or lanes, where nothing is summed. The Swift callers have checked
// every size.

#ifndef KVKERNELS_H
#define KVKERNELS_H

#include <stddef.h>
#include <stdint.h>

// Element types, numbered as ElementType.
enum { KV_FLOAT16 = 1, KV_BFLOAT16 = 2, KV_FLOAT32 = 3 };

// One head of a caller's tensor. Strides count elements; the base need not be aligned.
typedef struct {
    const void *base;
    ptrdiff_t token_stride;
    ptrdiff_t channel_stride;
    int32_t element_type;
    uint32_t dim;
} kv_head;

// dispatch.c -----------------------------------------------------------------------------------------------------------------

// Builds of the inner loops, which all give the same bits.
enum { KV_PORTABLE = 0, KV_AVX2 = 1, KV_AVX512 = 2, KV_AVX512_BF16 = 3 };

// Makes the whole process use a build from now on. Returns 0, and changes nothing, when this processor cannot run it. For tests
// and measurements: without it, the widest build that the processor runs is in use.
int kv_use_instructions(int build);

// Lanes that are decoded together: one vector of this many tokens per channel, and a tile of this many tokens.
enum { KV_LANES = 32 };

// Where the rows of a tile of 16-bit elements go; NULL for a row that is not wanted.
typedef struct {
    uint16_t *row[KV_LANES];
    uint32_t token[KV_LANES]; // of the head; for a row that is wanted
    int32_t streams; // whether the rows are whole cache lines
} kv_rows16;

// convert.c ------------------------------------------------------------------------------------------------------------------

// Gathers `count` tokens of a head into float rows [count][dim].
void kv_load_rows(kv_head head, const uint32_t *tokens, size_t count, float *rows);

// Scatters float rows [count][dim] to `count` tokens of a head, rounding to nearest even. `head.base` is written to; rows of
// whole cache lines are written past the caches.
void kv_store_rows(kv_head head, const uint32_t *tokens, size_t count, const float *rows);

// Where rows first..<first + used of a tile of `count` rows, at most KV_LANES, go when they are the head's `tokens`: into the
// head's memory when elements of a row are neighbours there, and then the result is 1; else into `tile` [count][dim], and then
// kv_copy_rows must follow.
int kv_tile_rows(kv_head head, const uint32_t *tokens, size_t first, size_t used, size_t count, uint16_t *tile, kv_rows16 *rows);

// After the functions that write to a head, and before another thread is told: makes what they wrote visible to it.
void kv_finish_stores(void);

// kv_load_rows that returns 0 if there is a value among them which is not finite or whose magnitude is above 2^60, else 1.
int kv_load_safe(kv_head head, const uint32_t *tokens, size_t count, float *rows);

// The same, with the rows' rotary embedding undone by the tables that kv_rotate takes, or as they are where there are no pairs; `range`
// gets that of each channel, maximum minus minimum.
int kv_load_keys(kv_head head, const uint32_t *tokens, size_t count, const float *cosines, const float *sines, size_t pairs,
                 int interleaved, float *rows, float *range);

// Sets flags[token] to 1 for every token with a value that is not finite or whose magnitude is above 2^60.
void kv_flag_unsafe(kv_head head, size_t tokens, uint8_t *flags);

// Adds the sum of squares of each token's values to energy[token].
void kv_add_energy(kv_head head, size_t tokens, double *energy);

// Converts `count` contiguous values to floats.
void kv_load_contiguous(int32_t element_type, const void *values, size_t count, float *out);

// exact.c --------------------------------------------------------------------------------------------------------------------

// Splits `count` tokens of a head into byte planes, each [dim][count], most significant first, after rotating each value left by
// one bit so that the exponent is whole in plane 0. Plane 0 holds the channel's maximum (maxima[dim]) minus the byte.
void kv_exact_split(kv_head head, const uint32_t *tokens, size_t count, uint8_t *const *planes, uint8_t *maxima);

// Undoes kv_exact_split for tokens first..<first + count of `stride` tokens per plane row, into contiguous values [count][dim].
void kv_exact_merge(int32_t element_type, size_t dim, size_t stride, size_t first, size_t count,
                    const uint8_t *const *planes, const uint8_t *maxima, void *values);

// Copies contiguous values [count][dim] of the head's own type to `count` tokens of the head, bit by bit.
void kv_copy_rows(kv_head head, const uint32_t *tokens, size_t count, const void *values);

// rotary.c -------------------------------------------------------------------------------------------------------------------

// The floats nearest to cosine and sine of position * frequencies[i], for `pairs` frequencies.
void kv_rotary_angles(double position, const double *frequencies, size_t pairs, float *cosines, float *sines);

// Turns the pairs of `count` rows by the angles whose cosines and sines are rows tokens[i] of the tables [..][pairs];
// direction 1 applies the embedding, -1 undoes it. `interleaved` pairs channels (2i, 2i+1), else (i, i+pairs).
void kv_rotate(float *rows, size_t count, size_t dim, const uint32_t *tokens, const float *cosines, const float *sines,
               size_t pairs, int interleaved, int direction);

// fourier.c ------------------------------------------------------------------------------------------------------------------

// Floats that the tables of a transform of length n take.
size_t kv_fourier_table_count(size_t n);
void kv_fourier_fill_tables(size_t n, float *tables);

// The orthonormal discrete Fourier transform of n reals, Hermitian-packed (Re 0...n/2, Im 1..<(n+1)/2), on [n][KV_LANES].
// `output` has room for 2 n rows, of which the first n are the result; the inverse destroys `input`. They do not overlap.
void kv_fourier_forward(size_t n, const float *tables, float *input, float *output);
void kv_fourier_inverse(size_t n, const float *tables, float *input, float *output);

// statistics.h, transpose.h --------------------------------------------------------------------------------------------------

// out[row][i] = rows[row][chosen[i]], and rest_out[row][i] = rows[row][rest[i]] with the other channels; both lists rise.
void kv_split_channels(const float *rows, size_t count, size_t dim, const uint16_t *chosen, size_t chosen_count, float *out,
                       const uint16_t *rest, float *rest_out);
// out[column][row] = in[row][column]; rows of `out` lie `out_stride` floats apart.
void kv_transpose(const float *in, size_t rows, size_t columns, size_t in_stride, float *out, size_t out_stride);
// The same of rows that lie anywhere.
void kv_transpose_table(const float *const *in, size_t rows, size_t columns, float *out, size_t out_stride);
// The range (maximum minus minimum) of every column, and its variance.
void kv_column_ranges(const float *rows, size_t count, size_t dim, float *range);
void kv_column_variances(const float *rows, size_t count, size_t dim, double *variance);
// Counts, per column, the values farther from the column's mean than `limit`.
void kv_count_outliers(const float *rows, size_t count, size_t dim, float limit, uint32_t *outliers);
// Adds squared differences and squares of the original, column by column, over finite originals.
void kv_add_errors(const float *original, const float *decoded, size_t count, size_t dim, double *error, double *energy);

// channels.c -----------------------------------------------------------------------------------------------------------------

// The `count` of `dim` channels, at most 1024, with the highest scores, the first of equal ones, and those that are left; both rise.
void kv_choose_channels(const float *scores, size_t dim, size_t count, uint16_t *chosen, uint16_t *rest);

// entropy.c ------------------------------------------------------------------------------------------------------------------

// About how many bytes `count` bytes come to by their entropy, each taken by itself. Of many, a sample is looked at.
size_t kv_entropy_bytes(const uint8_t *bytes, size_t count);

// scales.c -------------------------------------------------------------------------------------------------------------------

// values[c] of scale code c: 0 for code 0, else 2^(anchor + (c - 128) / 2^steps).
void kv_scale_values(int anchor, int steps, float *values);
// The code whose value is nearest to `scale` in ratio; `scale` is positive.
uint8_t kv_scale_code(const float *values, int anchor, int steps, float scale);

// Scale codes [groups][columns] to residuals against a running prediction along the groups, and back. In place.
void kv_scales_predict(uint8_t *codes, size_t groups, size_t columns, uint8_t *prediction);
void kv_scales_restore(uint8_t *codes, size_t groups, size_t columns, uint8_t *prediction);
// units[column] = 2^-shift times the value of the mean of the column's codes above 0, rounded down; 0 where there is none.
void kv_mean_units(const uint8_t *codes, size_t groups, size_t columns, const float *values, int shift, float *units);
// Means [groups][columns] to zigzag differences along the groups, and back. In place.
void kv_means_predict(int32_t *means, size_t groups, size_t columns);
void kv_means_restore(int32_t *means, size_t groups, size_t columns);

// Joins a byte plane of differences to those below it.
void kv_add_plane(const uint8_t *plane, size_t count, int shift, int32_t *means);
// Scale codes and means of [groups][columns] as floats.
void kv_expand_metadata(const uint8_t *codes, const int32_t *means, size_t groups, size_t columns, const float *values,
                        const float *units, float *scales_out, float *means_out);

// quantize.c -----------------------------------------------------------------------------------------------------------------

enum { KV_UNIFORM = 1, KV_SIGN = 2, KV_TERNARY = 3 };
enum { KV_SEARCH_MINMAX = 0, KV_SEARCH_CLIP = 1, KV_SEARCH_LEAST_SQUARES = 2 };
// Sign: mean plus or minus mean deviation; {0, mean magnitude}; plus or minus mean magnitude.
// Ternary: plus or minus the mean magnitude of what is beyond the threshold; 1; the mean magnitude of all.
enum { KV_LEVELS_CENTROID = 0, KV_LEVELS_PUBLISHED = 1, KV_LEVELS_MAGNITUDE = 2 };

typedef struct {
    int32_t scheme;
    int32_t levels;          // uniform: codes 0..<levels
    int32_t search;          // uniform: how scale and minimum are found
    int32_t clip_candidates; // uniform: scales tried, from the range downwards
    float clip_ratio;        // uniform: each candidate is the one before times this
    int32_t steps_max;       // scale codes per octave, as a power of two
    int32_t mean_shift;
    int32_t code_bits;       // of a packed code: 1, 2, 4 or 8
    int32_t keeps_mean;      // sign: subtract the group's mean
    float threshold;         // ternary: values beyond this times the mean magnitude are not zero
    float balance;           // ternary: weight of the group's mean error, 0 to round each value by itself
    int32_t levels_kind;     // sign and ternary: which values the codes stand for
} kv_quantizer;

// Bytes of scratch that kv_quantize needs.
size_t kv_quantize_scratch(size_t rows, size_t columns, size_t group);

// Quantizes a matrix [rows][columns] in groups of `group` rows of a column; the last group may be short. Values are at most 2^60.
// Writes packed codes, scale codes and means [groups][columns], the anchor and steps of the scale codes, and the sums of squares of
// what is lost and of the values; these are not finite where they do not fit a float. Of the codes, byte row b of a group holds
// its rows b * 8/bits ... of each column, lowest bits first; `group` is a multiple of 8/bits.
void kv_quantize(const kv_quantizer *quantizer, const float *values, size_t rows, size_t columns, size_t group,
                 uint8_t *packed, uint8_t *scales, int32_t *means, int8_t *anchor, uint8_t *steps, double *error,
                 double *energy, void *scratch);

// codes.h --------------------------------------------------------------------------------------------------------------------

// The values of `rows` rows of a group: means[c] + level(code) * scales[c], level being code, 2 code - 1 or code - 1 by scheme.
void kv_dequantize_group(int scheme, int bits, const uint8_t *packed, size_t rows, size_t columns, const float *scales,
                         const float *means, float *out, size_t out_stride);

// The same for `count` rows, at most KV_LANES, as columns: column c goes to lanes[channels[c]][KV_LANES], or to lanes[c] when
// `channels` is NULL. Lanes past `count` get some finite value.
void kv_dequantize_lanes(int scheme, int bits, const uint8_t *packed, size_t count, size_t columns, const float *scales,
                         const float *means, const uint16_t *channels, float *lanes);

// The values of `count` tokens whose groups run along the `dim` channels: rows [count][dim]. `packed`, `scales` and `means`
// point at the first token's column in their rows, which are `columns` long.
void kv_dequantize_along(int scheme, int bits, const uint8_t *packed, size_t columns, size_t count, size_t dim, size_t group,
                         const float *scales, const float *means, float *rows);

// Codes of at most 2 bits straight to a 16-bit element type: the same values as by way of floats. `count` is at most KV_LANES.
void kv_dequantize_group16(int32_t element_type, int scheme, int bits, const uint8_t *packed, size_t count, size_t columns,
                           const float *scales, const float *means, const kv_rows16 *rows);
void kv_dequantize_along16(int32_t element_type, int scheme, int bits, const uint8_t *packed, size_t columns, size_t count,
                           size_t dim, size_t group, const float *scales, const float *means, const kv_rows16 *rows);

// Codes of a group to keys of a 16-bit type that are turned, as by kv_rotate, by rows[i].token's angles: `columns` are pairs of
// channels (i, i + columns / 2), and columns / 2 is a multiple of KV_LANES. The tables are [..][columns / 2].
void kv_dequantize_rotated16(int32_t element_type, int scheme, int bits, const uint8_t *packed, size_t count, size_t columns,
                             const float *scales, const float *means, const float *cosines, const float *sines,
                             const kv_rows16 *rows);

// Turns the float rows values [count][dim] likewise, dim / 2 being a multiple of KV_LANES, and rounds them to a 16-bit type.
void kv_store_rotated16(int32_t element_type, const float *values, size_t count, size_t dim, const float *cosines,
                        const float *sines, const kv_rows16 *rows);

#endif
