// Moving rows and columns, and sums over them.

#include "kvkernels.h"

#include <math.h>

#pragma STDC FP_CONTRACT OFF

void kv_gather_channels(const float *rows, size_t count, size_t dim, const uint16_t *channels, size_t channel_count, float *out) {
    for (size_t i = 0; i < count; i++) {
        for (size_t c = 0; c < channel_count; c++) out[i * channel_count + c] = rows[i * dim + channels[c]];
    }
}

void kv_column_statistics(const float *rows, size_t count, size_t dim, float *restrict range, double *restrict variance) {
    for (size_t c = 0; c < dim; c++) {
        float low = rows[c], high = rows[c];
        double sum = 0, squares = 0;
        for (size_t i = 0; i < count; i++) {
            float x = rows[i * dim + c];
            low = x < low ? x : low;
            high = x > high ? x : high;
            sum += x;
            squares += (double)x * x;
        }
        double mean = sum / (double)count;
        range[c] = high - low;
        variance[c] = squares / (double)count - mean * mean;
    }
}

void kv_count_outliers(const float *rows, size_t count, size_t dim, float limit, uint32_t *outliers) {
    for (size_t c = 0; c < dim; c++) {
        double sum = 0;
        for (size_t i = 0; i < count; i++) sum += rows[i * dim + c];
        float mean = (float)(sum / (double)count);
        uint32_t found = 0;
        for (size_t i = 0; i < count; i++) found += fabsf(rows[i * dim + c] - mean) > limit;
        outliers[c] = found;
    }
}

void kv_add_errors(const float *original, const float *decoded, size_t count, size_t dim, double *restrict error,
                   double *restrict energy) {
    for (size_t i = 0; i < count; i++) {
        const float *x = original + i * dim, *y = decoded + i * dim;
        for (size_t c = 0; c < dim; c++) {
            double value = x[c], difference = value - (double)y[c];
            int finite = isfinite(x[c]);
            energy[c] += finite ? value * value : 0;
            error[c] += finite ? difference * difference : 0;
        }
    }
}
