// The tables of the Fourier transforms. Any length works; head dimensions are products of a power of two and little else.

#include "kvkernels.h"

#include <math.h>

#pragma STDC FP_CONTRACT OFF

// Tables, in order: the four scale factors (forward end, forward middle, inverse end, inverse middle), then for every even length
// n, n/2, ... cosines and sines of 2 pi k / length for k in 0...length/4, then for the odd rest m those of 2 pi k / m, k in
// 0..<m.
size_t kv_fourier_table_count(size_t n) {
    size_t count = 4;
    for (; n % 2 == 0 && n > 0; n /= 2) count += 2 * (n / 4 + 1);
    return count + 2 * n;
}

static float *fill(float *at, size_t length, size_t count) {
    for (size_t k = 0; k < count; k++) {
        double angle = 2 * 3.14159265358979323846 * (double)k / (double)length;
        at[k] = (float)cos(angle);
        at[count + k] = (float)sin(angle);
    }
    return at + 2 * count;
}

void kv_fourier_fill_tables(size_t n, float *tables) {
    tables[0] = (float)(1 / sqrt((double)n));
    tables[1] = (float)sqrt(2 / (double)n);
    tables[2] = (float)(1 / sqrt((double)n));
    tables[3] = (float)(1 / sqrt(2 * (double)n));
    float *at = tables + 4;
    for (; n % 2 == 0 && n > 0; n /= 2) at = fill(at, n, n / 4 + 1);
    fill(at, n, n);
}
