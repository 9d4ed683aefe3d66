// Includes every loop and gathers them under the name KV_BUILD. The including file has set the target.

#pragma STDC FP_CONTRACT OFF
// Vectors are passed to functions that are inlined only: there is no calling convention to agree on.
#pragma clang diagnostic ignored "-Wpsabi"

#include "codes.h"
#include "convert.h"
#include "codes16.h"
#include "exact.h"
#include "rotated16.h"
#include "fourier.h"
#include "rotary.h"
#include "scales.h"
#include "quantize.h"
#include "statistics.h"
#include "loading.h"
#include "transpose.h"

const kv_loops KV_BUILD = {
    .load_rows = load_rows,
    .store_rows = store_rows,
    .copy_rows = copy_rows,
    .tile_rows = tile_rows,
    .load_contiguous = load_contiguous,
    .exact_merge = exact_merge,
    .angles = angles,
    .rotate = rotate,
    .fourier_forward = fourier_forward,
    .fourier_inverse = fourier_inverse,
    .transpose = transpose,
    .mean_units = mean_units,
    .scales_restore = scales_restore,
    .means_restore = means_restore,
    .add_plane = add_plane,
    .expand_metadata = expand_metadata,
    .dequantize_group = dequantize_group,
    .dequantize_group16 = dequantize_group16,
    .dequantize_lanes = dequantize_lanes,
    .dequantize_along = dequantize_along,
    .dequantize_along16 = dequantize_along16,
    .dequantize_rotated16 = dequantize_rotated16,
    .store_rotated16 = store_rotated16,
    .flag_unsafe = flag_unsafe,
    .load_safe = load_safe,
    .load_keys = load_keys,
    .split_channels = split_channels,
    .column_ranges = column_ranges,
    .column_variances = column_variances,
    .count_outliers = count_outliers,
    .add_errors = add_errors,
    .quantize = quantize,
    .transpose_table = transpose_table,
};
